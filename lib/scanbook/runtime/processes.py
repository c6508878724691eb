"""Processes of our own: those that answer lines of JSON with lines of JSON, and how one is interrupted.

Threads cannot be changed once an engine has started, and a cold start and a peak of memory are of a whole process; so
what is measured runs in one of its own, which waits without work until it is asked.
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
from types import FrameType, TracebackType
from typing import Any

from scanbook.errors import RunError

WITHOUT_GPU = {"CUDA_VISIBLE_DEVICES": "-1", "JAX_PLATFORMS": "cpu"}
"""Environment in which neither TensorFlow nor JAX sees a GPU."""


class Child:
    """Such a process, seen from the one that starts it; as a context, it is stopped at the end.

    It ends when its input does: with the process that started it, however that ends.

    Args:
        name: What it does, for errors.
        arguments: Those of the Python interpreter.
        environment: Variables on top of this process's.
        hint: What one can do when it fails.
        limit: Seconds that an answer may take; None for ever.
        patience: Seconds that it may take to put away what it made, when it is stopped.
    """

    def __init__(
        self,
        name: str,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        *,
        hint: str = "",
        limit: float | None = None,
        patience: float = 0.0,
    ) -> None:
        self.name, self._hint, self._limit, self._patience = name, hint, limit, patience
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  the process writes to it as long as it lives
        self.process = subprocess.Popen(
            [sys.executable, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env={**os.environ, "SCANBOOK_HEADLESS": "1", **environment},
            text=True,
            start_new_session=True,  # Ctrl-C is for the one that started it, and what it starts can be ended with it
        )

    def __enter__(self) -> Child:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def ask(self, message: Any = None) -> dict[str, Any]:
        """Sends a line and waits for the answer.

        Raises:
            RunError: The process ended, with the last line that it wrote; it says itself what went wrong, in `error`;
                or the answer took too long.
        """
        assert self.process.stdin and self.process.stdout
        with suppress(BrokenPipeError):  # it is gone; what it said last comes with the answer that is missing
            print(json.dumps(message), file=self.process.stdin, flush=True)
        ready = self._limit is None or select.select([self.process.stdout], [], [], self._limit)[0]
        line = self.process.stdout.readline() if ready else ""
        if line:
            answer = json.loads(line)
        else:
            answer = {"error": self._last_words() if ready else f"no answer in {self._limit:g} s"}
        if "error" in answer:
            self.stop()
            raise RunError(f"{self.name} failed: {answer['error']}" + (f"; {self._hint}" if self._hint else ""))
        return answer

    def stop(self) -> None:
        """Ends the process and what it started."""
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

    def _last_words(self) -> str:
        status = self.process.wait()
        self._errors.seek(0)
        last = (self._errors.read().decode(errors="replace").strip().splitlines() or ["no message"])[-1]
        if status < 0:
            return f"killed by signal {-status}, as happens when memory runs out (last line: {last})"
        return last


@contextmanager
def interruptible(before: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Lets SIGTERM and SIGHUP interrupt the block as Ctrl-C does.

    From the first on, all of them are ignored, so that nothing cuts short what puts things away. What the process was
    started to ignore, as under nohup, stays ignored. Outside of the main thread nothing changes.

    Args:
        before: Called as the signal arrives, before the exception.

    Raises:
        KeyboardInterrupt: One of the signals arrived.
    """

    def stop(number: int, frame: FrameType | None) -> None:
        for each in (*earlier, number):
            signal.signal(each, signal.SIG_IGN)
        before()
        raise KeyboardInterrupt

    earlier: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        known = {each: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
        earlier = {each: handler for each, handler in known.items() if handler is not signal.SIG_IGN}
    for each in earlier:
        signal.signal(each, stop)
    try:
        yield
    finally:
        for each, handler in earlier.items():
            if signal.getsignal(each) is stop:  # else they are ignored to the end
                signal.signal(each, handler)


class Peak:
    """The largest value of something that is read again and again while the block runs, such as memory.

    Args:
        read: What gives it.
        interval: Seconds between two readings.

    Attributes:
        value: The largest so far.
    """

    def __init__(self, read: Callable[[], float], interval: float) -> None:
        self.value = 0.0
        self._read, self._interval = read, interval
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Peak:
        self._look()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        self._thread.join()
        self._look()

    def _watch(self) -> None:
        while not self._done.wait(self._interval):
            self._look()

    def _look(self) -> None:
        self.value = max(self.value, self._read())


def answering() -> Callable[[Mapping[str, Any]], None]:
    """In the process that answers: the way to send a line. What libraries print goes to the error stream instead."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def answer(content: Mapping[str, Any]) -> None:
        print(json.dumps(content), file=answers, flush=True)

    return answer
