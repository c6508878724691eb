"""A trained network in every format, each held against the network itself before anything is exported."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from scanbook import bundle, evaluation
from scanbook.config import Study
from scanbook.data.manifest import TEST, TRAIN, VALIDATION, Manifest
from scanbook.errors import BundleError, ModelError
from scanbook.models import engines
from scanbook.registry import BACKBONES

FIXED = 32
"""Images on which every format has to agree with the trained network."""


@dataclass(frozen=True)
class Saved:
    """A network on disk.

    Attributes:
        paths: Its file or folder in each format that may be used.
        reference: The network's own probabilities for the fixed images, float32 `(m, k)`.
        parity: `parity_table` of every format.
        control: The same of images whose red and blue are swapped; no row where they have no colour.
        int8: See `Bundle`.
        excluded: Why a format may not be used, or is not there.
    """

    paths: dict[str, Path]
    reference: np.ndarray
    parity: pd.DataFrame
    control: pd.DataFrame
    int8: dict[str, Any]
    excluded: dict[str, str]


def fixed(manifest: Manifest) -> np.ndarray:
    """The images on which formats are compared: the first `FIXED` of test, and where it has fewer, of validation too.

    Returns:
        Row numbers, int64 `(m,)`.
    """
    return np.concatenate([manifest.rows(split) for split in (TEST, VALIDATION)])[:FIXED]


def save_plain(exported: Any, folder: Path) -> Any:
    """Writes Keras and OpenVINO in float32, and returns the `openvino.Model`.

    Args:
        exported: A network of `explain.with_heat_maps`.
        folder: Where they go, under the names of `bundle.FILES`.
    """
    converted = engines.to_openvino(exported)
    engines.save_openvino(converted, folder / bundle.FILES["openvino"])
    exported.save(folder / bundle.FILES["keras"])
    return converted


def save(
    study: Study, manifest: Manifest, images: np.ndarray, exported: Any, *, name: str, logits: np.ndarray, folder: Path
) -> Saved:
    """Writes every format and compares its answers with the network's.

    Args:
        study: How int8 is made, and the seed.
        manifest: The dataset, split.
        images: Its pixels, uint8 `(n, h, w, 3)`.
        exported: A network of `explain.with_heat_maps`.
        name: Of the trained `keras.Model`, which says what its backbone is.
        logits: The trained network's for the validation images, by Keras, float32 `(v, k)`.
        folder: Where they go, under the names of `bundle.FILES`.

    Raises:
        BundleError: A float32 format does not agree, or the comparison does not notice that red and blue are swapped.
    """
    paths = {style: folder / name for style, name in bundle.FILES.items()}
    excluded: dict[str, str] = {}
    converted = save_plain(exported, folder)
    engines.to_saved_model(exported, paths["saved_model"])
    try:
        engines.to_onnx(exported, paths["onnx"])
    except ModelError as error:  # an extra, which most installations lack
        excluded["onnx"] = str(error)
    engines.save_openvino(quantised(study, manifest, images, converted, name), paths["openvino_int8"])
    opened = {style: engines.open_saved(path) for style, path in paths.items() if path.exists()}
    int8, why = _int8(study, manifest, images, logits, opened["openvino_int8"])
    rows = fixed(manifest)
    shown = np.ascontiguousarray(images[rows])
    reference = engines.KerasEngine(exported).predict(shown)[0]
    answers = {bundle.FORMAT_NAMES[style]: engine.predict(shown)[0] for style, engine in opened.items()}
    table, place = parity_table(reference, answers), bundle.FORMAT_NAMES["openvino_int8"]
    on_fixed = _int8_on_fixed(reference, answers[place], manifest.y[rows])
    table.loc[place, "agrees"] = not on_fixed
    if why or on_fixed:
        excluded["openvino_int8"] = why or on_fixed
    exact = {bundle.FORMAT_NAMES[style]: engine for style, engine in opened.items() if style != "openvino_int8"}
    _check_parity(table.loc[list(exact)], len(rows))
    control = _swapped(shown, reference, exact)
    usable = {style: paths[style] for style in opened if style not in excluded}
    return Saved(usable, reference, table, control, int8, excluded)


def _check_parity(table: pd.DataFrame, count: int) -> None:
    apart = table[~table["agrees"].astype(bool)]
    if len(apart):
        raise BundleError(
            f"{apart.index[0]} does not answer as the trained network: logits differ by "
            f"{apart['difference'].iloc[0]:.2g} of their spread on {count} images, at most {engines.PARITY:g} is "
            "allowed; nothing was exported: check the versions of Keras and of what writes this format"
        )


def _swapped(shown: np.ndarray, reference: np.ndarray, opened: dict[str, engines.Engine]) -> pd.DataFrame:
    """`parity_table` of images with red and blue swapped, on which none may agree; empty where there is no colour."""
    if np.abs(shown[..., 0].astype(np.int16) - shown[..., 2]).mean() < 1:
        return pd.DataFrame()
    swapped = np.ascontiguousarray(shown[..., ::-1])
    table = parity_table(reference, {place: engine.predict(swapped)[0] for place, engine in opened.items()})
    alike = table.index[table["agrees"].astype(bool)]
    if len(alike):
        raise BundleError(
            f"{alike[0]} answers {len(shown)} images alike when red and blue are swapped, so that agreement says "
            "nothing; nothing was exported: train the network for longer"
        )
    return table


def quantised(study: Study, manifest: Manifest, images: np.ndarray, converted: Any, name: str) -> Any:
    """A network in int8, its ranges taken from training images that the study's seed draws.

    Args:
        study: Number of calibration images, and seed.
        manifest: The dataset, split.
        images: Its pixels, uint8 `(n, h, w, 3)`.
        converted: The network as an `openvino.Model`.
        name: Of the trained `keras.Model`, which says what its backbone is.
    """
    rows = np.random.default_rng(study.seed).permutation(manifest.rows(TRAIN))[: study.benchmark.calibration_images]
    transformer = any(each.pooling == "token" and name.startswith(each.name) for each in BACKBONES.values())
    return engines.quantise(converted, np.asarray(images[np.sort(rows)]), transformer)


def _int8(
    study: Study, manifest: Manifest, images: np.ndarray, logits: np.ndarray, engine: engines.Engine
) -> tuple[dict[str, Any], str]:
    """What int8 loses on the validation images, for `Bundle.int8`, and why it is left out, or ""."""
    rows = manifest.rows(VALIDATION)
    found = engines.centred_log(engine.predict(images[rows])[0])
    why = engines.refusal("int8", logits, found, manifest.y[rows])
    if not np.isfinite(found).all():
        return {}, why
    ours, usual = (manifest.predictions(VALIDATION, each) for each in (found, logits))
    change = evaluation.paired_difference(ours, usual, "accuracy", study.bootstrap_rounds, study.seed)
    figures = {
        "images": len(rows),
        "accuracy": float(ours.correct.mean()),
        "reference": float(usual.correct.mean()),
        "change": change.value,
        "low": change.low,
        "high": change.high,
    }
    return figures, why


def _int8_on_fixed(reference: np.ndarray, answers: np.ndarray, y_true: np.ndarray) -> str:
    """Why int8 does not stand for the network on a few images, or "": the loss that it may have, rounded up."""
    right, expected = (int((each.argmax(1) == y_true).sum()) for each in (answers, reference))
    allowed = int(np.ceil(engines.INT8_LOSS * len(y_true)))
    if np.isfinite(answers).all() and expected - right <= allowed:
        return ""
    return (
        f"int8: right on {right} of {len(y_true)} fixed images, the trained network on {expected}; "
        f"it may lose {allowed} of them"
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
