"""Exceptions of scanbook: each message is one line that a person can act on.

A message says what is wrong, with which value, what was expected and what to do. The command line prints it
without a traceback and exits with status 1.
"""


class ScanbookError(Exception):
    """Base of every error that scanbook raises on purpose."""


class StudyError(ScanbookError):
    """A study file, profile, override or key is wrong."""


class DataError(ScanbookError):
    """A dataset is missing, or is not laid out as its study says."""


class ImageError(ScanbookError):
    """Bytes that cannot be decoded as an image."""


class StoreError(ScanbookError):
    """The store of cached stages cannot be read or written."""


class ModelError(ScanbookError):
    """A backbone, its weights or its training cannot go on."""


class RunError(ScanbookError):
    """A notebook run failed."""


class BundleError(ScanbookError):
    """An exported bundle is incomplete, altered or inconsistent."""
