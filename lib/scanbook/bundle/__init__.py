"""The bundle: a folder that runs alone.

It holds the model in several formats, the class names, the image size, the thresholds, the test metrics, the cards, the
code that serves it, what a container needs, and a checksum of every file. What a service and a notebook must agree on
is read from here and written nowhere else: a published service named seven classes of ten wrongly because labels and
model travelled apart.

Each model takes uint8 RGB `(n, h, w, 3)` and gives calibrated probabilities, float32 `(n, k)`, then one
class-activation map a class, float32 `(n, h', w', k)`, not normalised.
"""

from scanbook.bundle.card import (
    FORMAT_NAMES,
    INTENDED_USE,
    LANGUAGES,
    Section,
    card,
    card_markdown,
    front_matter,
    int8_sentence,
)
from scanbook.bundle.container import PACKAGES
from scanbook.bundle.description import (
    CARD,
    CHECKSUMS,
    DATASET_CARD,
    DESCRIPTION,
    FILES,
    FORMAT,
    PLACE,
    REQUIREMENTS,
    SERVED,
    Bundle,
    load,
    of_study,
    read,
)
from scanbook.bundle.writing import CODE, check_target, write

__all__ = [
    "CARD",
    "CHECKSUMS",
    "CODE",
    "DATASET_CARD",
    "DESCRIPTION",
    "FILES",
    "FORMAT",
    "FORMAT_NAMES",
    "INTENDED_USE",
    "LANGUAGES",
    "PACKAGES",
    "PLACE",
    "REQUIREMENTS",
    "SERVED",
    "Bundle",
    "Section",
    "card",
    "card_markdown",
    "check_target",
    "front_matter",
    "int8_sentence",
    "load",
    "of_study",
    "read",
    "write",
]
