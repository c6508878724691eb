"""The weights of a study's backbones: ImageNet's, scanbook's own, of a preset, of a file, or none, with the reason."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pandas as pd

from scanbook.config import Pretraining, Study
from scanbook.errors import UnavailableError
from scanbook.models.backbones import files, networks, presets
from scanbook.models.backbones.imagenet import pretrained
from scanbook.models.backbones.weights import RANDOM, Weights, spec_of
from scanbook.registry import BACKBONES, FILE, PRESET


def resolve(study: Study) -> tuple[dict[str, Weights], dict[str, str]]:
    """Return the pretrained weights of the study's backbones.

    Returns:
        The weights by backbone, in the study's order; and the reason by backbone without weights.

    Raises:
        ModelError: A file or preset that the study names is missing, is not what it should be, or does not take images
            of the study's size.
    """
    weights, missing = {}, {}
    for name in study.pretrained_backbones:
        if study.weights == "none":
            missing[name] = f"no pretrained weights for {name}: the study sets weights to none"
            continue
        try:
            weights[name] = _find(study, name)
        except UnavailableError as error:
            missing[name] = str(error)
    return weights, missing


def architectures(study: Study) -> dict[str, Weights]:
    """Return what each of the study's backbones is built from with random weights, but for presets that are missing."""
    found = {}
    for name in study.backbones:
        if name in BACKBONES:
            found[name] = RANDOM
            continue
        try:
            found[name] = replace(_find(study, name), source=RANDOM.source, path=None, digest="")
        except UnavailableError:
            continue
    return found


def _find(study: Study, name: str) -> Weights:
    """Return the weights of one backbone, with what the study tells of their origin."""
    stated = study.pretraining.get(name, Pretraining())
    if name.startswith(FILE):
        weights = files.read_network(name, stated)
    elif name.startswith(PRESET):
        weights = presets.read(name, stated)
        networks.check_size(spec_of(name, weights), study.size)
    else:
        weights = pretrained(name, study.weights if isinstance(study.weights, str) else "auto")
    known = weights.pretraining.model_dump() | {key: value for key, value in stated.model_dump().items() if value}
    spec = weights.spec
    if stated.stated_scaling:
        spec = replace(spec_of(name, weights), scaling=stated.stated_scaling)
    return replace(weights, spec=spec, pretraining=Pretraining.model_validate(known))


def tabulate(summaries: Mapping[str, Mapping[str, float]], weights: Mapping[str, Weights]) -> pd.DataFrame:
    """Return the table of networks: the summary of each, and how its features are made.

    Args:
        summaries: `networks.summary` by backbone.
        weights: What each was built from.
    """
    table = pd.DataFrame.from_dict(summaries, orient="index")
    return table.assign(pooling=[spec_of(name, weights[name]).pooling_in_words for name in table.index])


def describe(weights: dict[str, Weights], missing: dict[str, str]) -> str:
    """Return one sentence with the source of each backbone's pretrained weights, and why some have none."""
    shipped = {"scanbook": " (shipped with scanbook)"}
    available = ", ".join(f"{name}: {it.in_words}{shipped.get(it.source, '')}" for name, it in weights.items())
    not_run = " ".join(f"Not run: {reason}." for reason in missing.values())
    return f"Pretrained weights: {available or 'none'}. {not_run}".strip()
