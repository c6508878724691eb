"""Starts a service and sends image files to it over HTTP, as any program does."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from scanbook.errors import RunError
from scanbook.runtime.processes import MALLOC
from scanbook.serving.settings import VARIABLES

# without a proxy that the environment names, which cannot reach this machine's own address
_open = urllib.request.build_opener(urllib.request.ProxyHandler({})).open


@contextmanager
def run_service(bundle: Path, timeout: float = 60, options: Sequence[str] = ()) -> Iterator[str]:
    """Start the service of a bundle in a separate process and stop it at the end.

    Args:
        bundle: Folder of the bundle.
        timeout: Seconds within which the service must be ready.
        options: Options of its command line, such as `("--workers", "2")`.

    Yields:
        The address of the service, on a free port of this machine.

    Raises:
        RunError: The service did not start; the message has the last line of its log.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    with tempfile.TemporaryFile() as log:
        command = [sys.executable, "-m", "scanbook.serving", str(bundle), "--port", str(port), *options]
        process = subprocess.Popen(command, stdout=log, stderr=log, env=plain_environment())
        try:
            deadline = time.monotonic() + timeout
            while not _is_ready(address):
                stopped = process.poll() is not None
                if stopped or time.monotonic() > deadline:
                    log.seek(0)
                    last = (log.read().decode(errors="replace").strip().splitlines() or ["no message"])[-1]
                    outcome = "stopped" if stopped else f"did not answer within {timeout:.0f} s"
                    raise RunError(f"the service for {bundle} {outcome}: {last}")
                time.sleep(0.05)
            yield address
        finally:
            process.terminate()
            try:
                process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def plain_environment() -> dict[str, str]:
    """Return the environment without settings of a service or, from a notebook's kernel, of processes that compute."""
    return {name: value for name, value in os.environ.items() if name not in VARIABLES and MALLOC.get(name) != value}


def _is_ready(address: str) -> bool:
    try:
        with _open(f"{address}/readyz", timeout=5) as response:
            return response.status == 200
    except OSError:
        return False


def classify(address: str, paths: Sequence[Path]) -> list[dict[str, Any]]:
    """Send image files, one per request.

    Args:
        address: Address of the service.
        paths: Image files.

    Returns:
        For each file its prediction (`class`, `confidence`, `abstained`, `probabilities` by class, in class order) and
        `seconds`, the time from request to response.

    Raises:
        RunError: The service refused a file, or does not answer.
    """
    predictions = []
    for number, path in enumerate(paths, 1):
        request = urllib.request.Request(
            f"{address}/predict", path.read_bytes(), {"Content-Type": "application/octet-stream"}
        )
        started = time.perf_counter()
        try:
            with _open(request, timeout=60) as response:
                [prediction] = json.load(response)["predictions"]
        except urllib.error.HTTPError as error:
            message = error.read().decode(errors="replace")
            with suppress(ValueError):  # a proxy may have sent something else than problem details
                message = json.loads(message)["detail"]
            raise RunError(
                f"the service refused image {number} of {len(paths)} with status {error.code}: {message[:500]}"
            ) from error
        except OSError as error:
            reason = getattr(error, "reason", None) or error
            raise RunError(f"no service answers at {address} ({reason}); start it, or correct the address") from error
        predictions.append(prediction | {"seconds": time.perf_counter() - started})
    return predictions
