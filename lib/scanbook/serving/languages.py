"""The languages of the pages: which one a reader gets, and numbers as it writes them."""

from __future__ import annotations

from flask import Flask, Response, g, request
from flask_babel import Babel, get_locale

from scanbook import bundle as bundles

LANGUAGES = {code: own for code, (_, own) in bundles.LANGUAGES.items()}
"""Each language's own name by its code; the first is for readers of none of them."""
COOKIE = "lang"
_A_YEAR = 365 * 24 * 3600


def init_app(app: Flask) -> None:
    """Lets an application answer in the reader's language."""
    Babel(app, default_locale=next(iter(LANGUAGES)), locale_selector=language)
    app.context_processor(lambda: {"language": language(), "languages": LANGUAGES})
    app.after_request(_remember)


def language() -> str:
    """The reader's language: as switched to just now, as switched to before, as the browser asks for, or the first."""
    if "language" not in g:
        wanted = (request.args.get("lang"), request.cookies.get(COOKIE))
        known = [code for code in wanted if code in LANGUAGES]
        g.language = known[0] if known else request.accept_languages.best_match(LANGUAGES, next(iter(LANGUAGES)))
    return g.language


def percent(share: float) -> str:
    """A probability for people: "87.3 %", in the reader's own writing; what rounds to none or all says so."""
    if share < 0.001:
        return f"< {_decimal(0.1)} %"
    return f"> {_decimal(99.9)} %" if share > 0.999 else f"{_decimal(100 * share)} %"


def _decimal(number: float) -> str:
    locale = get_locale()  # none outside a request
    return f"{number:.1f}".replace(".", locale.number_symbols["latn"]["decimal"] if locale else ".")


def _remember(response: Response) -> Response:
    if request.args.get("lang") in LANGUAGES:
        response.set_cookie(
            COOKIE, language(), max_age=_A_YEAR, httponly=True, samesite="Lax", secure=request.is_secure
        )
    return response
