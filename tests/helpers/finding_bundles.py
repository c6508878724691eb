"""Bundles of findings, whose model finds colours: each finding is present where one channel is bright."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from helpers.bundles import SIZE
from scanbook import bundle

FINDINGS = (
    *("Atelectasis", "Cardiomegaly", "Effusion", "Infiltration", "Mass", "Nodule", "Pneumonia", "Pneumothorax"),
    *("Consolidation", "Edema", "Emphysema", "Fibrosis", "Pleural Thickening", "Hernia"),
)
"""Those of ChestX-ray14; finding i depends on channel i % 3."""
NAMES = {
    "pt": ("Atelectasia", "Cardiomegalia", "Derrame"),
    "ko": ("무기폐", "심비대", "흉수"),
}
"""Names of the first three in Portuguese and Korean."""
GAIN = 6.0


def names(count: int) -> tuple[str, ...]:
    """Return the names of some findings; beyond 14 they are numbered."""
    return (*FINDINGS[:count], *(f"Finding {number}" for number in range(len(FINDINGS) + 1, count + 1)))


def shift(count: int) -> np.ndarray:
    """Return what is added to the logits of findings, so that those of one channel differ."""
    return -0.5 * GAIN - 0.4 * (np.arange(count) // 3)


def write(
    folder: Path, count: int = 3, *, models: dict[str, Path] | None = None, dataset_card: str = "", **changes
) -> bundle.Bundle:
    """Write a bundle of findings.

    Args:
        folder: Folder of the bundle.
        count: Number of findings.
        models: Model of each format; by default only an OpenVINO model.
        dataset_card: Markdown of the dataset card.
        changes: Attributes of the bundle that differ from the defaults here.
    """
    findings = names(count)
    values = {
        "name": "chest",
        "classes": (),
        "findings": findings,
        "image_size": SIZE,
        "calibration": calibration(findings),
        "operating_points": points(findings),
        "metrics": {"auroc": {"value": 0.8, "low": 0.7, "high": 0.9}, "images": 40},
        "about": {"title": "Which findings?", "data": "plain images", "licence": "CC0"},
    }
    models = models or {"openvino": graph(folder.parent / "model.xml", count)}
    return bundle.write(bundle.Bundle(folder, **values | changes), models, dataset_card=dataset_card)


def calibration(findings: tuple[str, ...], slope: float = 1.0, offset: float = 0.0) -> dict[str, dict]:
    """Return one calibration for all findings."""
    return {name: {"slope": slope, "offset": offset, "method": "Platt"} for name in findings}


def points(findings: tuple[str, ...], threshold: float | None = 0.5, margin: float = 1.0) -> dict[str, dict]:
    """Return one operating point for all findings."""
    rates = {rate: {"value": 0.8, "low": 0.7, "high": 0.9} for rate in ("sensitivity", "specificity")}
    return {name: {"threshold": threshold, "margin": margin, **rates} for name in findings}


def exam(findings: tuple[str, ...], rule: str = "mean", **changes) -> dict:
    """Return the block of exams: by default its calibration and thresholds are those of the images."""
    block = {"rule": rule, "calibration": calibration(findings), "operating_points": points(findings)}
    return block | {"metrics": {"auroc": {"value": 0.85, "low": 0.8, "high": 0.9}}} | changes


def graph(path: Path, count: int = 3, gain: float = GAIN) -> Path:
    """Write an OpenVINO graph: logit i = gain × mean of channel i % 3 (0 to 1) + `shift`, then a sigmoid of each."""
    import openvino as ov  # after scanbook, which turns off its telemetry
    from openvino import opset13 as ops

    source = ops.parameter([-1, *SIZE, 3], np.uint8, name="images")
    shares = ops.divide(ops.convert(source, "f32"), ops.constant(np.float32(255)))
    mean = ops.reduce_mean(shares, ops.constant(np.array([1, 2])), False)
    weights = np.eye(3, dtype=np.float32)[:, np.arange(count) % 3]
    logits = ops.add(
        ops.matmul(mean, ops.constant(gain * weights), False, False), ops.constant(shift(count).astype(np.float32))
    )
    maps = ops.matmul(shares, ops.constant(weights), False, False)
    ov.save_model(ov.Model([ops.sigmoid(logits), maps], [source], "findings"), path, compress_to_fp16=False)
    return path
