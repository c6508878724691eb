"""What programs can ask of the service, as OpenAPI 3.1: complete, so that a tester can hold the service to it."""

from __future__ import annotations

from typing import Any

from scanbook.bundle import Bundle
from scanbook.serving.problems import PROBLEM
from scanbook.serving.uploads import FIELD, MAX_BYTES

VERSION = "1"
"""Of the interface: another number means that programs have to change."""

_PROBLEMS = {
    "400": "The request, or an image in it, cannot be read; `detail` says why.",
    "405": "The route has another method; see the header `Allow`.",
    "408": "The request did not arrive whole in time.",
    "413": f"The request is larger than {MAX_BYTES // 2**20} MB.",
    "415": "The content type is another one.",
    "429": "The client asked too often; see the header `Retry-After`.",
    "500": "The service failed; tell whoever runs it the `request_id`.",
    "503": "Too many images wait, or the service is about to stop; see the header `Retry-After`.",
}
_LATER = {"Retry-After": {"description": "Seconds to wait.", "schema": {"type": "integer", "minimum": 1}}}
_REQUEST_ID = {"X-Request-Id": {"description": "Names this request in the log.", "schema": {"type": "string"}}}
_BINARY = {"type": "string", "format": "binary", "contentMediaType": "application/octet-stream"}


def document(bundle: Bundle, most: int) -> dict[str, Any]:
    """The description of a service.

    Args:
        bundle: What it serves.
        most: Images that one request may bring.
    """
    image = {"schema": _BINARY}
    files = {"type": "array", "minItems": 1, "maxItems": most, "items": _BINARY}
    form = {"type": "object", "required": [FIELD], "properties": {FIELD: files}}
    instance = {
        "type": "object",
        "required": ["b64"],
        "properties": {"b64": {"type": "string", "contentEncoding": "base64"}},
        "additionalProperties": False,
    }
    instances = {
        "type": "object",
        "required": ["instances"],
        "properties": {"instances": {"type": "array", "minItems": 1, "maxItems": most, "items": instance}},
        "additionalProperties": False,
    }
    heat_map = {
        "name": "heatmap",
        "in": "query",
        "description": "1 for a heat map of each image.",
        "schema": {"type": "string", "enum": ["0", "1"], "default": "0"},
    }
    answers = _json("The predictions, in the order of the images.", "Predictions")
    bodies = {"multipart/form-data": {"schema": form}, "image/*": image, "application/octet-stream": image}
    invocation = {"image/jpeg": image, "image/png": image, "application/json": {"schema": instances}}
    refused = ("400", "405", "408", "413", "415", "429", "500", "503")
    status = _json("It can.", "Status")
    return {
        "openapi": "3.1.0",
        "info": {
            "title": f"scanbook: {bundle.name}",
            "version": VERSION,
            "description": bundle.about.get("title", ""),
        },
        "paths": {
            "/predict": {
                "post": _operation("predict", "Classify images", answers, refused, bodies, heat_map),
            },
            "/healthz": {"get": _operation("health", "Whether the process is alive", status, ("405", "500"))},
            "/readyz": {"get": _operation("ready", "Whether it takes images", status, ("405", "500", "503"))},
            "/metrics": {
                "get": _operation(
                    "metrics",
                    "Counts for Prometheus",
                    _success("Prometheus's text format.", "text/plain", {"schema": {"type": "string"}}),
                    ("405", "500"),
                )
            },
            "/openapi.json": {
                "get": _operation(
                    "description",
                    "This document",
                    _success("OpenAPI 3.1.", "application/json", {"schema": {"type": "object"}}),
                    ("405", "429", "500"),
                )
            },
            "/ping": {"get": _operation("ping", "SageMaker: whether it is well", status, ("405", "500"))},
            "/invocations": {
                "post": _operation("invocations", "SageMaker: classify images", answers, refused, invocation)
            },
        },
        "components": {"schemas": _schemas(bundle)},
    }


def _schemas(bundle: Bundle) -> dict[str, Any]:
    share = {"type": "number", "minimum": 0, "maximum": 1.0001}  # float32 sums reach a little over 1
    prediction = {
        "class": {"type": "string", "enum": list(bundle.classes)},
        "confidence": share | {"description": "Calibrated probability of the class."},
        "abstained": {
            "type": "boolean",
            "description": f"Whether that is below {bundle.abstain_below}, from where on the model answers.",
        },
        "probabilities": _object({name: share for name in bundle.classes}),
    }
    text = {"type": "string"}
    return {
        "Predictions": _object(
            {
                "model": text,
                "predictions": {"type": "array", "minItems": 1, "items": {"$ref": "#/components/schemas/Prediction"}},
                "notice": text,
                "request_id": text,
            }
        ),
        "Prediction": _object(prediction, {"heat_map": text | {"description": "PNG, RGBA, as a data URI."}}),
        "Status": _object({"status": text, "model": text}),
        "Problem": _object(
            {
                "type": text | {"format": "uri-reference"},
                "title": text,
                "status": {"type": "integer", "minimum": 400, "maximum": 599},
                "detail": text,
                "request_id": text,
            }
        ),
    }


def _object(required: dict[str, Any], optional: dict[str, Any] | None = None) -> dict[str, Any]:
    return {
        "type": "object",
        "required": list(required),
        "properties": required | (optional or {}),
        "additionalProperties": False,
    }


def _json(text: str, schema: str) -> dict[str, Any]:
    return _success(text, "application/json", {"schema": {"$ref": f"#/components/schemas/{schema}"}})


def _success(text: str, kind: str, content: dict[str, Any]) -> dict[str, Any]:
    return {"200": {"description": text, "headers": _REQUEST_ID, "content": {kind: content}}}


def _operation(
    name: str,
    summary: str,
    success: dict[str, Any],
    refused: tuple[str, ...],
    bodies: dict[str, Any] | None = None,
    *parameters: dict[str, Any],
) -> dict[str, Any]:
    problems = {
        status: {
            "description": _PROBLEMS[status],
            "headers": _REQUEST_ID | (_LATER if status in ("429", "503") else {}),
            "content": {PROBLEM: {"schema": {"$ref": "#/components/schemas/Problem"}}},
        }
        for status in refused
    }
    operation: dict[str, Any] = {"operationId": name, "summary": summary, "responses": success | problems}
    if parameters:
        operation["parameters"] = list(parameters)
    if bodies:
        operation["requestBody"] = {"required": True, "content": bodies}
    return operation
