"""Where scanbook runs: folders, backend, threads, seeds and precision, the machine, and processes.

Callers write `runtime.configure(...)`. Importing it imports neither Keras nor any other heavy package.
"""

from scanbook.runtime.backend import (
    check_backend,
    choose_jax,
    configure,
    device,
    gpus,
    keras,
    single_threaded,
    training_precision,
    without_garbage_collection,
    without_native_messages,
)
from scanbook.runtime.folders import (
    NOTEBOOK,
    data_dir,
    path_in_project,
    project_root,
    reports_dir,
    store_dir,
    store_limit,
)
from scanbook.runtime.iteration import in_threads, interactive, progress
from scanbook.runtime.machine import (
    cores,
    describe_machine,
    memory_in_status,
    numeric_versions,
    peak_memory,
    versions,
    versions_of,
)
from scanbook.runtime.steps import duration, step
from scanbook.runtime.text import as_markdown, encode, legible, path_as_text, path_from_text, print_every_character
