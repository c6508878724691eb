"""Tries the application in a fork of this process, before a reload replaces the workers that answer."""

from __future__ import annotations

import os
import select
import signal
import tempfile
import time
from collections.abc import Callable
from typing import Any

from scanbook.serving import metrics

SECONDS = 120
"""Seconds within which the application must be ready."""
_READY = b"ready"


def failure_reason(create: Callable[[], Any], stopping: Callable[[], bool] = lambda: False) -> str:
    """Return why an application cannot be created, in one line; "" if it can.

    It is created in a fork, as in a worker: with the code of this process, also where the bundle that holds the code
    was replaced, and without the threads that OpenVINO would leave in this process.

    Args:
        create: Function that returns the application.
        stopping: Whether the service is to stop, so that nobody waits for the application.
    """
    reader, writer = os.pipe()
    missing = "it ended without an answer"
    end = time.monotonic() + SECONDS
    with tempfile.TemporaryDirectory() as folder:
        process = os.fork()
        if process == 0:
            os.environ[metrics.FOLDER] = folder  # it is not a worker of the service, so its metrics are not of it
            _answer(create, writer)
        os.close(writer)
        with os.fdopen(reader, "rb") as answers:
            while not select.select([answers], [], [], 0.2)[0]:
                if stopping() or time.monotonic() > end:
                    missing = "the service is stopping" if stopping() else f"it was not ready within {SECONDS} s"
                    os.kill(process, signal.SIGKILL)
                    break
            answer = answers.read()
        os.waitpid(process, 0)
    return "" if answer == _READY else " ".join(answer.decode(errors="replace").split()) or missing


def _answer(create: Callable[[], Any], writer: int) -> None:
    """Create the application, write the outcome, and end this process."""
    try:
        for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        create()
        outcome = _READY
    except BaseException as error:
        outcome = (str(error) or type(error).__name__).encode()
    try:
        os.write(writer, outcome[: select.PIPE_BUF])
    finally:
        os._exit(0)
