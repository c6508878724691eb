"""Sweeps: a study's grid of backbones, policies and seeds, each network trained by a run of its own, held together."""

from scanbook.runner.sweeps.grid import Trial
from scanbook.runner.sweeps.running import run

__all__ = ["Trial", "run"]
