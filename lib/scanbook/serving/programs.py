"""Routes for programs: predictions, health, metrics, the API's description, and the two that SageMaker calls."""

from __future__ import annotations

from flask import Blueprint, Response, g, jsonify, request
from werkzeug.exceptions import BadRequest

from scanbook.bundle.card import INTENDED_USE
from scanbook.serving import openapi, uploads
from scanbook.serving.pages import data_uri
from scanbook.serving.predictor import Prediction
from scanbook.serving.problems import unavailable
from scanbook.serving.state import service

programs = Blueprint("programs", __name__)


@programs.post("/predict")
def predict() -> Response:
    """Return predictions as JSON; `?heatmap=1` adds the heat map of each image."""
    value = request.args.get("heatmap", "0")
    if value not in ("0", "1"):
        raise BadRequest("heatmap is neither 0 nor 1; send ?heatmap=1 for heat maps, nothing for none")
    return _classify(uploads.read_request(), heat_maps=value == "1")


@programs.post("/invocations")
def invoke() -> Response:
    """Return predictions as `/predict` does, for an image as the body or for base64 in JSON (SageMaker)."""
    return _classify(uploads.read_invocation())


@programs.get("/healthz")
@programs.get("/ping")
def health() -> Response:
    """Report that the process is alive; it starts only with a model that works.

    `/ping` is SageMaker's. It does not report a full queue, because SageMaker would replace the container.
    """
    return jsonify(status="ok", model=service().predictor.bundle.name)


@programs.get("/readyz")
def readiness() -> Response:
    """Report whether the service accepts images: there is room in the queue, and it is not about to stop."""
    if service().stopping.is_set():
        raise unavailable("the service is about to stop")
    if service().predictor.full:
        raise unavailable("the queue is full")
    return jsonify(status="ready", model=service().predictor.bundle.name)


@programs.get("/metrics")
def metrics() -> Response:
    """Return the metrics of all workers, for Prometheus."""
    text, kind = service().metrics.text()
    return Response(text, content_type=kind)


@programs.get("/openapi.json")
def description() -> Response:
    """Return the description of these routes (OpenAPI 3.1)."""
    return jsonify(openapi.describe(service().predictor.bundle, service().predictor.max_images))


def _classify(sources: list[bytes], heat_maps: bool = False) -> Response:
    limit = service().predictor.max_images
    if len(sources) > limit:
        raise BadRequest(f"{len(sources)} images were sent; expected at most {limit} in one request")
    predictions = service().predictor.predict(sources, pictures=heat_maps)
    return jsonify(
        model=service().predictor.bundle.name,
        predictions=[_as_json(prediction) for prediction in predictions],
        notice=INTENDED_USE,
        request_id=g.request_id,
    )


def _as_json(prediction: Prediction) -> dict[str, object]:
    # not rounded: a small difference of small probabilities is a large one of logits
    probabilities = prediction.probabilities.tolist()
    values = {
        "class": prediction.label,
        "confidence": prediction.confidence,
        "abstained": prediction.abstained,
        "probabilities": dict(zip(service().predictor.bundle.classes, probabilities, strict=True)),
    }
    return values | ({"heat_map": data_uri("image/png", prediction.heat_map)} if prediction.heat_map else {})
