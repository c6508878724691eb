"""Predictions without the names of images and patients, so that a folder of reports can be passed on."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import TypeVar

import numpy as np
import pandas as pd

from scanbook.evaluation.findings import FindingPredictions
from scanbook.evaluation.predictions import Predictions

PREFIX = "image-"
"""Start of every pseudonym of an image."""
_DIGITS = 16
"""Hexadecimal digits of a pseudonym: two of a million images have the same one with a probability of 3e-8."""

Kind = TypeVar("Kind", Predictions, FindingPredictions)


def pseudonymous(predictions: Kind) -> Kind:
    """Return predictions in which images have pseudonyms and patients have numbers.

    The pseudonym of an image is a digest of its name, so the same images of two runs are recognised. Whoever knows the
    names, or can guess them all, finds an image by its pseudonym: it hides a name, and makes nothing anonymous.
    Patients are numbered in the order of the images, which is that of the pseudonyms. So the predictions of two models
    for the same images have the same images, labels and groups in the same order, whatever order they came in; those
    that are pseudonymous already stay as they are.

    Args:
        predictions: n images.
    """
    names = np.array([_pseudonym(str(name)) for name in predictions.image_id])
    order = np.argsort(names, kind="stable")
    ordered = predictions.subset(order)
    numbers = pd.factorize(ordered.group)[0] + 1
    return replace(ordered, image_id=names[order], group=np.array([f"patient-{number}" for number in numbers]))


def _pseudonym(name: str) -> str:
    digits = name.removeprefix(PREFIX)
    if digits != name and len(digits) == _DIGITS and set(digits) <= set("0123456789abcdef"):
        return name
    return PREFIX + hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()[:_DIGITS]
