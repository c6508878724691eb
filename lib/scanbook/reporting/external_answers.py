"""The answer of notebook 08: which shift stands out, what it costs, and what labels of local patients repair."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from scanbook.evaluation import METRICS, AnyPredictions, with_interval
from scanbook.evaluation.sources import DIFFERENCE, EXTERNAL, INTERNAL
from scanbook.external import Validation
from scanbook.reporting.external import main_target
from scanbook.reporting.plots.style import count_of

_FEW = 100
"""Most local patients whose labels the answer is about."""


def describe_shifts(shifts: pd.DataFrame) -> str:
    """Return which shift stands out most, and the others, in one sentence."""
    if shifts.empty:
        return "How the sources differ is not known, since the training images are not available or too few."
    clear = (shifts["low"] > 0.5).to_numpy()
    texts = [f"{name} (AUROC {with_interval(*row[['auc', 'low', 'high']])})" for name, row in shifts.iterrows()]
    if not clear.any():
        return f"No shift stands out: the sources cannot be told apart by {', '.join(texts)}."
    first, *others = [text for text, stands_out in zip(texts, clear, strict=True) if stands_out]
    rest = shifts.index[~clear]
    then = f"; then {', '.join(others)}" if others else ""
    none = f"; none is seen in {' or '.join(rest)}" if len(rest) else ""
    return f"The shift that stands out most is in {first}{then}{none}."


def answer(
    found: Validation, metrics: pd.DataFrame, shifts: pd.DataFrame, rates: pd.DataFrame, local: pd.DataFrame
) -> list[str]:
    """Return the answer of notebook 08: the shift that stands out, then what it costs and what repairs it."""
    main = next(name for name in metrics.index if not np.isnan(metrics.loc[name, EXTERNAL]))
    sentences = [describe_shifts(shifts), f"{_compare(metrics, main, found)}."]
    texts = [_in_words(metrics.loc["ece"], source) for source in (INTERNAL, EXTERNAL) if source in metrics]
    sentences.append(f"The calibration error is {' internally and '.join(texts)} externally.")
    target = main_target(found)
    if target:
        row = rates.loc[(target, EXTERNAL)]
        shown = {
            name: with_interval(*row[[name, f"{name}_low", f"{name}_high"]])
            for name in ("sensitivity", "specificity", "flagged")
        }
        sentences.append(
            f"At the bundle's threshold for {target}, sensitivity there is {shown['sensitivity']} and specificity "
            f"{shown['specificity']}; {shown['flagged']} of the images would be flagged."
        )
    errors = local[local["quantity"] == "ece"] if len(local) else local
    if len(errors) > 1:
        few = errors[errors["patients"].between(1, _FEW)]
        most = few.iloc[-1] if len(few) else errors.iloc[1]
        first, later = (with_interval(*row[["value", "low", "high"]]) for row in (errors.iloc[0], most))
        sentences.append(
            f"With labels of {most['patients']:,} local {found.unit()}s, the calibration error on the other half of "
            f"them goes from {first} to {later}."
        )
    return sentences


def _compare(metrics: pd.DataFrame, name: str, found: Validation) -> str:
    title, row = METRICS[name].title, metrics.loc[name]
    text = f"On {count_of(len(found.external), 'external image')}, {title} is {_in_words(row, EXTERNAL)}"
    if INTERNAL not in metrics or np.isnan(row[INTERNAL]):
        return text
    gap = with_interval(*row[[DIFFERENCE, f"{DIFFERENCE}_low", f"{DIFFERENCE}_high"]], signed=True)
    images = count_of(len(found.internal), "internal test image")
    return f"{text}, and {_in_words(row, INTERNAL)} on {images}: a difference of {gap}"


def _in_words(row: Mapping[str, float], source: str) -> str:
    return with_interval(row[source], row[f"{source}_low"], row[f"{source}_high"])


def headline(found: Validation, metrics: pd.DataFrame) -> str:
    """Return the main metric on external images, with its interval, for the index."""
    name = next(name for name in metrics.index if not np.isnan(metrics.loc[name, EXTERNAL]))
    return f"{found.other.study}: {METRICS[name].title} {_in_words(metrics.loc[name], EXTERNAL)}"


def predictions_to_keep(found: Validation) -> AnyPredictions:
    """Return the predictions for external images by which `scanbook compare` compares runs.

    Names of images begin with that of their study: images of two sources may have the same names.
    """
    names = [f"{found.other.study}: {name}" for name in found.external.image_id]
    return replace(found.external, image_id=np.array(names))


def record(found: Validation) -> dict[str, Any]:
    """Return what of the sources is recorded in the results."""
    return {
        "bundle": found.bundle.name,
        "model": f"bundle {found.bundle.name}",
        "external_study": found.other.study,
        "external_images": len(found.external),
        "internal_images": None if found.internal is None else len(found.internal),
        "compared": list(found.compared),
        "shared_images": None if found.available is None else len(found.shared),
        "excluded": found.excluded["images"].to_dict(),
    }
