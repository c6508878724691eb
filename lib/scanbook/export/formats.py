"""A trained network in every format, each compared with the network itself before anything is exported."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from scanbook import bundle, evaluation
from scanbook.bundle.answering import comparable_logits, log_odds
from scanbook.config import Study
from scanbook.data.manifest import TEST, TRAIN, VALIDATION, Manifest
from scanbook.errors import BundleError, ModelError
from scanbook.evaluation import Calibration
from scanbook.models import engines

FIXED = 32
"""Number of images on which every format has to agree with the trained network."""


@dataclass(frozen=True)
class Saved:
    """A network on disk.

    Attributes:
        paths: File or folder of each format that may be used.
        reference: The network's own probabilities for the fixed images, float32 `(m, k)`.
        parity: `parity_table` of every format.
        control: The same for images with red and blue swapped; no row for images without colour.
        int8: Loss of each format in int8, as `Bundle.losses` has it.
        excluded: Reason why a format may not be used or is missing.
        thresholds: Of findings that of each, float64 `(k,)`; None of classes.
    """

    paths: dict[str, Path]
    reference: np.ndarray
    parity: pd.DataFrame
    control: pd.DataFrame
    int8: dict[str, dict[str, Any]]
    excluded: dict[str, str]
    thresholds: np.ndarray | None = None


def select_fixed(manifest: Manifest) -> np.ndarray:
    """Return the images on which formats are compared: the first `FIXED` of test, then of validation.

    Returns:
        Row numbers, int64 `(m,)`.
    """
    return np.concatenate([manifest.rows(split) for split in (TEST, VALIDATION)])[:FIXED]


def save_plain(exported: Any, folder: Path) -> Any:
    """Write Keras and OpenVINO in float32; return the `openvino.Model`.

    Args:
        exported: A network of `grad_cam.add_heat_maps`.
        folder: Folder of the files, which have the names of `bundle.FILES`.
    """
    converted = engines.to_openvino(exported)
    engines.save_openvino(converted, folder / bundle.FILES["openvino"])
    exported.save(folder / bundle.FILES["keras"])
    return converted


def save(
    study: Study,
    manifest: Manifest,
    images: np.ndarray,
    exported: Any,
    *,
    logits: np.ndarray,
    folder: Path,
    calibration: float | Calibration = 1.0,
    thresholds: np.ndarray | None = None,
) -> Saved:
    """Write every format and compare its outputs with the network's.

    Args:
        study: Settings of int8, and the seed.
        manifest: The dataset, split.
        images: Its pixels, uint8 `(n, h, w, 3)`.
        exported: A network of `grad_cam.add_heat_maps`.
        logits: Logits of the trained network for the validation images, by Keras, float32 `(v, k)`.
        folder: Folder of the files, which have the names of `bundle.FILES`.
        calibration: That of the network; of findings it changes which answers are correct.
        thresholds: Of findings that of each, float64 `(k,)`, NaN for none; None of classes.

    Raises:
        BundleError: A float32 format does not agree, or the comparison does not notice swapped red and blue.
    """
    paths = {style: folder / name for style, name in bundle.FILES.items()}
    converted = save_plain(exported, folder)
    engines.to_saved_model(exported, paths["saved_model"])
    engines.save_openvino(quantise(study, manifest, images, converted), paths["openvino_int8"])
    excluded = _write_extras(exported, paths, calibration_images(study, manifest, images))
    opened = {style: engines.open_saved(path) for style, path in paths.items() if path.exists()}
    rows = select_fixed(manifest)
    fixed = np.ascontiguousarray(images[rows])
    reference = engines.KerasEngine(exported).predict(fixed)[0]
    outputs = {bundle.FORMAT_NAMES[style]: engine.predict(fixed)[0] for style, engine in opened.items()}
    table = parity_table(reference, outputs, thresholds)
    y_true = manifest.y[rows] if thresholds is None else manifest.labels.values[rows]
    int8: dict[str, dict[str, Any]] = {}
    for style in filter(opened.__contains__, bundle.INT8):
        if thresholds is None:
            int8[style], reason = _measure_int8(study, manifest, images, logits, opened[style])
        else:
            expected = manifest.predictions(VALIDATION, logits, calibration)
            int8[style], reason = _measure_int8_findings(
                study, manifest, images, expected, engine=opened[style], thresholds=thresholds
            )
        place = bundle.FORMAT_NAMES[style]
        reason_on_fixed = _check_int8(reference, outputs[place], y_true, thresholds)
        table.loc[place, "agrees"] = not reason_on_fixed
        if reason or reason_on_fixed:
            excluded[style] = reason or reason_on_fixed
    exact = {bundle.FORMAT_NAMES[style]: engine for style, engine in opened.items() if style not in bundle.INT8}
    _check_parity(table.loc[list(exact)], len(rows))
    control = _check_swapped(fixed, reference, exact, thresholds)
    usable = {style: paths[style] for style in opened if style not in excluded}
    return Saved(usable, reference, table, control, int8, excluded, thresholds)


def _write_extras(exported: Any, paths: dict[str, Path], images: np.ndarray) -> dict[str, str]:
    """Write the formats whose packages are extras; return the reason for each that cannot be written."""
    writers: dict[str, Callable[[Path], None]] = {
        "onnx": partial(engines.to_onnx, exported),
        "litert": partial(engines.to_litert, exported),
        "litert_int8": partial(engines.to_litert_int8, exported, images=images),
    }
    excluded = {}
    for style, write in writers.items():
        try:
            write(paths[style])
        except ModelError as error:
            excluded[style] = str(error).replace(f"{paths[style].parent}{os.sep}", "")  # a temporary folder
    return excluded


def _check_parity(table: pd.DataFrame, count: int) -> None:
    different = table[~table["agrees"].astype(bool)]
    if len(different):
        raise BundleError(
            f"{different.index[0]} does not agree with the trained network: logits differ by "
            f"{different['difference'].iloc[0]:.2g} of their spread on {count} images, at most {engines.PARITY:g} is "
            "allowed; nothing was exported: check the versions of Keras and of what writes this format"
        )


def _check_swapped(
    images: np.ndarray, reference: np.ndarray, opened: dict[str, engines.Engine], thresholds: np.ndarray | None = None
) -> pd.DataFrame:
    """Return the `parity_table` of images with red and blue swapped, which none may pass; empty without colour."""
    if np.abs(images[..., 0].astype(np.int16) - images[..., 2]).mean() < 1:
        return pd.DataFrame()
    swapped = np.ascontiguousarray(images[..., ::-1])
    outputs = {name: engine.predict(swapped)[0] for name, engine in opened.items()}
    table = parity_table(reference, outputs, thresholds)
    unchanged = table.index[table["agrees"].astype(bool)]
    if len(unchanged):
        raise BundleError(
            f"{unchanged[0]} gives the same output for {len(images)} images when red and blue are swapped, so the "
            "comparison is void; nothing was exported: train the network for longer"
        )
    return table


def quantise(study: Study, manifest: Manifest, images: np.ndarray, converted: Any) -> Any:
    """Return a network in int8, calibrated on training images sampled by the study's seed.

    Args:
        study: Number of calibration images, and seed.
        manifest: The dataset, split.
        images: Its pixels, uint8 `(n, h, w, 3)`.
        converted: The network as an `openvino.Model`.
    """
    return engines.quantise(converted, calibration_images(study, manifest, images))


def calibration_images(study: Study, manifest: Manifest, images: np.ndarray) -> np.ndarray:
    """Return the training images, uint8 `(m, h, w, 3)`, that int8 is calibrated on: sampled by the study's seed."""
    rows = np.random.default_rng(study.seed).permutation(manifest.rows(TRAIN))[: study.benchmark.calibration_images]
    return np.asarray(images[np.sort(rows)])


def _measure_int8(
    study: Study, manifest: Manifest, images: np.ndarray, logits: np.ndarray, engine: engines.Engine
) -> tuple[dict[str, Any], str]:
    """Return the loss of int8 on the validation images, for `Bundle.int8`, and the reason to exclude it, or ""."""
    rows = manifest.rows(VALIDATION)
    int8_logits = engines.centred_log(engine.predict(images[rows])[0])
    reason = engines.rejection_reason("int8", logits, int8_logits, manifest.y[rows])
    if not np.isfinite(int8_logits).all():
        return {}, reason
    int8, reference = (manifest.predictions(VALIDATION, values) for values in (int8_logits, logits))
    change = evaluation.paired_difference(int8, reference, "accuracy", **study.resamples, every_class=False)
    figures = {
        "images": len(rows),
        "accuracy": float(int8.correct.mean()),
        "reference": float(reference.correct.mean()),
        "change": change.value,
        "low": change.low,
        "high": change.high,
    }
    return figures, reason


def _check_int8(
    reference: np.ndarray, outputs: np.ndarray, y_true: np.ndarray, thresholds: np.ndarray | None = None
) -> str:
    """Return the reason why int8 loses too much on the fixed images, or ""; the allowed loss is rounded up."""
    right, expected = (_right(values, y_true, thresholds) for values in (outputs, reference))
    allowed = int(np.ceil(engines.INT8_LOSS * len(right)))
    if np.isfinite(outputs).all() and expected.sum() - right.sum() <= allowed:
        return ""
    answers = "fixed images" if thresholds is None else "labels of the fixed images"
    return (
        f"int8: right on {right.sum()} of {len(right)} {answers}, the trained network on {expected.sum()}; "
        f"it may lose {allowed} of them"
    )


def _right(probabilities: np.ndarray, y_true: np.ndarray, thresholds: np.ndarray | None) -> np.ndarray:
    """Return which answers are right, bool `(m,)`: the class of each image, or each label that a threshold decides.

    A missing label is not wrong, nor is one of a finding without a threshold: neither is among them.
    """
    if thresholds is None:
        return probabilities.argmax(1) == y_true
    known = ~np.isnan(y_true) & ~np.isnan(thresholds)
    return ((probabilities >= thresholds) == (y_true == 1))[known]


def _measure_int8_findings(
    study: Study,
    manifest: Manifest,
    images: np.ndarray,
    expected: evaluation.FindingPredictions,
    *,
    engine: engines.Engine,
    thresholds: np.ndarray,
) -> tuple[dict[str, Any], str]:
    """Return what `_measure_int8` does, of findings.

    int8 may lose `INT8_LOSS` of the macro AUROC, which rare findings decide as frequent ones do, and of the labels on
    the right side of the thresholds, which a shift of all probabilities would move.
    """
    rows = manifest.rows(VALIDATION)
    outputs = engine.predict(images[rows])[0]
    if not np.isfinite(outputs).all():
        return {}, f"int8: {int((~np.isfinite(outputs)).any(1).sum())} of {len(rows)} images get no finite logits"
    int8 = manifest.predictions(VALIDATION, log_odds(outputs))
    area, reference = (evaluation.METRICS["auroc"].point(model) for model in (int8, expected))
    change = evaluation.paired_difference(int8, expected, "auroc", **study.resamples, every_class=False)
    answers = (_right(model.probabilities, expected.y_true, thresholds) for model in (int8, expected))
    right, expected_right = (float(values.mean()) if len(values) else 1.0 for values in answers)
    figures = {
        "images": len(rows),
        "auroc": area,
        "reference": reference,
        "change": change.value,
        "low": change.low,
        "high": change.high,
        "right": right,
        "right_reference": expected_right,
    }
    if reference - area > engines.INT8_LOSS:
        return figures, (
            f"int8: macro AUROC {area:.3f} on {len(rows)} validation images, Keras in float32 {reference:.3f}; it may "
            f"lose {engines.INT8_LOSS:g}"
        )
    if expected_right - right > engines.INT8_LOSS:
        return figures, (
            f"int8: right on {right:.1%} of the labels of {len(rows)} validation images, Keras in float32 on "
            f"{expected_right:.1%}; it may lose {100 * engines.INT8_LOSS:g} %"
        )
    return figures, ""


def parity_table(
    reference: np.ndarray, outputs: dict[str, np.ndarray], thresholds: np.ndarray | None = None
) -> pd.DataFrame:
    """Compare probabilities from several sources with a reference.

    Args:
        reference: Probabilities of the trained model itself, `(n, k)`.
        outputs: Probabilities of the same images by source.
        thresholds: Of findings that of each, `(k,)`, NaN for none; None of classes.

    Returns:
        One row per source: `difference` of the logits as a share of their spread; `same class`, the number of images,
        of findings `same answers`, the number of findings of all images on the same side of their threshold; `agrees`,
        whether the difference is within `engines.PARITY`.
    """
    exclusive, rows = thresholds is None, {}
    for source, probabilities in outputs.items():
        logits = (comparable_logits(values, exclusive=exclusive) for values in (reference, probabilities))
        difference = engines.parity(*logits)
        if exclusive:
            same = reference.argmax(1) == probabilities.argmax(1)
        else:
            same = (reference >= thresholds) == (probabilities >= thresholds)
        rows[source] = {
            "difference": difference,
            "same class" if exclusive else "same answers": f"{int(same.sum())} of {same.size}",
            "agrees": difference <= engines.PARITY,
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("place")
