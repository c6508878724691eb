"""What the rooms of the service share: one object for each application."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

from flask import current_app

from scanbook.serving.metrics import Metrics
from scanbook.serving.predictor import Predictor
from scanbook.serving.settings import Settings

EXTENSION = "scanbook"
"""Name among the extensions of the Flask application."""
RETRY_AFTER = 1
"""Seconds after which one who was refused for want of room may ask again."""


@dataclass(frozen=True)
class Service:
    """One application's predictor, how it runs, what it counts, and whether it is about to stop."""

    predictor: Predictor
    settings: Settings
    metrics: Metrics
    stopping: threading.Event = field(default_factory=threading.Event)

    @property
    def ready(self) -> bool:
        """Whether another image would be taken."""
        return not self.stopping.is_set() and not self.predictor.full


def service() -> Service:
    """That of the application which answers this request."""
    return current_app.extensions[EXTENSION]
