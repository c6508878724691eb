"""Comparison of runs: whole reports, and records such as the trials of a sweep; on one page, and in MLflow.

`page.compare` is what `scanbook compare` calls. Nothing is imported here: an upload needs no figures.
"""
