"""A limit for downloads: a server or proxy that accepts a connection and is silent then ends as one that refuses it."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

SILENCE = 30.0
"""Seconds without an answer after which a download ends."""
SLOWEST = 1000
"""Bytes per second, in `SILENCE` seconds of waiting, below which it ends too."""


@contextmanager
def limited(silence: float = SILENCE) -> Iterator[None]:
    """End downloads of the block whose server does not answer; each library reports that as its own error.

    Most libraries wait without end unless each call sets a limit, and Keras and kagglehub do not let a caller set one.
    Looking up a server's address has the system's own limit.

    Args:
        silence: Seconds without an answer.
    """
    default, settimeout, readinto = socket.getdefaulttimeout(), socket.socket.settimeout, socket.SocketIO.readinto

    def limited_settimeout(self: socket.socket, value: float | None) -> None:
        settimeout(self, silence if value is None else value)

    def limited_readinto(self: Any, buffer: Any) -> int | None:
        """Read, and count bytes and seconds, since a byte now and then is no answer either."""
        started = time.monotonic()
        count = readinto(self, buffer)
        seconds, received = getattr(self, "waited", (0.0, 0))
        seconds, received = seconds + time.monotonic() - started, received + (count or 0)
        if seconds >= silence:
            if count and received < SLOWEST * seconds:
                raise TimeoutError(f"{received} bytes in {seconds:.0f} s")
            seconds, received = 0.0, 0
        self.waited = seconds, received
        return count

    socket.setdefaulttimeout(silence)
    socket.socket.settimeout = limited_settimeout  # type: ignore[method-assign]
    socket.SocketIO.readinto = limited_readinto  # type: ignore[method-assign]
    try:
        yield
    finally:
        socket.setdefaulttimeout(default)
        socket.socket.settimeout = settimeout  # type: ignore[method-assign]
        socket.SocketIO.readinto = readinto  # type: ignore[method-assign]


def silent(error: BaseException | None) -> bool:
    """Return whether an error comes from a server that did not answer in time."""
    while error:
        if isinstance(error, TimeoutError):
            return True
        error = error.__cause__ or error.__context__
    return False
