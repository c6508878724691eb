"""Runs the application under gunicorn: threads in a few processes, each with its own copy of the model."""

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

from scanbook import bundle, runtime
from scanbook.errors import RunError, ScanbookError
from scanbook.serving import metrics, trial
from scanbook.serving.app import create_app
from scanbook.serving.settings import Settings

SPARE = 8
"""Threads for requests without an image, so that a health check is answered while all images wait."""


def serve(folder: Path, settings: Settings | None = None) -> None:
    """Serve a bundle until SIGTERM, which lets requests in progress finish, or SIGINT. Does not return.

    Args:
        folder: Folder of an exported bundle.
        settings: Settings of the service.

    Raises:
        BundleError: The bundle is incomplete or altered, or has no model of the precision in the settings.
        RunError: gunicorn refuses the settings.
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
            "worker_class": "scanbook.serving.worker.Worker",
            "timeout": 60,
            "graceful_timeout": 20,
            # longer than load balancers keep idle connections, so that none is closed as they use it
            "keepalive": 75,
            "sendfile": False,
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
        try:
            _Arbiter(self).run()
        except RuntimeError as error:
            raise RunError(f"gunicorn does not start: {error}") from error


class _Arbiter(Arbiter):
    def reload(self) -> None:
        """Replace the workers on SIGHUP, unless the bundle as it is now cannot be served."""
        if reason := trial.failure_reason(self.app.load):
            self.log.error("not reloaded, the workers go on with the bundle that they have: %s", reason)
        else:
            super().reload()

    def stop(self, graceful: bool = True) -> None:
        """Reject new connections, then stop; each worker accepts the connections that wait and closes its listener."""
        for listener in self.LISTENERS:
            _reject_new_connections(listener.sock)
        super().stop(graceful)


def _reject_new_connections(listener: socket.socket) -> None:
    """Make the system drop new connections to a listening socket (on Linux).

    Closing the socket would reset the connections that the system has made and no worker has accepted yet. Without new
    ones, a worker can accept the waiting connections and close the socket; later clients are refused and can connect
    to another service.
    """
    if sys.platform == "linux":
        drop = ctypes.create_string_buffer(struct.pack("HBBI", 6, 0, 0, 0))  # one instruction: return 0 bytes
        attach_filter = 26  # SO_ATTACH_FILTER
        with suppress(OSError):
            listener.setsockopt(socket.SOL_SOCKET, attach_filter, struct.pack("HP", 1, ctypes.addressof(drop)))
