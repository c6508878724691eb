"""Description of the routes for programs in OpenAPI 3.1: `openapi.json`, completed with the values of a bundle."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from scanbook.bundle import Bundle
from scanbook.bundle.answering import STATES
from scanbook.serving.predictor import MAPS
from scanbook.serving.uploads import MAX_BYTES


def describe(bundle: Bundle, max_images: int) -> dict[str, Any]:
    """Return the description of a service.

    Args:
        bundle: The bundle that the service runs.
        max_images: Most images in one request.
    """
    document = json.loads(Path(__file__).with_suffix(".json").read_text("utf-8"))
    document["info"] |= {"title": f"scanbook: {bundle.name}", "description": bundle.about.get("title", "")}
    responses, schemas = document["components"]["responses"], document["components"]["schemas"]
    responses["TooLarge"]["description"] = f"The request is larger than {MAX_BYTES // 2**20} MB."
    schemas["Form"]["properties"]["image"]["maxItems"] = max_images
    schemas["Instances"]["properties"]["instances"]["maxItems"] = max_images
    if bundle.findings:
        _describe_findings(document, bundle)
    else:
        prediction = schemas["Prediction"]["properties"]
        prediction["class"]["enum"] = list(bundle.classes)
        prediction["abstained"]["description"] = f"Whether the confidence is below {bundle.abstain_below}."
        probability = {"$ref": "#/components/schemas/Probability"}
        prediction["probabilities"] |= {
            "required": list(bundle.classes),
            "properties": dict.fromkeys(bundle.classes, probability),
        }
    if bundle.exam:
        _describe_exams(document, bundle)
    return document


def _describe_findings(document: dict[str, Any], bundle: Bundle) -> None:
    """Describe the answers for findings in the place of those for classes."""
    names, schemas, paths = list(bundle.findings), document["components"]["schemas"], document["paths"]
    for path, host in (("/predict", ""), ("/invocations", " (SageMaker)")):
        paths[path]["post"]["summary"] = f"Say which findings images show{host}"
    [heat_map] = paths["/predict"]["post"]["parameters"]
    heat_map["description"] = (
        f"1 to add the heat maps of the findings that are not absent, at most {MAPS}, or of the most probable one; "
        "the name of a finding to add the map of this one, too."
    )
    heat_map["schema"]["enum"] = list(dict.fromkeys(["0", "1", *names]))
    schemas["Probability"] = {"type": "number", "minimum": 0, "maximum": 1}
    probability = {"$ref": "#/components/schemas/Probability"}
    schemas["Finding"] = {
        "type": "object",
        "required": ["probability", "threshold", "answer"],
        "properties": {
            "probability": probability,
            "threshold": {"anyOf": [probability, {"type": "null"}]},
            "answer": {
                "type": "string",
                "enum": list(STATES),
                "description": 'Near its threshold the answer is "not sure"; without a threshold always.',
            },
        },
        "additionalProperties": False,
    }
    schemas["Prediction"] = {
        "type": "object",
        "required": ["findings", "present"],
        "properties": {
            "findings": {
                "type": "object",
                "required": names,
                "properties": {name: {"$ref": "#/components/schemas/Finding"} for name in names},
                "additionalProperties": False,
            },
            "present": {
                "type": "array",
                "items": {"type": "string", "enum": names},
                "description": "Findings that are present, the most probable first.",
            },
            "heat_maps": {
                "type": "object",
                "properties": {name: {"type": "string"} for name in names},
                "additionalProperties": False,
                "description": "PNG of each finding shown, with transparency, as a data URI.",
            },
        },
        "additionalProperties": False,
    }


def _describe_exams(document: dict[str, Any], bundle: Bundle) -> None:
    """Describe how images of one exam are sent, and the answer for it."""
    schemas, predict = document["components"]["schemas"], document["paths"]["/predict"]["post"]
    predict["parameters"].append(
        {
            "name": "exam",
            "in": "query",
            "description": "1 if the images are of one exam: an answer for the exam is added.",
            "schema": {"type": "string", "enum": ["0", "1"], "default": "0"},
        }
    )
    schemas["Instances"]["properties"]["exam"] = {
        "type": "boolean",
        "default": False,
        "description": "Whether the images are of one exam: an answer for the exam is added; there is no ?exam=1.",
    }
    prediction = schemas["Prediction"]
    properties = {name: value for name, value in prediction["properties"].items() if not name.startswith("heat_map")}
    if not bundle.findings:
        abstain_below = bundle.exam["abstain_below"]
        properties["abstained"] = {
            "type": "boolean",
            "description": f"Whether the confidence is below {abstain_below}.",
        }
    schemas["Exam"] = {
        "type": "object",
        "required": ["images", *prediction["required"]],
        "properties": {"images": {"type": "integer", "minimum": 1}, **properties},
        "additionalProperties": False,
    }
    schemas["Predictions"]["properties"]["exam"] = {"$ref": "#/components/schemas/Exam"}
