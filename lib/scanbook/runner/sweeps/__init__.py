"""Sweeps: a study's grid of backbones, policies and seeds; one run trains each network, and one page compares all.

Exports `run`, which `scanbook sweep` calls, and `trials`, the grid of a study.
"""

from scanbook.runner.sweeps.grid import trials
from scanbook.runner.sweeps.running import run
