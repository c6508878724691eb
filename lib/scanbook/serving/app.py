"""The routes: a page for a person, `/predict` for a program, `/healthz` for an orchestrator, `/model-card` for both.

An upload is decoded in memory and forgotten with the answer: it reaches no disk, its file name is never read, and the
log has a request's identifier, route, status and duration alone.
"""

from __future__ import annotations

import base64
import io
import logging
import time
import uuid
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from flask import Blueprint, Flask, Request, Response, current_app, g, jsonify, render_template, request
from werkzeug.exceptions import BadRequest, HTTPException, RequestEntityTooLarge, UnsupportedMediaType

from scanbook import bundle as bundles
from scanbook.errors import ImageError
from scanbook.serving.predictor import Prediction, Predictor

MAX_BYTES = 16 * 2**20
"""Largest request, in bytes."""
DRAINED = 4 * MAX_BYTES
"""Most bytes of a refused request that are still read, and dropped."""
MAX_IMAGES = 32
"""Most images in one request: each may unpack to 50 megapixels."""

FIELD = "image"
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
PROBLEM = "application/problem+json"

log = logging.getLogger("scanbook.serving")
routes = Blueprint("service", __name__)


class _InMemoryRequest(Request):
    def _get_file_stream(
        self,
        total_content_length: int | None,
        content_type: str | None,
        filename: str | None = None,
        content_length: int | None = None,
    ) -> IO[bytes]:
        # Werkzeug would put what exceeds 500 KB into a temporary file
        return io.BytesIO()


class _Service(Flask):
    request_class = _InMemoryRequest

    def log_exception(self, exc_info: tuple[type, BaseException, TracebackType] | tuple[None, None, None]) -> None:
        log.error("%s failed", g.request_id, exc_info=exc_info)


def create_app(bundle_folder: Path | str, threads: int | None = None) -> Flask:
    """The service of one bundle, its model loaded and warm.

    Args:
        bundle_folder: An exported bundle.
        threads: Processors for the model; None for all.

    Raises:
        BundleError: The bundle is incomplete, altered or inconsistent.
    """
    bundle = bundles.load(Path(bundle_folder))
    app = _Service(__name__)
    app.config["MAX_CONTENT_LENGTH"] = MAX_BYTES
    app.config["MAX_FORM_PARTS"] = 2 * MAX_IMAGES
    app.json.sort_keys = False  # type: ignore[attr-defined]  # probabilities keep the class order
    app.extensions["predictor"] = Predictor(bundle, threads)
    app.jinja_env.filters["percent"] = percent
    app.jinja_env.globals |= {"bundle": bundle, "max_bytes": MAX_BYTES}
    app.register_blueprint(routes)
    app.before_request(_start)
    app.after_request(_finish)
    app.register_error_handler(HTTPException, _answer_error)
    app.register_error_handler(ImageError, _answer_unreadable)
    return app


def percent(share: float) -> str:
    """A probability for people: "87.3 %"; what rounds to none or all says so."""
    if share < 0.001:
        return "< 0.1 %"
    return "> 99.9 %" if share > 0.999 else f"{100 * share:.1f} %"


@routes.get("/")
def page() -> str:
    """The page, empty."""
    return render_template("page.html")


@routes.post("/")
def page_answer() -> str:
    """The page with an answer, for a form sent with or without JavaScript."""
    sources = [file.read() for file in request.files.getlist(FIELD)]
    if not any(sources):
        raise BadRequest("No image was chosen. Choose one, then press Classify.")
    if len(sources) > 1:
        raise BadRequest(f"{len(sources)} images were sent. The page takes one; send several to /predict.")
    [answer] = _predictor().predict(sources, pictures=True)
    bars = sorted(zip(_predictor().bundle.classes, answer.probabilities.tolist(), strict=True), key=lambda bar: -bar[1])
    pictures = {"picture": _data_uri("image/jpeg", answer.picture), "heat_map": _data_uri("image/png", answer.heat_map)}
    return render_template("page.html", answer=answer, bars=bars, **pictures)


@routes.post("/predict")
def predict() -> Response:
    """Answers as JSON; `?heatmap=1` adds each image's heat map."""
    sources = _sources()
    if len(sources) > MAX_IMAGES:
        raise BadRequest(f"{len(sources)} images were sent; expected at most {MAX_IMAGES} in one request")
    heat_maps = request.args.get("heatmap") == "1"
    answers = _predictor().predict(sources, pictures=heat_maps)
    return jsonify(
        model=_predictor().bundle.name,
        predictions=[_as_json(answer, heat_maps) for answer in answers],
        notice=bundles.INTENDED_USE,
        request_id=g.request_id,
    )


@routes.get("/healthz")
def health() -> Response:
    """Whether the service can answer; it starts only with a model that does."""
    return jsonify(status="ok", model=_predictor().bundle.name)


@routes.get("/model-card")
def model_card() -> str:
    """The model card."""
    return render_template("card.html", sections=bundles.card(_predictor().bundle))


def _predictor() -> Predictor:
    return current_app.extensions["predictor"]


def _sources() -> list[bytes]:
    """Bytes of the images in a request: the files of a form, or the body."""
    kind = request.mimetype
    if kind == "multipart/form-data":
        sources = [file.read() for file in request.files.getlist(FIELD)]
        if not sources:
            raise BadRequest(f"the form has no file in a field named {FIELD!r}; send one or more there")
        return sources
    if kind.startswith("image/") or kind == "application/octet-stream":
        return [request.get_data(cache=False)]
    shown = kind if kind and len(kind) < 60 else "missing"
    raise UnsupportedMediaType(
        f"the content type is {shown}; expected multipart/form-data with files in the field {FIELD!r}, "
        "or an image as the body with a type image/*"
    )


def _as_json(answer: Prediction, heat_maps: bool) -> dict[str, Any]:
    # not rounded: small probabilities are whole logits apart
    shares = answer.probabilities.tolist()
    values = {
        "class": answer.label,
        "confidence": answer.confidence,
        "abstained": answer.abstained,
        "probabilities": dict(zip(_predictor().bundle.classes, shares, strict=True)),
    }
    return values | ({"heat_map": _data_uri("image/png", answer.heat_map)} if heat_maps else {})


def _data_uri(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def _start() -> None:
    g.request_id = uuid.uuid4().hex
    g.started = time.perf_counter()


def _finish(response: Response) -> Response:
    response.headers.extend(HEADERS)
    response.headers["X-Request-Id"] = g.request_id
    if request.endpoint != "static":
        response.headers["Cache-Control"] = "no-store"
    # the route, not the path: what a client made up stays out of the log
    route = request.url_rule.rule if request.url_rule else "unknown route"
    milliseconds = 1000 * (time.perf_counter() - g.started)
    log.info("%s %s %s %d %.1f ms", g.request_id, request.method, route, response.status_code, milliseconds)
    return response


def _answer_unreadable(error: ImageError) -> Response:
    return _problem(BadRequest(str(error)), "urn:scanbook:unreadable-image", "Unreadable image")


def _answer_error(error: HTTPException) -> Response:
    if isinstance(error, RequestEntityTooLarge):
        _drain()
        error.description = f"the request is too large; expected at most {MAX_BYTES // 2**20} MB"
    return _problem(error, "about:blank", error.name)


def _drain() -> None:
    """Reads what a client still sends, within reason: most clients read no answer before they have sent all."""
    stream, left = request.environ["wsgi.input"], DRAINED
    while left > 0 and (chunk := stream.read(min(left, 2**16))):
        left -= len(chunk)


def _problem(error: HTTPException, kind: str, title: str) -> Response:
    """An error as problem details (RFC 9457) for a program, as a page for a person."""
    response = error.get_response()
    people = request.path != "/predict" and request.accept_mimetypes.best_match(
        [PROBLEM, "application/json", "text/html"]
    )
    if people == "text/html":
        # urls are matched before the error, so `/` can show its form again
        template = "page.html" if request.path == "/" else "error.html"
        response.data = render_template(template, problem=title, detail=error.description)
        response.content_type = "text/html; charset=utf-8"
        return response
    response.data = current_app.json.dumps(
        {"type": kind, "title": title, "status": error.code, "detail": error.description, "request_id": g.request_id}
    )
    response.content_type = PROBLEM
    return response
