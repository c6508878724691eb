"""How the images of another source differ from those a bundle was trained on: prevalence, colour, and scanner.

All are measured on one scale: how well the source of an image can be told, by its labels alone, by its colour and light
alone, or by its size and sharpness alone. Sources that are alike have an AUROC of 0.5.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from scanbook.data import pixels, quality
from scanbook.data.manifest import TRAIN, Manifest
from scanbook.evaluation.sources import EXTERNAL
from scanbook.evaluation.two_sample import Separation, balance_labels, separate
from scanbook.external.sharing import join_sources

PREVALENCE, COLOUR, SCANNER = "prevalence", "colour and light", "scanner and size"
PROPERTIES = {
    COLOUR: ("brightness", "contrast", "saturation", "red_minus_blue", "green_minus_magenta"),
    SCANNER: ("width_px", "height_px", "kilobytes", "sharpness"),
}
"""Properties of notebook 01 by which each kind of shift is measured."""
_COUNTED = ("width_px", "height_px", "kilobytes")
"""Properties that are compared by their logarithms."""
MOST = 2000
"""Most images of a source whose source is predicted."""
_FEWEST = 5
"""Fewest patients of a source by which it is compared."""
_LEAST_SIDE = 32
"""Smallest side of the images that this backbone takes, in pixels."""
BACKBONE = "mobilenet_v2_0.35"
"""Backbone whose frozen features are compared; its weights come with scanbook."""


def sample(manifest: Manifest, seed: int) -> Manifest:
    """Return about `MOST` images of a source, whole groups at a time, or all."""
    frame = manifest.frame
    if len(frame) <= MOST:
        return manifest
    codes = pd.factorize(frame["group"])[0]
    order = np.random.default_rng(seed).permutation(codes.max() + 1)
    sizes = np.bincount(codes)[order].cumsum()
    return manifest.with_frame(frame[np.isin(codes, order[sizes <= MOST])])


def find_shifts(
    internal: Manifest,
    external: Manifest,
    everything: Manifest,
    *,
    compared: Sequence[str] | None = None,
    scanned: pd.DataFrame | None = None,
    rounds: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """Return how far the sources differ in prevalence, colour and light, scanner and size; the largest shift first.

    Colour and scanner are compared at equal prevalence: the external images are weighted to the internal labels. Images
    that are not labelled with every compared finding are excluded; where too few patients remain, colour and scanner
    are compared without weights, of all images.

    Args:
        internal: Training images of the bundle.
        external: Images of the other source, with the bundle's labels.
        everything: The internal images whose prevalence is compared.
        compared: Classes or findings whose prevalence is compared, those that both sources have; None for all.
        scanned: `quality.scan` of `join_sources`, with these images among others; None to read them.
        rounds: Number of resamples.
        seed: Seed of the samples, folds and resamples.

    Returns:
        Index `shift`; columns auc, low, high, images (of both sources). Without a row where a source has too few
        patients.
    """
    rows: dict[str, Separation | None] = {}
    counts: dict[str, int] = {}
    names, options = compared or internal.names, {"rounds": rounds, "seed": seed}
    if sides := fully_labelled(everything, external, names):
        labels, other, group = _joined_labels(*(sample(side, seed) for side in sides), names)
        counts[PREVALENCE] = len(other)
        if np.ptp(labels, axis=0).any():
            rows[PREVALENCE] = separate(labels, other, group, **options)
    sides = fully_labelled(internal, external, names)
    first, second = (sample(side, seed) for side in sides or (internal, external))
    labels, other, group = _joined_labels(first, second, names)
    counts |= dict.fromkeys(PROPERTIES, len(other))
    if _enough(first) and _enough(second):
        joined = join_sources(first, second)
        table = quality.properties(quality.scan(joined) if scanned is None else scanned, joined)
        assert len(table) == len(other), "unreadable images have no split"
        weights = balance_labels(labels, other, group, seed) if sides else None
        for name, columns in PROPERTIES.items():
            values = table[list(columns)].astype(np.float64)
            values = values.assign(**{key: np.log(values[key]) for key in _COUNTED if key in values})
            standard = (values - values.mean()) / values.std().replace(0, 1.0)
            features = np.column_stack([standard, standard**2])
            rows[name] = separate(features, other, group, weights=weights, **options)
    found = {name: row for name, row in rows.items() if row is not None}
    table = pd.DataFrame(
        {
            "auc": [row.value for row in found.values()],
            "low": [row.low for row in found.values()],
            "high": [row.high for row in found.values()],
            "images": [counts[name] for name in found],
        },
        index=pd.Index(list(found), name="shift"),
    )
    return table.sort_values("auc", ascending=False, kind="stable")


def property_differences(
    internal: Manifest, external: Manifest, *, scanned: pd.DataFrame | None = None, seed: int = 0
) -> pd.DataFrame:
    """Return how far each property of notebook 01 differs between the sources, as `quality.differences` has it.

    The arguments are those of `find_shifts`.
    """
    joined = join_sources(sample(internal, seed), sample(external, seed))
    properties = quality.properties(quality.scan(joined) if scanned is None else scanned, joined)
    table = quality.differences(properties, joined.classes)
    return table.assign(higher=np.where(table["class"] == "", "neither", _higher(table)))[
        ["higher", "auc", "low", "high"]
    ].rename(columns={"higher": "higher in"})


def _higher(table: pd.DataFrame) -> np.ndarray:
    external = (table["class"] == EXTERNAL) == table["higher"].astype(bool)
    return np.where(external, EXTERNAL, "internal")


def feature_distance(
    internal: Manifest,
    external: Manifest,
    size: tuple[int, int],
    weights: str,
    *,
    rounds: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """Return how well the source of an image can be told from the features of a frozen backbone.

    Args:
        internal: All images of the bundle's study, with their splits.
        external: Images of the other source.
        size: Height and width at which the bundle takes images.
        weights: Where the backbone's weights come from, as in a study.
        rounds: Number of resamples.
        seed: Seed of the samples, folds and resamples.

    Returns:
        Index `compared with training images`: the external images, and as a control the internal test images; columns
        auc, low, high, images. Without a row where a source has too few patients.
    """
    from scanbook.models import backbones, features  # which import Keras

    first = sample(internal.with_frame(internal.frame[internal.frame["split"] != ""]), seed)
    joined = join_sources(first, sample(external, seed))
    images = pixels.load(joined, (max(_LEAST_SIDE, size[0]), max(_LEAST_SIDE, size[1])))
    found, _ = features.extract(joined, images, BACKBONE, backbones.pretrained(BACKBONE, weights))
    values, group = np.asarray(found, np.float64), joined.frame["group"].to_numpy()
    splits = np.concatenate([first.frame["split"].to_numpy(), np.full(len(joined.frame) - len(first.frame), EXTERNAL)])
    rows = {}
    for name, side in (("external images", splits == EXTERNAL), ("internal test images", splits == "test")):
        chosen = side | (splits == TRAIN)
        area = separate(values[chosen], side[chosen], group[chosen], rounds=rounds, seed=seed)
        if area is not None:
            rows[name] = [area.value, area.low, area.high, int(chosen.sum())]
    table = pd.DataFrame.from_dict(rows, orient="index", columns=["auc", "low", "high", "images"])
    return table.rename_axis("compared with training images")


def fully_labelled(internal: Manifest, external: Manifest, compared: Sequence[str]) -> tuple[Manifest, Manifest] | None:
    """Return the images of both sources that are labelled with every compared class or finding.

    None where a source has too few patients of such images.
    """
    sides = []
    for manifest in (internal, external):
        known = ~np.isnan(_labels(manifest, compared)).any(axis=1)
        sides.append(manifest if known.all() else manifest.with_frame(manifest.frame[known]))
    return (sides[0], sides[1]) if all(map(_enough, sides)) else None


def _enough(manifest: Manifest) -> bool:
    return manifest.frame["group"].nunique() >= _FEWEST


def _labels(manifest: Manifest, compared: Sequence[str]) -> np.ndarray:
    return manifest.labels.values[:, [manifest.names.index(name) for name in compared]]


def _joined_labels(
    internal: Manifest, external: Manifest, compared: Sequence[str]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return labels `(n, k)`, whether each image is external, and its group, of both sources one after the other."""
    labels = np.concatenate([_labels(manifest, compared) for manifest in (internal, external)])
    other = np.repeat([False, True], [len(internal.frame), len(external.frame)])
    groups = [manifest.frame["group"].astype(str) for manifest in (internal, external)]
    return labels, other, np.concatenate([f"{int(side)}: " + group for side, group in enumerate(groups)])
