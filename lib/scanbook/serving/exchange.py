"""What stands between gunicorn and a client: a request that is there already, and an answer that is sent later."""

from __future__ import annotations

import errno
import json
import uuid
from http import HTTPStatus

from gunicorn.http import errors
from gunicorn.http.unreader import Unreader

from scanbook.serving.app import HEADERS
from scanbook.serving.problems import PROBLEM, details
from scanbook.serving.state import RETRY_AFTER

_STATUS: tuple[tuple[type[Exception], int], ...] = (
    (errors.LimitRequestLine, 414),
    (errors.LimitRequestHeaders, 431),
    (errors.ExpectationFailed, 417),
    (errors.UnsupportedTransferCoding, 501),
    (errors.InvalidResponseHeader, 500),
    (errors.InvalidResponseHeaderName, 500),
    (errors.ParseException, 400),
)
"""What gunicorn's parser finds wrong, and what that is in HTTP; the first that fits."""


def status_of(error: BaseException) -> int:
    """The status for a request that gunicorn's parser refused, or that failed outside of Flask."""
    return next((status for kind, status in _STATUS if isinstance(error, kind)), 500)


def refusal(status: int, detail: str) -> bytes:
    """A whole answer for a request that never reached the application; the connection closes after it."""
    request_id, title = uuid.uuid4().hex, HTTPStatus(status).phrase
    body = json.dumps(details(status, title, detail, request_id)).encode()
    fields = HEADERS | {
        "Cache-Control": "no-store",
        "Connection": "close",
        "Content-Length": str(len(body)),
        "Content-Type": PROBLEM,
        "X-Request-Id": request_id,
    }
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        fields["Retry-After"] = str(RETRY_AFTER)
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"HTTP/1.1 {status} {title}\r\n{head}\r\n".encode() + body


class Arrived(Unreader):
    """A whole request, for gunicorn's parser; behind it comes nothing, so that the parser never waits for a client."""

    def __init__(self, data: bytes) -> None:
        super().__init__()
        self._data, self._at = data, 0

    @property
    def at_end(self) -> bool:
        """Whether all of it was read."""
        return self._at == len(self._data)

    def read(self, size: int | None = None, read_ahead: int | None = None) -> bytes:
        """So many bytes, or a piece; nothing at the end."""
        count = size if size is not None and size >= 0 else read_ahead or 8192
        taken = self._data[self._at : self._at + count]
        self._at += len(taken)
        return taken

    def unread(self, data: bytes) -> None:
        """Gives back what was read last."""
        if self._data[self._at - len(data) : self._at] != bytes(data):
            raise ValueError("other bytes are given back than were read")
        self._at -= len(data)

    def take_buffered(self) -> bytes:
        """All that is left."""
        return self.read(len(self._data))


class Answer:
    """Takes what gunicorn would write to a socket."""

    def __init__(self) -> None:
        self.parts: list[bytes] = []

    def sendall(self, data: bytes) -> None:
        """Keeps it."""
        self.parts.append(bytes(data))

    def send(self, data: bytes) -> int:
        """As `sendall`."""
        self.sendall(data)
        return len(data)

    def shutdown(self, how: int) -> None:
        """Refuses: gunicorn ends a broken answer so; here the loop does."""
        raise OSError(errno.ENOTCONN, "no socket")

    def close(self) -> None:
        """The connection closes once the answer is written."""
