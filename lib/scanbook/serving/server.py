"""Runs the application under gunicorn: threads in a few processes, each with its own copy of the model.

gunicorn starts, watches and stops the processes, parses requests and writes responses; `connections` does the rest.
This is the only module that uses gunicorn. Several of the names that it uses are internal: tests/serving/test_server.py
lists them, and fails where a new version of gunicorn lacks one.
"""

from __future__ import annotations

import ctypes
import os
import queue
import resource
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from gunicorn.app.base import BaseApplication
from gunicorn.arbiter import Arbiter
from gunicorn.config import Config
from gunicorn.errors import AppImportError
from gunicorn.http import RequestParser, errors, get_parser, wsgi
from gunicorn.workers.base import Worker
from werkzeug.wsgi import ClosingIterator

from scanbook import bundle, runtime
from scanbook.errors import ScanbookError
from scanbook.serving import metrics, trial
from scanbook.serving.app import UNKNOWN, create_app, refusal
from scanbook.serving.connections import Connection, Connections
from scanbook.serving.settings import Settings
from scanbook.serving.state import EXTENSION, Service

SPARE = 8
"""Threads for requests without an image, so that a health check is answered while all images wait."""
_DESCRIPTORS = 64  # files that a process needs beside its connections
_PIECE = 16 * 1024  # gunicorn copies what it holds of a body for each read and each chunk, so it gets a body in pieces

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


def serve(folder: Path, settings: Settings | None = None) -> None:
    """Serve a bundle until SIGTERM, which lets requests in progress finish, or SIGINT. Does not return.

    Args:
        folder: Folder of an exported bundle.
        settings: Settings of the service.

    Raises:
        BundleError: The bundle is incomplete or altered, or has no model of the precision in the settings.
    """
    settings = settings or Settings()
    bundle.read(folder).model_path(settings.precision)
    cores = max(1, runtime.cores() // settings.workers)
    metrics.create_folder()
    process = os.getpid()
    try:
        _Application(lambda: create_app(folder, settings, cores), settings).run()
    finally:
        if os.getpid() == process:  # a worker that ends gets here too
            metrics.remove_folder()


class _Application(BaseApplication):
    """gunicorn without its command line.

    Args:
        create: Function that returns the application.
        settings: Settings of the service.
    """

    def __init__(self, create: Callable[[], Any], settings: Settings) -> None:
        self._create = create
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        self._options = {
            "bind": f"{host}:{settings.port}",
            "workers": settings.workers,
            "threads": settings.threads or settings.queue + SPARE,
            "worker_class": _Worker,
            "timeout": 60,
            "graceful_timeout": 20,
            # longer than load balancers keep idle connections, so that none is closed as they use it
            "keepalive": 75,
            "child_exit": lambda _server, worker: metrics.remove_worker(worker.pid),
            # a container has no home folder for gunicorn's control socket
            "control_socket_disable": True,
            "worker_tmp_dir": metrics.memory_folder(),
        }
        super().__init__()

    def load_config(self) -> None:
        for key, value in self._options.items():
            self.cfg.set(key, value)

    def load(self) -> Any:
        # gunicorn calls this in the worker: OpenVINO's threads do not survive a fork
        try:
            return self._create()
        except ScanbookError as error:
            raise AppImportError(str(error)) from error  # gunicorn prints the line and stops

    def run(self) -> None:
        _Arbiter(self).run()


class _Arbiter(Arbiter):
    def reload(self) -> None:
        """Replace the workers on SIGHUP, unless the bundle as it is now cannot be served."""
        if reason := trial.failure_reason(self.app.load, self._is_to_stop):
            self.log.error("not reloaded, the workers go on with the bundle that they have: %s", reason)
        else:
            super().reload()

    def _is_to_stop(self) -> bool:
        """Return whether a signal to stop waits, which the main loop handles when it goes on."""
        signals = []
        with suppress(queue.Empty):
            while True:
                signals.append(self.SIG_QUEUE.get_nowait())
        for number in signals:
            self.SIG_QUEUE.put_nowait(number)
        return not {signal.SIGTERM, signal.SIGINT, signal.SIGQUIT}.isdisjoint(signals)

    def stop(self, graceful: bool = True) -> None:
        """Reject new connections, then stop; each worker accepts the connections that wait and closes its listener."""
        for listener in self.LISTENERS:
            _reject_new_connections(listener.sock)
        super().stop(graceful)


def _reject_new_connections(listener: socket.socket) -> None:
    """Make the system drop new connections to a listening socket (on Linux).

    Closing the socket resets the connections that the system has made and no worker has accepted yet. Without new ones,
    a worker can accept the waiting connections and close the socket; later clients are refused and can connect to
    another service. Of 200 stops under load 16 lost requests without this, of 74 none with it.
    """
    if sys.platform == "linux":
        drop = ctypes.create_string_buffer(struct.pack("HBBI", 6, 0, 0, 0))  # one instruction: return 0 bytes
        attach_filter = 26  # SO_ATTACH_FILTER
        with suppress(OSError):
            listener.setsockopt(socket.SOL_SOCKET, attach_filter, struct.pack("HP", 1, ctypes.addressof(drop)))


class _Worker(Worker):
    """A process of the service: `Connections` in its main thread, and the application in others."""

    connections: Connections | None = None

    def run(self) -> None:
        """Serve until SIGTERM, then finish the requests in progress."""
        files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        most = max(1, min(self.cfg.worker_connections, files - _DESCRIPTORS))
        limits = {"threads": self.cfg.threads, "most": most, "keep_alive": self.cfg.keepalive}
        connections = self.connections = Connections(self.sockets, self._respond, self._refuse, **limits)
        while self.alive:
            self.notify()
            connections.work(1.0)
            if self.ppid != os.getppid():  # gunicorn's main process was killed
                metrics.remove_folder()
                break
        connections.stop_accepting()
        end = time.monotonic() + self.cfg.graceful_timeout
        while len(connections) and time.monotonic() < end:
            self.notify()
            connections.work(0.1)
        connections.close()

    def handle_exit(self, sig: int, frame: Any) -> None:
        """Stop accepting requests on SIGTERM; `/readyz` reports it."""
        super().handle_exit(sig, frame)
        if self.connections:
            self._service.stopping.set()
            self.connections.wake()

    @property
    def _service(self) -> Service:
        return self.wsgi.extensions[EXTENSION]

    def _respond(self, request: bytes, connection: Connection, closes: bool) -> tuple[bytes, bool]:
        """Return the response to a whole request, in a thread, and whether the connection may be used again."""
        parts: list[bytes] = []
        # the loop, not this socket, has told the client to continue
        sock = SimpleNamespace(sendall=parts.append, send=len)
        try:
            parser = parse(self.cfg, request, connection.client)
            parsed = next(parser)
            if closes or not self.alive:
                parsed.force_close()
            response, environ = wsgi.create(parsed, sock, connection.client, connection.server, self.cfg)
            environ["wsgi.multithread"] = True
            with closing(ClosingIterator(self.wsgi(environ, response.start_response))) as items:
                for item in items:
                    response.write(item)
            response.close()
            # unless the parser stops at the same byte, the start of the next request is unknown: close the connection
            keep = not response.should_close() and parser.finish_body() and at_end(parser)
        except (StopIteration, errors.NoMoreData):
            return b"", False
        except Exception as error:
            return self._respond_to_error(error), False
        return b"".join(parts), keep

    def _respond_to_error(self, error: Exception) -> bytes:
        """Return the response to invalid HTTP and to failures outside of Flask, without any text from the client."""
        status, name = status_of(error), type(error).__name__
        if status == 500:
            self.log.exception("a request failed outside of the application")
            return self._refuse(status, "the service failed; try again")
        self.log.info("a request was refused with %d (%s)", status, name)
        return self._refuse(status, f"the request is not valid HTTP ({name})")

    def _refuse(self, status: int, detail: str) -> bytes:
        self._service.metrics.count_request(UNKNOWN, "other", status)
        return refusal(status, detail)


def parse(cfg: Config, request: bytes, client: Any) -> RequestParser:
    """Return gunicorn's parser of a whole request. Nothing follows it, so the parser never waits for a client."""
    return get_parser(cfg, (request[at : at + _PIECE] for at in range(0, len(request), _PIECE)), client)


def at_end(parser: RequestParser) -> bool:
    """Return whether a parser has read its whole request; else it loses some of the rest."""
    return not parser.unreader.read()


def status_of(error: BaseException) -> int:
    """Return the status for a request that gunicorn's parser refused, or that failed outside of Flask."""
    return next((status for kind, status in _STATUS if isinstance(error, kind)), 500)
