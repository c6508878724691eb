"""Refusals: as problem details (RFC 9457) for a program, as a page in the reader's language for a person."""

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
"""Most bytes of a refused request that are still read, and dropped."""

REASONS: dict[str, LazyString] = {
    "empty": _("The file is empty. Choose another one."),
    "not_an_image": _("This is no image. Choose a JPEG, PNG, BMP, TIFF, WebP or DICOM file."),
    "format": _("Images of this format are not read. Save it as JPEG, PNG, BMP, TIFF, WebP or DICOM."),
    "truncated": _("The image is not whole. Copy or download it again."),
    "unreadable": _("The image is broken and cannot be read. Copy or export it again."),
    "too_many_pixels": _("The image has too many pixels. Send a smaller one."),
    "several_frames": _("The file holds several images. Export them one by one."),
    "identifying": _("The image may show who the patient is. Remove or mask that first."),
    "no_dicom": _("DICOM files are not read here. Export the image as PNG."),
}
"""What a person is told about an image, by `ImageError.reason`."""

_TITLES: dict[int, LazyString] = {
    400: _("That cannot be answered"),
    404: _("This page does not exist"),
    405: _("This page does not exist"),
    413: _("That is too large"),
    429: _("Too many requests"),
    500: _("The service failed"),
    503: _("The service is busy"),
}
_DETAILS: dict[int, LazyString] = {
    404: _("Check the address, or go to the first page."),
    405: _("Check the address, or go to the first page."),
    413: _("Send at most %(size)s MB at once.", size=MAX_BYTES // 2**20),
    429: _("Wait a moment, then try again."),
    500: _("It is not your image. Try again, and tell whoever runs this service if it happens again."),
    503: _("Wait a moment, then try again."),
}


def init_app(app: Flask) -> None:
    """Lets an application answer its errors so."""
    app.register_error_handler(HTTPException, _answer_error)
    app.register_error_handler(ImageError, _answer_image)
    app.register_error_handler(BusyError, _answer_busy)


def details(status: int, title: str, detail: str, request_id: str, kind: str = "about:blank") -> dict[str, Any]:
    """A problem as RFC 9457 has it."""
    return {"type": kind, "title": title, "status": status, "detail": detail, "request_id": request_id}


def kind_of(reason: str) -> str:
    """The type of the problem with an image."""
    return f"urn:scanbook:{reason.replace('_', '-')}"


def unavailable(why: str) -> ServiceUnavailable:
    """There is no room, or the end is near: another try may find another service."""
    return ServiceUnavailable(why, retry_after=RETRY_AFTER)


def _answer_image(error: ImageError) -> Response:
    return _answer(BadRequest(str(error)), kind_of(error.reason), "Unreadable image", REASONS[error.reason])


def _answer_busy(error: BusyError) -> Response:
    return _answer(unavailable(str(error)))


def _answer_error(error: HTTPException) -> Response:
    if isinstance(error, RequestEntityTooLarge):
        _drain()
        large = f"the request is too large; expected at most {MAX_BYTES // 2**20} MB"
        rest = f"the form has too many or too large fields; send at most {service().predictor.most} files as {FIELD!r}"
        error.description = rest if 0 < (request.content_length or 0) <= MAX_BYTES else large
    if isinstance(error, TooManyRequests):
        [limiter] = current_app.extensions["limiter"]
        wait = max(RETRY_AFTER, int(limiter.current_limit.reset_at - time.time()))
        allowed = service().settings.rate_limit
        error = TooManyRequests(f"more than {allowed} came from one client; ask again in {wait} s", retry_after=wait)
    return _answer(error)


def _answer(
    error: HTTPException, kind: str = "about:blank", title: str = "", said: LazyString | str | None = None
) -> Response:
    status = error.code or 500
    response = error.get_response()
    if _reads_pages():
        # urls are matched before the error, so `/` can show its form again
        template = "page.html" if request.path == "/" else "error.html"
        text = said or _DETAILS.get(status) or error.description
        response.data = render_template(template, answers=[], problem=_TITLES.get(status, error.name), detail=text)
        response.content_type = "text/html; charset=utf-8"
        return response
    response.data = json.dumps(details(status, title or error.name, str(error.description), g.request_id, kind))
    response.content_type = PROBLEM
    return response


def _reads_pages() -> bool:
    """Whether a person asked. What is made for programs answers them alone, whatever they say that they accept."""
    paths = {rule.rule for rule in current_app.url_map.iter_rules() if not rule.endpoint.startswith("service.")}
    best = request.accept_mimetypes.best_match([PROBLEM, "application/json", "text/html"])
    return request.path not in paths and best == "text/html"


def _drain() -> None:
    """Reads what a client still sends, within reason: most clients read no answer before they have sent all."""
    stream, left = request.environ["wsgi.input"], DRAINED
    while left > 0 and (chunk := stream.read(min(left, 2**16))):
        left -= len(chunk)
