"""Export: a trained network becomes a bundle, and every way of asking it is held against the others."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from scanbook import bundle, engines, explain
from scanbook.bundle import Bundle
from scanbook.manifest import Manifest
from scanbook.study import Study

PARITY = 1e-3
"""Largest difference of logits between engines, as a share of their spread, that still counts as the same model."""


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
            metrics=metrics.to_dict(orient="index"),
            about={
                "title": study.title,
                "question": study.question,
                "data": f"{study.dataset.source}: {len(manifest.frame)} images, "
                f"{manifest.frame['group'].nunique()} groups",
                "licence": study.dataset.licence,
                "profile": study.profile,
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
        `agrees`, whether the difference is within `PARITY`.
    """
    rows = {}
    for place, probabilities in answers.items():
        difference = engines.parity(engines.centred_log(reference), engines.centred_log(probabilities))
        same = int((reference.argmax(1) == probabilities.argmax(1)).sum())
        rows[place] = {
            "difference": difference,
            "same class": f"{same} of {len(reference)}",
            "agrees": difference <= PARITY,
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("place")
