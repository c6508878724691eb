"""Variables by which the settings of a machine's user would change what scanbook computes, or stop it.

They are taken out of this process's environment when scanbook is first imported, before the libraries that read them,
and so out of the environment of every process that it starts. What says where things are (folders, proxies,
certificates, `KERAS_HOME`), and what the machine gives (devices, threads, memory), stays.
"""

from __future__ import annotations

import locale
import os
import sys
import warnings
from importlib.util import find_spec
from pathlib import Path

_INTERPRETER = (
    *("PYTHONASYNCIODEBUG", "PYTHONCOERCECLOCALE", "PYTHONDEBUG", "PYTHONDEVMODE", "PYTHONINSPECT"),
    *("PYTHONINTMAXSTRDIGITS", "PYTHONIOENCODING", "PYTHONMALLOC", "PYTHONMALLOCSTATS", "PYTHONOPTIMIZE"),
    *("PYTHONPROFILEIMPORTTIME", "PYTHONTRACEMALLOC", "PYTHONVERBOSE", "PYTHONWARNDEFAULTENCODING"),
    *("PYTHONWARNINGS", "PYTHON_COLORS", "PYTHON_CONTEXT_AWARE_WARNINGS"),
)
"""Read when Python starts: a command whose process has them starts again without them."""
REMOVED = (
    *_INTERPRETER,
    # run by kernels, as IPython's own profiles are
    *("PYTHONSTARTUP", "PYTHONBREAKPOINT", "JUPYTER_DEFAULT_PROVISIONER_NAME"),
    *("KERAS_MAX_EPOCHS", "KERAS_MAX_STEPS_PER_EPOCH", "KERAS_NNX_ENABLED"),
    *("TF2_BEHAVIOR", "TF_DETERMINISTIC_OPS", "TF_ENABLE_AUTO_MIXED_PRECISION", "TF_ENABLE_ONEDNN_OPTS"),
    *("TF_FUNCTION_JIT_COMPILE_DEFAULT", "TF_SET_ONEDNN_FPMATH_MODE", "TF_USE_LEGACY_KERAS", "TF_XLA_FLAGS"),
    *("DNNL_DEFAULT_FPMATH_MODE", "ONEDNN_DEFAULT_FPMATH_MODE"),
    *("JAX_DEBUG_INFS", "JAX_DEBUG_NANS", "JAX_DEFAULT_DTYPE_BITS", "JAX_DEFAULT_MATMUL_PRECISION"),
    *("JAX_DEFAULT_PRNG_IMPL", "JAX_DISABLE_JIT", "JAX_ENABLE_X64", "JAX_NUMPY_DTYPE_PROMOTION"),
    *("JAX_NUMPY_RANK_PROMOTION", "JAX_TRANSFER_GUARD"),
    *("NPY_PROMOTION_STATE", "PANDAS_COPY_ON_WRITE", "PANDAS_DATA_MANAGER", "SCIPY_ARRAY_API", "SKLEARN_ASSUME_FINITE"),
    *("OPENCV_CPU_DISABLE", "OPENCV_IO_MAX_IMAGE_HEIGHT", "OPENCV_IO_MAX_IMAGE_WIDTH", "OPENCV_IPP"),
    "OPENCV_OPENCL_RUNTIME",
)
"""Variables that are taken out of the environment."""
_REMOVED_BEGINNINGS = ("PANDAS_FUTURE", "TQDM_")
"""The same, by their first characters: pandas' coming behaviour, and defaults of progress bars."""


def ignore_user_settings() -> bool:
    """Take the variables of `REMOVED`, and a backend of Matplotlib that does not exist, out of the environment.

    Warnings that `PYTHONWARNINGS` turns into errors are warnings again.

    Returns:
        Whether Python itself started with such a setting, or with a locale whose encoding is not UTF-8.
    """
    started_otherwise = any(os.environ.get(name) for name in _INTERPRETER)
    if "error" in os.environ.get("PYTHONWARNINGS", ""):
        remaining = [rule for rule in warnings.filters if rule[0] != "error"]
        warnings.resetwarnings()
        warnings.filters.extend(remaining)  # type: ignore[attr-defined]
    for name in [name for name in os.environ if name in REMOVED or name.startswith(_REMOVED_BEGINNINGS)]:
        del os.environ[name]
    if not sys.flags.utf8_mode and locale.getencoding().lower() not in ("utf-8", "utf8"):
        os.environ["PYTHONUTF8"] = "1"
        started_otherwise = True
    if not _backend_exists(os.environ.get("MPLBACKEND") or "agg"):
        os.environ.pop("MPLBACKEND", None)  # unset where Matplotlib is not installed, as in a container
    return started_otherwise


def _backend_exists(name: str) -> bool:
    """Return whether Matplotlib finds a backend; PyCharm and Colab name modules that only their own kernels have.

    Nothing is imported: with a backend that does not exist, Matplotlib's own import fails.
    """
    module = name.removeprefix("module://") if name.startswith("module://") else f"matplotlib.backends.backend_{name}"
    package, *inside = module.lower().split(".") if module.startswith("matplotlib.backends") else module.split(".")
    try:
        spec = find_spec(package)
    except ValueError:  # no name of a package
        return False
    folders = [Path(folder, *inside) for folder in (spec.submodule_search_locations or () if spec else ())]
    return bool(spec) and (not inside or any(path.is_dir() or path.with_suffix(".py").is_file() for path in folders))


def restart_if(started_otherwise: bool) -> None:
    """Start this command again, in the same process, where Python itself started with a setting that is ignored."""
    if started_otherwise:
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], os.environ)
