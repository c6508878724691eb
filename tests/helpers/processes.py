"""Processes that a test ends."""

from __future__ import annotations

import time

import psutil


def has_ended(pid: int) -> bool:
    """Return whether a process ends within ten seconds; a killed process takes a moment to do so."""
    for _ in range(200):
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.05)
    return False
