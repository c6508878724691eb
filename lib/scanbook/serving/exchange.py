"""Requests and responses in memory: gunicorn reads a whole request, and the worker sends the response later."""

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
"""HTTP status of each error of gunicorn's parser; the first that applies."""


def status_of(error: BaseException) -> int:
    """Return the status for a request that gunicorn's parser refused, or that failed outside of Flask."""
    return next((status for kind, status in _STATUS if isinstance(error, kind)), 500)


def refusal(status: int, detail: str) -> bytes:
    """Return a whole response for a request that did not reach the application; the connection closes after it."""
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


class RequestReader(Unreader):
    """A whole request for gunicorn's parser. Nothing follows it, so the parser never waits for a client."""

    def __init__(self, data: bytes) -> None:
        super().__init__()
        self._data, self._position = data, 0

    @property
    def at_end(self) -> bool:
        """Whether the whole request was read."""
        return self._position == len(self._data)

    def read(self, size: int | None = None, read_ahead: int | None = None) -> bytes:
        """Return `size` bytes, or a piece; no bytes at the end."""
        count = size if size is not None and size >= 0 else read_ahead or 8192
        piece = self._data[self._position : self._position + count]
        self._position += len(piece)
        return piece

    def unread(self, data: bytes) -> None:
        """Return the last bytes to the request."""
        if self._data[self._position - len(data) : self._position] != bytes(data):
            raise ValueError("the bytes to return are not the last that were read")
        self._position -= len(data)

    def take_buffered(self) -> bytes:
        """Return the rest of the request."""
        return self.read(len(self._data))


class ResponseBuffer:
    """A response that gunicorn writes as to a socket."""

    def __init__(self) -> None:
        self.parts: list[bytes] = []

    def sendall(self, data: bytes) -> None:
        """Append bytes to the response."""
        self.parts.append(bytes(data))

    def send(self, data: bytes) -> int:
        """Append bytes to the response and return their number."""
        self.sendall(data)
        return len(data)

    def shutdown(self, how: int) -> None:
        """Raise an error: the loop of the worker, not gunicorn, ends a connection."""
        raise OSError(errno.ENOTCONN, "no socket")

    def close(self) -> None:
        """Do nothing: the loop of the worker closes the connection."""
