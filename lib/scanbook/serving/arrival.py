"""Finds the end of a request in the bytes that a connection has received.

This module uses no socket and makes no decision that gunicorn's parser makes. What the parser will refuse (two lengths,
a length and chunks, a line feed alone) goes to it unchanged, and the connection closes after that response. So two
readers cannot disagree on where the next request begins.
"""

from __future__ import annotations

import re
from enum import Enum, auto

MAX_HEAD = 32 * 1024
"""Largest head of a request, in bytes."""
MAX_CHUNKS = 2**14
"""Most chunks of a body: 1 KB each in the largest body; clients send 8 KB or more."""
_LENGTH = re.compile(rb"\d{1,18}")
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,8})[ \t]*(?:;.*)?")
_LONE_FEED = re.compile(rb"(?<!\r)\n")
_LINE = 4096


class State(Enum):
    """How much of a request has arrived."""

    HEAD = auto()
    BODY = auto()
    WHOLE = auto()
    LARGE_HEAD = auto()
    LARGE_BODY = auto()


class Arrival:
    """The bytes that a connection has received and that no thread has taken yet.

    Args:
        max_body: Largest body, in bytes. A request that announces more counts as whole without its body and is refused.

    Attributes:
        data: The bytes.
        state: How much of the first request has arrived.
        closes: Whether the connection must be closed after that request, because its end is not known.
        continues: Whether the client waits for permission to send the body ("Expect: 100-continue").
    """

    def __init__(self, max_body: int) -> None:
        self.data = bytearray()
        self._max_body = max_body
        self._begin()

    def _begin(self) -> None:
        self.state, self.closes, self.continues = State.HEAD, False, False
        self._end = 0  # end of the request, when it is known
        self._seen = 0  # bytes that were parsed
        self._body = 0
        self._chunks = -1  # number of chunks; negative where the body has a length

    def feed(self, data: bytes) -> State:
        """Add bytes that arrived and return the state."""
        self.data += data
        return self.parse()

    def parse(self) -> State:
        """Parse the bytes, which may hold several requests, and return the state of the first."""
        if self.state is State.HEAD:
            self._find_head()
        if self.state is State.BODY:
            if self._chunks >= 0:
                self._find_chunks()
            elif len(self.data) >= self._end:
                self.state = State.WHOLE
        if self.state is not State.BODY:
            self.continues = False
        return self.state

    def take(self) -> bytes:
        """Remove the first request, which must be whole, and return its bytes."""
        request = bytes(self.data[: self._end])
        del self.data[: self._end]
        self._begin()
        return request

    def _hand_over(self) -> None:
        """Mark all bytes as one request, which gunicorn's parser will refuse."""
        self.state, self.closes, self._end = State.WHOLE, True, len(self.data)

    def _find_head(self) -> None:
        start = 2 if self.data.startswith(b"\r\n") else 0  # one empty line may come first (RFC 9112, 2.2)
        end = self.data.find(b"\r\n\r\n", max(start, self._seen - 3))
        if _LONE_FEED.search(self.data, self._seen, end if end >= 0 else len(self.data)):
            return self._hand_over()
        if max(end, self._seen) > MAX_HEAD or (end < 0 and len(self.data) > MAX_HEAD):
            self.state = State.LARGE_HEAD
        elif end >= 0:
            self._body = end + 4
            self._read_head(bytes(self.data[start:end]).split(b"\r\n"))
        else:
            self._seen = len(self.data)
        return None

    def _read_head(self, lines: list[bytes]) -> None:
        values: dict[bytes, list[bytes]] = {b"content-length": [], b"transfer-encoding": [], b"expect": []}
        for line in lines[1:]:
            name, _, value = line.partition(b":")
            if name.lower() in values:
                values[name.lower()].append(value.strip(b" \t").lower())
        lengths, codings, expectations = values.values()
        is_http_1_1 = lines[0].endswith(b" HTTP/1.1")
        if codings == [b"chunked"] and not lengths and is_http_1_1:
            self.state, self._chunks, self._seen = State.BODY, 0, self._body
        elif codings or len(lengths) > 1 or (lengths and not _LENGTH.fullmatch(lengths[0])):
            return self._hand_over()
        elif lengths and int(lengths[0]) > self._max_body:
            self.state, self.closes, self._end = State.WHOLE, True, self._body
        else:
            self.state, self._end = State.BODY, self._body + int(lengths[0] if lengths else 0)
        self.continues = is_http_1_1 and expectations == [b"100-continue"]
        return None

    def _find_chunks(self) -> None:
        """Parse the chunks (RFC 9112, 7.1); the next one begins at `_seen`."""
        while True:
            if self._seen - self._body > self._max_body or self._chunks > MAX_CHUNKS:
                self.state = State.LARGE_BODY
                return
            line = self.data.find(b"\r\n", self._seen, self._seen + _LINE)
            if line < 0:
                if len(self.data) - self._seen >= _LINE:
                    self._hand_over()
                return
            size = _CHUNK.fullmatch(bytes(self.data[self._seen : line]))
            if size is None:
                return self._hand_over()
            if count := int(size[1], 16):
                if len(self.data) < line + 2 + count + 2:
                    if line + count - self._body > self._max_body:
                        self.state = State.LARGE_BODY
                    return
                self._chunks += 1
                self._seen = line + 2 + count + 2
                continue
            # after the last chunk come fields, as in a head, and an empty line; there may be no fields
            end = self.data.find(b"\r\n\r\n", line)
            if end >= 0:
                self.state, self._end = State.WHOLE, end + 4
            elif len(self.data) - line > MAX_HEAD:
                self._hand_over()
            return
