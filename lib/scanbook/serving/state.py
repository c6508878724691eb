"""State of the service: one object for each application, which every route uses."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

from flask import current_app

from scanbook.serving.metrics import Metrics
from scanbook.serving.predictor import Predictor
from scanbook.serving.settings import Settings

EXTENSION = "scanbook"
"""Name of the state among the extensions of the Flask application."""
RETRY_AFTER = 1
"""Seconds after which a client that was refused may send its request again."""


@dataclass(frozen=True)
class Service:
    """Predictor, settings and metrics of an application, and whether it is about to stop."""

    predictor: Predictor
    settings: Settings
    metrics: Metrics
    stopping: threading.Event = field(default_factory=threading.Event)


def service() -> Service:
    """Return the state of the application that handles the current request."""
    return current_app.extensions[EXTENSION]
