"""Tries the application in a fork of this process, before a reload replaces the workers that answer."""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Callable
from typing import Any

from scanbook.serving import metrics

SECONDS = 120
"""Seconds within which the application must be ready."""
_READY = b"ready"


def failure_reason(create: Callable[[], Any]) -> str:
    """Return why an application cannot be created, in one line; "" if it can.

    It is created in a fork, as in a worker: with the code of this process, also where the bundle that holds the code
    was replaced, and without the threads that OpenVINO would leave in this process.

    Args:
        create: Function that returns the application.
    """
    reader, writer = os.pipe()
    process = os.fork()
    if process == 0:
        _answer(create, writer)
    os.close(writer)
    with os.fdopen(reader, "rb") as answers:
        in_time = bool(select.select([answers], [], [], SECONDS)[0])
        if not in_time:
            os.kill(process, signal.SIGKILL)
        answer = answers.read()
    os.waitpid(process, 0)
    metrics.remove_worker(process)
    if answer == _READY:
        return ""
    missing = "it ended without an answer" if in_time else f"it was not ready within {SECONDS} s"
    return " ".join(answer.decode(errors="replace").split()) or missing


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
