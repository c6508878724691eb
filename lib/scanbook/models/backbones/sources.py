"""The weights of a study's backbones: ImageNet's, scanbook's own, of a preset, of a file, or none, with the reason."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pandas as pd

from scanbook.config import Pretraining, Study
from scanbook.data import embeddings
from scanbook.errors import UnavailableError
from scanbook.models.backbones import files, networks, presets
from scanbook.models.backbones.imagenet import pretrained
from scanbook.models.backbones.weights import RANDOM, Weights, spec_of
from scanbook.registry import BACKBONES, EMBEDDINGS, FILE, PRESET, SCALINGS, BackboneSpec


def resolve(study: Study) -> tuple[dict[str, Weights], dict[str, str]]:
    """Return the pretrained weights of the study's backbones.

    Returns:
        The weights by backbone, in the study's order; and the reason by backbone without weights.

    Raises:
        ModelError: A file or preset that the study names is missing, is not what it should be, or does not take images
            of the study's size.
        DataError: Likewise a file of vectors, which then are the study's one backbone.
    """
    weights, missing = {}, {}
    for name in study.pretrained_backbones:
        if study.weights == "none" and name != EMBEDDINGS:
            missing[name] = f"no pretrained weights for {name}: the study sets weights to none"
            continue
        try:
            weights[name] = _find(study, name)
        except UnavailableError as error:
            missing[name] = str(error)
    return weights, missing


def resolve_for_images(study: Study) -> tuple[dict[str, Weights], dict[str, str]]:
    """Return what `resolve` does, for steps that change images: of a study of vectors none, with the reason."""
    if not study.embeddings:
        return resolve(study)
    return {}, {EMBEDDINGS: f"the models take vectors in place of images, and {NO_NETWORK}"}


NO_NETWORK = "the network that computes vectors of changed or new images is not in the study"
"""Why a step is not run in a study of vectors."""


def architectures(study: Study) -> dict[str, Weights]:
    """Return what each of the study's backbones is built from with random weights, but for presets that are missing."""
    weights = {}
    for name in study.backbones:
        if name in BACKBONES:
            weights[name] = RANDOM
            continue
        try:
            weights[name] = replace(_find(study, name), source=RANDOM.source, path=None, digest="")
        except UnavailableError:
            continue
    return weights


def _find(study: Study, name: str) -> Weights:
    """Return the weights of one backbone, with what the study tells of their origin."""
    stated = study.pretraining.get(name, Pretraining())
    if name == EMBEDDINGS:
        return _of_vectors(study, stated)
    if name.startswith(FILE):
        weights = files.read_network(name, stated)
    elif name in study.weight_files:
        weights = files.read_weights(name, study.weight_files[name], stated)
    elif name.startswith(PRESET):
        weights = presets.read(name, stated)
        networks.check_size(spec_of(name, weights), study.size)
    else:
        weights = pretrained(name, "auto" if isinstance(study.weights, dict) else study.weights)
    known = weights.pretraining.model_dump() | {key: value for key, value in stated.model_dump().items() if value}
    spec = weights.spec
    if stated.stated_scaling:
        spec = replace(spec_of(name, weights), scaling=stated.stated_scaling)
    return replace(weights, spec=spec, pretraining=Pretraining.model_validate(known))


def tabulate_origins(weights: dict[str, Weights]) -> pd.DataFrame:
    """Return what is known of pretrained weights: `pretrained_on`, `licence`, `scaling`, `sha256` and `source`.

    Index `backbone`. What nobody stated is "not stated"; `scaling` is "stated" in the study, or "of the backbone".
    """
    rows = {}
    for name, found in weights.items():
        known = found.pretraining
        rows[name] = {
            "pretrained_on": known.corpus or "not stated",
            "licence": known.licence or "not stated",
            "scaling": "stated" if known.stated_scaling else "of the backbone",
            "sha256": found.digest,
            "source": known.source or "not stated",
        }
    columns = ["pretrained_on", "licence", "scaling", "sha256", "source"]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns).rename_axis("backbone")


def _of_vectors(study: Study, stated: Pretraining) -> Weights:
    """Return vectors in place of a network, with what the study and their file tell of their origin."""
    found = embeddings.read(study)
    spec = BackboneSpec(EMBEDDINGS, "", SCALINGS["0..255"], {"channels": found.vectors.shape[1]}, smallest=1)
    stated_in_words = " ".join(
        f"{key[0].upper()}{key[1:]}: {value}." for key, value in stated.model_dump(exclude_unset=True).items() if value
    )
    note = (
        f"The models take vectors (embeddings) in place of images: {found.in_words}. {stated_in_words} A network "
        "that `backbones` names is not used, and no image is augmented."
    )
    corpus = stated.corpus or str(found.about.get("pretrained on", ""))
    origin = stated.model_copy(update={"corpus": corpus})
    return Weights(EMBEDDINGS, found.path, found.digest, spec, origin, " ".join(note.split()))


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
    if EMBEDDINGS in weights:
        return weights[EMBEDDINGS].note
    available = ", ".join(f"{name}: {it.in_words}{_remark(it)}" for name, it in weights.items())
    not_run = " ".join(f"Not run: {reason}." for reason in missing.values())
    unstated = [name for name, it in weights.items() if it.source == "file" and not it.pretraining.stated_scaling]
    scaled = (
        f"The study states no scaling for {', '.join(unstated)}: images are scaled as ImageNet's weights expect them."
        if unstated
        else ""
    )
    return " ".join(filter(None, (f"Pretrained weights: {available or 'none'}.", scaled, not_run)))


def _remark(weights: Weights) -> str:
    """Return where weights come from, in brackets, unless that is where everybody's come from."""
    if weights.source == "scanbook":
        return " (shipped with scanbook)"
    return f" ({weights.pretraining.source})" if weights.source == "file" else ""
