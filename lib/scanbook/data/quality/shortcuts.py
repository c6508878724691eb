"""Shortcuts: how well size, format, file name, light or colour alone predict the class."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import ExtraTreesClassifier
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from scanbook.data.manifest import TRAIN, Manifest
from scanbook.data.quality.rules import enough_groups, small_classes
from scanbook.evaluation import group_folds, group_weights
from scanbook.evaluation.metrics import class_auroc

VIEWS: dict[str, tuple[str, ...]] = {
    "size, aspect and bytes": ("width", "height", "aspect", "bytes"),
    "format and mode": ("format", "mode"),
    "file name": ("stem", "length", "digits", "number"),
    "brightness, contrast, sharpness": ("brightness", "contrast", "sharpness"),
    "mean colour": ("red", "green", "blue", "saturation"),
}
"""Columns that each of the small models sees."""
FROM_PIXELS = ("brightness, contrast, sharpness", "mean colour")
_MOST = 3000
FOLDS = 5
ROUNDS = 200


def shortcuts(quality: pd.DataFrame, manifest: Manifest, seed: int = 0) -> pd.DataFrame:
    """Measure how well properties that are no sign of the disease predict the class, on training images.

    For each of `VIEWS` a forest of randomised trees is cross-validated, in folds that share no group, on at most 3,000
    images. Classes with fewer than `rules.FEWEST_GROUPS` groups are not looked at.

    Args:
        quality: The result of `scan`, in the manifest's order.
        manifest: The dataset with its splits.
        seed: Seed of the sample, folds, forests and resamples.

    Returns:
        One row per view: `auc`, the mean over classes and folds of the areas under the one-vs-rest ROC curves; `low`
        and `high`, its 95 % interval over resamples of whole groups, widened for the models' own variance; `class`, the
        class that is predicted best, and `class_auc`; `images`; and `above chance`, whether the interval lies above one
        half. No row where fewer than two classes have enough groups.
    """
    columns = ["auc", "low", "high", "class", "class_auc", "images", "above chance"]
    features = image_features(quality, manifest)
    features = features[features["label"].isin(enough_groups(features, manifest.classes))].reset_index(drop=True)
    table = sample_images(features, seed)
    groups = table.groupby("label")["group"].nunique()
    folds = min(FOLDS, int(groups.min())) if len(groups) > 1 else 0
    rows = {}
    if folds >= 2:
        y, group = pd.Categorical(table["label"]).codes, pd.factorize(table["group"])[0]
        splits = list(group_folds(y, group, folds, seed))
        weights = np.concatenate([np.ones((1, len(y)), np.float32), group_weights(group, ROUNDS, seed)])
        # Resamples of the test images do not vary the models: Nadeau and Bengio's correction (2003) of the variance.
        widened = np.sqrt(1 + folds / (folds - 1))
        for name, features in VIEWS.items():
            areas = _areas(table[list(features)], y, splits, weights, seed)
            means = np.nanmean(areas, axis=1)
            best = int(np.nanargmax(areas[0]))
            low, high = np.clip(means[0] + widened * (np.quantile(means[1:], [0.025, 0.975]) - means[0]), 0, 1)
            rows[name] = [means[0], low, high, groups.index[best], areas[0, best], len(table), bool(low > 0.5)]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns).rename_axis("seen")


def shortcut_sentences(table: pd.DataFrame, manifest: Manifest | None = None) -> str:
    """Return the meaning of `shortcuts`: a paragraph for each view that predicts the class, or one for none.

    Args:
        table: The result of `shortcuts`.
        manifest: The dataset, whose classes that were not looked at are named; None names none.
    """
    small = small_classes(manifest) if manifest else ""
    if table.empty:
        none = "There are too few training images or groups to look for shortcuts."
        return "\n\n".join([none, *([small] if small else [])])
    paragraphs = [
        f"A model that sees {name} alone predicts the class with an AUC of {row['auc']:.2f} ({row['low']:.2f} to "
        f"{row['high']:.2f}), {row['class']} best ({row['class_auc']:.2f}). {explain_view(name)}"
        for name, row in table[table["above chance"]].sort_values("auc", ascending=False).iterrows()
    ]
    none = "No model that sees size, format, file name, light or colour alone does better than chance."
    return "\n\n".join([*(paragraphs or [none]), *([small] if small else [])])


def explain_view(view: str) -> str:
    """Return what it means where a model of one of `VIEWS` is better than chance."""
    if view in FROM_PIXELS:
        return "Part of that may be the disease, and part how the images were taken."
    return "This is not a sign of a disease: it is a shortcut."


def image_features(quality: pd.DataFrame, manifest: Manifest) -> pd.DataFrame:
    """Return the columns of `VIEWS` of the readable training images, with `row`, their position in the manifest."""
    table = quality.drop(columns="image_id").join(manifest.frame[["label", "group", "path", "split"]])
    table = table[(table["split"] == TRAIN) & (table["error"] == "")].reset_index(names="row")
    stem = table["path"].map(lambda path: Path(path).stem)
    digits = stem.str.replace(r"\D", "", regex=True)
    last = stem.str.extract(r"(\d{1,15})(?!.*\d)", expand=False)
    return table.assign(
        aspect=table["width"] / table["height"],
        stem=stem,
        length=stem.str.len(),
        digits=digits.str.len(),
        number=pd.to_numeric(last, errors="coerce").fillna(-1.0),
    )


def encode(features: pd.DataFrame) -> ColumnTransformer:
    """Return what turns the columns of a view into numbers."""
    text = [name for name in features if not pd.api.types.is_numeric_dtype(features[name])]
    steps: list[tuple[str, object, object]] = [
        (name, CountVectorizer(analyzer="char", ngram_range=(1, 3), max_features=200, binary=True), name)
        if name == "stem"
        else (name, OneHotEncoder(handle_unknown="ignore"), [name])
        for name in text
    ]
    return ColumnTransformer(steps, remainder="passthrough", sparse_threshold=0)


def sample_images(table: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Return at most 3,000 rows; classes keep their shares, except rare ones, of which at least 50 rows stay."""
    if len(table) <= _MOST:
        return table
    shuffled = table.sample(frac=1, random_state=seed)
    share = shuffled.groupby("label")["label"].transform("size") * (_MOST / len(table))
    return shuffled[shuffled.groupby("label").cumcount() < np.maximum(share, 50)].sort_index().reset_index(drop=True)


def _areas(
    features: pd.DataFrame, y: np.ndarray, folds: list[tuple[np.ndarray, np.ndarray]], weights: np.ndarray, seed: int
) -> np.ndarray:
    """Return areas under the ROC curves of out-of-fold probabilities, by row of weights and class, mean over folds."""
    classes = int(y.max()) + 1
    areas = np.full((len(folds), len(weights), classes), np.nan)
    for fold, (train, test) in enumerate(folds):
        if (features.nunique() <= 1).all():  # constant features: chance level for every class
            areas[fold] = 0.5
            continue
        model = make_pipeline(
            encode(features),
            ExtraTreesClassifier(30, min_samples_leaf=5, max_features=0.5, class_weight="balanced", random_state=seed),
        )
        model.fit(features.iloc[train], y[train])
        scores = np.zeros((len(test), classes))
        scores[:, model.classes_] = model.predict_proba(features.iloc[test])
        areas[fold][:, model.classes_] = class_auroc(y[test], scores, weights[:, test])[:, model.classes_]
    defined = ~np.isnan(areas)
    return np.where(defined.any(0), np.nansum(areas, axis=0) / np.maximum(defined.sum(0), 1), 0.5)
