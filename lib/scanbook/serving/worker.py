"""A gunicorn worker with threads that slow clients cannot block.

gunicorn assigns a thread to a connection before the request has arrived, so a few clients that send one byte now and
then occupy all threads. In this worker one loop reads and writes all connections and waits for none. A thread receives
a request after the whole request has arrived, and returns the response to the loop if the client reads slowly. The loop
limits the bytes, the connections and the time; beyond a limit it closes the oldest connection first.
"""

from __future__ import annotations

import errno
import resource
import socket
import time
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from enum import Enum, auto
from functools import partial
from selectors import EVENT_READ, EVENT_WRITE
from types import SimpleNamespace
from typing import Any

from gunicorn.errors import ConfigError
from gunicorn.http import errors, get_parser
from gunicorn.workers.gthread import ThreadWorker

from scanbook.serving import metrics
from scanbook.serving.app import UNKNOWN
from scanbook.serving.arrival import Arrival, State
from scanbook.serving.exchange import RequestReader, ResponseBuffer, refusal, status_of
from scanbook.serving.problems import DRAINED
from scanbook.serving.state import EXTENSION, Service
from scanbook.serving.uploads import MAX_BYTES

HEAD_SECONDS = 10
"""Seconds within which the head of a request must arrive."""
BODY_SECONDS, BODY_RATE = 30, 64 * 1024
"""Seconds within which a request must arrive, and the number of received bytes that adds one second."""
WRITE_SECONDS = 30
"""Seconds within which a client must read its response."""
LINGER_SECONDS = 2
"""Seconds for which a connection stays open after its last response, and an idle one after SIGTERM."""
MAX_HELD = 16 * MAX_BYTES
"""Most bytes that a worker may keep in memory: requests (arriving, waiting or handled) and unsent responses."""
_READ = 256 * 1024
_DESCRIPTORS = 64  # files that a process needs beside its connections


class Phase(Enum):
    """State of a connection: the loop reads, writes or ends it, or a thread handles its request."""

    READING = auto()
    WORKING = auto()
    WRITING = auto()
    ENDING = auto()
    CLOSED = auto()


class Connection:
    """The connection of one client."""

    def __init__(self, sock: socket.socket, client: Any, server: Any) -> None:
        self.sock, self.client, self.server = sock, client, server
        self.arrival = Arrival(MAX_BYTES)
        self.phase = Phase.READING
        self.since = time.monotonic()
        self.deadline = self.since + HEAD_SECONDS
        self.held = 0  # bytes of the request that a thread handles, or of the response
        self.rest = memoryview(b"")  # what is not sent yet of the response
        self.keep = False
        self.dropped = 0


class Worker(ThreadWorker):
    """A `ThreadWorker` whose threads never wait for a client."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        self.worker_connections = max(1, min(self.worker_connections, files - _DESCRIPTORS))
        self.max_keepalived = self.worker_connections  # an idle connection occupies no thread
        self.held = 0
        self.waiting: set[Connection] = set()  # connections that the loop reads or writes, not a thread
        self._swept = 0.0

    @classmethod
    def check_config(cls, cfg: Any, log: Any) -> None:
        """Raise an error for a configuration that this worker does not support."""
        if cfg.is_ssl:
            raise ConfigError("the service has no TLS; use a load balancer or a proxy with TLS in front of it")

    def handle_exit(self, sig: int, frame: Any) -> None:
        """Stop accepting requests on SIGTERM; `/readyz` reports it."""
        if service := self._service():
            service.stopping.set()
        super().handle_exit(sig, frame)

    def run(self) -> None:
        """Read and write until SIGTERM, then finish the requests in progress."""
        self.poller.register(self.method_queue.fileno(), EVENT_READ, self.method_queue.run_callbacks)
        self.set_accept_enabled(True)
        while self.alive:
            self.notify()
            self.wait_for_and_dispatch_events(1.0)
            self._sweep()
            if not self.is_parent_alive():
                metrics.remove_folder()
                break
        self._stop()

    def _stop(self) -> None:
        self.set_accept_enabled(False)
        for listener in self.sockets:
            self.accept(listener, everything=True)
            listener.close()
        now = time.monotonic()
        for connection in self.waiting:
            if connection.phase is Phase.READING and not connection.arrival.data:
                connection.deadline = min(connection.deadline, now + LINGER_SECONDS)
        while self.nr_conns and time.monotonic() < now + self.cfg.graceful_timeout:
            self.notify()
            self.wait_for_and_dispatch_events(0.1)
            self._sweep(every=0.1)
        self.tpool.shutdown(wait=False)
        self.poller.close()
        self.method_queue.close()

    # new connections

    def accept(self, listener: Any, everything: bool = False) -> None:
        """Accept the waiting connections and read what they have sent."""
        for _ in range(1_000_000 if everything else 64):
            try:
                sock, client = listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                    self._make_room()
                    return
                if error.errno == errno.ECONNABORTED:
                    continue
                raise
            if self.nr_conns >= self.worker_connections:
                self._make_room()
            sock.setblocking(False)
            self.nr_conns += 1
            connection = Connection(sock, client, listener.getsockname())
            self._await(connection, EVENT_READ, self._readable)
            self._readable(connection)

    def _make_room(self) -> None:
        """Close the oldest connection that no thread handles."""
        if self.waiting:
            self._close(min(self.waiting, key=lambda connection: connection.since))

    # the loop

    def _await(self, connection: Connection, event: int, callback: Callable[..., None]) -> None:
        self.waiting.add(connection)
        self.poller.register(connection.sock, event, partial(callback, connection))

    def _release(self, connection: Connection) -> None:
        if connection in self.waiting:
            self.waiting.remove(connection)
            self.poller.unregister(connection.sock)

    def _close(self, connection: Connection) -> None:
        if connection.phase is Phase.CLOSED:
            return
        self._release(connection)
        self.held -= len(connection.arrival.data) + connection.held
        connection.phase = Phase.CLOSED
        connection.arrival.data.clear()
        connection.rest = memoryview(b"")
        self.nr_conns -= 1
        connection.sock.close()

    def _sweep(self, every: float = 1.0) -> None:
        """Close the connections past their deadline; respond with 408 where a request has begun to arrive."""
        now = time.monotonic()
        if now < self._swept + every:
            return
        self._swept = now
        for connection in [connection for connection in self.waiting if connection.deadline <= now]:
            if connection.phase is Phase.READING and connection.arrival.data:
                self._refuse(connection, 408, "the complete request did not arrive in time; send it again")
            else:
                self._close(connection)

    def _readable(self, connection: Connection, _sock: Any = None) -> None:
        if connection.phase not in (Phase.READING, Phase.ENDING):  # closed since the poller saw it
            return
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
            if not connection.arrival.data:
                self._start_timer(connection)
            self.held += len(data)
            connection.arrival.feed(data)
            self._check_request(connection)

    def _check_request(self, connection: Connection) -> None:
        """Handle, refuse or wait for the request of a connection that received bytes."""
        arrival = connection.arrival
        if arrival.state is State.LARGE_HEAD:
            return self._refuse(connection, 431, "the head of the request is too large; send fewer or shorter fields")
        if arrival.state is State.LARGE_BODY:
            limit = f"expected at most {MAX_BYTES // 2**20} MB, in chunks of 1 KB or more"
            return self._refuse(connection, 413, f"the request is too large; {limit}")
        while self.held > MAX_HELD and connection.phase is Phase.READING:
            oldest = min(
                (other for other in self.waiting if other.phase is Phase.READING and other.arrival.data),
                key=lambda connection: connection.since,
                default=connection,
            )
            self._refuse(oldest, 503, "too many requests are under way; send this one again in a moment")
        if connection.phase is not Phase.READING:
            return None
        if arrival.state is State.WHOLE:
            return self._begin(connection)
        if arrival.state is State.BODY:
            connection.deadline = connection.since + BODY_SECONDS + len(arrival.data) / BODY_RATE
        if arrival.continues:
            arrival.continues = False
            with suppress(OSError):
                connection.sock.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        return None

    def _start_timer(self, connection: Connection) -> None:
        connection.since = time.monotonic()
        connection.deadline = connection.since + HEAD_SECONDS

    def _begin(self, connection: Connection) -> None:
        self._release(connection)
        connection.phase = Phase.WORKING
        closes = connection.arrival.closes
        request = connection.arrival.take()
        connection.held = len(request)
        done = self.tpool.submit(self.handle, connection, request, closes)
        done.add_done_callback(lambda future: self.method_queue.defer(self.finish_request, connection, future))

    def finish_request(self, connection: Connection, done: Future[tuple[memoryview, bool]]) -> None:
        """Send the response that a thread has made for a connection."""
        try:
            rest, connection.keep = done.result()
        except (OSError, CancelledError):  # the client has left, or the service stops
            return self._close(connection)
        except Exception:
            self.log.exception("a connection failed")
            return self._close(connection)
        self._write(connection, rest)
        return None

    def _write(self, connection: Connection, rest: memoryview) -> None:
        self.held += len(rest) - connection.held
        connection.held, connection.rest = len(rest), rest
        if not rest:
            return self._next(connection)
        connection.phase, connection.since = Phase.WRITING, time.monotonic()
        connection.deadline = connection.since + WRITE_SECONDS
        self._await(connection, EVENT_WRITE, self._writable)
        return None

    def _writable(self, connection: Connection, _sock: Any = None) -> None:
        if connection.phase is not Phase.WRITING:
            return
        try:
            connection.rest = connection.rest[connection.sock.send(connection.rest) :]
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            return self._close(connection)
        if not connection.rest:
            self._release(connection)
            self._write(connection, connection.rest)

    def _next(self, connection: Connection) -> None:
        """Wait for the next request of a connection, or end the connection."""
        if not connection.keep:
            return self._end(connection)
        connection.phase = Phase.READING
        self._start_timer(connection)
        if not connection.arrival.data:
            idle = self.cfg.keepalive if self.alive else LINGER_SECONDS
            connection.deadline = connection.since + idle
        self._await(connection, EVENT_READ, self._readable)
        if connection.arrival.data:
            connection.arrival.parse()
            self._check_request(connection)
        return None

    def _end(self, connection: Connection) -> None:
        """Stop writing but continue reading: closing with unread bytes could lose the response (RFC 9112, 9.6)."""
        self.held -= len(connection.arrival.data)
        connection.arrival.data.clear()
        try:
            connection.sock.shutdown(socket.SHUT_WR)
        except OSError:
            return self._close(connection)
        connection.phase, connection.since = Phase.ENDING, time.monotonic()
        connection.deadline = connection.since + LINGER_SECONDS
        self._await(connection, EVENT_READ, self._readable)
        return None

    def _refuse(self, connection: Connection, status: int, detail: str) -> None:
        """Respond in the loop, without a thread."""
        self._release(connection)
        self.held -= len(connection.arrival.data)
        connection.arrival.data.clear()
        connection.keep = False
        self._write(connection, memoryview(self._problem(status, detail)))

    # in a thread

    def handle(self, connection: Connection, request: bytes, closes: bool) -> tuple[memoryview, bool]:
        """Handle a whole request in a thread.

        Returns:
            The part of the response that is not sent yet, and whether the connection may be used again.
        """
        response = ResponseBuffer()
        try:
            keep = self._respond(connection, request, closes, response)
        except (StopIteration, errors.NoMoreData):
            keep = False
        except Exception as error:
            keep = False
            self.handle_error(None, response, connection.client, error)
        rest = memoryview(b"".join(response.parts))
        with suppress(BlockingIOError, InterruptedError):
            while rest:
                rest = rest[connection.sock.send(rest) :]
        return rest, keep

    def _respond(self, connection: Connection, request: bytes, closes: bool, response: ResponseBuffer) -> bool:
        parser = get_parser(self.cfg, (), connection.client)
        parser.unreader = reader = RequestReader(request)
        parsed = next(parser)
        parsed._expected_100_continue = False  # the loop has sent the continuation, and the body has arrived
        if closes:
            parsed.force_close()
        target = SimpleNamespace(sock=response, client=connection.client, server=connection.server)
        # unless the parser stops at the same byte, the start of the next request is unknown: close the connection
        return self.handle_request(parsed, target) and parser.finish_body() and reader.at_end

    def handle_error(self, req: Any, client: ResponseBuffer, addr: Any, exc: BaseException) -> None:
        """Respond to invalid HTTP and to failures outside of Flask, without any text from the client."""
        status = status_of(exc)
        name = type(exc).__name__
        if status == 500:
            self.log.exception("a request failed outside of the application")
        else:
            self.log.info("a request was refused with %d (%s)", status, name)
        detail = "the service failed; try again" if status == 500 else f"the request is not valid HTTP ({name})"
        client.parts[:] = [self._problem(status, detail)]

    def _problem(self, status: int, detail: str) -> bytes:
        if service := self._service():
            service.metrics.count_request(UNKNOWN, "other", status)
        return refusal(status, detail)

    def _service(self) -> Service | None:
        return getattr(getattr(self, "wsgi", None), "extensions", {}).get(EXTENSION)
