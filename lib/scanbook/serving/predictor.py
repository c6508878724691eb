"""Predictions for image files, with the decoder and the model of the notebooks."""

from __future__ import annotations

import io
import itertools
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import cv2
import numpy as np

from scanbook import runtime
from scanbook.bundle import Bundle
from scanbook.bundle.answering import ABSENT, NOT_SURE, STATES, combine, find_answers
from scanbook.bundle.checking import compare, read_table
from scanbook.data import images
from scanbook.errors import BundleError, ImageError, ScanbookError
from scanbook.models.engines import Mode, OpenVinoEngine
from scanbook.models.engines.openvino import Inference, OpenVinoQueue, read_openvino
from scanbook.serving.metrics import Metrics
from scanbook.serving.settings import Settings
from scanbook.serving.uploads import MAX_IMAGES

SHOWN = 720
"""Longest side of a picture in a response, in pixels."""
ALONE: Mode = "latency"
"""Mode for a single image: it runs on all processors, which gives the shortest latency."""
TOGETHER: Mode = "throughput"
"""Mode for several images: each runs on its share of the processors, which gives the highest throughput. The
predictions are identical; the second copy of the model takes a fifth to a third more memory."""
MAPS = 6
"""Most findings whose heat maps are in the answer for one image, beside the one that is asked for."""
LEVELS = 64
"""Colours of the heat map of a finding."""
_OPACITY = 0.6
MAX_SECONDS = 60
"""Seconds after which an inference counts as failed."""


class BusyError(ScanbookError):
    """The queue is full; nothing was decoded."""


@dataclass(frozen=True)
class Prediction:
    """The prediction for one image, or for an exam of several, by a model of classes.

    Attributes:
        label: The most probable class.
        confidence: Its calibrated probability.
        abstained: Whether the confidence is too low for a prediction.
        probabilities: Calibrated, in class order, float `(k,)`.
        picture: The upright image as JPEG, at most `SHOWN` pixels per side; empty unless requested.
        heat_map: Activation of that class, a transparent PNG of the picture's size; empty unless requested.
    """

    label: str
    confidence: float
    abstained: bool
    probabilities: np.ndarray
    picture: bytes = b""
    heat_map: bytes = b""


@dataclass(frozen=True)
class FindingsPrediction:
    """The prediction for one image, or for an exam of several, by a model of findings.

    Attributes:
        probabilities: Calibrated, in the order of the findings, float `(k,)`.
        answers: "present", "not sure" or "absent" for each finding.
        order: Positions of the findings: those that are present, then those not sure, then the others; of each the most
            probable first.
        picture: As of `Prediction`.
        heat_maps: Activation of findings by their positions, in `order`: of those that are not absent, at most `MAPS`,
            and of the one that was asked for; as of `Prediction`, but of smaller files.
    """

    probabilities: np.ndarray
    answers: tuple[str, ...]
    order: tuple[int, ...]
    picture: bytes = b""
    heat_maps: Mapping[int, bytes] = field(default_factory=dict)


AnyPrediction = Prediction | FindingsPrediction


class Predictor:
    """The model of a bundle, loaded and warmed up. Threads may share it.

    Args:
        bundle: A loaded bundle.
        settings: Settings of the service, of which `precision` and `queue` are used.
        cores: Processors to use; None for all.
        metrics: Metrics of the service.

    Attributes:
        max_images: Most images in one call.

    Raises:
        BundleError: The model does not give probabilities or answers otherwise than when it was exported, or the bundle
            has no model of that precision.
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
        self.max_images = min(MAX_IMAGES, settings.queue)
        self._metrics = metrics or Metrics()
        self._limit, self._count, self._lock = settings.queue, 0, threading.Lock()
        # an image of 50 megapixels takes 150 MB when decoded, so at most one image per processor is decoded at a time
        self._decoding = threading.BoundedSemaphore(cores or runtime.cores())
        path = bundle.model_path(settings.precision)
        graph = read_openvino(path)
        self._queues = {mode: OpenVinoQueue(OpenVinoEngine(graph, mode, cores)) for mode in (ALONE, TOGETHER)}
        # the first inference of each request is slow, and a service whose model does not work must not start
        table = read_table(bundle)
        pixels = table.pixels if table else np.zeros((1, *bundle.image_size, 3), np.uint8)
        turn = itertools.cycle(range(len(pixels)))
        for queue in self._queues.values():
            rows = list(itertools.islice(turn, queue.requests))
            inferences = [queue.submit(pixels[[row]]) for row in rows]
            answers = np.concatenate([inference.result(MAX_SECONDS)[0] for inference in inferences])
            if bundle.findings:
                if not ((answers >= 0) & (answers <= 1)).all():
                    raise BundleError(f"{path} gives outputs that are not all between 0 and 1; export it again")
            elif not np.allclose(totals := answers.sum(1), 1, atol=1e-3):
                raise BundleError(f"{path} gives outputs that sum to {totals.max():.4g}, expected 1; export it again")
            if table and settings.precision in table.answers:
                compare(bundle, settings.precision, table, answers, rows)
        self._metrics.describe_service(bundle.name, settings.precision, settings.queue)

    @property
    def full(self) -> bool:
        """Whether the queue is full."""
        return self._count >= self._limit

    def predict(
        self, sources: Sequence[bytes], pictures: bool = False, finding: int | None = None
    ) -> list[AnyPrediction]:
        """Return the predictions for image files.

        Args:
            sources: Bytes of each image file, at most `max_images`.
            pictures: Whether to add the picture and heat maps.
            finding: Position of a finding whose heat map is wanted whatever its answer; None for no other.

        Returns:
            One prediction per source, in the same order.

        Raises:
            BusyError: The queue has no room for the images.
            ImageError: A source is not an image; the message gives its position.
        """
        with self._reserve(len(sources)):
            inferences = []
            for number, source in enumerate(sources, 1):
                try:
                    inferences.append(self._begin(source))
                except ImageError as error:
                    if len(sources) == 1:
                        raise
                    raise ImageError(f"image {number} of {len(sources)}: {error}", error.reason) from error
            return [self._finish(*pair, pictures, finding) for pair in zip(inferences, sources, strict=True)]

    def predict_readable(
        self, sources: Sequence[bytes], pictures: bool = False, finding: int | None = None
    ) -> list[AnyPrediction | ImageError]:
        """Return the predictions as `predict` does, with the error in the place of each source that is not an image."""

        def begin(source: bytes) -> Inference | ImageError:
            try:
                return self._begin(source)
            except ImageError as error:
                return error

        with self._reserve(len(sources)):
            return [
                started if isinstance(started, ImageError) else self._finish(started, source, pictures, finding)
                for started, source in zip([begin(source) for source in sources], sources, strict=True)
            ]

    def predict_exam(self, predictions: Sequence[AnyPrediction]) -> AnyPrediction:
        """Return the prediction for the exam whose images have some predictions; the bundle must have exams."""
        probabilities = combine(self.bundle, np.stack([prediction.probabilities for prediction in predictions]))
        exam = self.bundle.exam
        if self.bundle.findings:
            return self._answer_findings(probabilities, exam["operating_points"])
        return self._answer_classes(probabilities, exam["abstain_below"])

    def _answer_classes(self, probabilities: np.ndarray, abstain_below: float) -> Prediction:
        top = int(probabilities.argmax())
        confidence = float(probabilities[top])
        return Prediction(self.bundle.classes[top], confidence, confidence < abstain_below, probabilities)

    @staticmethod
    def _answer_findings(probabilities: np.ndarray, points: Mapping[str, Mapping[str, Any]]) -> FindingsPrediction:
        answers = tuple(find_answers(points, probabilities[None])[0].tolist())
        order = sorted(range(len(answers)), key=lambda index: (STATES.index(answers[index]), -probabilities[index]))
        return FindingsPrediction(probabilities, answers, tuple(order))

    @contextmanager
    def _reserve(self, count: int) -> Iterator[None]:
        """Reserve room in the queue for some images, or raise an error at once."""
        with self._lock:
            if self._count + count > self._limit:
                raise BusyError(
                    f"{self._count} images are waiting and the limit is {self._limit}; send the request again later"
                )
            self._count += count
        self._metrics.queue.inc(count)
        try:
            yield
        finally:
            with self._lock:
                self._count -= count
            self._metrics.queue.dec(count)

    def _begin(self, source: bytes) -> Inference:
        with self._decoding:
            started = time.perf_counter()
            try:
                pixels = images.load(source, self.bundle.image_size)
            except ImageError as error:
                self._metrics.refused.labels(error.reason).inc()
                raise
            decoded = time.perf_counter()
        inference = self._queues[ALONE if self._count == 1 else TOGETHER].submit(pixels[None])
        self._metrics.stages.labels("decoding").observe(decoded - started)
        self._metrics.stages.labels("waiting").observe(inference.started - decoded)
        return inference

    def _finish(self, inference: Inference, source: bytes, pictures: bool, finding: int | None) -> AnyPrediction:
        probabilities, maps = (output[0] for output in inference.result(MAX_SECONDS))
        self._metrics.stages.labels("inference").observe(inference.seconds)
        self._metrics.images.inc()
        prediction: AnyPrediction
        if self.bundle.findings:
            prediction = self._answer_findings(probabilities, self.bundle.operating_points)
            abstained = NOT_SURE in prediction.answers
        else:
            prediction = self._answer_classes(probabilities, self.bundle.abstain_below)
            abstained = prediction.abstained
        if abstained:
            self._metrics.abstained.inc()
        if not pictures:
            return prediction
        picture = self._read_picture(source)
        encoded = cv2.imencode(".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 88])[1]
        size = picture.shape[:2]
        if isinstance(prediction, Prediction):
            heat_map = overlay(maps[..., probabilities.argmax()], size)
            return replace(prediction, picture=encoded.tobytes(), heat_map=heat_map)
        shown = [index for index in prediction.order if prediction.answers[index] != ABSENT][:MAPS]
        shown = shown or list(prediction.order[:1])
        shown += [finding] if finding is not None and finding not in shown else []
        heat_maps = {index: overlay_of_levels(maps[..., index], size) for index in shown}
        return replace(prediction, picture=encoded.tobytes(), heat_maps=heat_maps)

    def _read_picture(self, source: bytes) -> np.ndarray:
        with self._decoding:
            picture = images.read(source)
            height, width = picture.shape[:2]
            scale = min(1.0, SHOWN / max(height, width))
            return images.resize(picture, (max(1, round(height * scale)), max(1, round(width * scale))))


def overlay(heat_map: np.ndarray, size: tuple[int, int]) -> bytes:
    """Return an activation map as a picture that lies over the image.

    Negative values are transparent; the largest value is yellow and most opaque.

    Args:
        heat_map: float32 `(h', w')`, not normalised.
        size: Height and width of the picture, in pixels.

    Returns:
        PNG, RGBA.
    """
    strength = _strength(heat_map, size)
    return cv2.imencode(".png", np.dstack((_colours(strength), cv2.multiply(strength, _OPACITY))))[1].tobytes()


def overlay_of_levels(heat_map: np.ndarray, size: tuple[int, int]) -> bytes:
    """Return the picture of `overlay` in `LEVELS` colours: a tenth of the bytes, so that several fit into an answer."""
    from PIL import Image  # a service of classes does without

    step = 256 // LEVELS
    levels = np.arange(0, 256, step, dtype=np.uint8)
    picture = Image.fromarray(_strength(heat_map, size) // step)
    picture.putpalette(_colours(levels[None])[0, :, ::-1].tobytes())
    file = io.BytesIO()
    picture.save(file, "PNG", transparency=(_OPACITY * levels).astype(np.uint8).tobytes())
    return file.getvalue()


def _strength(heat_map: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    height, width = size
    positive = np.maximum(heat_map, 0).astype(np.float32)
    positive /= max(float(positive.max()), 1e-9)
    return (cv2.resize(positive, (width, height), interpolation=cv2.INTER_CUBIC).clip(0, 1) * 255).astype(np.uint8)


def _colours(strength: np.ndarray) -> np.ndarray:
    return cv2.applyColorMap(strength, cv2.COLORMAP_VIRIDIS)
