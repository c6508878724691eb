"""Asks a service as any program would: over HTTP, with files."""

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

# without a proxy that the environment names: it would be asked for this machine's own address
_open = urllib.request.build_opener(urllib.request.ProxyHandler({})).open


@contextmanager
def running(bundle: Path, timeout: float = 60, options: Sequence[str] = ()) -> Iterator[str]:
    """Starts the service for a bundle in a process of its own and stops it at the end.

    Args:
        bundle: Folder of the bundle.
        timeout: Seconds that it may take to be ready.
        options: Of its command line, such as `("--workers", "2")`.

    Yields:
        Its address, on a free port of this machine.

    Raises:
        RunError: It did not start, with what it said last.
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
            while not _answers(address):
                stopped = process.poll() is not None
                if stopped or time.monotonic() > deadline:
                    log.seek(0)
                    last = (log.read().decode(errors="replace").strip().splitlines() or ["no message"])[-1]
                    what = "stopped" if stopped else f"did not answer within {timeout:.0f} s"
                    raise RunError(f"the service for {bundle} {what}: {last}")
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


def _answers(address: str) -> bool:
    try:
        with _open(f"{address}/readyz", timeout=5) as response:
            return response.status == 200
    except OSError:
        return False


def ask(address: str, paths: Sequence[Path]) -> list[dict[str, Any]]:
    """Posts image files, one a request.

    Args:
        address: The service's.
        paths: Image files.

    Returns:
        For each its prediction (`class`, `confidence`, `abstained`, `probabilities` by class, in class order) and
        `seconds`, from request to answer.

    Raises:
        RunError: The service refused a file, with its reason, or does not answer.
    """
    answers = []
    for number, path in enumerate(paths, 1):
        request = urllib.request.Request(
            f"{address}/predict", path.read_bytes(), {"Content-Type": "application/octet-stream"}
        )
        started = time.perf_counter()
        try:
            with _open(request, timeout=60) as response:
                [answer] = json.load(response)["predictions"]
        except urllib.error.HTTPError as error:
            said = error.read().decode(errors="replace")
            with suppress(ValueError):  # what is no problem details is something between here and the service
                said = json.loads(said)["detail"]
            raise RunError(
                f"the service refused image {number} of {len(paths)} with status {error.code}: {said[:500]}"
            ) from error
        except OSError as error:
            why = getattr(error, "reason", None) or error
            raise RunError(f"no service answers at {address} ({why}); start it, or correct the address") from error
        answers.append(answer | {"seconds": time.perf_counter() - started})
    return answers
