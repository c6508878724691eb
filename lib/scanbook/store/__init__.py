"""The store of cached stages: fingerprints of content and code, files that are never half-written, and pruning."""

from scanbook.store.code import NOT_COUNTED, PACKAGE, Code, SourceCode
from scanbook.store.fingerprints import file_digest, fingerprint, tree_fingerprint
from scanbook.store.locking import lock_file
from scanbook.store.pruning import entries, prune
from scanbook.store.stages import INPUTS, Visit, address, building, checkpoint, seconds, stage, visited
from scanbook.store.walk import Walk, walk
from scanbook.store.writing import atomic_write, write_json
