"""Description of the routes for programs in OpenAPI 3.1: `openapi.json`, completed with the values of a bundle."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from scanbook.bundle import Bundle
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
    prediction = schemas["Prediction"]["properties"]
    prediction["class"]["enum"] = list(bundle.classes)
    prediction["abstained"]["description"] = f"Whether the confidence is below {bundle.abstain_below}."
    probability = {"$ref": "#/components/schemas/Probability"}
    prediction["probabilities"] |= {
        "required": list(bundle.classes),
        "properties": dict.fromkeys(bundle.classes, probability),
    }
    return document
