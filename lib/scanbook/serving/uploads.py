"""Images in a request: how many and how large they may be, and in which forms they come. They stay in memory."""

from __future__ import annotations

import base64
import io
import json
from typing import IO, Any

from flask import Request, request
from werkzeug.exceptions import BadRequest, UnsupportedMediaType

MAX_BYTES = 16 * 2**20
"""Largest request, in bytes."""
MAX_IMAGES = 32
"""Most images in one request: each may unpack to 50 megapixels."""
FIELD = "image"
"""Field of a form that holds the files."""


class InMemoryRequest(Request):
    """A request whose files reach no disk."""

    def _get_file_stream(
        self,
        total_content_length: int | None,
        content_type: str | None,
        filename: str | None = None,
        content_length: int | None = None,
    ) -> IO[bytes]:
        # Werkzeug would put what exceeds 500 KB into a temporary file
        return io.BytesIO()


def of_form() -> list[bytes]:
    """Bytes of the files in a form; a field that was left empty counts for nothing."""
    files = request.files.getlist(FIELD)
    return [data for file in files if (data := file.read()) or file.filename]


def of_request() -> list[bytes]:
    """Bytes of the images that a program sends: the files of a form, or the body.

    Raises:
        BadRequest: There is none.
        UnsupportedMediaType: The body is of another kind.
    """
    if request.mimetype == "multipart/form-data":
        if sources := of_form():
            return sources
        raise BadRequest(f"the form has no file in a field named {FIELD!r}; send one or more there")
    if _is_image():
        return [request.get_data(cache=False)]
    raise UnsupportedMediaType(
        f"the content type is {_shown_type()}; expected multipart/form-data with files in the field {FIELD!r}, "
        "or an image as the body with a type image/*"
    )


def of_invocation() -> list[bytes]:
    """Bytes of the images in a SageMaker request: the body, or `{"instances": [{"b64": "…"}]}`.

    Raises:
        BadRequest: The JSON is not of that form.
        UnsupportedMediaType: The body is of another kind.
    """
    if request.mimetype == "application/json":
        return _of_json(request.get_data(cache=False))
    if _is_image():
        return [request.get_data(cache=False)]
    raise UnsupportedMediaType(
        f"the content type is {_shown_type()}; expected image/jpeg, image/png or application/json with base64"
    )


def _of_json(body: bytes) -> list[bytes]:
    try:
        values: Any = json.loads(body)
    except (ValueError, RecursionError):
        raise BadRequest('the body is no JSON; expected {"instances": [{"b64": "…"}]}') from None
    instances = values.get("instances") if isinstance(values, dict) else None
    if not isinstance(instances, list) or not instances or len(values) != 1:
        raise BadRequest(
            'the JSON has no list of "instances", or more than that; expected {"instances": [{"b64": "…"}]}'
        )
    sources = []
    for number, instance in enumerate(instances, 1):
        text = instance.get("b64") if isinstance(instance, dict) and len(instance) == 1 else None
        if not isinstance(text, str):
            raise BadRequest(f'instance {number} of {len(instances)} is not of the form {{"b64": "…"}}')
        try:
            sources.append(base64.b64decode(text, validate=True))
        except ValueError:
            raise BadRequest(f"instance {number} of {len(instances)} is no base64 (RFC 4648, section 4)") from None
    return sources


def _is_image() -> bool:
    return request.mimetype.startswith("image/") or request.mimetype in (
        "application/octet-stream",
        "application/dicom",
    )


def _shown_type() -> str:
    kind = request.mimetype
    return kind if kind and len(kind) < 60 else "missing"
