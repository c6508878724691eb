"""Waiting for processes to end."""

from __future__ import annotations

import time

import psutil


def ended(pid: int) -> bool:
    """Whether a process that was killed is gone, which takes the system a moment."""
    for _ in range(200):
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.05)
    return False
