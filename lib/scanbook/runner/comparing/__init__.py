"""Comparison of runs: whole reports, and records such as the trials of a sweep, on one page.

Exports `compare`, which `scanbook compare` calls.
"""

from scanbook.runner.comparing.page import compare
