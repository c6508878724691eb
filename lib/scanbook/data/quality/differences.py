"""Differences between the classes in size, light and colour, and missing metadata."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy import stats

from scanbook.data import counts
from scanbook.data.manifest import TRAIN, Manifest
from scanbook.data.quality.rules import enough_groups, small_classes

PROPERTIES = {
    "width_px": "width",
    "height_px": "height",
    "kilobytes": "file size",
    "brightness": "brightness",
    "contrast": "contrast",
    "sharpness": "sharpness",
    "saturation": "saturation",
    "red_minus_blue": "a tint between red and blue",
    "green_minus_magenta": "a tint between green and magenta",
}
"""Properties of an image that are compared between classes, with the name of each in a sentence."""
REVEALING_AUC = 0.75
"""Area under the ROC curve from which a property is said to reveal a class."""
_SURE = 0.01
"""Corrected p below which a property is said to reveal a class or finding."""
NONE_REVEALS = f"no AUC of {REVEALING_AUC} or more with a corrected p below {_SURE}"
"""What the rows of a table of differences are like where no property reveals a class or finding."""
PERHAPS_SHORTCUT = "Where that is not the disease, it is a shortcut."
"""What it means that a property reveals a class or finding."""
GREY = 4.0
"""Saturation (0 to 255) up to which an image counts as grey: recompression leaves a trace of colour."""
TINT_DEVIATIONS = 5.0
"""Robust standard deviations above the median saturation of a grey dataset beyond which an image is tinted."""


def properties(quality: pd.DataFrame, manifest: Manifest) -> pd.DataFrame:
    """Return one row per readable image: id, label, group, split, format, mode and the columns of `PROPERTIES`."""
    table = manifest.frame[["image_id", "label", "group", "split"]].merge(
        quality[quality["error"] == ""].drop(columns="error"), on="image_id"
    )
    table["width_px"], table["height_px"], table["kilobytes"] = table["width"], table["height"], table["bytes"] / 1000
    table["red_minus_blue"] = table["red"] - table["blue"]
    table["green_minus_magenta"] = table["green"] - (table["red"] + table["blue"]) / 2
    return table[["image_id", "label", "group", "split", *PROPERTIES, "format", "mode"]]


def formats(table: pd.DataFrame, classes: Sequence[str]) -> pd.DataFrame:
    """Return the images per class (rows, in class order) in each format and mode, such as "JPEG, RGB".

    Args:
        table: The result of `properties`, or that of `counts.by_label` for it.
        classes: Classes, or findings, in their order.
    """
    kind = (table["format"] + ", " + table["mode"]).str.strip(", ").replace("", "unknown")
    return (
        pd.crosstab(table["label"], kind).reindex(list(classes), fill_value=0).rename_axis(index="class", columns=None)
    )


def varying_properties(table: pd.DataFrame) -> list[str]:
    """Return those of `PROPERTIES`, except width and height, in which the images differ."""
    return [name for name in PROPERTIES if name not in ("width_px", "height_px") and table[name].nunique() > 1]


def differences(table: pd.DataFrame, classes: Sequence[str]) -> pd.DataFrame:
    """Test whether a single property reveals a class, on training images, with one value per group and class.

    Classes with fewer than `rules.FEWEST_GROUPS` groups are not looked at.

    Args:
        table: The result of `properties`.
        classes: Class names in their order.

    Returns:
        One row per property: `H` and `p` of the Kruskal-Wallis test over the classes, p corrected for the number of
        properties by Holm's method; `epsilon²`, the share of the ranks' variance that the class explains; `class`, the
        class that differs most from the others; `higher`, whether its values are higher; and its `auc` against them
        with a 95 % interval, `low` and `high` (Hanley and McNeil, 1982), folded to lie above one half.
    """
    train = table[table["split"] == TRAIN]
    train = train[train["label"].isin(enough_groups(train, classes))]
    values = train.groupby(["label", "group"])[list(PROPERTIES)].mean()
    labels = values.index.get_level_values("label").to_numpy()
    rows = {}
    for name in PROPERTIES:
        column = values[name].to_numpy()
        samples = {label: column[labels == label] for label in classes if (labels == label).any()}
        if len(samples) < 2 or np.ptp(column) == 0:
            rows[name] = [0.0, 1.0, 0.0, "", False, 0.5, 0.5, 0.5]
            continue
        test = stats.kruskal(*samples.values())
        ranks = stats.rankdata(column)
        areas = {label: rank_area(ranks, labels == label) for label in samples}
        most = max(areas, key=lambda label: abs(areas[label] - 0.5))
        h, count = float(test.statistic), len(samples[most])
        area = fold_area(areas[most], count, len(labels) - count)
        rows[name] = [h, float(test.pvalue), h / (len(column) - 1), most, *area]
    columns = ["H", "p", "epsilon²", "class", "higher", "auc", "low", "high"]
    table = pd.DataFrame.from_dict(rows, orient="index", columns=columns).rename_axis("property")
    return table.assign(p=holm(table["p"].to_numpy()))


def revealing(table: pd.DataFrame) -> pd.DataFrame:
    """Return those rows of a table of differences whose property reveals a class or finding."""
    return table[(table["low"] > 0.5) & (table["auc"] >= REVEALING_AUC) & (table["p"] < _SURE)]


def difference_sentences(table: pd.DataFrame, manifest: Manifest | None = None) -> str:
    """Return the meaning of `differences`: a paragraph for each property that reveals a class, or one for none.

    Args:
        table: The result of `differences`.
        manifest: The dataset, whose classes that were not looked at are named; None names none.
    """
    paragraphs = [
        f"The class {row['class']} can be told from the others by {PROPERTIES[name]} alone: its values are "
        f"{'higher' if row['higher'] else 'lower'} (AUC {row['auc']:.2f}, {row['low']:.2f} to {row['high']:.2f}). "
        + (
            "A tinted class is a shortcut, unless the colour is the disease's own: a network learns the tint."
            if "tint" in PROPERTIES[name]
            else PERHAPS_SHORTCUT
        )
        for name, row in revealing(table).sort_values("auc", ascending=False).iterrows()
    ]
    none = f"No class can be told by one of these properties alone ({NONE_REVEALS})."
    small = small_classes(manifest) if manifest else ""
    if small and (table["class"] == "").all():
        return small
    return "\n\n".join([*(paragraphs or [none]), *([small] if small else [])])


def tinted(table: pd.DataFrame) -> pd.Series:
    """Return which images are tinted among grey ones, bool with the index of `table`; none where most have colour.

    Args:
        table: The result of `quality.scan` or `properties`; `saturation` is NaN where an image is unreadable.
    """
    median = table["saturation"].median()
    if not median <= GREY:
        return pd.Series(False, table.index)
    spread = 1.4826 * (table["saturation"] - median).abs().median()
    return table["saturation"] > median + max(GREY, TINT_DEVIATIONS * spread)


def tints(table: pd.DataFrame, classes: Sequence[str]) -> pd.DataFrame:
    """Count tinted training images among grey ones by class: a tint of some of its images reveals a class, too.

    Args:
        table: The result of `properties`.
        classes: Class names in their order.

    Returns:
        One row per class with `rules.FEWEST_GROUPS` groups or more: `tinted` of `images`, `tinted others` of `others`,
        and `p` of Fisher's exact test whether more of its groups hold a tinted image than of the other classes' groups,
        corrected for the number of classes by Holm's method. No row where no image is tinted.
    """
    train = table[table["split"] == TRAIN]
    train = train.assign(tinted=tinted(train))
    groups = train.groupby(["label", "group"])["tinted"].any()
    sides = {}
    for name in enough_groups(train, classes) if train["tinted"].any() else ():
        inside = train["label"] == name
        of_class = groups.index.get_level_values("label") == name
        images = train.loc[inside, "tinted"], train.loc[~inside, "tinted"]
        sides[name] = images, (groups[of_class], groups[~of_class])
    return compare_tints(sides, "class")


def compare_tints(sides: dict[str, tuple[Sequence[pd.Series], Sequence[pd.Series]]], kind: str) -> pd.DataFrame:
    """Return the table of `tints`.

    Args:
        sides: Of each class or finding: which images are tinted, of those with it and of the others, and which groups
            hold a tinted image, likewise.
        kind: "class" or "finding".
    """
    rows = {}
    for name, ((inside, outside), groups) in sides.items():
        numbers = [[with_tint.sum(), (~with_tint).sum()] for with_tint in groups]
        p = float(stats.fisher_exact(numbers, alternative="greater").pvalue)
        rows[name] = [int(inside.sum()), len(inside), int(outside.sum()), len(outside), p]
    columns = ["tinted", "images", "tinted others", "others", "p"]
    counted = pd.DataFrame.from_dict(rows, orient="index", columns=columns).rename_axis(kind)
    return counted.assign(p=holm(counted["p"].to_numpy(dtype=float)))


def tint_sentences(table: pd.DataFrame) -> str:
    """Return the meaning of `tints`: a paragraph for each class that is tinted more often than the others, or ""."""
    return "\n\n".join(
        f"{row['tinted']:.0f} of {row['images']:.0f} {name} training images are tinted, {row['tinted others']:.0f} of "
        f"{row['others']:.0f} others (Fisher's exact p {p_text(row['p'])}): colour can reveal the class."
        for name, row in table[table["p"] < 0.01].iterrows()
    )


def missing_values(manifest: Manifest) -> pd.DataFrame:
    """Return the number of images without a value, per class or finding (rows, in order, then all) and column."""
    frame, names = counts.by_label(manifest)
    columns = {}
    for name in manifest.metadata:
        unknown = frame[name].isna() | (frame[name] == "")  # the adapters know how "not told" is spelt
        by_label = unknown.groupby(frame["label"]).sum().reindex(names, fill_value=0)
        every = manifest.frame[name].isna() | (manifest.frame[name] == "")
        columns[name] = [*by_label, int(every.sum())]
    return pd.DataFrame(columns, index=pd.Index([*names, "all"], name=counts.kind(manifest)))


def holm(p: np.ndarray) -> np.ndarray:
    """Return the values of p corrected for their number by Holm's step-down method (1979)."""
    order = np.argsort(p, kind="stable")
    corrected = np.empty(len(p))
    corrected[order] = np.minimum(1, np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)))
    return corrected


def p_text(value: float) -> str:
    """Return a value of p in words: "= 0.012"."""
    return "< 0.001" if value < 0.001 else f"= {value:.3f}"


def rank_area(ranks: np.ndarray, inside: np.ndarray) -> float:
    """Return the area under the ROC curve of ranks, by Mann and Whitney's U."""
    positive, negative = inside.sum(), (~inside).sum()
    return float((ranks[inside].sum() - positive * (positive + 1) / 2) / (positive * negative))


def fold_area(area: float, positive: int, negative: int) -> tuple[bool, float, float, float]:
    """Return whether an area is above one half, and the area folded to lie above it, with its 95 % interval."""
    folded = max(area, 1 - area)
    half = 1.96 * _standard_error(folded, positive, negative)
    return area > 0.5, folded, max(0.0, folded - half), min(1.0, folded + half)


def _standard_error(area: float, positive: int, negative: int) -> float:
    """Return the standard error of an area under the ROC curve (Hanley and McNeil, Radiology 143, 1982, eq. 2)."""
    q1, q2 = area / (2 - area), 2 * area**2 / (1 + area)
    variance = area * (1 - area) + (positive - 1) * (q1 - area**2) + (negative - 1) * (q2 - area**2)
    return float(np.sqrt(max(variance, 0.0) / (positive * negative)))
