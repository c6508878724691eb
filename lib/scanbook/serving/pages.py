"""Pages for people: one that takes images and shows predictions, with or without JavaScript, and the cards."""

from __future__ import annotations

from flask import Blueprint, abort, g, render_template, request
from flask_babel import gettext as _
from werkzeug.exceptions import BadRequest

from scanbook.bundle import Bundle
from scanbook.bundle.description import CARD, DATASET_CARD, HTML
from scanbook.errors import ImageError
from scanbook.serving import uploads
from scanbook.serving.state import service
from scanbook.serving.uploads import EXAM, FINDING
from scanbook.serving.views import make_view

pages = Blueprint("pages", __name__)


@pages.get("/")
def form() -> str:
    """Return the page without predictions."""
    return render_template("page.html", views=[])


@pages.post("/")
def classify() -> str | tuple[str, int]:
    """Return the page with predictions for the images of its form."""
    sources, predictor = uploads.read_form(), service().predictor
    bundle, limit = predictor.bundle, predictor.max_images
    chosen, together = request.form.get(FINDING, ""), request.form.get(EXAM) == "1"
    g.chosen, g.together = chosen, together  # a page that says what is wrong keeps them
    if not sources:
        raise BadRequest(_("No image was chosen. Choose one, then send it."))
    if len(sources) > limit:
        raise BadRequest(_("You sent %(count)s images. The limit is %(limit)s.", count=len(sources), limit=limit))
    if chosen and chosen not in bundle.findings:
        raise BadRequest(_("The model does not know this finding. Choose one from the list."))
    if together and not bundle.exam:
        raise BadRequest(_("This model has no answer for exams. Send the images without this choice."))
    finding = bundle.findings.index(chosen) if chosen else None
    outcomes = predictor.predict_readable(sources, pictures=True, finding=finding)
    if len(outcomes) == 1 and isinstance(outcomes[0], ImageError):
        raise outcomes[0]
    predictions = [outcome for outcome in outcomes if not isinstance(outcome, ImageError)]
    text = render_template(
        "page.html",
        views=[make_view(bundle, number, outcome) for number, outcome in enumerate(outcomes, 1)],
        exam=make_view(bundle, 0, predictor.predict_exam(predictions)) if together and predictions else None,
        read=len(predictions),
    )
    return text if predictions else (text, 400)


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
