"""What reports of a study show whose models take vectors (embeddings) in place of images, and say of the rest."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from scanbook import evaluation
from scanbook.data import images
from scanbook.data.manifest import TEST, Manifest
from scanbook.evaluation import AnyPredictions, FindingPredictions
from scanbook.reporting import finding_sections, plots

if TYPE_CHECKING:
    from scanbook.models.backbones import Weights
    from scanbook.reporting.notebook import Session

NOT_FINE_TUNED = (
    "The model is the head on the embeddings; nothing is fine-tuned, since there is no image network in the study."
)
NO_EXTRACTION = "The study's vectors are the features: no network extracts any, and the head is all that is trained."
NO_SCRATCH = (
    "No network is trained from scratch, and none is compared with the head: the study has vectors in place of images."
)
NO_ROBUSTNESS = (
    "Robustness is not measured: corrupted images need the network that computes their vectors, which is not in the "
    "study."
)
_NO_HEAT_MAPS = "Grad-CAM is not shown: a heat map needs the network's feature map, and the study has vectors alone."
_FAILURES = 18
"""Wrong answers that are shown."""


def show_weights(session: Session) -> tuple[dict[str, Weights], dict[str, str]]:
    """Show which backbones have pretrained weights for steps that change images; `backbones.resolve_for_images`."""
    from scanbook.models import backbones  # here, since it imports Keras

    weights, missing = backbones.resolve_for_images(session.study)
    if session.study.embeddings:
        session.say(" ".join(f"Not run: {reason}." for reason in missing.values()))
    else:
        session.warning(backbones.describe(weights, missing))
    return weights, missing


def show_failures(session: Session, manifest: Manifest, test: AnyPredictions, points: pd.DataFrame) -> None:
    """Show the most confident wrong answers, and say why there are no heat maps.

    Args:
        session: Shows and keeps the results.
        manifest: The dataset, split.
        test: Predictions for its test images.
        points: Operating points of findings, whose answers are right or wrong at a threshold.
    """
    session.say(_NO_HEAT_MAPS)
    paths = manifest.frame["path"].to_numpy()[manifest.rows(TEST)]
    if isinstance(test, FindingPredictions):
        places, captions = finding_sections.wrong_answers(test, points)
    else:
        wrong = evaluation.failures(test, _FAILURES)
        places, captions = wrong.tolist(), test.captions(wrong)
    shown = [images.load(Path(paths[place]), session.study.size) for place in places]
    figure = plots.montage(shown, captions, title="Most confident wrong answers")
    session.figure("failures", figure, "Test images with the most confident wrong answers")
    name = test.image_id[0]
    session.say(f"The prediction for one image ({name}) as an example. {test.single(name)}.")
