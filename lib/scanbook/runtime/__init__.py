"""Where scanbook runs: folders, threads, seeds, precision, and a description of the machine.

`configure` is the only place that chooses the Keras backend, and must run before Keras is imported; modules that
need Keras take it from `keras()`, which sees to that.
"""

from __future__ import annotations

import os
import platform
import random
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from scanbook.errors import ScanbookError

T = TypeVar("T")

# `import openvino` reports itself to Google Analytics and leaves an identifier in the home folder; where this package
# cannot be imported it does neither
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]

PACKAGES = (
    *("numpy", "scipy", "pandas", "scikit-learn", "opencv-python-headless", "pillow", "pydicom", "python-gdcm"),
    *("keras", "keras-hub", "tensorflow", "openvino"),
)
"""Packages whose versions can change what a stage holds; they are part of its name."""
MEASURED_PACKAGES = ("nncf", "onnxruntime")
"""Packages that only measurements use: reports depend on them and name them, stages do not."""

NOTEBOOK = "SCANBOOK_NOTEBOOK"
"""Variable in which the runner says which notebook a kernel runs."""

_INSTRUCTIONS = (
    *("asimd", "asimddp", "i8mm", "avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "avx512_fp16"),
    *("amx_tile", "amx_bf16", "amx_int8"),
)
"""Flags of a processor that decide how fast it multiplies matrices, int8 included, as Linux spells them."""


def project_root() -> Path:
    """Folder with `notebooks/studies`: `SCANBOOK_HOME`, else the nearest above the working directory or the package.

    Raises:
        ScanbookError: There is none.
    """
    if home := os.environ.get("SCANBOOK_HOME"):
        return Path(home).resolve()
    for start in (Path.cwd(), Path(__file__).resolve()):
        for folder in (start, *start.parents):
            if (folder / "notebooks" / "studies").is_dir():
                return folder
    raise ScanbookError(
        f"no notebooks/studies folder above {Path.cwd()}; run inside a clone of scanbook or set SCANBOOK_HOME to one"
    )


def _folder(variable: str, default: str) -> Path:
    named = os.environ.get(variable)
    return Path(named).resolve() if named else project_root() / default


def data_dir() -> Path:
    """Downloads and unpacked datasets (`SCANBOOK_DATA`, else `data/`)."""
    return _folder("SCANBOOK_DATA", "data")


def store_dir() -> Path:
    """Cached stages (`SCANBOOK_STORE`, else `data/store/`)."""
    return _folder("SCANBOOK_STORE", "data/store")


def store_limit() -> int:
    """Size in bytes that the store is kept within (`SCANBOOK_STORE_GIB`, else 20 GiB).

    Raises:
        ScanbookError: The variable is no number.
    """
    named = os.environ.get("SCANBOOK_STORE_GIB", "20")
    try:
        size = float(named)
        if not size >= 0:  # nor NaN
            raise ValueError
    except ValueError as error:
        raise ScanbookError(
            f"SCANBOOK_STORE_GIB is {named!r}, expected a number of GiB; correct or unset it"
        ) from error
    return int(min(size * 2**30, sys.maxsize))


def reports_dir() -> Path:
    """HTML reports (`SCANBOOK_REPORTS`, else `reports/`)."""
    return _folder("SCANBOOK_REPORTS", "reports")


def cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def configure(seed: int = 0, threads: int | None = None) -> None:
    """Sets backend, threads and seeds, once a process and before Keras is imported.

    Args:
        seed: Seeds Python's, NumPy's and Keras's generators.
        threads: Processors for one operation; None leaves the choice to the backend.

    Raises:
        ScanbookError: TensorFlow started already, with other threads.
    """
    if threads is not None:
        for variable in ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS"):
            os.environ[variable] = str(threads)
        os.environ["TF_NUM_INTEROP_THREADS"] = "1"
    random.seed(seed)
    module = keras()
    module.utils.set_random_seed(seed)
    if threads is not None and module.backend.backend() == "tensorflow":
        import tensorflow as tf

        try:
            tf.config.threading.set_intra_op_parallelism_threads(threads)
            tf.config.threading.set_inter_op_parallelism_threads(1)
        except RuntimeError as error:
            raise ScanbookError(
                f"threads={threads} came after TensorFlow started; set threads in a fresh process"
            ) from error


@cache
def keras() -> ModuleType:
    """Keras, imported after its backend was chosen, with results that repeat from one run to the next."""
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")  # notebooks that run side by side share a GPU
    with _without_native_messages():
        import keras as module

        if module.backend.backend() == "tensorflow":
            import tensorflow as tf

            # some gradients have no deterministic kernel on a GPU, and would stop training there
            if not tf.config.list_physical_devices("GPU"):
                tf.config.experimental.enable_op_determinism()
    return module


@contextmanager
def _without_native_messages() -> Iterator[None]:
    """Drops what TensorFlow's native code writes to the error stream as it starts: a page, at any log level."""
    kept = os.dup(2)
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def interactive() -> bool:
    """Whether somebody watches: a terminal, or a notebook that papermill does not run."""
    if os.environ.get("SCANBOOK_HEADLESS"):
        return False
    return "ipykernel" in sys.modules or sys.stderr.isatty()


def in_threads(work: Callable[[Any], T], items: Sequence[Any], workers: int | None = None) -> Iterator[T]:
    """What `work` gives for each item, in their order, by threads: a thousand at a time.

    A pool that is given all at once keeps a kilobyte for each of them, and what is done and not yet asked for.
    """
    with ThreadPoolExecutor(workers or cores()) as pool:
        for start in range(0, len(items), 1024):
            yield from pool.map(work, items[start : start + 1024])


def progress(items: Iterable[T], description: str, total: int | None = None) -> Iterable[T]:
    """Wraps `items` in a progress bar where somebody watches, and leaves them alone where nobody does.

    Bars flood a headless report with one line a step (papermill#765).
    """
    if not interactive():
        return items
    from tqdm.auto import tqdm

    return tqdm(items, desc=description, total=total, leave=False)


def versions(packages: Iterable[str] = (*PACKAGES, *MEASURED_PACKAGES)) -> dict[str, str]:
    """Versions of Python and of packages, those that are installed."""
    found = {"python": platform.python_version()}
    for name in packages:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def describe_machine() -> dict[str, str | int | float]:
    """Processor, what decides its speed, memory in GiB and operating system of this machine.

    "physical cores" are of the whole machine, "cores" those that this process may use; the clock is what the system
    states, in MHz, where it does.
    """
    import psutil

    model = platform.processor() or platform.machine()
    flags = ""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        fields = dict(line.split(":", 1) for line in cpuinfo.read_text().splitlines() if ":" in line)
        fields = {key.strip(): value.strip() for key, value in fields.items()}
        model = fields.get("model name", model)
        present = fields.get("flags", fields.get("Features", "")).split()  # "Features" on ARM
        flags = " ".join(flag for flag in _INSTRUCTIONS if flag in present)
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
    """One of the figures that Linux keeps of a process's memory, in MiB; None where there is no such file or line."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) / 2**10 for line in lines if line.startswith(f"{key}:")), None)


def peak_memory(pid: int | None = None) -> float:
    """Most memory that a process has held at a time, in MiB: this one, or another, of which some systems tell less.

    Linux keeps it as VmHWM. `ru_maxrss` would start at what the parent process held: it lives on through `exec`.
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


def gpus() -> int:
    """How many GPUs Keras's backend sees."""
    module = keras()
    if module.backend.backend() == "tensorflow":
        import tensorflow as tf

        return len(tf.config.list_physical_devices("GPU"))
    try:
        return len(module.distribution.list_devices("gpu"))
    except RuntimeError:  # JAX for processors alone
        return 0


def training_precision() -> str:
    """Keras's name of the precision to train in: "mixed_float16" on a GPU, else "float32"."""
    return "mixed_float16" if gpus() else "float32"
