"""The images that a study's classifiers see.

A file of its own: what derives images from masks must not depend on how a dataset is read and split.
"""

from __future__ import annotations

from scanbook.config import Study
from scanbook.data import pixels
from scanbook.data.manifest import Manifest
from scanbook.segmentation.derived import derive
from scanbook.segmentation.masks import choose_method, segment
from scanbook.training import label_check


def prepare(study: Study) -> Manifest:
    """Return the study's images with their splits, as its classifiers see them: whole, cut out, or cropped.

    Every image keeps its name, label, group and split. An image with an empty mask stays whole. The source's mask is
    cropped like its image.

    Args:
        study: `input` states the form of the images, `segmentation` the method.

    Returns:
        `training.prepare`'s manifest, or one whose paths lie in the store, with `input` and `method` among its facts.
    """
    manifest = label_check.prepare(study)
    # of a study of vectors, these are of whatever images they were computed from
    return manifest if study.input == "original" or study.embeddings else cut(study, manifest)


def cut(study: Study, manifest: Manifest) -> Manifest:
    """Return images cut out or cropped, as the study's `input` states it, by the method that its splits choose."""
    images = pixels.load(manifest, study.size)
    method = choose_method(study, manifest, images)
    return derive(study, manifest, segment(study, manifest, images, method), method)
