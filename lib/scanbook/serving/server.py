"""Runs the service under gunicorn: threads in a few processes, each with a model of its own."""

from __future__ import annotations

import ctypes
import os
import socket
import struct
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from gunicorn.app.base import BaseApplication
from gunicorn.arbiter import Arbiter
from gunicorn.errors import AppImportError

from scanbook import bundle as bundles
from scanbook import runtime
from scanbook.errors import RunError, ScanbookError
from scanbook.serving import metrics, wsgi
from scanbook.serving.settings import Settings

SPARE = 8
"""Threads for what is no image: whether the service is well is answered while all images wait."""


def serve(bundle: Path | str, settings: Settings | None = None) -> None:
    """Serves a bundle until SIGTERM, which lets requests in progress finish, or SIGINT. Does not return.

    Args:
        bundle: An exported bundle.
        settings: How to run it.

    Raises:
        BundleError: The bundle is incomplete or altered, or has no model of the precision asked for.
        RunError: gunicorn refuses the settings.
    """
    settings = settings or Settings()
    bundles.read(Path(bundle)).model_of(settings.precision)
    cores = max(1, runtime.cores() // settings.workers)
    metrics.make_folder()
    own = os.getpid()
    try:
        _Application(lambda: wsgi.create(bundle, settings, cores), settings).run()
    finally:
        if os.getpid() == own:  # a worker that ends comes by here too
            metrics.remove_folder()


class _Application(BaseApplication):
    """gunicorn without its command line."""

    def __init__(self, create: Callable[[], Any], settings: Settings) -> None:
        self._create = create
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        self._options = {
            "bind": f"{host}:{settings.port}",
            "workers": settings.workers,
            "threads": settings.threads or settings.queue + SPARE,
            "worker_class": "scanbook.serving.worker.Worker",
            "timeout": 60,
            "graceful_timeout": 20,
            # longer than load balancers keep theirs, so that none is closed just as they use it
            "keepalive": 75,
            "sendfile": False,
            "child_exit": lambda _server, worker: metrics.forget(worker.pid),
            # no file of gunicorn's own in the home folder, where there is none in a container
            "control_socket_disable": True,
            "worker_tmp_dir": metrics.in_memory(),
        }
        super().__init__()

    def load_config(self) -> None:
        for key, value in self._options.items():
            self.cfg.set(key, value)

    def load(self) -> Any:
        # called in the worker: OpenVINO's threads do not survive a fork
        try:
            return self._create()
        except ScanbookError as error:
            raise AppImportError(str(error)) from error  # gunicorn prints the line and stops, without retrying

    def run(self) -> None:
        try:
            _Arbiter(self).run()
        except RuntimeError as error:
            raise RunError(f"gunicorn does not start: {error}") from error


class _Arbiter(Arbiter):
    def stop(self, graceful: bool = True) -> None:
        """Lets nobody in any more, then stops: each worker takes those who are in and closes the door."""
        for listener in self.LISTENERS:
            _turn_away(listener.sock)
        super().stop(graceful)


def _turn_away(listener: socket.socket) -> None:
    """Drops what asks a listening socket for a connection (on Linux).

    Closing it resets the connections that the system has made and that nobody has accepted. With no new ones, a worker
    can accept the last and close; who comes then is refused, and can ask another service.
    """
    if sys.platform == "linux":
        drop = ctypes.create_string_buffer(struct.pack("HBBI", 6, 0, 0, 0))  # one instruction: return 0 bytes
        attach_filter = 26  # SO_ATTACH_FILTER
        with suppress(OSError):
            listener.setsockopt(socket.SOL_SOCKET, attach_filter, struct.pack("HP", 1, ctypes.addressof(drop)))
