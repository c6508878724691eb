"""Quality of the images: unreadable, blank, dark, blurred or copied ones, and properties that reveal the class.

Every image is decoded once, in threads, and described by a few numbers and a small grey picture; all other functions
work on those.
"""

from scanbook.data.quality.copies import across_splits, copy_groups, exact_copies, near_copies, near_sentence
from scanbook.data.quality.differences import (
    difference_sentences,
    differences,
    formats,
    missing_values,
    properties,
    tint_sentences,
    tints,
    varying_properties,
)
from scanbook.data.quality.findings import (
    label_difference_sentences,
    label_differences,
    label_shortcut_sentences,
    label_shortcuts,
    label_tints,
)
from scanbook.data.quality.planted import planted
from scanbook.data.quality.rules import flags, small_classes
from scanbook.data.quality.scanning import scan
from scanbook.data.quality.shortcuts import shortcut_sentences, shortcuts
from scanbook.data.quality.thumbnails import (
    class_examples,
    examples_title,
    flagged_examples,
    label_examples,
    pair_examples,
)
