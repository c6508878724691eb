"""Export: a trained network becomes a bundle, and every way of asking it is held against the others."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from scanbook import bundle, dicom, engines, explain
from scanbook.bundle import Bundle
from scanbook.manifest import Manifest
from scanbook.study import Study

DICOM_PACKAGES = ("pydicom", "python-gdcm")
"""What a service needs to read DICOM, where the study's images are such files."""


def asks_for(study: Study) -> str:
    """What a service of the study's model has to be sent, as report and model card say it."""
    if study.input == "original":
        return "Send images as the camera took them."
    form = "cut out by a mask" if study.input == "cutout" else "cropped to the box of a mask"
    return (
        f"Send images that are already {form}, as the study's `segmentation` makes them: the model learned from these "
        "alone, and the service does not segment."
    )


def write_bundle(
    folder: Path,
    study: Study,
    manifest: Manifest,
    model: Any,
    *,
    temperature: float,
    abstain_below: float,
    metrics: pd.DataFrame,
    about: dict[str, str],
) -> Bundle:
    """Exports a trained network as a bundle.

    Args:
        folder: Where the bundle goes; an older bundle there is replaced.
        study: The study; gives image size and texts.
        manifest: The dataset; gives the class order.
        model: A trained network of `backbones.build`, from uint8 images to logits.
        temperature: Fitted on validation.
        abstain_below: Confidence under which the service answers "not sure", chosen on validation.
        metrics: Test metrics, as `evaluation.summary` gives them: `value`, `low`, `high` by metric.
        about: Further topics for the model card.
    """
    exported = explain.with_heat_maps(model, temperature)
    with tempfile.TemporaryDirectory() as work:
        xml, keras_file = Path(work) / "model.xml", Path(work) / "model.keras"
        engines.save_openvino(engines.to_openvino(exported), xml)
        exported.save(keras_file)
        return bundle.write(
            folder,
            name=study.study,
            classes=manifest.classes,
            image_size=study.size,
            temperature=temperature,
            abstain_below=abstain_below,
            models={"openvino": xml, "keras": keras_file},
            packages=DICOM_PACKAGES if any(map(dicom.is_dicom_file, manifest.frame["path"].head(32))) else (),
            metrics=metrics.to_dict(orient="index"),
            about={
                "title": study.title,
                "question": study.question,
                "data": f"{study.runs_on}: {len(manifest.frame)} images, {manifest.frame['group'].nunique()} groups",
                "licence": study.licence,
                "profile": study.profile,
                "input": asks_for(study),
                **about,
            },
        )


def parity_table(reference: np.ndarray, answers: dict[str, np.ndarray]) -> pd.DataFrame:
    """Holds probabilities from several places against a reference.

    Args:
        reference: Probabilities of the trained model itself, `(n, k)`.
        answers: Probabilities of the same images by place.

    Returns:
        One row a place: `difference`, of the logits, as a share of their spread; `same class`, how many of the images;
        `agrees`, whether the difference is within `engines.PARITY`.
    """
    rows = {}
    for place, probabilities in answers.items():
        difference = engines.parity(engines.centred_log(reference), engines.centred_log(probabilities))
        same = int((reference.argmax(1) == probabilities.argmax(1)).sum())
        rows[place] = {
            "difference": difference,
            "same class": f"{same} of {len(reference)}",
            "agrees": difference <= engines.PARITY,
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("place")
