"""Runs notebooks headlessly into HTML reports: what is stale, in which order, how each run is recorded and shown.

`order`, `freshness`, `planning` and `status` answer in milliseconds and import no heavy package; `making` has Make run
what is stale, and `execute` runs one notebook.
"""
