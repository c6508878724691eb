"""Properties that reveal a finding: images with it against images that are labelled as without it.

An image may have several findings, so each is compared for itself; the values of p are corrected for all of them.
"""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
from scipy import stats
from sklearn.ensemble import ExtraTreesRegressor
from sklearn.pipeline import make_pipeline

from scanbook.data import stratification
from scanbook.data.manifest import TRAIN, Manifest
from scanbook.data.quality.differences import (
    NONE_REVEALS,
    PERHAPS_SHORTCUT,
    PROPERTIES,
    compare_tints,
    difference_sentences,
    differences,
    fold_area,
    holm,
    p_text,
    rank_area,
    revealing,
    tinted,
    tints,
)
from scanbook.data.quality.rules import FEWEST_GROUPS, count_groups, small_classes
from scanbook.data.quality.shortcuts import (
    FOLDS,
    ROUNDS,
    VIEWS,
    encode,
    explain_view,
    image_features,
    sample_images,
    shortcut_sentences,
    shortcuts,
)
from scanbook.evaluation import group_folds, group_weights
from scanbook.evaluation.metrics import class_auroc


def label_differences(table: pd.DataFrame, manifest: Manifest) -> pd.DataFrame:
    """Return `differences` of the classes; of findings, each property of the images with and without each of them.

    Findings with fewer than `rules.FEWEST_GROUPS` groups on either side in training are not looked at. A group with
    images on both sides has a value on each; what these share makes the test cautious.

    Args:
        table: The result of `properties`.
        manifest: The dataset with its splits.

    Returns:
        For findings, index `finding` and one row per finding and `property`: `with` and `without`, the groups compared,
        one value each; `higher`, whether images with the finding have higher values; `auc` with its interval, `low` and
        `high` (Hanley and McNeil, 1982), folded to lie above one half; and `p` of Mann and Whitney's test, corrected by
        Holm's method for all rows.
    """
    if manifest.classes:
        return differences(table, manifest.classes)
    train, values = _of_training(table, manifest)
    rows = []
    for column, finding in enumerate(manifest.findings):
        sides = [train[values[:, column] == state].groupby("group")[list(PROPERTIES)].mean() for state in (1, 0)]
        if min(map(len, sides)) < FEWEST_GROUPS:
            continue
        inside = np.repeat([True, False], [len(side) for side in sides])
        numbers = [len(side) for side in sides]
        for name, measured in pd.concat(sides).items():
            area, p = (False, 0.5, 0.5, 0.5), 1.0
            if np.ptp(measured) > 0:
                area = fold_area(rank_area(stats.rankdata(measured), inside), *numbers)
                p = float(stats.mannwhitneyu(measured[inside], measured[~inside]).pvalue)
            rows.append([finding, name, *numbers, *area, p])
    columns = ["finding", "property", "with", "without", "higher", "auc", "low", "high", "p"]
    frame = pd.DataFrame(rows, columns=columns).set_index("finding")
    return frame.assign(p=holm(frame["p"].to_numpy(float)))


def label_shortcuts(quality: pd.DataFrame, manifest: Manifest, seed: int = 0) -> pd.DataFrame:
    """Return `shortcuts` of the classes; of findings, how well each of `VIEWS` predicts each of them.

    For each view a forest of randomised trees learns all findings together, standardised, with a missing label as the
    mean, so that it has no weight; it is cross-validated in folds that share no group, on at most 3,000 images.
    Findings with fewer than `rules.FEWEST_GROUPS` groups on either side are not looked at.

    Args:
        quality: The result of `scan`, in the manifest's order.
        manifest: The dataset with its splits.
        seed: Seed of the sample, folds, forests and resamples.

    Returns:
        For findings, index `finding` and one row per finding and view, `seen`: `with` and `without`, the images; `auc`,
        the mean over folds, with its interval, `low` and `high`, as in `shortcuts`; `p`, one-sided, by the spread of
        the resamples or, where that is wider, of chance, corrected by Holm's method for all rows; and `above chance`,
        whether p is below 2.5 %.
    """
    if manifest.classes:
        return shortcuts(quality, manifest, seed)
    features = image_features(quality, manifest)
    values = manifest.labels.values[features["row"]]
    names = np.array([*manifest.findings, ""], object)
    features = sample_images(features.assign(label=names[stratification.rarest(values)]), seed)
    values, group = manifest.labels.values[features["row"]], pd.factorize(features["group"])[0]
    groups = count_groups(values, group)
    chosen = np.flatnonzero(groups.min(axis=1) >= FEWEST_GROUPS)
    columns = ["finding", "seen", "with", "without", "auc", "low", "high", "p", "above chance"]
    rows = []
    if len(chosen):
        strata = pd.factorize(features["label"])[0]
        with warnings.catch_warnings():  # of a rarest finding with fewer images than folds
            warnings.simplefilter("ignore", UserWarning)
            folds = list(group_folds(strata, group, FOLDS, seed))
        weights = np.concatenate([np.ones((1, len(group)), np.float32), group_weights(group, ROUNDS, seed)])
        widened = np.sqrt(1 + FOLDS / (FOLDS - 1))  # as in `shortcuts`
        # standard error of Mann and Whitney's U without any difference: near an area of 1, resamples hardly vary
        by_chance = np.sqrt((groups.sum(axis=1) + 1) / (12 * np.maximum(groups.prod(axis=1), 1)))
        for view, seen in VIEWS.items():
            areas = _areas(features[list(seen)], values[:, chosen], folds, weights, seed)
            for column, area in zip(chosen, areas.T, strict=True):
                low, high = np.clip(area[0] + widened * (np.quantile(area[1:], [0.025, 0.975]) - area[0]), 0, 1)
                spread = widened * max(float(np.std(area[1:])), by_chance[column])
                p = float(stats.norm.sf((area[0] - 0.5) / spread))
                counts = [int((values[:, column] == state).sum()) for state in (1, 0)]
                rows.append([manifest.findings[column], view, *counts, area[0], low, high, p, False])
    table = pd.DataFrame(rows, columns=columns).set_index("finding")
    p = holm(table["p"].to_numpy(float))
    return table.assign(p=p, **{"above chance": p < 0.025})


def label_tints(table: pd.DataFrame, manifest: Manifest) -> pd.DataFrame:
    """Return `tints` of the classes; of findings, the same counts for images with and without each of them."""
    if manifest.classes:
        return tints(table, manifest.classes)
    train, values = _of_training(table, manifest)
    train = train.assign(tinted=tinted(train))
    sides = {}
    for column, finding in enumerate(manifest.findings if train["tinted"].any() else ()):
        both = [train[values[:, column] == state] for state in (1, 0)]
        groups = [side.groupby("group")["tinted"].any() for side in both]
        if min(map(len, groups)) >= FEWEST_GROUPS:
            sides[finding] = [side["tinted"] for side in both], groups
    return compare_tints(sides, "finding")


def label_difference_sentences(table: pd.DataFrame, manifest: Manifest, *, small: bool = True) -> str:
    """Return the meaning of `label_differences`, in paragraphs.

    Args:
        table: The result of `label_differences`.
        manifest: The dataset with its splits.
        small: Whether classes or findings that were not looked at are named.
    """
    if manifest.classes:
        return difference_sentences(table, manifest if small else None)
    return "\n\n".join(filter(None, [*_describe_differences(table), small_classes(manifest) if small else ""]))


def label_shortcut_sentences(table: pd.DataFrame, manifest: Manifest) -> str:
    """Return the meaning of `label_shortcuts`, in paragraphs."""
    if manifest.classes:
        return shortcut_sentences(table, manifest)
    return "\n\n".join(filter(None, [*_describe_shortcuts(table), small_classes(manifest)]))


def _describe_differences(table: pd.DataFrame) -> list[str]:
    rows_of_findings = revealing(table)
    if rows_of_findings.empty:
        none = f"No finding can be told by one of these properties alone ({NONE_REVEALS})."
        return [none] if len(table) else []
    return [
        f"{finding} can be told by {', '.join(_describe_row(row) for _, row in rows.iterrows())}. {PERHAPS_SHORTCUT}"
        for finding, rows in rows_of_findings.groupby(level=0, sort=False)
    ]


def _describe_row(row: pd.Series) -> str:
    values = "higher" if row["higher"] else "lower"
    p = p_text(row["p"])
    return f"{PROPERTIES[row['property']]} alone (its values are {values}, with an AUC of {_area_text(row)}; p {p})"


def _area_text(row: pd.Series) -> str:
    return f"{row['auc']:.2f} ({row['low']:.2f} to {row['high']:.2f})"


def _describe_shortcuts(table: pd.DataFrame) -> list[str]:
    if table.empty:
        return ["There are too few training images or groups to look for shortcuts."]
    above = table[table["above chance"]].sort_values("auc", ascending=False, kind="stable")
    if above.empty:
        return ["No model that sees size, format, file name, light or colour alone predicts a finding above chance."]
    paragraphs = []
    for view, rows in above.groupby("seen", sort=False):
        named = [f"{name} with an AUC of {_area_text(row)}" for name, row in rows.iterrows()]
        more = f" and {len(named) - 5} other findings" if len(named) > 5 else ""
        paragraphs.append(f"A model that sees {view} alone predicts {', '.join(named[:5])}{more}. {explain_view(view)}")
    return paragraphs


def _of_training(table: pd.DataFrame, manifest: Manifest) -> tuple[pd.DataFrame, np.ndarray]:
    """Return the training images of `properties`, and their labels, `(m, k)`."""
    train = table[table["split"] == TRAIN]
    return train, manifest.labels_of(train["image_id"]).values


def _areas(
    features: pd.DataFrame,
    values: np.ndarray,
    folds: list[tuple[np.ndarray, np.ndarray]],
    weights: np.ndarray,
    seed: int,
) -> np.ndarray:
    """Return areas under the ROC curves of out-of-fold scores, by row of weights and finding, mean over folds."""
    areas = np.full((len(folds), len(weights), values.shape[1]), np.nan)
    if (features.nunique() <= 1).all():
        return np.full(areas.shape[1:], 0.5)
    for fold, (train, test) in enumerate(folds):
        mean, spread = np.nanmean(values[train], axis=0), np.nanstd(values[train], axis=0)
        target = np.nan_to_num((values[train] - mean) / np.maximum(spread, 1e-6))
        forest = ExtraTreesRegressor(30, min_samples_leaf=5, max_features=0.5, random_state=seed)
        model = make_pipeline(encode(features), forest).fit(features.iloc[train], target.squeeze())
        scores = model.predict(features.iloc[test]).reshape(len(test), -1)
        for column, score in enumerate(scores.T):
            known = ~np.isnan(values[test, column])
            truth = values[test[known], column].astype(np.int64)
            if 0 < truth.sum() < len(truth):
                both = np.column_stack([-score, score])[known]
                areas[fold, :, column] = class_auroc(truth, both, weights[:, test[known]])[:, 1]
    defined = ~np.isnan(areas)
    return np.where(defined.any(0), np.nansum(areas, axis=0) / np.maximum(defined.sum(0), 1), 0.5)
