"""How the classes differ in size, light and colour, and what the source leaves unsaid of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy import stats

from scanbook.data.manifest import TRAIN, Manifest

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
"""Properties of an image that are compared between classes, and how a sentence names each."""
TELLING = 0.75
"""Area under the ROC curve from which on a class can be told by a property."""
GREY = 4.0
"""Saturation (0 to 255) up to which an image counts as grey: recompression leaves a trace of colour."""
TINT_DEVIATIONS = 5.0
"""Robust standard deviations above the median saturation of a grey dataset from which on an image is tinted."""


def properties(quality: pd.DataFrame, manifest: Manifest) -> pd.DataFrame:
    """One row a readable image: `image_id`, `label`, `group`, `part`, and the columns of `PROPERTIES`."""
    table = manifest.frame[["image_id", "label", "group", "split"]].merge(
        quality[quality["error"] == ""].drop(columns="error"), on="image_id"
    )
    table["width_px"], table["height_px"], table["kilobytes"] = table["width"], table["height"], table["bytes"] / 1000
    table["red_minus_blue"] = table["red"] - table["blue"]
    table["green_minus_magenta"] = table["green"] - (table["red"] + table["blue"]) / 2
    return table[["image_id", "label", "group", "split", *PROPERTIES, "format", "mode"]]


def formats(table: pd.DataFrame, classes: Sequence[str]) -> pd.DataFrame:
    """Images of each class (rows, in class order) in each format and mode, such as "JPEG, RGB"."""
    kind = (table["format"] + ", " + table["mode"]).str.strip(", ").replace("", "not told")
    return (
        pd.crosstab(table["label"], kind).reindex(list(classes), fill_value=0).rename_axis(index="class", columns=None)
    )


def varying(table: pd.DataFrame) -> list[str]:
    """Those of `PROPERTIES`, but for width and height, in which the images differ."""
    return [name for name in PROPERTIES if name not in ("width_px", "height_px") and table[name].nunique() > 1]


def differences(table: pd.DataFrame, classes: Sequence[str]) -> pd.DataFrame:
    """Whether classes can be told by one property, on training images, one value a group and class.

    Args:
        table: What `properties` gives.
        classes: Class names in their order.

    Returns:
        One row a property: `H` and `p` of Kruskal and Wallis's test over the classes, p corrected for the number of
        properties by Holm's method; `epsilon²`, the share of the ranks' variance that the class explains; `class`, the
        one that differs most from the others; `higher`, whether its values are higher; and its `auc` against them with
        a 95 % interval, `low` and `high` (Hanley and McNeil, 1982), folded to lie above one half.
    """
    train = table[table["split"] == TRAIN]
    values = train.groupby(["label", "group"])[list(PROPERTIES)].mean()
    labels = values.index.get_level_values("label").to_numpy()
    rows = {}
    for name in PROPERTIES:
        column = values[name].to_numpy()
        samples = [column[labels == each] for each in classes if (labels == each).any()]
        if len(samples) < 2 or np.ptp(column) == 0:
            rows[name] = {"H": 0.0, "p": 1.0, "epsilon²": 0.0, "class": "", "higher": False} | dict.fromkeys(
                ("auc", "low", "high"), 0.5
            )
            continue
        test = stats.kruskal(*samples)
        ranks = stats.rankdata(column)
        areas = {each: _area(ranks, labels == each) for each in classes if 0 < (labels == each).sum() < len(labels)}
        most = max(areas, key=lambda each: abs(areas[each] - 0.5))
        area, inside = max(areas[most], 1 - areas[most]), int((labels == most).sum())
        half = 1.96 * _standard_error(area, inside, len(labels) - inside)
        rows[name] = {
            "H": float(test.statistic),
            "p": float(test.pvalue),
            "epsilon²": float(test.statistic) / (len(column) - 1),
            "class": most,
            "higher": areas[most] > 0.5,
            "auc": area,
            "low": max(0.0, area - half),
            "high": min(1.0, area + half),
        }
    found = pd.DataFrame.from_dict(rows, orient="index").rename_axis("property")
    found["p"] = _holm(found["p"].to_numpy())
    return found


def difference_sentences(found: pd.DataFrame) -> str:
    """What `differences` means: a paragraph for each property that tells a class, or one that none does."""
    telling = found[(found["low"] > 0.5) & (found["auc"] >= TELLING) & (found["p"] < 0.01)]
    words = [
        f"The class {row['class']} can be told from the others by {PROPERTIES[name]} alone: its values are "
        f"{'higher' if row['higher'] else 'lower'} (AUC {row['auc']:.2f}, {row['low']:.2f} to {row['high']:.2f}). "
        + (
            "A tinted class is a shortcut, unless the colour is the disease's own: a network learns the tint."
            if "tint" in PROPERTIES[name]
            else "Where that is not the disease, it is a shortcut."
        )
        for name, row in telling.sort_values("auc", ascending=False).iterrows()
    ]
    none = f"No class can be told by one of these properties alone (no AUC of {TELLING} or more)."
    return "\n\n".join(words) or none


def tinted(table: pd.DataFrame) -> pd.Series:
    """Which images are tinted among grey ones, bool with the index of `table`; none where most images have colour.

    Args:
        table: What `quality.scan` found, or `properties` gives: `saturation`, NaN where an image is unreadable.
    """
    usual = table["saturation"].median()
    if not usual <= GREY:
        return pd.Series(False, table.index)
    spread = 1.4826 * (table["saturation"] - usual).abs().median()
    return table["saturation"] > usual + max(GREY, TINT_DEVIATIONS * spread)


def tints(table: pd.DataFrame, classes: Sequence[str]) -> pd.DataFrame:
    """Tinted images among grey ones, by class, on training images: a tint of a part of a class gives it away, too.

    Args:
        table: What `properties` gives.
        classes: Class names in their order.

    Returns:
        One row a class: `tinted` of `images`, `tinted others` of `others`, and `p` of Fisher's exact test whether more
        of its groups hold a tinted image than of the other classes' groups, corrected for the number of classes by
        Holm's method. No row where no image is tinted.
    """
    train = table[table["split"] == TRAIN]
    train = train.assign(tinted=tinted(train))
    groups = train.groupby(["label", "group"])["tinted"].any()
    rows = {}
    for name in classes if train["tinted"].any() else ():
        inside = train["label"] == name
        of_class = groups.index.get_level_values("label") == name
        counts = [[side.sum(), (~side).sum()] for side in (groups[of_class], groups[~of_class])]
        rows[name] = {
            "tinted": int(train.loc[inside, "tinted"].sum()),
            "images": int(inside.sum()),
            "tinted others": int(train.loc[~inside, "tinted"].sum()),
            "others": int((~inside).sum()),
            "p": float(stats.fisher_exact(counts, alternative="greater").pvalue),
        }
    columns = ["tinted", "images", "tinted others", "others", "p"]
    found = pd.DataFrame.from_dict(rows, orient="index", columns=columns).rename_axis("class")
    return found.assign(p=_holm(found["p"].to_numpy(dtype=float)))


def tint_sentences(found: pd.DataFrame) -> str:
    """What `tints` means: a paragraph for each class that is tinted more often than the others; "" where none is."""
    return "\n\n".join(
        f"{row['tinted']:.0f} of {row['images']:.0f} {name} training images are tinted, {row['tinted others']:.0f} of "
        f"{row['others']:.0f} others (Fisher's exact p {_p(row['p'])}): colour can give the class away."
        for name, row in found[found["p"] < 0.01].iterrows()
    )


def missing(manifest: Manifest) -> pd.DataFrame:
    """Images without a value, for each column of metadata (rows), in each class and in all."""
    frame = manifest.frame
    columns = {}
    for name in manifest.metadata:
        unknown = frame[name].isna() | frame[name].astype(str).str.strip().str.lower().isin(["", "unknown", "nan"])
        counts = unknown.groupby(frame["label"]).sum().reindex(list(manifest.classes), fill_value=0)
        columns[name] = [*counts, int(unknown.sum())]
    return pd.DataFrame.from_dict(columns, orient="index", columns=[*manifest.classes, "all"]).rename_axis("column")


def _holm(p: np.ndarray) -> np.ndarray:
    """Values of p corrected for their number by Holm's step-down method (1979)."""
    order = np.argsort(p, kind="stable")
    corrected = np.empty(len(p))
    corrected[order] = np.minimum(1, np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)))
    return corrected


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"= {value:.3f}"


def _area(ranks: np.ndarray, inside: np.ndarray) -> float:
    """Area under the ROC curve of ranks, by Mann and Whitney's U."""
    positive, negative = inside.sum(), (~inside).sum()
    return float((ranks[inside].sum() - positive * (positive + 1) / 2) / (positive * negative))


def _standard_error(area: float, positive: int, negative: int) -> float:
    """Of an area under the ROC curve, after Hanley and McNeil (Radiology 143, 1982, equation 2)."""
    one, two = area / (2 - area), 2 * area**2 / (1 + area)
    variance = area * (1 - area) + (positive - 1) * (one - area**2) + (negative - 1) * (two - area**2)
    return float(np.sqrt(max(variance, 0.0) / (positive * negative)))
