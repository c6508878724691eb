"""From the bytes of image files to answers, through the same decoder and the same model as the notebooks."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import cv2
import numpy as np

from scanbook import runtime
from scanbook.bundle import Bundle
from scanbook.data import images
from scanbook.errors import BundleError, ImageError, ScanbookError
from scanbook.models.engines import Mode, OpenVinoEngine
from scanbook.models.engines.openvino import Inference, OpenVinoQueue, read_openvino
from scanbook.serving.metrics import Metrics
from scanbook.serving.settings import Settings
from scanbook.serving.uploads import MAX_IMAGES

SHOWN = 720
"""Longest side of a picture in an answer, in pixels."""
ALONE: Mode = "latency"
"""How an image runs that is the only one: on all processors, so that it is answered soonest."""
TOGETHER: Mode = "throughput"
"""How images run that are several: each on its share of the processors, since none has to wait for another then. The
answers are the same to the bit; the second copy of the model costs a fifth to a third more memory."""
LONGEST = 60
"""Seconds after which an inference counts as lost."""


class BusyError(ScanbookError):
    """As many images wait as may; nothing was decoded."""


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
        settings: Its `precision` and its `queue`.
        cores: Processors to use; None for all.
        metrics: Where to count.

    Attributes:
        most: Images that one call may bring.

    Raises:
        BundleError: The model does not give probabilities, or there is none of that precision.
    """

    def __init__(
        self,
        bundle: Bundle,
        settings: Settings | None = None,
        cores: int | None = None,
        metrics: Metrics | None = None,
    ) -> None:
        settings = settings or Settings()
        self.bundle = bundle
        self.most = min(MAX_IMAGES, settings.queue)
        self._metrics = metrics or Metrics()
        self._room, self._taken, self._counting = settings.queue, 0, threading.Lock()
        # a picture of 50 megapixels unpacks to 150 MB: as many at a time as there are processors to unpack them
        self._decoding = threading.BoundedSemaphore(cores or runtime.cores())
        model = bundle.model_of(settings.precision)
        graph = read_openvino(model)
        self._queues = {mode: OpenVinoQueue(OpenVinoEngine(graph, mode, cores)) for mode in (ALONE, TOGETHER)}
        # the first answer of each request is slow, and a model that cannot answer must not start
        blank = np.zeros((1, *bundle.image_size, 3), np.uint8)
        for queue in self._queues.values():
            for promised in [queue.submit(blank) for _ in range(queue.requests)]:
                total = promised.result(LONGEST)[0].sum()
                if not np.isclose(total, 1, atol=1e-3):
                    raise BundleError(f"{model} gives outputs that sum to {total:.4g}, expected 1; export it again")
        self._metrics.serves(bundle.name, settings.precision, settings.queue)

    @property
    def full(self) -> bool:
        """Whether not one more image would be taken."""
        return self._taken >= self._room

    def predict(self, sources: Sequence[bytes], pictures: bool = False) -> list[Prediction]:
        """Answers for image files.

        Args:
            sources: Bytes of each image file, at most `most`.
            pictures: Whether to draw `picture` and `heat_map` too.

        Returns:
            One prediction a source, in their order.

        Raises:
            BusyError: There is no room for them.
            ImageError: A source is no image; the message says which.
        """
        with self._admitted(len(sources)):
            begun = []
            for number, source in enumerate(sources, 1):
                try:
                    begun.append(self._begin(source))
                except ImageError as error:
                    if len(sources) == 1:
                        raise
                    raise ImageError(f"image {number} of {len(sources)}: {error}", error.reason) from error
            return [self._finish(each, source, pictures) for each, source in zip(begun, sources, strict=True)]

    def outcomes(self, sources: Sequence[bytes], pictures: bool = False) -> list[Prediction | ImageError]:
        """As `predict`, but with the error in the place of the answer where a source is no image."""
        with self._admitted(len(sources)):
            begun: list[Inference | ImageError] = []
            for source in sources:
                try:
                    begun.append(self._begin(source))
                except ImageError as error:
                    begun.append(error)
            return [
                each if isinstance(each, ImageError) else self._finish(each, source, pictures)
                for each, source in zip(begun, sources, strict=True)
            ]

    @contextmanager
    def _admitted(self, count: int) -> Iterator[None]:
        """Room for some images, or a refusal at once."""
        with self._counting:
            if self._taken + count > self._room:
                raise BusyError(
                    f"{self._taken} images wait already; at most {self._room} may, so ask again in a moment"
                )
            self._taken += count
        self._metrics.queued(count)
        try:
            yield
        finally:
            with self._counting:
                self._taken -= count
            self._metrics.queued(-count)

    def _begin(self, source: bytes) -> Inference:
        with self._decoding:
            started = time.perf_counter()
            try:
                pixels = images.load(source, self.bundle.image_size)
            except ImageError as error:
                self._metrics.refused(error.reason)
                raise
            decoded = time.perf_counter()
        begun = self._queues[ALONE if self._taken == 1 else TOGETHER].submit(pixels[None])
        self._metrics.took("decoding", decoded - started)
        self._metrics.took("waiting", begun.started - decoded)
        return begun

    def _finish(self, begun: Inference, source: bytes, pictures: bool) -> Prediction:
        probabilities, maps = (output[0] for output in begun.result(LONGEST))
        self._metrics.took("inference", begun.seconds)
        top = int(probabilities.argmax())
        confidence = float(probabilities[top])
        abstained = confidence < self.bundle.abstain_below
        self._metrics.image(abstained)
        drawn = self._draw(source, maps[..., top]) if pictures else {}
        return Prediction(self.bundle.classes[top], confidence, abstained, probabilities, **drawn)

    def _draw(self, source: bytes, heat_map: np.ndarray) -> dict[str, bytes]:
        with self._decoding:
            picture = _reduce(images.read(source))
        return {"picture": _jpeg(picture), "heat_map": overlay(heat_map, picture.shape[:2])}


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
