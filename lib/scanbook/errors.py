"""Exceptions of scanbook: each message is one line that a person can act on.

A message says what is wrong, with which value, what was expected and what to do. The command line prints it
without a traceback and exits with status 1.
"""

from typing import Literal

Reason = Literal[
    "empty", "not_an_image", "format", "truncated", "unreadable", "too_many_pixels", "several_frames", "identifying",
    "levels", "no_dicom",
]  # fmt: skip
"""Why an image is refused; a page gives the reason in the reader's language."""


class ScanbookError(Exception):
    """Base of every error that scanbook raises on purpose."""


class StudyError(ScanbookError):
    """A study file, profile, override or key is wrong."""


class DataError(ScanbookError):
    """A dataset is missing, or its layout differs from the one in its study."""


class ImageError(ScanbookError):
    """Bytes that cannot be decoded as an image.

    Attributes:
        reason: Why the image is refused.
    """

    def __init__(self, message: str, reason: Reason = "unreadable") -> None:
        super().__init__(message)
        self.reason = reason


class StoreError(ScanbookError):
    """The store of cached stages cannot be read or written."""


class ModelError(ScanbookError):
    """A backbone or its weights cannot be used, or training fails."""


class UnavailableError(ModelError):
    """Pretrained weights are not on this machine and cannot be downloaded, or do not exist."""


class NotebookError(ScanbookError):
    """A notebook violates its contract, or cannot be created."""


class RunError(ScanbookError):
    """A notebook run failed."""


class BundleError(ScanbookError):
    """An exported bundle is incomplete, altered or inconsistent."""
