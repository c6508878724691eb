"""Keras's backend, threads, seeds and precision.

`configure` is the only function that sets them, and must run before Keras is imported. Modules that need Keras take it
from `keras`, which chooses the backend first.
"""

from __future__ import annotations

import gc
import os
import random
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from functools import cache
from importlib.util import find_spec
from types import ModuleType

from scanbook.errors import ScanbookError

# `import openvino` reports itself to Google Analytics and leaves an identifier in the home folder; where this package
# cannot be imported it does neither
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]

_SILENCE = threading.RLock()
_chosen = ["tensorflow"]
"""Backend of Keras in this process, whatever `KERAS_BACKEND` and the user's `keras.json` say."""


def check_backend() -> None:
    """Refuse a `KERAS_BACKEND` whose package is not installed; one that is installed is not used, either.

    Raises:
        ScanbookError: The package is missing, or its name is misspelt.
    """
    name = os.environ.get("KERAS_BACKEND", "")
    try:
        known = not name or find_spec(name) is not None
    except (ImportError, ValueError):  # no name of a package
        known = False
    if not known:
        raise ScanbookError(
            f"KERAS_BACKEND={name} names a package that is not installed; notebooks run on tensorflow: "
            "unset the variable, or set it to tensorflow"
        )


def choose_jax() -> None:
    """Let Keras compute with JAX in this process; call it before Keras is imported."""
    _chosen[:] = ["jax"]


def configure(seed: int = 0, threads: int | None = None) -> None:
    """Set backend, threads and seeds, once in a process and before Keras is imported.

    Args:
        seed: Seeds Python's, NumPy's and Keras's generators.
        threads: Threads for one operation; None leaves the number to the backend.

    Raises:
        ScanbookError: TensorFlow has already started with another number of threads.
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
    """Return Keras, imported after its backend was chosen, with results that repeat from one run to the next.

    Raises:
        ScanbookError: As `check_backend`; or Keras was imported before, with another backend.
    """
    check_backend()
    [name] = _chosen
    imported = sys.modules.get("keras")
    if imported and imported.backend.backend() != name:
        raise ScanbookError(
            f"Keras runs on {imported.backend.backend()} already; expected {name}: "
            "restart the kernel, and import scanbook before Keras"
        )
    os.environ["KERAS_BACKEND"] = name
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")  # notebooks that run side by side share a GPU
    # TensorFlow imports JAX, where it is installed, for a converter that is not used here
    with (
        without_garbage_collection(),
        without_native_messages(),
        _without("jax") if name == "tensorflow" else nullcontext(),
    ):
        _import_without_user_file()
        import keras as module

        if name == "tensorflow":
            import tensorflow as tf

            # it advises to trace less, where each of several networks is traced once
            tf.get_logger().addFilter(lambda record: "tf.function retracing" not in record.getMessage())
            # some gradients have no deterministic kernel on a GPU, and would stop training there
            if not tf.config.list_physical_devices("GPU"):
                tf.config.experimental.enable_op_determinism()
    # of a Keras that the user imported before
    module.config.set_floatx("float32")
    module.config.set_epsilon(1e-7)
    module.config.set_image_data_format("channels_last")
    module.config.set_dtype_policy("float32")
    for limit in ("set_max_epochs", "set_max_steps_per_epoch"):  # Keras 3.11 and later
        getattr(module.config, limit, lambda _: None)(None)
    return module


def _import_without_user_file() -> None:
    """Import what reads `keras.json`, the user's own settings, from an empty folder in the place of Keras's own.

    Keras stops at a value that it does not know. Its own folder stays in use: it holds weights that were downloaded.
    """
    if "keras" in sys.modules:
        return
    before = os.environ.get("KERAS_HOME")
    with tempfile.TemporaryDirectory() as empty:
        os.environ["KERAS_HOME"] = empty
        try:
            from keras.src.backend import config
        finally:
            if before is None:
                del os.environ["KERAS_HOME"]
            else:
                os.environ["KERAS_HOME"] = before
    home = os.path.expanduser("~")
    config._KERAS_DIR = before or os.path.join(home if os.access(home, os.W_OK) else tempfile.gettempdir(), ".keras")
    with suppress(OSError):  # as Keras does, which otherwise caches weights elsewhere
        os.makedirs(os.path.expanduser(config._KERAS_DIR), exist_ok=True)


@contextmanager
def single_threaded() -> Iterator[None]:
    """Let NumPy's linear algebra use one thread in the block: for many small operations several are slower.

    Beside other processes that compute, they are slower by far, since each operation waits for the last of them.
    """
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1, user_api="blas"):
        yield


@contextmanager
def without_garbage_collection() -> Iterator[None]:
    """Import packages in the block without looking for garbage, nor later among the objects that exist when it ends.

    TensorFlow makes 670,000 objects that stay until the process ends: to search them takes a third of its import, and
    more than a second at the end of the process.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if enabled:
            gc.enable()


@contextmanager
def _without(name: str) -> Iterator[None]:
    """Keep a package that is not imported yet from being imported in the block."""
    blocked = sys.modules.setdefault(name, None) is None  # type: ignore[arg-type]
    try:
        yield
    finally:
        if blocked:
            del sys.modules[name]


@contextmanager
def without_native_messages() -> Iterator[None]:
    """Drop what native code writes to the error stream in the block, at any log level: TensorFlow's start is a page."""
    with _SILENCE:  # a second thread would take the first one's silence for the stream, and keep it
        stream = os.dup(2)
        try:
            with open(os.devnull, "wb") as nowhere:
                os.dup2(nowhere.fileno(), 2)
            yield
        finally:
            os.dup2(stream, 2)
            os.close(stream)


def gpus() -> int:
    """Return how many GPUs Keras's backend sees."""
    module = keras()
    if module.backend.backend() == "tensorflow":
        import tensorflow as tf

        return len(tf.config.list_physical_devices("GPU"))
    try:
        return len(module.distribution.list_devices("gpu"))
    except RuntimeError:  # JAX was installed for CPUs alone
        return 0


def device() -> str:
    """Return the device on which Keras's backend trains: "CPU", or "GPU: " and its model."""
    if not gpus():
        return "CPU"
    if keras().backend.backend() == "tensorflow":
        import tensorflow as tf

        first = tf.config.list_physical_devices("GPU")[0]
        return f"GPU: {tf.config.experimental.get_device_details(first).get('device_name', 'unknown model')}"
    import jax

    return f"GPU: {jax.local_devices(backend='gpu')[0].device_kind}"


def training_precision() -> str:
    """Return Keras's name of the precision to train in: "mixed_float16" on a GPU, else "float32"."""
    return "mixed_float16" if gpus() else "float32"
