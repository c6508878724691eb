"""Where a result comes from: the version of the code."""

from __future__ import annotations

import subprocess

from scanbook import runtime


def commit() -> str:
    """Return the commit of the project's code, marked when files differ from it; "" outside version control."""
    command = ["git", "-C", str(runtime.project_root()), "describe", "--always", "--dirty=+changes", "--exclude=*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
