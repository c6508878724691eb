"""For programs: predictions, whether the service is well, what it counts, and what it can be asked."""

from __future__ import annotations

from flask import Blueprint, Response, g, jsonify, request
from werkzeug.exceptions import BadRequest

from scanbook import bundle as bundles
from scanbook.serving import openapi, uploads
from scanbook.serving.pages import data_uri
from scanbook.serving.predictor import Prediction
from scanbook.serving.problems import unavailable
from scanbook.serving.state import service

programs = Blueprint("programs", __name__)


@programs.post("/predict")
def predict() -> Response:
    """Answers as JSON; `?heatmap=1` adds each image's heat map."""
    wanted = request.args.get("heatmap", "0")
    if wanted not in ("0", "1"):
        raise BadRequest("heatmap is neither 0 nor 1; send ?heatmap=1 for heat maps, nothing for none")
    return answer(uploads.of_request(), heat_maps=wanted == "1")


@programs.get("/healthz")
def health() -> Response:
    """Whether the process is alive; it starts only with a model that answers."""
    return jsonify(status="ok", model=service().predictor.bundle.name)


@programs.get("/readyz")
def readiness() -> Response:
    """Whether to send more requests: the model is warm, there is room, and the service is not about to stop."""
    if not service().ready:
        raise unavailable("the service is about to stop" if service().stopping.is_set() else "the queue is full")
    return jsonify(status="ready", model=service().predictor.bundle.name)


@programs.get("/metrics")
def metrics() -> Response:
    """What all workers count, for Prometheus."""
    text, kind = service().metrics.text()
    return Response(text, content_type=kind)


@programs.get("/openapi.json")
def description() -> Response:
    """What can be asked, and how (OpenAPI 3.1)."""
    return jsonify(openapi.document(service().predictor.bundle, service().predictor.most))


def answer(sources: list[bytes], heat_maps: bool = False) -> Response:
    """The predictions for images, as every program gets them.

    Raises:
        BadRequest: There are too many.
    """
    most = service().predictor.most
    if len(sources) > most:
        raise BadRequest(f"{len(sources)} images were sent; expected at most {most} in one request")
    answers = service().predictor.predict(sources, pictures=heat_maps)
    return jsonify(
        model=service().predictor.bundle.name,
        predictions=[_as_json(each, heat_maps) for each in answers],
        notice=bundles.INTENDED_USE,
        request_id=g.request_id,
    )


def _as_json(answer: Prediction, heat_maps: bool) -> dict[str, object]:
    # not rounded: small probabilities are whole logits apart
    shares = answer.probabilities.tolist()
    values = {
        "class": answer.label,
        "confidence": answer.confidence,
        "abstained": answer.abstained,
        "probabilities": dict(zip(service().predictor.bundle.classes, shares, strict=True)),
    }
    return values | ({"heat_map": data_uri("image/png", answer.heat_map)} if heat_maps else {})
