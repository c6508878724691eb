"""Languages of the pages: the choice of one, and numbers in its format."""

from __future__ import annotations

from flask import Flask, Response, g, request
from flask_babel import Babel, get_locale

from scanbook import bundle

LANGUAGES = {code: name for code, (_, name) in bundle.LANGUAGES.items()}
"""Name of each language in the language itself, by its code; the first is the default."""
COOKIE = "lang"
_YEAR = 365 * 24 * 3600


def init_app(app: Flask) -> None:
    """Make an application use the reader's language."""
    Babel(app, default_locale=next(iter(LANGUAGES)), locale_selector=language)
    app.context_processor(lambda: {"language": language(), "languages": LANGUAGES})
    app.after_request(_remember)


def language() -> str:
    """Return the reader's language: chosen in this request, chosen before, preferred by the browser, or the default."""
    if "language" not in g:
        codes = (request.args.get("lang"), request.cookies.get(COOKIE))
        preferred = request.accept_languages.best_match(LANGUAGES, next(iter(LANGUAGES)))
        g.language = next((code for code in codes if code in LANGUAGES), preferred)
    return g.language


def percent(share: float) -> str:
    """Return a probability as text in the reader's format, such as "87.3 %"; never "0.0 %" or "100.0 %"."""
    if share < 0.001:
        return f"< {_decimal(0.1)} %"
    return f"> {_decimal(99.9)} %" if share > 0.999 else f"{_decimal(100 * share)} %"


def _decimal(number: float) -> str:
    locale = get_locale()  # None outside a request
    return f"{number:.1f}".replace(".", locale.number_symbols["latn"]["decimal"] if locale else ".")


def _remember(response: Response) -> Response:
    if request.args.get("lang") in LANGUAGES:
        response.set_cookie(COOKIE, language(), max_age=_YEAR, httponly=True, samesite="Lax", secure=request.is_secure)
    return response
