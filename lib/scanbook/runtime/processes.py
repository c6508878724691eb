"""Processes that scanbook starts: their environment, how they answer, and how they are interrupted.

The number of threads cannot be changed once an engine has started, and a cold start and a peak of memory belong to a
whole process. Hence each measurement runs in its own process, which waits without work until it is asked.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

from scanbook.errors import RunError
from scanbook.runtime import steps

WITHOUT_GPU = {"CUDA_VISIBLE_DEVICES": "-1", "JAX_PLATFORMS": "cpu"}
"""Environment in which neither TensorFlow nor JAX sees a GPU."""

MALLOC = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": "4294967296",
    "MALLOC_TRIM_THRESHOLD_": "17179869184",
    "MALLOC_TOP_PAD_": "268435456",
}
"""Settings of glibc's malloc for processes that compute: memory that is freed is kept for the next step of training.

Otherwise glibc maps and unmaps TensorFlow's tensors at every step, which took a quarter of the time of an epoch.
Other systems ignore them.
"""


def with_malloc(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return an environment with the settings of `MALLOC` that it does not set itself."""
    return {**MALLOC, **environment}


def restart_with_malloc() -> None:
    """Start this program again, in the same process, where glibc started without `MALLOC`: it reads them only then."""
    if sys.platform == "linux" and not MALLOC.keys() <= os.environ.keys():
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], with_malloc())


class Child:
    """A process that answers lines of JSON with lines of JSON, as its parent sees it; a context stops it at the end.

    It ends when its input does: with its parent, however that ends.

    Args:
        name: What it does, for errors.
        arguments: Arguments of the Python interpreter.
        environment: Variables on top of this process's and of `MALLOC`; None removes one.
        hint: What to do when it fails.
        limit: Seconds that an answer may take; None for no limit.
        patience: Seconds that it may take to clean up when it is stopped.
    """

    def __init__(
        self,
        name: str,
        arguments: Sequence[str],
        environment: Mapping[str, str | None],
        *,
        hint: str = "",
        limit: float | None = None,
        patience: float = 0.0,
    ) -> None:
        self.name, self._hint, self._limit, self._patience = name, hint, limit, patience
        # without steps of its own: those of this process are reported; and without colours in its last line
        variables = {**with_malloc(), "SCANBOOK_HEADLESS": "1", "NO_COLOR": "1", steps.FILE: None, **environment}
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  the process writes to it as long as it lives
        self.process = subprocess.Popen(
            [sys.executable, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env={key: value for key, value in variables.items() if value is not None},
            text=True,
            start_new_session=True,  # Ctrl-C reaches the parent alone, and the child's own processes end with it
        )

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def ask(self, message: Any = None) -> dict[str, Any]:
        """Send a line and return the answer.

        Raises:
            RunError: The process ended (with the last line that it wrote), reported an `error` itself, or took too
                long.
        """
        assert self.process.stdin and self.process.stdout
        with suppress(BrokenPipeError):  # it has ended; the missing answer below leads to its last line
            print(json.dumps(message), file=self.process.stdin, flush=True)
        ready = self._limit is None or select.select([self.process.stdout], [], [], self._limit)[0]
        line = self.process.stdout.readline() if ready else ""
        if line:
            answer = json.loads(line)
        else:
            answer = {"error": self._last_line() if ready else f"no answer in {self._limit:g} s"}
        if "error" in answer:
            self.stop()
            raise RunError(f"{self.name} failed: {answer['error']}" + (f"; {self._hint}" if self._hint else ""))
        return answer

    def stop(self) -> None:
        """End the process and every process that it started."""
        if self._errors.closed:
            return
        assert self.process.stdin and self.process.stdout
        with suppress(OSError):
            self.process.stdin.close()
        if self._patience:
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(self._patience)
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.process.stdout.close()
        self._errors.close()

    def _last_line(self) -> str:
        status = self.process.wait()
        self._errors.seek(0)
        last = (self._errors.read().decode(errors="replace").strip().splitlines() or ["no message"])[-1]
        if status < 0:
            return f"killed by signal {-status}, as happens when memory runs out (last line: {last})"
        return last


def answering() -> Callable[[Mapping[str, Any]], None]:
    """Return the function by which a child sends a line; what libraries print goes to the error stream from now on."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def answer(content: Mapping[str, Any]) -> None:
        print(json.dumps(content), file=answers, flush=True)

    return answer


@contextmanager
def interruptible(before: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Let SIGTERM and SIGHUP interrupt the block as Ctrl-C does.

    After the first signal all of them are ignored, so that nothing interrupts the clean-up. A signal that the process
    was started to ignore, as under nohup, stays ignored. Outside of the main thread nothing changes.

    Args:
        before: Called when the signal arrives, before the exception.

    Raises:
        KeyboardInterrupt: One of the signals arrived.
    """

    def interrupt(number: int, frame: FrameType | None) -> None:
        for signal_number in (*handlers, number):
            signal.signal(signal_number, signal.SIG_IGN)
        before()
        raise KeyboardInterrupt

    handlers: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        current = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
        handlers = {number: handler for number, handler in current.items() if handler is not signal.SIG_IGN}
    for number in handlers:
        signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number, handler in handlers.items():
            if signal.getsignal(number) is interrupt:  # else they are ignored to the end
                signal.signal(number, handler)


class Peak:
    """The largest value of a quantity, such as memory, that is read again and again while the block runs.

    Args:
        read: Returns the quantity.
        interval: Seconds between two readings.

    Attributes:
        value: The largest value so far.
    """

    def __init__(self, read: Callable[[], float], interval: float) -> None:
        self.value = 0.0
        self._read, self._interval = read, interval
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Peak:
        self._update()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()
        self._update()

    def _watch(self) -> None:
        while not self._done.wait(self._interval):
            self._update()

    def _update(self) -> None:
        self.value = max(self.value, self._read())
