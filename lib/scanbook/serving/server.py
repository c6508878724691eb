"""Runs the service under gunicorn: threads in a few processes, each with a model of its own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from gunicorn.app.base import BaseApplication
from gunicorn.errors import AppImportError

from scanbook import bundle as bundles
from scanbook import runtime
from scanbook.errors import BundleError
from scanbook.serving import wsgi


def serve(
    bundle: Path | str,
    host: str = "127.0.0.1",
    port: int = 8080,
    workers: int = 1,
    threads: int = 4,
) -> None:
    """Serves a bundle until SIGTERM or SIGINT; requests in progress are finished first. Does not return.

    Args:
        bundle: An exported bundle.
        host: Address to listen on; the default is reached from this machine alone.
        port: Port to listen on.
        workers: Processes, each with its own model in memory.
        threads: Requests that one process answers at a time.

    Raises:
        BundleError: The bundle is incomplete or altered.
    """
    bundles.read(Path(bundle))
    _Application(lambda: wsgi.create(bundle, max(1, runtime.cores() // workers)), host, port, workers, threads).run()


class _Application(BaseApplication):
    """gunicorn without its command line."""

    def __init__(self, create: Callable[[], Any], host: str, port: int, workers: int, threads: int) -> None:
        self._create = create
        self._options = {
            "bind": f"[{host}]:{port}" if ":" in host else f"{host}:{port}",
            "workers": workers,
            "threads": threads,
            "worker_class": "gthread",
            "timeout": 60,
            "graceful_timeout": 20,
            # no file of gunicorn's own in the home folder, where there is none in a container
            "control_socket_disable": True,
            "worker_tmp_dir": "/dev/shm" if Path("/dev/shm").is_dir() else None,
        }
        super().__init__()

    def load_config(self) -> None:
        for key, value in self._options.items():
            if key in self.cfg.settings:  # the control socket came with gunicorn 25.1
                self.cfg.set(key, value)

    def load(self) -> Any:
        # called in the worker: OpenVINO's threads do not survive a fork
        try:
            return self._create()
        except BundleError as error:
            raise AppImportError(str(error)) from error  # gunicorn prints the line and stops, without retrying
