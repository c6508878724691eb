"""The store of cached stages: fingerprints of content, locks, files that are never half-written, and pruning."""

from scanbook.store.fingerprints import PACKAGE, file_digest, fingerprint, sources_fingerprint, tree_fingerprint
from scanbook.store.pruning import entries, prune
from scanbook.store.stages import INPUTS, Visit, address, building, checkpoint, seconds, stage, visited
from scanbook.store.writing import atomic_write, write_json
