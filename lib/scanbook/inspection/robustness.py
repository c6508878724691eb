"""Robustness: predictions for images with five corruptions at five severities.

Kinds and strengths are those of ImageNet-C (Hendrycks and Dietterich, "Benchmarking neural network robustness to common
corruptions and perturbations", ICLR 2019).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial

import cv2
import numpy as np
import pandas as pd

from scanbook import runtime
from scanbook.config import Study
from scanbook.data.manifest import TEST, Manifest
from scanbook.errors import DataError
from scanbook.evaluation import METRICS, AnyPredictions, FindingPredictions, main_metric, summary
from scanbook.evaluation.metrics import class_auroc
from scanbook.models.engines import Engine

SEVERITIES = (1, 2, 3, 4, 5)
_NOISE = (0.08, 0.12, 0.18, 0.26, 0.38)  # standard deviation, as a share of 255
_BLUR = (3, 4, 6, 8, 10)  # radius of the disc in pixels, on images of `_SIDE` pixels
_BRIGHTNESS = (0.1, 0.2, 0.3, 0.4, 0.5)  # added to the value of HSV, as a share of 255
_JPEG = (25, 18, 15, 10, 7)  # quality
_CONTRAST = (0.4, 0.3, 0.2, 0.1, 0.05)  # factor about each channel's mean
_SIDE = 224
_SUBPIXELS = 16


def corrupt(images: np.ndarray, kind: str, severity: int, seed: int = 0) -> np.ndarray:
    """Corrupt images.

    `noise` is Gaussian, one sample at all severities; `blur` is out of focus; `brightness` raises the value of HSV;
    `jpeg` is compression; `contrast` shrinks each channel towards its mean. ImageNet-C blurs images of 224 pixels by a
    disc with a radius of 3 to 10; here it is the same share of the shorter side: at 32 pixels 0.4 to 1.4, where its
    authors took 0.3 to 1.5 (CIFAR-10-C). The disc is smoothed by half a pixel, like theirs, so that even the smallest
    images change. The other strengths do not depend on the size.

    Args:
        images: uint8 RGB `(n, h, w, 3)`.
        kind: A name in `KINDS`.
        severity: 0, images as they are, to 5.
        seed: Seed of the noise; the noise of an image depends on it and on the image's place.

    Returns:
        uint8 `(n, h, w, 3)`.

    Raises:
        DataError: The kind or the severity is unknown.
    """
    if kind not in KINDS:
        raise DataError(f"corruption {kind!r} is unknown: expected one of {', '.join(KINDS)}")
    if severity not in (0, *SEVERITIES):
        raise DataError(f"severity is {severity!r}: expected a whole number from 0, as it is, to {SEVERITIES[-1]}")
    images = np.asarray(images)
    if severity == 0:
        return images.copy()
    with ThreadPoolExecutor(runtime.cores()) as pool:
        places = range(len(images))
        corrupted = list(pool.map(lambda place: KINDS[kind](images[place], severity - 1, [seed, place]), places))
    return np.stack(corrupted) if corrupted else images.copy()


def examples(image: np.ndarray, seed: int = 0) -> dict[str, list[np.ndarray]]:
    """Return an image, uint8 `(h, w, 3)`, after every corruption, by kind: unchanged, then mild to severe."""
    return {kind: [corrupt(image[None], kind, severity, seed)[0] for severity in (0, *SEVERITIES)] for kind in KINDS}


def test_image_curves(study: Study, manifest: Manifest, images: np.ndarray, engine: Engine) -> pd.DataFrame:
    """Return the curves of the study's test images, `evaluation.robustness_images` of them at equal distances.

    Args:
        study: Study with the numbers of images and resamples, and the seed.
        manifest: The dataset, split.
        images: Images of all its rows, uint8 RGB `(n, h, w, 3)`.
        engine: Engine whose first output is logits, `(n, k)`.

    Returns:
        The table of `curves`.
    """
    rows = manifest.rows(TEST)
    chosen = np.linspace(0, len(rows) - 1, min(len(rows), study.evaluation.robustness_images)).round().astype(int)
    rows = rows[chosen]
    subset = manifest.with_frame(manifest.frame.iloc[rows])
    predict = partial(subset.predictions, TEST)
    return curves(engine, np.asarray(images[rows]), predict, **study.resamples)


def curves(
    engine: Engine,
    images: np.ndarray,
    predict: Callable[[np.ndarray], AnyPredictions],
    *,
    rounds: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """Return accuracy and AUROC by corruption and severity; of findings AUROC, and that of each.

    Args:
        engine: Engine whose first output is logits, `(n, k)`.
        images: uint8 RGB `(n, h, w, 3)`.
        predict: Returns the predictions of logits, `(n, k)`, for these images.
        rounds: Number of resamples.
        seed: Seed of noise and resamples.

    Returns:
        One row per kind and severity, from 0, unchanged images: `kind`, `severity`, `images`, `accuracy`, the `low` and
        `high` end of its 95 % interval from the group bootstrap, and macro `auroc`. Of findings: macro `auroc` with its
        ends, and `auroc: <finding>`.
    """

    def metrics(corrupted: np.ndarray) -> dict[str, float]:
        predictions = predict(np.asarray(engine.predict(corrupted)[0], np.float64))
        main = main_metric(predictions)
        value, low, high = summary(predictions, (main,), rounds, seed).loc[main]
        values = {main: value, "low": low, "high": high}
        if isinstance(predictions, FindingPredictions):
            areas = class_auroc(predictions.y_true, predictions.probabilities)[0]
            return values | {f"auroc: {name}": area for name, area in zip(predictions.findings, areas, strict=True)}
        return values | {"auroc": METRICS["auroc"].point(predictions)}

    unchanged = metrics(images)
    rows = []
    for kind in runtime.progress(list(KINDS), "robustness"):
        for severity in (0, *SEVERITIES):
            values = metrics(corrupt(images, kind, severity, seed)) if severity else unchanged
            rows.append({"kind": kind, "severity": severity, "images": len(images)} | values)
    return pd.DataFrame(rows)


def _noise(image: np.ndarray, level: int, seed: Sequence[int]) -> np.ndarray:
    noise = np.random.default_rng(seed).standard_normal(image.shape, np.float32)
    return _levels(image + 255 * _NOISE[level] * noise)


def _blur(image: np.ndarray, level: int, seed: Sequence[int]) -> np.ndarray:
    return cv2.filter2D(image, -1, _disc(_BLUR[level] * min(image.shape[:2]) / _SIDE))


@cache
def _disc(radius: float) -> np.ndarray:
    """Return a disc of a radius in pixels, smoothed by half a pixel: its share in each pixel; the sum is 1."""
    reach = int(np.ceil(radius)) + 2
    side = 2 * reach + 1
    fine = (np.arange(side * _SUBPIXELS) + 0.5) / _SUBPIXELS - side / 2
    inside = (np.hypot(fine[:, None], fine) <= max(radius, 1 / _SUBPIXELS)).astype(np.float32)
    smooth = cv2.GaussianBlur(inside, (0, 0), 0.5 * _SUBPIXELS, borderType=cv2.BORDER_CONSTANT)
    pixels = smooth.reshape(side, _SUBPIXELS, side, _SUBPIXELS).mean((1, 3))
    return pixels / pixels.sum()


def _brightness(image: np.ndarray, level: int, seed: Sequence[int]) -> np.ndarray:
    hsv = cv2.cvtColor(image.astype(np.float32) / 255, cv2.COLOR_RGB2HSV)
    hsv[..., 2] = np.minimum(hsv[..., 2] + _BRIGHTNESS[level], 1)
    return _levels(255 * cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB))


def _jpeg(image: np.ndarray, level: int, seed: Sequence[int]) -> np.ndarray:
    # OpenCV's order is blue, green, red: it decides the chroma, which JPEG stores more coarsely
    _, file = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, _JPEG[level]])
    return cv2.imdecode(file, cv2.IMREAD_COLOR)[..., ::-1]


def _contrast(image: np.ndarray, level: int, seed: Sequence[int]) -> np.ndarray:
    mean = image.mean((0, 1), keepdims=True)
    return _levels((image - mean) * _CONTRAST[level] + mean)


def _levels(values: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


KINDS: dict[str, Callable[[np.ndarray, int, Sequence[int]], np.ndarray]] = {
    "noise": _noise,
    "blur": _blur,
    "brightness": _brightness,
    "jpeg": _jpeg,
    "contrast": _contrast,
}
"""Corruptions of one image, by name: functions of its pixels, the severity from 0, and a seed."""
