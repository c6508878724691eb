"""What the service counts, for Prometheus: of all its workers together.

The workers of one service count into files of one folder, which lies in memory; any of them answers for all.
prometheus_client chooses between that and counting within the process when it is first imported: so it is imported
here alone, once the folder is named.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Literal

FOLDER = "PROMETHEUS_MULTIPROC_DIR"
"""Variable that names the folder, for prometheus_client."""
METHODS = ("GET", "HEAD", "POST", "OPTIONS")
Stage = Literal["decoding", "waiting", "inference"]

_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)


class Metrics:
    """Counts requests, images and the time they take."""

    def __init__(self) -> None:
        from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

        own = self._own = CollectorRegistry()
        requests = ("route", "method", "status")
        self._requests = Counter("scanbook_requests", "Requests answered.", requests, registry=own)
        self._seconds = Histogram(
            "scanbook_request_seconds", "Seconds from a whole request to its answer.", ["route"],
            registry=own, buckets=_SECONDS,
        )  # fmt: skip
        self._images = Counter("scanbook_images", "Images answered.", registry=own)
        self._abstained = Counter("scanbook_abstained", "Images answered with 'not sure'.", registry=own)
        self._refused = Counter("scanbook_images_refused", "Images that could not be read.", ["reason"], registry=own)
        self._stages = Histogram(
            "scanbook_image_seconds", "Seconds that an image spends in a stage.", ["stage"],
            registry=own, buckets=_SECONDS,
        )  # fmt: skip
        self._queue = Gauge(
            "scanbook_queue_images", "Images waiting or running.", registry=own, multiprocess_mode="livesum"
        )
        self._room = Gauge(
            "scanbook_queue_limit", "Images that may wait or run.", registry=own, multiprocess_mode="livesum"
        )
        self._model = Gauge(
            "scanbook_model_info", "The model that answers; always 1.", ["model", "precision"],
            registry=own, multiprocess_mode="livemax",
        )  # fmt: skip

    def serves(self, model: str, precision: str, room: int) -> None:
        """A model is ready, with room for so many images."""
        self._model.labels(model, precision).set(1)
        self._room.set(room)

    def answered(self, route: str, method: str, status: int, seconds: float | None = None) -> None:
        """A request got its answer. What a client made up is not taken for a label: each would be kept for ever."""
        self._requests.labels(route, method if method in METHODS else "other", status).inc()
        if seconds is not None:
            self._seconds.labels(route).observe(seconds)

    def image(self, abstained: bool) -> None:
        """An image was answered."""
        self._images.inc()
        if abstained:
            self._abstained.inc()

    def refused(self, reason: str) -> None:
        """An image could not be read."""
        self._refused.labels(reason).inc()

    def took(self, stage: Stage, seconds: float) -> None:
        """An image spent some time."""
        self._stages.labels(stage).observe(seconds)

    def queued(self, change: int) -> None:
        """So many images more wait or run."""
        self._queue.inc(change)

    def text(self) -> tuple[bytes, str]:
        """Everything, in Prometheus's text format, and the content type of that."""
        from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
        from prometheus_client.multiprocess import MultiProcessCollector

        if not os.environ.get(FOLDER):
            return generate_latest(self._own), CONTENT_TYPE_LATEST
        everybody = CollectorRegistry()
        MultiProcessCollector(everybody)
        return generate_latest(everybody), CONTENT_TYPE_LATEST


def in_memory() -> str | None:
    """The folder whose files lie in memory; None where the system has none, or none to write to."""
    memory = "/dev/shm"
    return memory if os.access(memory, os.W_OK) else None


def make_folder() -> Path:
    """A folder for the counts of several processes, in memory where the system has such a place, named to them."""
    folder = Path(tempfile.mkdtemp(prefix="scanbook-metrics-", dir=in_memory()))
    os.environ[FOLDER] = str(folder)
    return folder


def forget(process: int) -> None:
    """A worker died: what it was doing just then counts no more. What it has done still does."""
    from prometheus_client.multiprocess import mark_process_dead

    mark_process_dead(process)


def remove_folder() -> None:
    """The service stopped, or was killed under its workers."""
    if folder := os.environ.pop(FOLDER, ""):
        shutil.rmtree(folder, ignore_errors=True)
