"""The connections of a worker: one loop reads and writes them all, and a thread gets a request when all of it is there.

A server that gives a thread to each connection can be blocked by a few clients that send one byte now and then. Here a
slow client occupies memory only, and this module limits the memory, the connections and the time. A connection is in
one phase at a time:

    accepted ─> IDLE ── first byte ──> HEAD ── its end ──> BODY ── its end ──> QUEUED ── answered ──> SENDING ── sent
                 ^                       │                   │                                          ^          │
                 │                       └───── refused ─────┴──────────────────────────────────────────┘          │
                 └────────────────────────────────── kept open ────────────────────────────────────────────────────┤
                                                                           CLOSED <── client closed ── ENDING <────┘

| phase   | the loop waits for   | limit                                             | beyond it                     |
|---------|----------------------|---------------------------------------------------|-------------------------------|
| IDLE    | a request            | `HEAD_SECONDS` at first, `keep_alive` afterwards  | closed                        |
| HEAD    | the end of the head  | `HEAD_SECONDS`, `arrival.MAX_HEAD`                | refused with 408, 431         |
| BODY    | the end of the body  | `BODY_SECONDS` and `BODY_RATE`, `MAX_BYTES`       | refused with 408, 413         |
| QUEUED  | the thread's answer  | none: the application limits its queue            |                               |
| SENDING | room to send         | `WRITE_SECONDS`                                   | closed                        |
| ENDING  | the client to close  | `LINGER_SECONDS`, `DRAINED`                       | closed                        |
| all     |                      | `most` connections                                | the oldest not QUEUED closed  |
| all     |                      | `MAX_HELD` bytes                                  | the oldest HEAD or BODY: 503  |

A request that arrives in one piece goes from IDLE to QUEUED at once, and the thread sends as much of the answer as the
socket takes, so that most connections skip SENDING. A client that closes, or an error of its socket, leads to CLOSED
from every phase.
"""

from __future__ import annotations

import errno
import math
import selectors
import socket
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from enum import Enum, auto
from functools import partial
from operator import attrgetter
from queue import SimpleQueue
from typing import Any

from scanbook.serving.arrival import Arrival, State
from scanbook.serving.problems import DRAINED
from scanbook.serving.uploads import MAX_BYTES

HEAD_SECONDS = 10
"""Seconds within which the head of a request must arrive."""
BODY_SECONDS, BODY_RATE = 30, 64 * 1024
"""Seconds within which a request must arrive, and the number of received bytes that adds one second."""
WRITE_SECONDS = 30
"""Seconds within which a client must read its response."""
LINGER_SECONDS = 2
"""Seconds for which a connection stays open after its last response, and an idle one after the listeners closed."""
MAX_HELD = 16 * MAX_BYTES
"""Most bytes that a worker may keep in memory: requests (arriving, waiting or handled) and unsent responses."""
_READ = 256 * 1024
_ACCEPTED = 64  # connections accepted before those that are open have their turn


class Phase(Enum):
    """What a connection waits for; see the diagram above."""

    IDLE = auto()
    HEAD = auto()
    BODY = auto()
    QUEUED = auto()
    SENDING = auto()
    ENDING = auto()
    CLOSED = auto()


_READ_IN = (Phase.IDLE, Phase.HEAD, Phase.BODY, Phase.ENDING)
_ARRIVING = (Phase.HEAD, Phase.BODY)
_SINCE = attrgetter("since")
_EVENT = dict.fromkeys(_READ_IN, selectors.EVENT_READ) | {Phase.SENDING: selectors.EVENT_WRITE}


class Connection:
    """The connection of one client."""

    def __init__(self, sock: socket.socket, client: Any, server: Any) -> None:
        self.sock, self.client, self.server = sock, client, server
        self.arrival = Arrival(MAX_BYTES)
        self.phase = Phase.CLOSED  # until the loop has it
        self.since = self.deadline = 0.0
        self.keep = False  # whether it stays open after the response
        self.request_size = 0  # bytes of the request that a thread handles
        self.rest = memoryview(b"")  # what is not sent yet of the response
        self.held = 0  # bytes in memory
        self.dropped = 0  # bytes received after the last response


class Connections:
    """The connections of a worker and the loop over them.

    Args:
        listeners: Sockets that listen.
        answer: Function for threads that returns the response to a request, and whether the connection may stay open;
            its arguments are the bytes of the request, the connection, and whether it must close after the response.
        refuse: Function that returns the response for a status and a reason; the connection closes after it.
        threads: Number of threads.
        most: Most connections.
        keep_alive: Seconds for which an idle connection stays open.
    """

    def __init__(
        self,
        listeners: Sequence[socket.socket],
        answer: Callable[[bytes, Connection, bool], tuple[bytes, bool]],
        refuse: Callable[[int, str], bytes],
        *,
        threads: int,
        most: int,
        keep_alive: float,
    ) -> None:
        self._answer, self._refusal, self._most, self._keep_alive = answer, refuse, most, keep_alive
        self._open: set[Connection] = set()
        self._held = 0
        self._next_check = 0.0
        self._threads = ThreadPoolExecutor(threads)
        self._handled: SimpleQueue[Connection] = SimpleQueue()
        self._selector = selectors.DefaultSelector()
        self._waker, woken = socket.socketpair()  # a byte through it ends the wait of the loop
        self._listeners = listeners
        for sock, function in ((woken, self._woken), *((listener, self._accept) for listener in listeners)):
            sock.setblocking(False)
            self._selector.register(sock, selectors.EVENT_READ, partial(function, sock))
        self._waker.setblocking(False)

    def __len__(self) -> int:
        return len(self._open)

    def work(self, seconds: float) -> None:
        """Wait for sockets, at most for some seconds, and read and write; end the connections that are late."""
        for key, _ in self._selector.select(seconds):
            key.data()
        now = time.monotonic()
        if now >= self._next_check:
            self._next_check = now + seconds
            for connection in [connection for connection in self._open if connection.deadline <= now]:
                if connection.phase in _ARRIVING:
                    self._refuse(connection, 408, "the complete request did not arrive in time; send it again")
                else:
                    self._close(connection)

    def wake(self) -> None:
        """End the wait of `work`; for threads and signal handlers."""
        with suppress(OSError):  # full, so that it wakes anyway; or closed
            self._waker.send(b"\0")

    def stop_accepting(self) -> None:
        """Accept the connections that the system has made, close the listeners, and keep idle connections shortly."""
        for listener in self._listeners:
            self._selector.unregister(listener)
            self._accept(listener, sys.maxsize)
            listener.close()
        self._keep_alive = LINGER_SECONDS
        for connection in self._open:
            if connection.phase is Phase.IDLE:
                connection.deadline = min(connection.deadline, time.monotonic() + LINGER_SECONDS)

    def close(self) -> None:
        """End the loop. Requests that wait for a thread are dropped."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._waker.close()
        self._selector.close()

    # changes of phase

    def _move(self, connection: Connection, phase: Phase, seconds: float = math.inf) -> None:
        """Change the phase of a connection, and with it what the loop waits for, the deadline and the bytes held."""
        before, after = _EVENT.get(connection.phase), _EVENT.get(phase)
        if before != after:
            if before:
                self._selector.unregister(connection.sock)
            if after:
                self._selector.register(connection.sock, after, partial(self._ready, connection))
        connection.phase, connection.since = phase, time.monotonic()
        connection.deadline = connection.since + seconds
        self._count(connection)

    def _count(self, connection: Connection) -> None:
        held = len(connection.arrival.data) + connection.request_size + len(connection.rest)
        self._held += held - connection.held
        connection.held = held

    def _accept(self, listener: socket.socket, most: int = _ACCEPTED) -> None:
        """Accept the waiting connections and read what they have sent."""
        for _ in range(most):
            try:
                sock, client = listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                    self._close_oldest()
                    return
                if error.errno == errno.ECONNABORTED:
                    continue
                raise
            if len(self._open) >= self._most:
                self._close_oldest()
            sock.setblocking(False)
            connection = Connection(sock, client, listener.getsockname())
            self._open.add(connection)
            self._move(connection, Phase.IDLE, HEAD_SECONDS)
            self._read(connection)

    def _close_oldest(self) -> None:
        if connections := [connection for connection in self._open if connection.phase is not Phase.QUEUED]:
            self._close(min(connections, key=_SINCE))

    def _ready(self, connection: Connection) -> None:
        # not where the phase changed since the selector saw the socket: a connection may end others
        if connection.phase in _READ_IN:
            self._read(connection)
        elif connection.phase is Phase.SENDING:
            _send(connection)
            if not connection.rest:
                self._finish(connection)

    def _read(self, connection: Connection) -> None:
        try:
            data = connection.sock.recv(_READ)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        if not data:
            self._close(connection)
        elif connection.phase is Phase.ENDING:
            connection.dropped += len(data)
            connection.deadline = min(time.monotonic() + LINGER_SECONDS, connection.since + BODY_SECONDS)
            if connection.dropped > DRAINED:
                self._close(connection)
        else:
            connection.arrival.feed(data)
            self._advance(connection)

    def _advance(self, connection: Connection) -> None:
        """Move a connection as far as the bytes that arrived allow."""
        arrival = connection.arrival
        if connection.phase is Phase.IDLE:
            self._move(connection, Phase.HEAD, HEAD_SECONDS)
        if connection.phase is Phase.HEAD and arrival.state is State.BODY:
            self._move(connection, Phase.BODY)
        self._count(connection)
        if arrival.state is State.LARGE_HEAD:
            self._refuse(connection, 431, "the head of the request is too large; send fewer or shorter fields")
        elif arrival.state is State.LARGE_BODY:
            limit = f"expected at most {MAX_BYTES // 2**20} MB, in chunks of 1 KB or more"
            self._refuse(connection, 413, f"the request is too large; {limit}")
        elif not self._fits(connection):
            return
        elif arrival.state is State.WHOLE:
            self._submit(connection)
        elif arrival.state is State.BODY:
            connection.deadline = connection.since + BODY_SECONDS + len(arrival.data) / BODY_RATE
            if arrival.continues:
                arrival.continues = False
                with suppress(OSError):
                    connection.sock.send(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _fits(self, connection: Connection) -> bool:
        """Refuse the oldest requests until the memory suffices; return whether that of the connection is left."""
        while self._held > MAX_HELD and connection.phase in _ARRIVING:
            oldest = min((other for other in self._open if other.phase in _ARRIVING), key=_SINCE)
            self._refuse(oldest, 503, "too many requests are under way; send this one again in a moment")
        return connection.phase in _ARRIVING

    def _submit(self, connection: Connection) -> None:
        closes, request = connection.arrival.closes, connection.arrival.take()
        connection.request_size, connection.keep = len(request), False
        self._move(connection, Phase.QUEUED)
        self._threads.submit(self._handle, connection, request, closes)

    def _handle(self, connection: Connection, request: bytes, closes: bool) -> None:
        """Answer a request in a thread, and send what the socket takes at once."""
        try:
            response, connection.keep = self._answer(request, connection, closes)
            connection.rest = memoryview(response)
            _send(connection)
        finally:
            self._handled.put(connection)
            self.wake()

    def _woken(self, sock: socket.socket) -> None:
        with suppress(BlockingIOError):
            sock.recv(4096)
        while not self._handled.empty():
            connection = self._handled.get()
            connection.request_size = 0
            self._finish(connection)

    def _refuse(self, connection: Connection, status: int, reason: str) -> None:
        """Respond in the loop, without a thread, and drop what arrived."""
        connection.arrival.data.clear()
        connection.rest, connection.keep = memoryview(self._refusal(status, reason)), False
        self._finish(connection)

    def _finish(self, connection: Connection) -> None:
        """Send the rest of a response; after it wait for the next request, or end the connection."""
        if connection.rest:
            self._move(connection, Phase.SENDING, WRITE_SECONDS)
        elif connection.keep:
            self._move(connection, Phase.IDLE, self._keep_alive)
            if connection.arrival.data:
                connection.arrival.parse()
                self._advance(connection)
        else:  # write no more but read on: closing with unread bytes could lose the response (RFC 9112, 9.6)
            connection.arrival.data.clear()
            try:
                connection.sock.shutdown(socket.SHUT_WR)
            except OSError:
                self._close(connection)
            else:
                self._move(connection, Phase.ENDING, LINGER_SECONDS)

    def _close(self, connection: Connection) -> None:
        connection.arrival.data.clear()
        connection.rest = memoryview(b"")
        self._move(connection, Phase.CLOSED)
        self._open.discard(connection)
        connection.sock.close()


def _send(connection: Connection) -> None:
    """Send what the socket takes at once of a response; drop it where the client has left."""
    try:
        while connection.rest:
            connection.rest = connection.rest[connection.sock.send(connection.rest) :]
    except (BlockingIOError, InterruptedError):
        pass
    except OSError:
        connection.rest, connection.keep = memoryview(b""), False
