"""For people: one page that takes images and shows answers, with or without JavaScript, and the cards."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field

from flask import Blueprint, abort, render_template
from flask_babel import gettext as _
from werkzeug.exceptions import BadRequest

from scanbook import bundle as bundles
from scanbook.errors import ImageError
from scanbook.serving import markdown, uploads
from scanbook.serving.languages import language
from scanbook.serving.predictor import Prediction
from scanbook.serving.problems import REASONS
from scanbook.serving.state import service

pages = Blueprint("service", __name__)


@dataclass(frozen=True)
class View:
    """One image as the page shows it.

    Attributes:
        number: Which of those that were sent, from 1.
        problem: Why it got no answer, in the reader's language; "" where it got one.
        label: The likeliest class, in the reader's language.
        confidence: Its calibrated probability.
        abstained: Whether that is too low for an answer.
        bars: Each class and its probability, the likeliest first.
        picture: The image, as a data URI.
        heat_map: What speaks for the class, to lay over the picture, as a data URI.
    """

    number: int
    problem: str = ""
    label: str = ""
    confidence: float = 0.0
    abstained: bool = False
    bars: list[tuple[str, float]] = field(default_factory=list)
    picture: str = ""
    heat_map: str = ""


@pages.get("/")
def page() -> str:
    """The page, empty."""
    return render_template("page.html", answers=[])


@pages.post("/")
def page_answer() -> str | tuple[str, int]:
    """The page with answers, for a form sent with or without JavaScript."""
    sources, most = uploads.of_form(), service().predictor.most
    if not sources:
        raise BadRequest(_("No image was chosen. Choose one, then press Classify."))
    if len(sources) > most:
        raise BadRequest(_("These are %(count)s images; at most %(limit)s are taken.", count=len(sources), limit=most))
    outcomes = service().predictor.outcomes(sources, pictures=True)
    if len(outcomes) == 1 and isinstance(outcomes[0], ImageError):
        raise outcomes[0]
    shown = render_template("page.html", answers=[_view(number, each) for number, each in enumerate(outcomes, 1)])
    return shown if any(isinstance(each, Prediction) for each in outcomes) else (shown, 400)


@pages.get("/model-card")
def model_card() -> str:
    """The model card."""
    return render_template("card.html", heading=_("Model card"), sections=bundles.card(service().predictor.bundle))


@pages.get("/dataset-card")
def dataset_card() -> str:
    """The card of the dataset that the model learned from."""
    if not has_dataset_card(service().predictor.bundle):
        abort(404)
    text = (service().predictor.bundle.folder / bundles.DATASET_CARD).read_text("utf-8")
    return render_template("card.html", heading=_("Dataset card"), sections=markdown.sections(text))


def has_dataset_card(bundle: bundles.Bundle) -> bool:
    """Whether a bundle brings one."""
    return (bundle.folder / bundles.DATASET_CARD).is_file()


def _view(number: int, outcome: Prediction | ImageError) -> View:
    if isinstance(outcome, ImageError):
        return View(number, problem=str(REASONS[outcome.reason]))
    names = service().predictor.bundle
    shares = outcome.probabilities.tolist()
    order = sorted(range(len(shares)), key=lambda index: -shares[index])
    return View(
        number,
        label=names.label(order[0], language()),
        confidence=outcome.confidence,
        abstained=outcome.abstained,
        bars=[(names.label(index, language()), shares[index]) for index in order],
        picture=data_uri("image/jpeg", outcome.picture),
        heat_map=data_uri("image/png", outcome.heat_map),
    )


def data_uri(kind: str, data: bytes) -> str:
    """Bytes as an address that a browser shows without asking for it."""
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"
