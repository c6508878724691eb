"""Metrics, each computed for many weightings of the same images at once.

scikit-learn's functions take one weight vector per call; a bootstrap needs thousands. Here weights are (rounds, n),
every metric returns (rounds,) and equals scikit-learn's result with the same `sample_weight`.

A class without images under a weighting has no sensitivity, AUROC or AUPRC: the macro mean of that round is taken over
the other classes. Macro precision and F1 exclude a class only where it is neither true nor predicted; a class that has
images and is never predicted counts as a precision of zero. These are scikit-learn's defaults. A round in which nothing
is defined is NaN. That holds of resamples: where the images themselves lack a class, no metric of all classes is
defined (`registry.Metric.defined`).

Macro sensitivity is balanced accuracy, and sensitivity weighted by the classes' images is accuracy, so neither has a
second metric here.

Labels of findings are (n, k), NaN where an image is not labelled: such a label has no weight. AUROC, AUPRC, Brier score
and calibration error are then means over the findings, of those alone that have positives and negatives.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]
ECE_BINS = 15


def confusions(y_true: Labels, y_pred: Labels, k: int, weights: Floats | None = None) -> Floats:
    """Return weighted confusion matrices.

    Args:
        y_true: (n,) int, true class.
        y_pred: (n,) int, predicted class.
        k: Number of classes.
        weights: (rounds, n); None counts every image once, in one round.

    Returns:
        (rounds, k, k) float64, true class down, predicted class across.
    """
    weights = _rounds(weights, len(y_true))
    return _sums(y_true * k + y_pred, k * k, weights).reshape(len(weights), k, k)


def class_rates(matrices: Floats) -> dict[str, Floats]:
    """Return sensitivity, specificity, precision and F1 of each class against the rest.

    Args:
        matrices: (rounds, k, k) from `confusions`.

    Returns:
        Four arrays (rounds, k) by name, NaN where a denominator is zero.
    """
    hits = np.diagonal(matrices, axis1=1, axis2=2)
    true, predicted = matrices.sum(axis=2), matrices.sum(axis=1)
    negatives = true.sum(axis=1, keepdims=True) - true
    return {
        "sensitivity": ratio(hits, true),
        "specificity": ratio(negatives - (predicted - hits), negatives),
        "precision": ratio(hits, predicted),
        "f1": ratio(2 * hits, true + predicted),
    }


def counted_precision(matrices: Floats) -> Floats:
    """Return the precision that enters means over classes: zero for a class that has images and is never predicted.

    Args:
        matrices: (rounds, k, k) from `confusions`.

    Returns:
        (rounds, k) float64, NaN where a class is neither true nor predicted.
    """
    precision = class_rates(matrices)["precision"]
    return np.where(np.isnan(precision) & (matrices.sum(axis=2) > 0), 0.0, precision)


def macro(values: Floats) -> Floats:
    """Return the mean over the classes that are defined: (rounds, k) to (rounds,), NaN where none is."""
    defined = ~np.isnan(values)
    return ratio(np.where(defined, values, 0.0).sum(axis=1), defined.sum(axis=1))


def by_support(values: Floats, matrices: Floats) -> Floats:
    """Return the mean over the classes, each weighted by its true images.

    Args:
        values: (rounds, k); a class without images has weight 0, whatever its value.
        matrices: (rounds, k, k) from `confusions` under the same weights.

    Returns:
        (rounds,) float64, NaN where no class has images.
    """
    support = matrices.sum(axis=2)
    return ratio((np.where(support > 0, values, 0.0) * support).sum(axis=1), support.sum(axis=1))


def class_auroc(y_true: Labels, probabilities: Floats, weights: Floats | None = None) -> Floats:
    """Return the area under each class's one-vs-rest ROC curve: how often a positive outranks a negative, ties half.

    Args:
        y_true: (n,) int, true class; or (n, k) float, of findings: 1 present, 0 absent, NaN not labelled.
        probabilities: (n, k).
        weights: (rounds, n) or None.

    Returns:
        (rounds, k) float64, NaN where a class or its rest has no weight.
    """
    weights = _rounds(weights, len(y_true))
    areas = np.empty((len(weights), probabilities.shape[1]))
    for c, scores in enumerate(probabilities.T):
        positive, negative = (_ascending(scores, mask) for mask in _sides(y_true, c))
        below = _cumulative(weights, negative)
        wins = below[:, np.searchsorted(scores[negative], scores[positive], side="left")]
        wins += below[:, np.searchsorted(scores[negative], scores[positive], side="right")]
        mass = weights[:, positive]
        areas[:, c] = ratio(np.einsum("rn,rn->r", mass, wins) / 2, mass.sum(axis=1) * below[:, -1])
    return areas


def class_auprc(y_true: Labels, probabilities: Floats, weights: Floats | None = None) -> Floats:
    """Return the average precision of each class against the rest (the step-wise sum, without interpolation).

    Args and result as for `class_auroc`; a finding without negatives has no area either.
    """
    weights = _rounds(weights, len(y_true))
    areas = np.empty((len(weights), probabilities.shape[1]))
    for c in range(probabilities.shape[1]):
        falling = -probabilities[:, c]
        positive, negative = (_ascending(falling, mask) for mask in _sides(y_true, c))
        hits = _cumulative(weights, positive)[:, np.searchsorted(falling[positive], falling[positive], side="right")]
        false = _cumulative(weights, negative)[:, np.searchsorted(falling[negative], falling[positive], side="right")]
        precision = np.divide(hits, hits + false, out=np.zeros_like(hits), where=hits > 0)
        mass = weights[:, positive]
        areas[:, c] = ratio(np.einsum("rn,rn->r", mass, precision), mass.sum(axis=1))
        if y_true.ndim == 2:
            areas[weights[:, negative].sum(axis=1) == 0, c] = np.nan
    return areas


def finding_brier(y_true: Floats, probabilities: Floats, weights: Floats | None = None) -> Floats:
    """Return the mean squared error of each finding's probability over its labelled images: 0 to 1 (Brier, 1950).

    Args:
        y_true: (n, k): 1 present, 0 absent, NaN not labelled.
        probabilities: (n, k).
        weights: (rounds, n) or None.

    Returns:
        (rounds, k) float64, NaN where no labelled image has weight.
    """
    weights, known = _rounds(weights, len(y_true)), ~np.isnan(y_true)
    return ratio(weights @ np.where(known, probabilities - y_true, 0.0) ** 2, weights @ known.astype(np.float64))


def finding_ece(y_true: Floats, probabilities: Floats, weights: Floats | None = None) -> Floats:
    """Return the expected calibration error of each finding's probability to be present, in 15 equal bins.

    Args and result as for `finding_brier`.
    """
    weights, known = _rounds(weights, len(y_true)), ~np.isnan(y_true)
    errors = np.empty((len(weights), y_true.shape[1]))
    for c in range(y_true.shape[1]):
        rows = np.flatnonzero(known[:, c])
        gaps = np.zeros((len(y_true), ECE_BINS))
        gaps[rows, confidence_bin(probabilities[rows, c], ECE_BINS)] = (y_true - probabilities)[rows, c]
        errors[:, c] = np.abs(weights @ gaps).sum(axis=1)
    return ratio(errors, weights @ known.astype(np.float64))


def accuracy(y_true: Labels, probabilities: Floats, weights: Floats | None = None) -> Floats:
    """Return the share of images whose most probable class is the true one; (rounds,)."""
    return _mean(probabilities.argmax(axis=1) == y_true, weights)


def balanced_accuracy(y_true: Labels, probabilities: Floats, weights: Floats | None = None) -> Floats:
    """Return the mean sensitivity of the classes; (rounds,)."""
    return macro(class_rates(_confusions(y_true, probabilities, weights))["sensitivity"])


def macro_precision(y_true: Labels, probabilities: Floats, weights: Floats | None = None) -> Floats:
    """Return the mean precision of the classes; (rounds,)."""
    return macro(counted_precision(_confusions(y_true, probabilities, weights)))


def weighted_precision(y_true: Labels, probabilities: Floats, weights: Floats | None = None) -> Floats:
    """Return the precision of the classes, each weighted by its true images; (rounds,)."""
    matrices = _confusions(y_true, probabilities, weights)
    return by_support(counted_precision(matrices), matrices)


def macro_f1(y_true: Labels, probabilities: Floats, weights: Floats | None = None) -> Floats:
    """Return the mean F1 of the classes; (rounds,)."""
    return macro(class_rates(_confusions(y_true, probabilities, weights))["f1"])


def weighted_f1(y_true: Labels, probabilities: Floats, weights: Floats | None = None) -> Floats:
    """Return the F1 of the classes, each weighted by its true images; (rounds,)."""
    matrices = _confusions(y_true, probabilities, weights)
    return by_support(class_rates(matrices)["f1"], matrices)


def auroc(y_true: Labels, probabilities: Floats, weights: Floats | None = None) -> Floats:
    """Return the mean one-vs-rest AUROC of the classes, or the mean AUROC of the findings; (rounds,)."""
    return macro(class_auroc(y_true, probabilities, weights))


def auprc(y_true: Labels, probabilities: Floats, weights: Floats | None = None) -> Floats:
    """Return the mean average precision of the classes, both of them where there are two, or of findings; (rounds,)."""
    return macro(class_auprc(y_true, probabilities, weights))


def brier(y_true: Labels, probabilities: Floats, weights: Floats | None = None) -> Floats:
    """Return the squared error of the probabilities, summed over classes: 0 to 2 (Brier, 1950); (rounds,).

    Of findings it is the mean of `finding_brier`: 0 to 1.
    """
    if y_true.ndim == 2:
        return macro(finding_brier(y_true, probabilities, weights))
    truth = np.eye(probabilities.shape[1])[y_true]
    return _mean(((probabilities - truth) ** 2).sum(axis=1), weights)


def ece(y_true: Labels, probabilities: Floats, weights: Floats | None = None) -> Floats:
    """Return the expected calibration error of the top label, 15 equal bins (Guo et al., 2017, eq. 3); (rounds,).

    Of findings it is the mean of `finding_ece`.
    """
    if y_true.ndim == 2:
        return macro(finding_ece(y_true, probabilities, weights))
    confidence = probabilities.max(axis=1)
    gap = (probabilities.argmax(axis=1) == y_true) - confidence
    weights = _rounds(weights, len(y_true))
    gaps = _sums(confidence_bin(confidence, ECE_BINS), ECE_BINS, weights, gap)
    return ratio(np.abs(gaps).sum(axis=1), weights.sum(axis=1))


def kappa(y_true: Labels, probabilities: Floats, weights: Floats | None = None) -> Floats:
    """Return the quadratic weighted kappa, for classes in their natural order (Cohen, 1968); (rounds,)."""
    matrices = _confusions(y_true, probabilities, weights)
    grade = np.arange(probabilities.shape[1])
    cost = (grade[:, None] - grade) ** 2
    expected = np.einsum("ri,rj,ij->r", matrices.sum(axis=2), matrices.sum(axis=1), cost)
    return 1 - ratio(np.einsum("rij,ij->r", matrices, cost) * matrices.sum(axis=(1, 2)), expected)


def exact_match(y_true: Floats, probabilities: Floats, weights: Floats | None = None) -> Floats:
    """Return the share of images whose labelled findings are all right at a probability of 0.5; (rounds,).

    An image without a label has no weight. The threshold is 0.5 for every finding, not the operating point: with
    calibrated probabilities it makes the fewest errors, and results of other authors are at 0.5.
    """
    wrong, known = _errors(y_true, probabilities)
    rows = known.any(axis=1)
    return _mean(~wrong[rows].any(axis=1), _rounds(weights, len(y_true))[:, rows])


def hamming(y_true: Floats, probabilities: Floats, weights: Floats | None = None) -> Floats:
    """Return the Hamming loss: the share of labels that are wrong at a probability of 0.5; (rounds,)."""
    wrong, known = _errors(y_true, probabilities)
    weights = _rounds(weights, len(y_true))
    return ratio(weights @ wrong.sum(axis=1).astype(np.float64), weights @ known.sum(axis=1).astype(np.float64))


def confidence_bin(confidence: Floats, bins: int) -> NDArray[np.int64]:
    """Return the bin of each confidence in [0, 1], of `bins` equal bins open below and closed above; (n,) int64."""
    return np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)


def ratio(above: Floats, below: Floats) -> Floats:
    """Return above / below, NaN where `below` is 0."""
    return np.divide(above, below, out=np.full(np.shape(above), np.nan), where=below > 0)


def _confusions(y_true: Labels, probabilities: Floats, weights: Floats | None) -> Floats:
    return confusions(y_true, probabilities.argmax(axis=1), probabilities.shape[1], weights)


def _rounds(weights: Floats | None, n: int) -> Floats:
    return np.ones((1, n)) if weights is None else np.asarray(weights, dtype=np.float64)


def _sums(cells: Labels, count: int, weights: Floats, values: Floats | None = None) -> Floats:
    """Return the sum of the weights (times values) in each of `count` cells; (rounds, count)."""
    order = np.argsort(cells, kind="stable")
    present, starts = np.unique(cells[order], return_index=True)
    masses = weights[:, order] if values is None else weights[:, order] * values[order]
    sums = np.zeros((len(weights), count))
    sums[:, present] = np.add.reduceat(masses, starts, axis=1)
    return sums


def _errors(y_true: Floats, probabilities: Floats) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return which labels are wrong at a probability of 0.5, and which are known; (n, k) bool each."""
    known = ~np.isnan(y_true)
    return known & ((probabilities >= 0.5) != (y_true == 1)), known


def _sides(y_true: Labels, column: int) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return which images are positives and which negatives of a class or finding; an unlabelled image is neither."""
    if y_true.ndim == 1:
        return y_true == column, y_true != column
    return y_true[:, column] == 1, y_true[:, column] == 0


def _ascending(scores: Floats, mask: NDArray[np.bool_]) -> NDArray[np.intp]:
    rows = np.flatnonzero(mask)
    return rows[np.argsort(scores[rows])]


def _cumulative(weights: Floats, rows: NDArray[np.intp]) -> Floats:
    """Return cumulative sums of the weights of some rows with a leading zero; (rounds, len(rows) + 1)."""
    sums = np.zeros((len(weights), len(rows) + 1))
    np.cumsum(weights[:, rows], axis=1, out=sums[:, 1:])
    return sums


def _mean(values: NDArray[np.generic], weights: Floats | None) -> Floats:
    weights = _rounds(weights, len(values))
    return ratio(weights @ values.astype(np.float64), weights.sum(axis=1))
