"""Runs notebooks headlessly into HTML reports: which are stale, in which order, how each run is recorded and shown.

`planning` and `freshness` answer in milliseconds and import no heavy package; `schedule` runs what is stale in order,
`execute` runs one notebook, and `train` one network. The folder exports nothing.
"""
