"""Which images of a study are among those on which weights were pretrained, by a list of names or digests."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from scanbook import runtime
from scanbook.errors import DataError
from scanbook.store import file_digest

_DIGEST = re.compile(r"[0-9a-fA-F]{64}")
_ENDING = re.compile(r"\.[a-z][a-z0-9]{0,4}", re.IGNORECASE)
"""Ending of a file name; the last part of a DICOM identifier, of digits alone, is none."""


@dataclass(frozen=True)
class CorpusList:
    """Images of a corpus.

    Attributes:
        names: Their names, as `short_name` gives them.
        digests: SHA-256 of their files.
    """

    names: frozenset[str]
    digests: frozenset[str]

    def __len__(self) -> int:
        """Return the number of different images."""
        return len(self.names) + len(self.digests)

    def contains(self, frame: pd.DataFrame) -> np.ndarray:
        """Return which images are in the list, bool `(n,)`: by their id, the name of their file, or its content.

        Args:
            frame: Rows of a manifest. Files are read only if the list has digests.
        """
        found = np.array(
            [
                bool(self.names & {short_name(image_id), short_name(path)})
                for image_id, path in zip(frame["image_id"], frame["path"], strict=True)
            ],
            bool,
        )
        if self.digests:
            found |= np.array([digest in self.digests for digest in _digests(frame["path"].tolist())], bool)
        return found


def short_name(name: str) -> str:
    """Return an image's name without folder and ending, in lower case: "Train/ISIC_01.JPG" is "isic_01"."""
    last = re.split(r"[/\\]", name)[-1].strip()
    stem, ending = last[: last.rfind(".")], last[last.rfind(".") :]
    return (stem if stem and "." in last and _ENDING.fullmatch(ending) else last).lower()


def read(path: Path) -> CorpusList:
    """Read a list: one image per line, its name or the SHA-256 of its file; lines that begin with # are remarks.

    Raises:
        DataError: It is missing, cannot be read as text, or has no image.
    """
    try:
        text = path.read_text("utf-8-sig")
    except FileNotFoundError as error:
        raise DataError(f"there is no list of pretraining images at {path}; correct corpus_list") from error
    except (OSError, ValueError) as error:
        raise DataError(
            f"the list of pretraining images {path} cannot be read; expected text in UTF-8, one image per line"
        ) from error
    if "\0" in text:
        raise DataError(f"the list of pretraining images {path} is no text; expected one image per line")
    lines = [line.strip().strip('"') for line in text.splitlines()]
    entries = [line for line in lines if line and not line.startswith("#")]
    digests = frozenset(entry.lower() for entry in entries if _DIGEST.fullmatch(entry))
    names = frozenset(short_name(entry) for entry in entries if not _DIGEST.fullmatch(entry)) - {""}
    if not digests and not names:
        raise DataError(f"the list of pretraining images {path} is empty; expected one image per line")
    return CorpusList(names, digests)


def _digests(paths: Sequence[str]) -> list[str]:
    """Return the digests of files, "" of one that cannot be read."""

    def digest(path: str) -> str:
        try:
            return file_digest(Path(path))
        except OSError:
            return ""

    return list(runtime.in_threads(digest, paths))
