"""What is wrong with images: unreadable, blank, dark, blurred, copied; and what gives their class away.

Every image is decoded once, in threads, and described by a few numbers and a small grey picture; all else works on
those.
"""

from scanbook.data.quality.copies import across_splits, exact_copies, near_copies, near_sentence
from scanbook.data.quality.differences import (
    PROPERTIES,
    difference_sentences,
    differences,
    formats,
    missing,
    properties,
    tint_sentences,
    tinted,
    tints,
    varying,
)
from scanbook.data.quality.rules import BLANK_CONTRAST, DARK_BRIGHTNESS, flags
from scanbook.data.quality.scanning import scan
from scanbook.data.quality.shortcuts import VIEWS, shortcut_sentences, shortcuts
from scanbook.data.quality.truth import planted
from scanbook.data.quality.views import caught, examples, side_by_side, thumbnails

__all__ = [
    "BLANK_CONTRAST",
    "DARK_BRIGHTNESS",
    "PROPERTIES",
    "VIEWS",
    "across_splits",
    "caught",
    "difference_sentences",
    "differences",
    "exact_copies",
    "examples",
    "flags",
    "formats",
    "missing",
    "near_copies",
    "near_sentence",
    "planted",
    "properties",
    "scan",
    "shortcut_sentences",
    "shortcuts",
    "side_by_side",
    "thumbnails",
    "tint_sentences",
    "tinted",
    "tints",
    "varying",
]
