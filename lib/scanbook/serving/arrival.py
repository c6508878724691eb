"""Whether a whole request has arrived: the bytes of one connection, and where its first request ends.

No socket is touched here, and nothing is decided that gunicorn's parser decides: what it will refuse (two lengths, a
length and chunks, a line feed alone) is handed over as it is, and the connection closes after that answer. So no two
readers can disagree on where the next request begins.
"""

from __future__ import annotations

import re
from enum import Enum, auto

MAX_HEAD = 32 * 1024
"""Largest head of a request, in bytes."""
MAX_CHUNKS = 2**14
"""Most chunks of a body: 1 KB each for the largest one, where clients send 8 KB or more."""
_LENGTH = re.compile(rb"\d{1,18}")
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,8})[ \t]*(?:;.*)?")
_LINE = 4096


class State(Enum):
    """How much of a request is there."""

    HEAD = auto()
    BODY = auto()
    WHOLE = auto()
    LARGE_HEAD = auto()
    LARGE_BODY = auto()


class Arrival:
    """The bytes that a connection has brought and that are not handed over yet.

    Args:
        max_body: Largest body, in bytes. One that announces more is whole without its body: the answer is a refusal.

    Attributes:
        data: The bytes.
        state: How much of the first request they hold.
        closes: Whether the connection has to be closed after that request: where it ends is not known.
        continues: Whether its client waits to be told to go on ("Expect: 100-continue").
    """

    def __init__(self, max_body: int) -> None:
        self.data = bytearray()
        self._max_body = max_body
        self._begin()

    def _begin(self) -> None:
        self.state, self.closes, self.continues = State.HEAD, False, False
        self._end = 0  # of the request, once that is known
        self._seen = 0  # bytes that need no second look
        self._body = 0
        self._chunks = -1  # how many there were; below 0 where the body has a length

    def feed(self, data: bytes) -> State:
        """Takes what came in."""
        self.data += data
        return self.look()

    def look(self) -> State:
        """Looks at what is there: more than one request may be."""
        if self.state is State.HEAD:
            self._look_for_head()
        if self.state is State.BODY:
            if self._chunks >= 0:
                self._look_for_chunks()
            elif len(self.data) >= self._end:
                self.state = State.WHOLE
        if self.state is not State.BODY:
            self.continues = False
        return self.state

    def take(self) -> bytes:
        """The bytes of the first request, which is whole; what is left belongs to the next one."""
        taken = bytes(self.data[: self._end])
        del self.data[: self._end]
        self._begin()
        return taken

    def _hand_over(self) -> None:
        """Gives everything to gunicorn's parser, which will refuse it."""
        self.state, self.closes, self._end = State.WHOLE, True, len(self.data)

    def _look_for_head(self) -> None:
        start = 2 if self.data.startswith(b"\r\n") else 0  # one empty line may come first (RFC 9112, 2.2)
        end = self.data.find(b"\r\n\r\n", max(start, self._seen - 3))
        feed = self.data.find(b"\n", self._seen, end if end >= 0 else len(self.data))
        while feed >= 0:
            if feed == 0 or self.data[feed - 1] != 13:
                return self._hand_over()
            feed = self.data.find(b"\n", feed + 1, end if end >= 0 else len(self.data))
        if max(end, self._seen) > MAX_HEAD or (end < 0 and len(self.data) > MAX_HEAD):
            self.state = State.LARGE_HEAD
        elif end >= 0:
            self._body = end + 4
            self._read_head(bytes(self.data[start:end]).split(b"\r\n"))
        else:
            self._seen = len(self.data)
        return None

    def _read_head(self, lines: list[bytes]) -> None:
        said: dict[bytes, list[bytes]] = {b"content-length": [], b"transfer-encoding": [], b"expect": []}
        for line in lines[1:]:
            name, _, value = line.partition(b":")
            if name.lower() in said:
                said[name.lower()].append(value.strip(b" \t").lower())
        lengths, codings, expected = said.values()
        newest = lines[0].endswith(b" HTTP/1.1")
        if codings == [b"chunked"] and not lengths and newest:
            self.state, self._chunks, self._seen = State.BODY, 0, self._body
        elif codings or len(lengths) > 1 or (lengths and not _LENGTH.fullmatch(lengths[0])):
            return self._hand_over()
        elif lengths and int(lengths[0]) > self._max_body:
            self.state, self.closes, self._end = State.WHOLE, True, self._body
        else:
            self.state, self._end = State.BODY, self._body + int(lengths[0] if lengths else 0)
        self.continues = newest and expected == [b"100-continue"]
        return None

    def _look_for_chunks(self) -> None:
        """Follows the chunks (RFC 9112, 7.1); `_seen` is where the next one begins."""
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
            # after the last chunk: fields, as in a head, and an empty line, which may be all
            end = self.data.find(b"\r\n\r\n", line)
            if end >= 0:
                self.state, self._end = State.WHOLE, end + 4
            elif len(self.data) - line > MAX_HEAD:
                self._hand_over()
            return
