"""Metrics of the service for Prometheus, summed over all its workers.

The workers of a service count into files of one folder, which lies in memory; any worker reports the sum. When
prometheus_client is first imported, it chooses between that mode and counting within the process. Only this module
imports it, after the folder has a name.
"""

from __future__ import annotations

import os
import shutil
import tempfile

FOLDER = "PROMETHEUS_MULTIPROC_DIR"
"""Environment variable that names the folder for prometheus_client."""
METHODS = ("GET", "HEAD", "POST", "OPTIONS")

_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)


class Metrics:
    """Counts of requests and images, and the time that they take.

    Attributes:
        images: Images classified.
        abstained: Images for which the answer was "not sure", of findings for one at least.
        refused: Images that could not be read, by reason.
        stages: Seconds that an image spends in a stage: "decoding", "waiting" or "inference".
        queue: Images that wait or run.
    """

    def __init__(self) -> None:
        from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

        registry = self._registry = CollectorRegistry()
        labels = ("route", "method", "status")
        self._requests = Counter("scanbook_requests", "Requests answered.", labels, registry=registry)
        self._seconds = Histogram(
            "scanbook_request_seconds", "Seconds from a whole request to its answer.", ["route"],
            registry=registry, buckets=_SECONDS,
        )  # fmt: skip
        self.images = Counter("scanbook_images", "Images classified.", registry=registry)
        self.abstained = Counter("scanbook_abstained", "Images answered with 'not sure'.", registry=registry)
        self.refused = Counter("scanbook_images_refused", "Images not readable.", ["reason"], registry=registry)
        self.stages = Histogram(
            "scanbook_image_seconds", "Seconds that an image spends in a stage.", ["stage"],
            registry=registry, buckets=_SECONDS,
        )  # fmt: skip
        live = {"registry": registry, "multiprocess_mode": "livesum"}
        self.queue = Gauge("scanbook_queue_images", "Images waiting or running.", **live)
        self._limit = Gauge("scanbook_queue_limit", "Images that may wait or run.", **live)
        self._model = Gauge(
            "scanbook_model_info", "The model that predicts; always 1.", ["model", "precision"],
            registry=registry, multiprocess_mode="livemax",
        )  # fmt: skip

    def describe_service(self, model: str, precision: str, limit: int) -> None:
        """Record the model of the service and the number of images that may wait or run."""
        self._model.labels(model, precision).set(1)
        self._limit.set(limit)

    def count_request(self, route: str, method: str, status: int, seconds: float | None = None) -> None:
        """Count a request. An unknown method is not used as a label, because each label stays in memory."""
        self._requests.labels(route, method if method in METHODS else "other", status).inc()
        if seconds is not None:
            self._seconds.labels(route).observe(seconds)

    def text(self) -> tuple[bytes, str]:
        """Return all metrics in Prometheus's text format, and its content type."""
        from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
        from prometheus_client.multiprocess import MultiProcessCollector

        registry = self._registry
        if os.environ.get(FOLDER):
            registry = CollectorRegistry()
            MultiProcessCollector(registry)
        return generate_latest(registry), CONTENT_TYPE_LATEST


def memory_folder() -> str | None:
    """Return the folder whose files lie in memory; None where the system has none that can be written to."""
    memory = "/dev/shm"
    return memory if os.access(memory, os.W_OK) else None


def create_folder() -> None:
    """Create the folder for the counts of several processes, in memory where possible, and set its variable."""
    os.environ[FOLDER] = tempfile.mkdtemp(prefix="scanbook-metrics-", dir=memory_folder())


def remove_worker(process: int) -> None:
    """Remove the queue of a worker that ended; its other counts remain."""
    from prometheus_client.multiprocess import mark_process_dead

    mark_process_dead(process)


def remove_folder() -> None:
    """Remove the folder, after the service stopped or was killed."""
    if folder := os.environ.pop(FOLDER, ""):
        shutil.rmtree(folder, ignore_errors=True)
