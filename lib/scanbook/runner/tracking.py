"""Whole runs in MLflow, where the user has it installed and names a server in `MLFLOW_TRACKING_URI`.

MLflow is no dependency: its whole package excludes the gunicorn that the service needs, and its client (mlflow-skinny)
is enough. It is imported in a process of its own, which has a time limit: whatever becomes of the server, the run stays
whole, and an error is one line.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

URI = "MLFLOW_TRACKING_URI"
"""Variable of MLflow that names the server."""
_UPLOAD = "scanbook.runner.comparing.upload"
"""The module that logs a run; its name alone, since what trains networks must not depend on its code."""
_LIMIT = 300
"""Seconds after which logging is given up."""
_DEFAULTS = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "20", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2"}
"""What MLflow waits for a server: its own values, 120 s and 7 times, would hold up the next notebook for minutes."""
_PRIVATE = {"MLFLOW_DISABLE_TELEMETRY": "true"}
"""What MLflow would report of its use to its makers is not sent, unless the user allows it."""


def log(place: Path) -> str:
    """Log a run to MLflow: parameters, metrics and files; nothing where MLflow is not installed or not asked for.

    An error is one line on stderr.

    Args:
        place: Folder of a whole report, or the JSON file of a record.

    Returns:
        Where it is, in words; "" where nothing was logged.
    """
    if not os.environ.get(URI):
        return ""
    server = _without_password(os.environ[URI])
    if find_spec("mlflow") is None:
        return _report(place, server, "mlflow is not installed; pip install mlflow-skinny, or unset the variable")
    command = [sys.executable, "-m", _UPLOAD, str(place)]
    environment = _DEFAULTS | _PRIVATE | os.environ
    try:
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, errors="replace", timeout=_LIMIT, check=False
        )
    except subprocess.TimeoutExpired:
        return _report(place, server, f"no end after {_LIMIT} s")
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        return _report(place, server, lines[-1])
    return f"logged to MLflow at {server}"


def _report(place: Path, server: str, reason: str) -> str:
    """Print why nothing was logged."""
    line = f"{URI} is {server}, and {place.name} was not logged: {_without_password(reason)}"
    print(f"scanbook: {line[:500]}", file=sys.stderr, flush=True)
    return ""


def _without_password(text: str) -> str:
    return re.sub(r"//[^/@\s]+@", "//", text)
