"""For a WSGI server: `SCANBOOK_BUNDLE=folder gunicorn -k gthread 'scanbook.serving.wsgi:create()'`."""

from __future__ import annotations

import logging
from pathlib import Path

from flask import Flask

from scanbook.serving.app import create_app
from scanbook.serving.settings import Settings, find_bundle


def create(bundle: Path | str = "", settings: Settings | None = None, cores: int | None = None) -> Flask:
    """The application, logging where gunicorn does.

    Args:
        bundle: An exported bundle; empty for where one is usually found (`find_bundle`).
        settings: How to run it.
        cores: Processors for the model; None for all.

    Raises:
        BundleError: There is no bundle, or it is incomplete, altered or inconsistent.
    """
    log = logging.getLogger("scanbook.serving")
    log.handlers = logging.getLogger("gunicorn.error").handlers
    log.setLevel(logging.INFO)
    log.propagate = False
    return create_app(find_bundle(bundle), settings, cores)
