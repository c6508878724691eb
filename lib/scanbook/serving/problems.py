"""Error responses: problem details (RFC 9457) for programs, pages in the reader's language for people."""

from __future__ import annotations

import json
import time
from typing import Any

from flask import Flask, Response, current_app, g, render_template, request
from flask_babel import LazyString
from flask_babel import lazy_gettext as _
from werkzeug.exceptions import BadRequest, HTTPException, RequestEntityTooLarge, ServiceUnavailable, TooManyRequests

from scanbook.errors import ImageError
from scanbook.serving.predictor import BusyError
from scanbook.serving.state import RETRY_AFTER, service
from scanbook.serving.uploads import FIELD, MAX_BYTES

PROBLEM = "application/problem+json"
DRAINED = 4 * MAX_BYTES
"""Most bytes of a refused request that are read and dropped."""

REASONS: dict[str, LazyString] = {
    "empty": _("The file is empty. Choose another one."),
    "not_an_image": _("This is not an image. Choose a JPEG, PNG, BMP, TIFF, WebP or DICOM file."),
    "format": _("This image format is not supported. Save the image as JPEG, PNG, BMP, TIFF, WebP or DICOM."),
    "truncated": _("The image is incomplete. Copy or download it again."),
    "unreadable": _("The image is broken and cannot be read. Copy or export it again."),
    "too_many_pixels": _("The image has too many pixels. Send a smaller one."),
    "several_frames": _("The file holds several images. Export them one by one."),
    "identifying": _("The image may show who the patient is. Remove or mask that first."),
    "levels": _("The brightness of this image's levels is not known. Save it as an 8-bit grey or RGB image."),
    "no_dicom": _("This service does not read DICOM files. Export the image as PNG."),
}
"""Message for a person about an image that was refused, by `ImageError.reason`."""

_TITLES: dict[int, LazyString] = {
    400: _("The request cannot be answered"),
    404: _("This page does not exist"),
    405: _("This page does not exist"),
    413: _("The request is too large"),
    429: _("Too many requests"),
    500: _("The service failed"),
    503: _("The service is busy"),
}
_DETAILS: dict[int, LazyString] = {
    404: _("Check the address, or go to the first page."),
    405: _("Check the address, or go to the first page."),
    413: _("Send at most %(size)s MB at once.", size=MAX_BYTES // 2**20),
    429: _("Wait a moment, then try again."),
    500: _("The cause is not your image. Try again. If it happens again, tell the operator of this service."),
    503: _("Wait a moment, then try again."),
}


def init_app(app: Flask) -> None:
    """Register the error handlers of an application."""
    app.register_error_handler(HTTPException, _respond_to_error)
    app.register_error_handler(ImageError, _respond_to_image)
    app.register_error_handler(BusyError, _respond_to_busy)


def details(status: int, title: str, detail: str, request_id: str, kind: str = "about:blank") -> dict[str, Any]:
    """Return the problem details of RFC 9457."""
    return {"type": kind, "title": title, "status": status, "detail": detail, "request_id": request_id}


def unavailable(reason: str) -> ServiceUnavailable:
    """Return the error for a service that is busy or about to stop; a later request may succeed."""
    return ServiceUnavailable(reason, retry_after=RETRY_AFTER)


def _respond_to_image(error: ImageError) -> Response:
    kind = f"urn:scanbook:{error.reason.replace('_', '-')}"
    return _respond(BadRequest(str(error)), kind, "Unreadable image", REASONS[error.reason])


def _respond_to_busy(error: BusyError) -> Response:
    return _respond(unavailable(str(error)))


def _respond_to_error(error: HTTPException) -> Response:
    if isinstance(error, RequestEntityTooLarge):
        _drain()
        too_large = f"the request is too large; expected at most {MAX_BYTES // 2**20} MB"
        limit = service().predictor.max_images
        too_many = f"the form has too many or too large fields; send at most {limit} files as {FIELD!r}"
        error.description = too_many if 0 < (request.content_length or 0) <= MAX_BYTES else too_large
    if isinstance(error, TooManyRequests):
        [limiter] = current_app.extensions["limiter"]
        wait = max(RETRY_AFTER, int(limiter.current_limit.reset_at - time.time()))
        rate = service().settings.rate_limit
        error = TooManyRequests(f"one client sent more than {rate}; send again in {wait} s", retry_after=wait)
    return _respond(error)


def _respond(
    error: HTTPException, kind: str = "about:blank", title: str = "", message: LazyString | str | None = None
) -> Response:
    status = error.code or 500
    response = error.get_response()
    if _wants_page():
        template = "page.html" if request.path == "/" else "error.html"
        text = message or _DETAILS.get(status) or error.description
        response.data = render_template(template, views=[], problem=_TITLES.get(status, error.name), detail=text)
        response.content_type = "text/html; charset=utf-8"
        return response
    response.data = json.dumps(details(status, title or error.name, str(error.description), g.request_id, kind))
    response.content_type = PROBLEM
    return response


def _wants_page() -> bool:
    """Return whether to respond with a page. The routes for programs never do, whatever the client accepts."""
    paths = {rule.rule for rule in current_app.url_map.iter_rules() if not rule.endpoint.startswith("pages.")}
    best = request.accept_mimetypes.best_match([PROBLEM, "application/json", "text/html"])
    return request.path not in paths and best == "text/html"


def _drain() -> None:
    """Read the rest of a request, up to a limit: most clients send everything before they read."""
    stream, left = request.environ["wsgi.input"], DRAINED
    while left > 0 and (chunk := stream.read(min(left, 2**16))):
        left -= len(chunk)
