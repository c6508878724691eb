"""The machine that scanbook runs on: processor, memory, and versions of packages."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = (
    *("numpy", "scipy", "pandas", "scikit-learn", "opencv-python-headless", "pillow", "pydicom", "python-gdcm"),
    *("simplejpeg", "keras", "keras-hub", "tensorflow", "openvino"),
)
"""Packages whose versions can change what a stage holds; they are part of its name where its code imports them."""
MEASURED_PACKAGES = ("nncf", "onnxruntime", "ai-edge-litert")
"""Packages that only measurements use: reports name them, stages do not depend on them."""
_DISTRIBUTIONS = {
    **{"bs4": "beautifulsoup4", "cv2": "opencv-python-headless", "gdcm": "python-gdcm", "PIL": "pillow"},
    **{"markdown_it": "markdown-it-py", "sklearn": "scikit-learn", "yaml": "pyyaml"},
}
"""Packages that are imported by another name than they are installed by; "-" and "_" do not count."""

INSTRUCTION_SETS = (
    *("asimd", "asimddp", "i8mm", "avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "avx512_fp16"),
    *("amx_tile", "amx_bf16", "amx_int8"),
)
"""Flags of a processor that decide how fast it multiplies matrices, int8 included, as Linux spells them."""


def cores() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def versions(packages: Iterable[str] = (*PACKAGES, *MEASURED_PACKAGES)) -> dict[str, str]:
    """Return the versions of Python and of those packages that are installed."""
    installed = {"python": platform.python_version()}
    for name in packages:
        try:
            installed[name] = version(name)
        except PackageNotFoundError:
            continue
    return installed


def versions_of(imported: Iterable[str]) -> dict[str, str]:
    """Return the versions of those packages that are installed, by the names by which they are imported."""
    installed = versions(_DISTRIBUTIONS.get(name, name.replace("_", "-")) for name in imported)
    return {name: number for name, number in installed.items() if name != "python"}


def numeric_versions(imported: Iterable[str]) -> dict[str, str]:
    """Return the versions of those of `PACKAGES` that are imported, and of Python without its patch level."""
    installed = versions_of(imported)
    python = ".".join(platform.python_version_tuple()[:2])
    return {name: installed[name] for name in PACKAGES if name in installed} | {"python": python}


def describe_machine() -> dict[str, str | int | float]:
    """Return processor, instruction sets, memory in GiB and operating system of this machine.

    "physical cores" counts those of the whole machine, "cores" those that this process may use. The clock, in MHz, is
    given where the system states it.
    """
    import psutil

    model = platform.processor() or platform.machine()
    flags = ""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = (line.partition(":") for line in cpuinfo.read_text().splitlines())
        fields = {key.strip(): value.strip() for key, _, value in lines}
        model = fields.get("model name", model)
        present = fields.get("flags", fields.get("Features", "")).split()  # "Features" on ARM
        flags = " ".join(flag for flag in INSTRUCTION_SETS if flag in present)
    clock = psutil.cpu_freq() if hasattr(psutil, "cpu_freq") else None
    return {
        "processor": model,
        "instruction sets": flags,
        "cores": cores(),
        "logical processors": psutil.cpu_count() or 0,
        "physical cores": psutil.cpu_count(logical=False) or 0,
        **({"clock (MHz)": round(clock.current)} if clock and clock.current else {}),
        "memory (GiB)": round(psutil.virtual_memory().total / 2**30, 1),
        "system": f"{platform.system()} {platform.release()}",
    }


def memory_in_status(key: str, pid: int | str = "self") -> float | None:
    """Return one figure of `/proc/PID/status` in MiB, such as "VmHWM"; None where there is no such file or line."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) / 2**10 for line in lines if line.startswith(f"{key}:")), None)


def peak_memory(pid: int | None = None) -> float:
    """Return the largest resident memory that a process has had, in MiB.

    Linux keeps it as VmHWM. `ru_maxrss` would start at what the parent process held: it lives on through `exec`.

    Args:
        pid: Another process; None for this one. Where the system keeps no peak of others, their memory now is returned.
    """
    peak = memory_in_status("VmHWM", pid or "self")
    if peak is not None:
        return peak
    if pid:
        import psutil

        return psutil.Process(pid).memory_info().rss / 2**20
    import resource

    # bytes on macOS, KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
