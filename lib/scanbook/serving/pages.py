"""Pages for people: one that takes images and shows predictions, with or without JavaScript, and the cards."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field

from flask import Blueprint, abort, render_template
from flask_babel import gettext as _
from werkzeug.exceptions import BadRequest

from scanbook.bundle import Bundle
from scanbook.bundle.description import CARD, DATASET_CARD, HTML
from scanbook.errors import ImageError
from scanbook.serving import uploads
from scanbook.serving.languages import language
from scanbook.serving.predictor import Prediction
from scanbook.serving.problems import REASONS
from scanbook.serving.state import service

pages = Blueprint("pages", __name__)


@dataclass(frozen=True)
class View:
    """One image as the page shows it.

    Attributes:
        number: Position among the images of the request, from 1.
        problem: Why there is no prediction, in the reader's language; "" if there is one.
        label: The most probable class, in the reader's language.
        confidence: Its calibrated probability.
        abstained: Whether the confidence is too low for a prediction.
        bars: Each class and its probability, the most probable first.
        picture: The image, as a data URI.
        heat_map: The evidence for the class, to lie over the picture, as a data URI.
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
def form() -> str:
    """Return the page without predictions."""
    return render_template("page.html", views=[])


@pages.post("/")
def classify() -> str | tuple[str, int]:
    """Return the page with predictions for the images of its form."""
    sources, limit = uploads.read_form(), service().predictor.max_images
    if not sources:
        raise BadRequest(_("No image was chosen. Choose one, then press Classify."))
    if len(sources) > limit:
        raise BadRequest(_("You sent %(count)s images. The limit is %(limit)s.", count=len(sources), limit=limit))
    outcomes = service().predictor.predict_readable(sources, pictures=True)
    if len(outcomes) == 1 and isinstance(outcomes[0], ImageError):
        raise outcomes[0]
    text = render_template("page.html", views=[_view(number, outcome) for number, outcome in enumerate(outcomes, 1)])
    return text if any(isinstance(outcome, Prediction) for outcome in outcomes) else (text, 400)


@pages.get("/model-card")
def model_card() -> str:
    """Return the model card."""
    return _card(CARD, _("Model card"))


@pages.get("/dataset-card")
def dataset_card() -> str:
    """Return the card of the dataset on which the model was trained."""
    if not has_dataset_card(service().predictor.bundle):
        abort(404)
    return _card(DATASET_CARD, _("Dataset card"))


def _card(name: str, heading: str) -> str:
    """Return the page of a card: the HTML that the export made of it or, of an older bundle, its text."""
    folder = service().predictor.bundle.folder
    rendered = (folder / HTML[name]).is_file()
    text = (folder / (HTML[name] if rendered else name)).read_text("utf-8")
    return render_template("card.html", heading=heading, text=text, rendered=rendered)


def has_dataset_card(bundle: Bundle) -> bool:
    """Return whether a bundle has a dataset card."""
    return (bundle.folder / DATASET_CARD).is_file()


def _view(number: int, outcome: Prediction | ImageError) -> View:
    if isinstance(outcome, ImageError):
        return View(number, problem=str(REASONS[outcome.reason]))
    bundle = service().predictor.bundle
    probabilities = outcome.probabilities.tolist()
    order = sorted(range(len(probabilities)), key=lambda index: -probabilities[index])
    bars = [(bundle.label(index, language()), probabilities[index]) for index in order]
    return View(
        number,
        label=bars[0][0],
        confidence=outcome.confidence,
        abstained=outcome.abstained,
        bars=bars,
        picture=data_uri("image/jpeg", outcome.picture),
        heat_map=data_uri("image/png", outcome.heat_map),
    )


def data_uri(kind: str, data: bytes) -> str:
    """Return bytes as a data URI."""
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"
