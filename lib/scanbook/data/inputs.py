"""What the models of a study take: images, or vectors in place of them."""

from __future__ import annotations

import numpy as np

from scanbook.config import Study
from scanbook.data import embeddings, pixels
from scanbook.data.manifest import Manifest


def load(study: Study, manifest: Manifest) -> np.ndarray:
    """Return what the models of a study take, in the manifest's order.

    Returns:
        Read-only memory map: images, uint8 `(n, h, w, 3)`, as `pixels.load` has them; or where the study names a file
        of vectors these, float32 `(n, channels)`, as `embeddings.load` has them.
    """
    return embeddings.load(study, manifest) if study.embeddings else pixels.load(manifest, study.size)
