"""For a WSGI server: `SCANBOOK_BUNDLE=folder gunicorn -k gthread 'scanbook.serving.wsgi:create()'`."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from flask import Flask

from scanbook.errors import BundleError
from scanbook.serving.app import create_app


def create(bundle: Path | str = "", threads: int | None = None) -> Flask:
    """The application, logging where gunicorn does.

    Args:
        bundle: An exported bundle; empty for the variable `SCANBOOK_BUNDLE`.
        threads: Processors for the model; None for all.

    Raises:
        BundleError: No bundle is named, or it is incomplete, altered or inconsistent.
    """
    folder = bundle or os.environ.get("SCANBOOK_BUNDLE", "")
    if not folder:
        raise BundleError("no bundle is named; set SCANBOOK_BUNDLE to the folder that notebook 07_export_flask wrote")
    log = logging.getLogger("scanbook.serving")
    log.handlers = logging.getLogger("gunicorn.error").handlers
    log.setLevel(logging.INFO)
    log.propagate = False
    return create_app(folder, threads)
