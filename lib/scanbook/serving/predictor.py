"""From the bytes of image files to answers, through the same decoder and the same model as the notebooks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from scanbook import images
from scanbook.bundle import Bundle
from scanbook.engines import OpenVinoEngine
from scanbook.errors import BundleError, ImageError

SHOWN = 720
"""Longest side of a picture in an answer, in pixels."""


@dataclass(frozen=True)
class Prediction:
    """The answer for one image.

    Attributes:
        label: The likeliest class.
        confidence: Its calibrated probability.
        abstained: Whether that is too low for an answer.
        probabilities: Calibrated, in class order, float32 `(k,)`.
        picture: The image as JPEG, upright, at most `SHOWN` pixels a side; empty where not asked for.
        heat_map: The likeliest class's activation, a transparent PNG of the picture's size; empty where not asked for.
    """

    label: str
    confidence: float
    abstained: bool
    probabilities: np.ndarray
    picture: bytes = b""
    heat_map: bytes = b""


class Predictor:
    """A bundle's model, ready to answer. Threads may share it.

    Args:
        bundle: A loaded bundle.
        threads: Processors to use; None for all.

    Raises:
        BundleError: The model does not give probabilities.
    """

    def __init__(self, bundle: Bundle, threads: int | None = None) -> None:
        self.bundle = bundle
        self._engine = OpenVinoEngine(bundle.model, threads=threads)
        # the first answer is slow, and a model that cannot answer must not start
        sums = self._engine.predict(np.zeros((1, *bundle.image_size, 3), np.uint8))[0].sum(axis=1)
        if not np.allclose(sums, 1, atol=1e-3):
            raise BundleError(
                f"{bundle.model} gives outputs that sum to {sums[0]:.4g}, expected 1; export the model again"
            )

    def predict(self, sources: Sequence[bytes], pictures: bool = False) -> list[Prediction]:
        """Answers for image files.

        Args:
            sources: Bytes of each image file.
            pictures: Whether to draw `picture` and `heat_map` too.

        Returns:
            One prediction a source, in their order.

        Raises:
            ImageError: A source is no image; the message says which.
        """
        inputs = np.empty((len(sources), *self.bundle.image_size, 3), np.uint8)
        shown = []
        for index, source in enumerate(sources):
            try:
                pixels = images.read(source)
            except ImageError as error:
                if len(sources) == 1:
                    raise
                raise ImageError(f"image {index + 1} of {len(sources)}: {error}") from error
            inputs[index] = images.resize(pixels, self.bundle.image_size)
            if pictures:
                shown.append(_reduce(pixels))
            del pixels  # up to 150 MB; the next one must not add to it
        probabilities, maps = self._engine.predict(inputs)
        answers = []
        for index, row in enumerate(probabilities):
            top = int(row.argmax())
            confidence = float(row[top])
            drawn = {}
            if pictures:
                picture = shown[index]
                drawn = {"picture": _jpeg(picture), "heat_map": overlay(maps[index, ..., top], picture.shape[:2])}
            answers.append(
                Prediction(self.bundle.classes[top], confidence, confidence < self.bundle.abstain_below, row, **drawn)
            )
        return answers


def overlay(heat_map: np.ndarray, size: tuple[int, int]) -> bytes:
    """A class-activation map as a picture to lay over the image.

    What speaks against the class is transparent, the strongest evidence for it yellow and most opaque.

    Args:
        heat_map: float32 `(h', w')`, not normalised.
        size: Height and width of the picture, in pixels.

    Returns:
        PNG, RGBA.
    """
    height, width = size
    positive = np.maximum(heat_map, 0).astype(np.float32)
    positive /= max(float(positive.max()), 1e-9)
    strength = (cv2.resize(positive, (width, height), interpolation=cv2.INTER_CUBIC).clip(0, 1) * 255).astype(np.uint8)
    colours = cv2.applyColorMap(strength, cv2.COLORMAP_VIRIDIS)
    alpha = cv2.multiply(strength, 0.6)
    return cv2.imencode(".png", np.dstack((colours, alpha)))[1].tobytes()


def _reduce(pixels: np.ndarray) -> np.ndarray:
    height, width = pixels.shape[:2]
    scale = min(1.0, SHOWN / max(height, width))
    return images.resize(pixels, (max(1, round(height * scale)), max(1, round(width * scale))))


def _jpeg(pixels: np.ndarray) -> bytes:
    return cv2.imencode(".jpg", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 88])[1].tobytes()
