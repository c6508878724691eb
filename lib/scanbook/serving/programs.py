"""Routes for programs: predictions, health, metrics, the API's description, and the two that SageMaker calls."""

from __future__ import annotations

from flask import Blueprint, Response, g, jsonify, request
from werkzeug.exceptions import BadRequest

from scanbook.bundle.answering import PRESENT
from scanbook.bundle.card import INTENDED_USE
from scanbook.serving import openapi, uploads
from scanbook.serving.predictor import AnyPrediction, Prediction
from scanbook.serving.problems import unavailable
from scanbook.serving.state import service
from scanbook.serving.views import data_uri

programs = Blueprint("programs", __name__)


@programs.post("/predict")
def predict() -> Response:
    """Return predictions as JSON.

    `?heatmap=1` adds the heat map of each image, of findings those that are not absent; `?heatmap=` and the name of a
    finding adds the map of this one, too. `?exam=1` says that the images are of one exam, and adds the answer for it.
    """
    findings = service().predictor.bundle.findings
    value = request.args.get("heatmap", "0")
    if value not in ("0", "1", *findings):
        names = ", or ?heatmap= and the name of a finding for its map too" if findings else ""
        raise BadRequest(f"heatmap is neither 0 nor 1; send ?heatmap=1 for heat maps{names}, nothing for none")
    exam = request.args.get("exam", "0")
    if exam not in ("0", "1"):
        raise BadRequest("exam is neither 0 nor 1; send ?exam=1 if the images are of one exam, nothing if not")
    finding = findings.index(value) if value in findings else None
    return _classify(uploads.read_request(), value != "0", finding, exam=exam == "1")


@programs.post("/invocations")
def invoke() -> Response:
    """Return predictions as `/predict` does, for an image as the body or for base64 in JSON (SageMaker)."""
    sources, exam = uploads.read_invocation()
    return _classify(sources, exam=exam)


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


def _classify(
    sources: list[bytes], heat_maps: bool = False, finding: int | None = None, *, exam: bool = False
) -> Response:
    predictor, limit = service().predictor, service().predictor.max_images
    if exam and not predictor.bundle.exam:
        raise BadRequest("this model has no answer for exams: its study names none; send the images without exam")
    if len(sources) > limit:
        raise BadRequest(f"{len(sources)} images were sent; expected at most {limit} in one request")
    predictions = predictor.predict(sources, heat_maps, finding)
    together = {"images": len(sources), **_as_json(predictor.predict_exam(predictions), exam=True)} if exam else None
    return jsonify(
        model=predictor.bundle.name,
        predictions=[_as_json(prediction) for prediction in predictions],
        **({"exam": together} if together else {}),
        notice=INTENDED_USE,
        request_id=g.request_id,
    )


def _as_json(prediction: AnyPrediction, *, exam: bool = False) -> dict[str, object]:
    # not rounded: a small difference of small probabilities is a large one of logits
    bundle, probabilities = service().predictor.bundle, prediction.probabilities.tolist()
    if isinstance(prediction, Prediction):
        values = {
            "class": prediction.label,
            "confidence": prediction.confidence,
            "abstained": prediction.abstained,
            "probabilities": dict(zip(bundle.classes, probabilities, strict=True)),
        }
        return values | ({"heat_map": data_uri("image/png", prediction.heat_map)} if prediction.heat_map else {})
    points = bundle.exam["operating_points"] if exam else bundle.operating_points
    findings = {
        name: {"probability": probability, "threshold": points[name]["threshold"], "answer": answer}
        for name, probability, answer in zip(bundle.findings, probabilities, prediction.answers, strict=True)
    }
    present = [bundle.findings[index] for index in prediction.order if prediction.answers[index] == PRESENT]
    maps = {bundle.findings[index]: data_uri("image/png", data) for index, data in prediction.heat_maps.items()}
    return {"findings": findings, "present": present} | ({"heat_maps": maps} if maps else {})
