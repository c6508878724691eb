"""The store of cached stages: content fingerprints, locks and atomic writes."""

from scanbook.store.fingerprints import (
    PACKAGE,
    code_fingerprint,
    file_digest,
    fingerprint,
    sources_fingerprint,
    tree_fingerprint,
)
from scanbook.store.pruning import Entry, entries, prune
from scanbook.store.stages import INPUTS, Visit, address, building, checkpoint, seconds, stage, visited
from scanbook.store.writing import atomic_write, write_json

__all__ = [
    "INPUTS",
    "PACKAGE",
    "Entry",
    "Visit",
    "address",
    "atomic_write",
    "building",
    "checkpoint",
    "code_fingerprint",
    "entries",
    "file_digest",
    "fingerprint",
    "prune",
    "seconds",
    "sources_fingerprint",
    "stage",
    "tree_fingerprint",
    "visited",
    "write_json",
]
