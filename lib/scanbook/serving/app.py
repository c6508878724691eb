"""The Flask application: pages for people, routes for programs, and what applies to every request.

An upload is decoded in memory and dropped after the response. It is not written to a disk and its file name is not
read; the log has only the identifier, route, status and duration of a request.
"""

from __future__ import annotations

import json
import logging
import time
import uuid
from http import HTTPStatus
from pathlib import Path
from types import TracebackType
from typing import Any

from flask import Flask, Response, g, request
from werkzeug.middleware.proxy_fix import ProxyFix

from scanbook import bundle
from scanbook.serving import languages, problems
from scanbook.serving.languages import percent
from scanbook.serving.metrics import Metrics
from scanbook.serving.pages import has_dataset_card, pages
from scanbook.serving.predictor import Predictor
from scanbook.serving.programs import programs
from scanbook.serving.settings import Settings, find_bundle
from scanbook.serving.state import EXTENSION, RETRY_AFTER, Service, service
from scanbook.serving.uploads import EXAM, FIELD, FINDING, MAX_BYTES, MAX_IMAGES, InMemoryRequest

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(self), geolocation=(), microphone=(), payment=(), usb=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
UNLIMITED = ("static", "programs.health", "programs.readiness", "programs.metrics")
"""Endpoints without a rate limit: those that monitoring calls often, and the files of a page."""
UNKNOWN = "unknown route"

log = logging.getLogger("scanbook.serving")


class _Application(Flask):
    request_class = InMemoryRequest

    def wsgi_app(self, environ: dict[str, Any], start_response: Any) -> Any:
        # for an empty path Flask would redirect to the host that the client named
        environ["PATH_INFO"] = environ.get("PATH_INFO") or "/"
        return super().wsgi_app(environ, start_response)

    def log_exception(self, exc_info: tuple[type, BaseException, TracebackType] | tuple[None, None, None]) -> None:
        log.error("%s failed", g.request_id, exc_info=exc_info)


def create_app(folder: Path | str = "", settings: Settings | None = None, cores: int | None = None) -> Flask:
    """Return the application that serves a bundle, its model loaded and warmed up.

    Another WSGI server can run it: `SCANBOOK_BUNDLE=folder gunicorn -k gthread 'scanbook.serving.app:create_app()'`.

    Args:
        folder: Folder of an exported bundle; "" for that of `find_bundle`.
        settings: Settings of the service.
        cores: Processors for the model; None for all.

    Raises:
        BundleError: There is no bundle, or it is incomplete, altered or inconsistent.
    """
    settings, metrics = settings or Settings(), Metrics()
    _log_to_gunicorn()
    predictor = Predictor(bundle.load(find_bundle(folder)), settings, cores, metrics)
    app = _Application(__name__)
    app.config["MAX_CONTENT_LENGTH"] = MAX_BYTES
    app.config["MAX_FORM_PARTS"] = 2 * MAX_IMAGES
    app.json.sort_keys = False  # type: ignore[attr-defined]  # probabilities keep the class order
    app.url_map.merge_slashes = False  # merging would be another redirect
    app.extensions[EXTENSION] = Service(predictor, settings, metrics)
    app.jinja_env.filters["percent"] = percent
    app.jinja_env.globals |= {
        "bundle": predictor.bundle,
        "field": FIELD,
        "finding_field": FINDING,
        "exam_field": EXAM,
        "has_dataset_card": has_dataset_card(predictor.bundle),
        "max_bytes": MAX_BYTES,
        "max_images": predictor.max_images,
    }
    app.register_blueprint(pages)
    app.register_blueprint(programs)
    app.before_request(_start)
    app.after_request(_finish)
    languages.init_app(app)
    problems.init_app(app)
    if settings.trusted_proxies:
        count = settings.trusted_proxies
        app.wsgi_app = ProxyFix(app.wsgi_app, x_for=count, x_proto=count)  # type: ignore[method-assign]
    if settings.rate_limit:
        from flask_limiter import Limiter  # slow to import
        from flask_limiter.util import get_remote_address

        Limiter(
            get_remote_address,
            app=app,
            application_limits=[settings.rate_limit],
            application_limits_exempt_when=lambda: request.endpoint in UNLIMITED,
            storage_uri="memory://",
        )
    return app


def _log_to_gunicorn() -> None:
    """Write the log where gunicorn writes its own, if gunicorn runs the application."""
    if handlers := logging.getLogger("gunicorn.error").handlers:
        log.handlers, log.propagate = handlers, False
        log.setLevel(logging.INFO)


def refusal(status: int, detail: str) -> bytes:
    """Return a whole response for a request that does not reach the application; the connection closes after it."""
    request_id, title = uuid.uuid4().hex, HTTPStatus(status).phrase
    body = json.dumps(problems.details(status, title, detail, request_id)).encode()
    fields = HEADERS | {
        "Cache-Control": "no-store",
        "Connection": "close",
        "Content-Length": str(len(body)),
        "Content-Type": problems.PROBLEM,
        "X-Request-Id": request_id,
    }
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        fields["Retry-After"] = str(RETRY_AFTER)
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"HTTP/1.1 {status} {title}\r\n{head}\r\n".encode() + body


def _start() -> None:
    g.request_id = uuid.uuid4().hex
    g.started = time.perf_counter()


def _finish(response: Response) -> Response:
    response.headers.extend(HEADERS)
    response.headers["X-Request-Id"] = g.request_id
    if request.endpoint != "static":
        response.headers["Cache-Control"] = "no-store"
    # the route, not the path, so that no text from the client gets into the log
    route = request.url_rule.rule if request.url_rule else UNKNOWN
    seconds = time.perf_counter() - g.started
    service().metrics.count_request(route, request.method, response.status_code, seconds)
    log.info("%s %s %s %d %.1f ms", g.request_id, request.method, route, response.status_code, 1000 * seconds)
    return response
