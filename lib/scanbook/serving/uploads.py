"""Images of a request, which stay in memory: their limits and the forms of a request."""

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
"""Most images in one request; each may have 50 megapixels."""
FIELD = "image"
"""Name of the form field that holds the files."""
FINDING, EXAM = "finding", "exam"
"""Names of the form fields of the page: a finding whose heat map is wanted, and whether the images are one exam."""
_FORM = '{"instances": [{"b64": "…"}]}'


class InMemoryRequest(Request):
    """A request whose files are not written to a disk."""

    def _get_file_stream(
        self,
        total_content_length: int | None,
        content_type: str | None,
        filename: str | None = None,
        content_length: int | None = None,
    ) -> IO[bytes]:
        # Werkzeug would write a file of more than 500 KB to a temporary file
        return io.BytesIO()


def read_form() -> list[bytes]:
    """Return the bytes of the files in a form, without empty fields."""
    files = request.files.getlist(FIELD)
    return [data for file in files if (data := file.read()) or file.filename]


def read_request() -> list[bytes]:
    """Return the bytes of the images that a program sends: the files of a form, or the body.

    Raises:
        BadRequest: The form has no file.
        UnsupportedMediaType: The body is neither a form nor an image.
    """
    if request.mimetype == "multipart/form-data":
        if sources := read_form():
            return sources
        raise BadRequest(f"the form has no file in a field named {FIELD!r}; send one or more there")
    if _is_image():
        return [request.get_data(cache=False)]
    raise UnsupportedMediaType(
        f"the content type is {_shown_type()}; expected multipart/form-data with files in the field {FIELD!r}, "
        "or an image as the body with a type image/*"
    )


def read_invocation() -> tuple[list[bytes], bool]:
    """Return the images in a SageMaker request: the body, or `{"instances": [{"b64": "…"}]}`.

    Returns:
        The bytes of each, and whether they are one exam: the JSON has `"exam": true` beside the instances.

    Raises:
        BadRequest: The JSON does not have that form, or `exam` is in the query.
        UnsupportedMediaType: The body is neither JSON nor an image.
    """
    if EXAM in request.args:
        raise BadRequest('only /predict takes ?exam=1; send JSON with "exam": true beside the instances')
    if request.mimetype == "application/json":
        return _read_json(request.get_data(cache=False))
    if _is_image():
        return [request.get_data(cache=False)], False
    raise UnsupportedMediaType(
        f"the content type is {_shown_type()}; expected image/jpeg, image/png or application/json with base64"
    )


def _read_json(body: bytes) -> tuple[list[bytes], bool]:
    try:
        values: Any = json.loads(body)
    except (ValueError, RecursionError):
        raise BadRequest(f"the body is not JSON; expected {_FORM}") from None
    exam = values.pop("exam", False) if isinstance(values, dict) else False
    instances = values.get("instances") if isinstance(values, dict) else None
    if not isinstance(instances, list) or not instances or len(values) != 1:
        raise BadRequest(f'the JSON has no list of "instances", or more than that and "exam"; expected {_FORM}')
    if not isinstance(exam, bool):
        raise BadRequest('"exam" is neither true nor false; expected true beside the instances of one exam')
    sources = []
    for number, instance in enumerate(instances, 1):
        text = instance.get("b64") if isinstance(instance, dict) and len(instance) == 1 else None
        if not isinstance(text, str):
            raise BadRequest(f'instance {number} of {len(instances)} does not have the form {{"b64": "…"}}')
        try:
            sources.append(base64.b64decode(text, validate=True))
        except ValueError:
            raise BadRequest(f"instance {number} of {len(instances)} is not base64 (RFC 4648, section 4)") from None
    return sources, exam


def _is_image() -> bool:
    return request.mimetype.startswith("image/") or request.mimetype in (
        "application/octet-stream",
        "application/dicom",
    )


def _shown_type() -> str:
    kind = request.mimetype
    return kind if kind and len(kind) < 60 else "missing"
