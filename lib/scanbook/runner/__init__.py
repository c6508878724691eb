"""Runs notebooks headlessly into HTML reports: what is stale, in which order, how each run is recorded and shown.

`order` and `freshness` answer in milliseconds and import no heavy package; `execute` runs one notebook.
"""
