"""gunicorn's worker of threads, where slow clients are harmless.

gunicorn gives a connection a thread before its request has arrived, so that a few clients which send a byte now and
then hold them all. Here one loop reads and writes every connection without waiting for any; a thread gets a request
once it is whole, and gives its answer back to the loop where the client is slow to take it. What the loop holds is
bounded in bytes, in connections and in time; what exceeds it goes, the oldest first.
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
from scanbook.serving.exchange import Answer, Arrived, refusal, status_of
from scanbook.serving.problems import DRAINED
from scanbook.serving.state import EXTENSION, Service
from scanbook.serving.uploads import MAX_BYTES

HEAD_SECONDS = 10
"""In which the head of a request has to arrive."""
BODY_SECONDS, BODY_RATE = 30, 64 * 1024
"""In which a request has to arrive: so many seconds, and one more for as many bytes as have come."""
WRITE_SECONDS = 30
"""In which a client has to take its answer."""
LINGER_SECONDS = 2
"""How long a connection that ends is still read, so that its last answer is not cut off; and an idle one at the end."""
HELD = 16 * MAX_BYTES
"""Most bytes of requests in a worker, whether they arrive, wait or are worked on."""
_READ = 256 * 1024
_DESCRIPTORS = 64  # files of its own that a process needs beside its connections


class Phase(Enum):
    """Who has a connection: the loop, which reads, writes or lets it end, or a thread."""

    READING = auto()
    WORKING = auto()
    WRITING = auto()
    ENDING = auto()
    CLOSED = auto()


class Connection:
    """One client."""

    def __init__(self, sock: socket.socket, client: Any, server: Any) -> None:
        self.sock, self.client, self.server = sock, client, server
        self.arrival = Arrival(MAX_BYTES)
        self.phase = Phase.READING
        self.since = time.monotonic()
        self.deadline = self.since + HEAD_SECONDS
        self.held = 0  # bytes of the request in work, or of the answer
        self.left = memoryview(b"")  # of the answer
        self.keep = False
        self.dropped = 0


class Worker(ThreadWorker):
    """A `ThreadWorker` whose threads never wait for a client."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        self.worker_connections = max(1, min(self.worker_connections, files - _DESCRIPTORS))
        self.max_keepalived = self.worker_connections  # an idle connection holds no thread here
        self.held = 0
        self.waiting: set[Connection] = set()  # those that the loop has
        self._swept = 0.0

    @classmethod
    def check_config(cls, cfg: Any, log: Any) -> None:
        """Refuses what this worker cannot do."""
        if cfg.is_ssl:
            raise ConfigError("the service speaks no TLS; let a load balancer or a proxy in front of it do so")

    def handle_exit(self, sig: int, frame: Any) -> None:
        """SIGTERM: no more is taken, and `/readyz` says so."""
        if service := self._service():
            service.stopping.set()
        super().handle_exit(sig, frame)

    def run(self) -> None:
        """Reads and writes until SIGTERM, then finishes what has begun."""
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
            self.accept(listener, all_of_them=True)
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

    def accept(self, listener: Any, all_of_them: bool = False) -> None:
        """Takes the connections that wait, and what they have sent already."""
        for _ in range(1_000_000 if all_of_them else 64):
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
        """The connection that the loop has had for longest goes."""
        if self.waiting:
            self._close(min(self.waiting, key=lambda each: each.since))

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
        connection.left = memoryview(b"")
        self.nr_conns -= 1
        connection.sock.close()

    def _sweep(self, every: float = 1.0) -> None:
        """Ends what has taken too long."""
        now = time.monotonic()
        if now < self._swept + every:
            return
        self._swept = now
        for connection in [each for each in self.waiting if each.deadline <= now]:
            if connection.phase is Phase.READING and connection.arrival.data:
                self._refuse(connection, 408, "the request did not arrive whole in time; send it again")
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
                self._time_head(connection)
            self.held += len(data)
            connection.arrival.feed(data)
            self._judge(connection)

    def _judge(self, connection: Connection) -> None:
        """What to do with a connection that has brought something."""
        arrival = connection.arrival
        if arrival.state is State.LARGE_HEAD:
            return self._refuse(connection, 431, "the head of the request is too large; send fewer or shorter fields")
        if arrival.state is State.LARGE_BODY:
            limit = f"expected at most {MAX_BYTES // 2**20} MB, in chunks of 1 KB or more"
            return self._refuse(connection, 413, f"the request is too large; {limit}")
        while self.held > HELD and connection.phase is Phase.READING:
            oldest = min(
                (each for each in self.waiting if each.phase is Phase.READING and each.arrival.data),
                key=lambda each: each.since,
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

    def _time_head(self, connection: Connection) -> None:
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
        """Goes on with a connection whose request a thread has answered."""
        try:
            left, connection.keep = done.result()
        except (OSError, CancelledError):  # its client has gone, or the service goes
            return self._close(connection)
        except Exception:
            self.log.exception("a connection failed")
            return self._close(connection)
        self._write(connection, left)
        return None

    def _write(self, connection: Connection, left: memoryview) -> None:
        self.held += len(left) - connection.held
        connection.held, connection.left = len(left), left
        if not left:
            return self._next(connection)
        connection.phase, connection.since = Phase.WRITING, time.monotonic()
        connection.deadline = connection.since + WRITE_SECONDS
        self._await(connection, EVENT_WRITE, self._writable)
        return None

    def _writable(self, connection: Connection, _sock: Any = None) -> None:
        if connection.phase is not Phase.WRITING:
            return
        try:
            connection.left = connection.left[connection.sock.send(connection.left) :]
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            return self._close(connection)
        if not connection.left:
            self._release(connection)
            self._write(connection, connection.left)

    def _next(self, connection: Connection) -> None:
        """Waits for the next request of a connection, or for its end."""
        if not connection.keep:
            return self._end(connection)
        connection.phase = Phase.READING
        self._time_head(connection)
        if not connection.arrival.data:
            idle = self.cfg.keepalive if self.alive else LINGER_SECONDS
            connection.deadline = connection.since + idle
        self._await(connection, EVENT_READ, self._readable)
        if connection.arrival.data:
            connection.arrival.look()
            self._judge(connection)
        return None

    def _end(self, connection: Connection) -> None:
        """Says that no more is sent, and reads on a little: unread bytes would cut off the answer (RFC 9112, 9.6)."""
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
        """Answers in the loop, without a thread."""
        self._release(connection)
        self.held -= len(connection.arrival.data)
        connection.arrival.data.clear()
        connection.keep = False
        self._write(connection, memoryview(self._problem(status, detail)))

    # in a thread

    def handle(self, connection: Connection, request: bytes, closes: bool) -> tuple[memoryview, bool]:
        """Answers a whole request.

        Returns:
            What the client has not taken yet of the answer, and whether the connection may be used again.
        """
        answer = Answer()
        try:
            keep = self._answer(connection, request, closes, answer)
        except (StopIteration, errors.NoMoreData):
            keep = False
        except Exception as error:
            keep = False
            self.handle_error(None, answer, connection.client, error)
        left = memoryview(b"".join(answer.parts))
        with suppress(BlockingIOError, InterruptedError):
            while left:
                left = left[connection.sock.send(left) :]
        return left, keep

    def _answer(self, connection: Connection, request: bytes, closes: bool, answer: Answer) -> bool:
        parser = get_parser(self.cfg, (), connection.client)
        parser.unreader = arrived = Arrived(request)
        parsed = next(parser)
        parsed._expected_100_continue = False  # the loop has said so: the body is here
        if closes:
            parsed.force_close()
        place = SimpleNamespace(sock=answer, client=connection.client, server=connection.server)
        # the parser has to have come to the same end of the request, or the next one begins who knows where
        return self.handle_request(parsed, place) and parser.finish_body() and arrived.at_end

    def handle_error(self, req: Any, client: Answer, addr: Any, exc: BaseException) -> None:
        """Answers what is no HTTP, and what failed outside of Flask; answer and log have no word of the client's."""
        status = status_of(exc)
        name = type(exc).__name__
        if status == 500:
            self.log.exception("a request failed outside of the application")
        else:
            self.log.info("a request was refused with %d (%s)", status, name)
        detail = "the service failed; try again" if status == 500 else f"the request is no valid HTTP ({name})"
        client.parts[:] = [self._problem(status, detail)]

    def _problem(self, status: int, detail: str) -> bytes:
        if service := self._service():
            service.metrics.answered(UNKNOWN, "other", status)
        return refusal(status, detail)

    def _service(self) -> Service | None:
        return getattr(getattr(self, "wsgi", None), "extensions", {}).get(EXTENSION)
