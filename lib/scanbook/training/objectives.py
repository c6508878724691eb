"""What a network learns: of classes, which one an image has; of findings, which of them are present.

`of` gives the objective of a dataset's labels: loss, metrics, weights, strata and the loss by which trainings are
compared. What trains asks it, and does not ask which kind of labels there is.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import expit, log_expit, log_softmax, logit, softmax
from sklearn.metrics import log_loss

from scanbook import runtime
from scanbook.config import Head
from scanbook.errors import ModelError
from scanbook.evaluation import Labels
from scanbook.models import heads

keras = runtime.keras()

MONITORED = "cross_entropy"
"""Name of the metric by which the best epoch is known."""
_LEAST = 1e-12
"""Least probability whose logit is taken."""


class CrossEntropy(keras.losses.Loss):
    """Cross-entropy of one-hot, smoothed or mixed classes against logits.

    Args:
        smoothing: Share of a label that is spread over all classes.
        weights: Weight of an image of each class, float `(k,)`; None for 1 each.
        shift: Summand of the logits, float `(k,)`; None for none.
    """

    def __init__(
        self, smoothing: float = 0.0, weights: np.ndarray | None = None, shift: np.ndarray | None = None
    ) -> None:
        # a mean over the images with weight 1: images that fill a batch up have weight 0
        super().__init__(name=MONITORED, reduction="mean_with_sample_weight")
        self.smoothing, self.weights, self.shift = smoothing, weights, shift

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Return the loss of each image, `(n,)`."""
        y_pred = _shifted(y_pred, self.shift)
        losses = keras.losses.categorical_crossentropy(y_true, y_pred, from_logits=True, label_smoothing=self.smoothing)
        if self.weights is None:
            return losses
        return losses * keras.ops.matmul(y_true, keras.ops.cast(self.weights, y_true.dtype))


class FindingCrossEntropy(keras.losses.Loss):
    """Binary cross-entropy of each finding against its logit, the mean over k findings; NaN is not labelled.

    The loss of n images is the sum over labelled entries of weight × cross-entropy, divided by n × k. A label that is
    missing adds nothing, and its gradient is exactly 0.

    Args:
        smoothing: Share of a label that is spread over present and absent.
        weights: Weights of an absent and of a present finding, float `(2, k)`; None for 1 each.
        shift: Summand of the logits, float `(k,)`; None for none.
    """

    def __init__(
        self, smoothing: float = 0.0, weights: np.ndarray | None = None, shift: np.ndarray | None = None
    ) -> None:
        super().__init__(name=MONITORED, reduction="mean_with_sample_weight")
        self.smoothing, self.weights, self.shift = smoothing, weights, shift

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Return the loss of each image, `(n,)`."""
        y_pred = _shifted(y_pred, self.shift)
        labelled, y = _without_missing(y_true)
        losses = _binary_cross_entropy(y * (1 - self.smoothing) + self.smoothing / 2, y_pred)
        if self.weights is not None:
            weights = keras.ops.cast(self.weights, y.dtype)
            losses = losses * (y * weights[1] + (1 - y) * weights[0])
        return keras.ops.mean(keras.ops.where(labelled, losses, 0.0), axis=-1)


class _ShiftedCrossEntropy(keras.metrics.CategoricalCrossentropy):
    """The cross-entropy of classes, whose logits have a summand in training, float `(k,)`."""

    def __init__(self, shift: np.ndarray) -> None:
        super().__init__(from_logits=True, name=MONITORED)
        self.shift = shift

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Add the images of a batch, each with its weight."""
        super().update_state(y_true, _shifted(y_pred, self.shift), sample_weight)


class _LabelledMean(keras.metrics.Mean):
    """The mean over the labelled entries of all images.

    Args:
        compute: Function of labels and logits, `(n, k)` each, giving the values of the entries, `(n, k)`.
        name: Name of the metric.
    """

    def __init__(self, compute: Callable[[Any, Any], Any], name: str) -> None:
        super().__init__(name=name)
        self.compute = compute

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Add the images of a batch, each with its weight."""
        labelled, y = _without_missing(y_true)
        weights = keras.ops.cast(labelled, self.dtype)
        if sample_weight is not None:
            weights = weights * keras.ops.reshape(keras.ops.cast(sample_weight, self.dtype), (-1, 1))
        super().update_state(self.compute(y, keras.ops.cast(y_pred, y.dtype)), sample_weight=weights)


def _shifted(logits: Any, shift: np.ndarray | None) -> Any:
    return logits if shift is None else logits + keras.ops.cast(shift, logits.dtype)


def _without_missing(y_true: Any) -> tuple[Any, Any]:
    """Return which entries are labelled, bool `(n, k)`, and labels with 0 for the others, float32 `(n, k)`."""
    y = keras.ops.cast(y_true, "float32")
    labelled = keras.ops.logical_not(keras.ops.isnan(y))
    # before anything is computed of it: the gradient of a NaN that is masked afterwards would be NaN
    return labelled, keras.ops.where(labelled, y, 0.0)


def _binary_cross_entropy(y: Any, z: Any) -> Any:
    """Return the cross-entropy of labels or shares y and logits z, entry by entry; exact also far from 0."""
    return y * keras.ops.softplus(-z) + (1 - y) * keras.ops.softplus(z)


def _is_right(y: Any, z: Any) -> Any:
    """Return 1 for entries whose larger share is predicted, else 0, float32."""
    return keras.ops.cast(keras.ops.equal(z > 0, y > 0.5), "float32")


@dataclass(frozen=True)
class Objective(ABC):
    """What networks learn of labels, float `(n, k)`: 1 present, 0 absent, NaN not labelled, or shares of mixed ones.

    Attributes:
        names: k classes or findings.
    """

    names: tuple[str, ...]

    @abstractmethod
    def check(self, head: Head, labels: Labels) -> None:
        """Raise a `ModelError` if training images do not show what is to be learnt, or the head does not fit it."""

    @abstractmethod
    def loss(self, smoothing: float = 0.0, weights: np.ndarray | None = None, shift: np.ndarray | None = None) -> Any:
        """Return the loss; `weights` and `shift` are those of the methods of that name."""

    @abstractmethod
    def metrics(self, shift: np.ndarray | None = None) -> list[Any]:
        """Return cross-entropy without penalty or smoothing, and accuracy (of a mixed label: for its largest share)."""

    @abstractmethod
    def shift(self, y: np.ndarray) -> np.ndarray:
        """Return the logits of the labels' frequencies, float32 `(k,)`.

        A network that learns with them added to its logits gives those of equally frequent labels (logit adjustment;
        Menon et al., ICLR 2021).
        """

    @abstractmethod
    def weights(self, y: np.ndarray) -> np.ndarray:
        """Return weights with which rare labels count as much as frequent ones; their mean over the labels is 1."""

    @abstractmethod
    def strata(self, y: np.ndarray) -> np.ndarray:
        """Return the stratum of each image, int `(n,)`, all of which balanced sampling takes equally often."""

    @abstractmethod
    def prior(self, y: np.ndarray) -> np.ndarray | None:
        """Return the logits with which training starts, float32 `(k,)`: of the labels' frequencies; None for zeros."""

    @abstractmethod
    def penalty(self, l2: float) -> float:
        """Return the penalty of weights in the loss, of one for each image's cross-entropy."""

    @abstractmethod
    def validation_loss(self, y: np.ndarray, logits: np.ndarray) -> float:
        """Return the mean cross-entropy of logits, float `(n, k)`, by which networks and penalties are chosen."""

    @abstractmethod
    def accuracy(self, y: np.ndarray, logits: np.ndarray) -> float:
        """Return the share of right answers of logits, float `(n, k)`."""

    @abstractmethod
    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """Return the probabilities of logits, float64 `(n, k)`."""

    @abstractmethod
    def logits(self, probabilities: np.ndarray) -> np.ndarray:
        """Return the logits of probabilities, float64 `(n, k)`."""


class ClassObjective(Objective):
    """Which class an image has."""

    def check(self, head: Head, labels: Labels) -> None:
        """Raise a `ModelError` if all images are of one class, or the form of the head does not fit the classes."""
        heads.check(len(self.names), head)
        present = np.flatnonzero(labels.present.any(axis=0))
        if len(present) < 2:
            problem = f"are all of class {self.names[present[0]]!r}" if len(present) else "are missing"
            raise ModelError(f"training images {problem}; expected at least two classes; raise limit or change splits")

    def loss(self, smoothing: float = 0.0, weights: np.ndarray | None = None, shift: np.ndarray | None = None) -> Any:
        """Return the cross-entropy of the classes."""
        return CrossEntropy(smoothing, weights, shift)

    def metrics(self, shift: np.ndarray | None = None) -> list[Any]:
        """Return cross-entropy, and accuracy: the share of images."""
        cross_entropy = keras.metrics.CategoricalCrossentropy(from_logits=True, name=MONITORED)
        if shift is not None:
            cross_entropy = _ShiftedCrossEntropy(shift)
        return [cross_entropy, keras.metrics.CategoricalAccuracy(name="accuracy")]

    def shift(self, y: np.ndarray) -> np.ndarray:
        """Return the logarithm of the frequency of each class; one without images counts as half an image."""
        return np.log(np.maximum(y.sum(0), 0.5) / len(y)).astype(np.float32)

    def weights(self, y: np.ndarray) -> np.ndarray:
        """Return the inverse frequency of each class, float `(k,)`; 0 for a class without images."""
        counts = y.sum(0)
        present = counts > 0
        return np.where(present, len(y) / (present.sum() * np.maximum(counts, 1)), 0.0)

    def strata(self, y: np.ndarray) -> np.ndarray:
        """Return the class of each image."""
        return y.argmax(1)

    def prior(self, y: np.ndarray) -> np.ndarray | None:
        """Return None: classes start alike."""
        return None

    def penalty(self, l2: float) -> float:
        """Return the penalty as it is: the loss of an image is one cross-entropy."""
        return l2

    def validation_loss(self, y: np.ndarray, logits: np.ndarray) -> float:
        """Return the log loss."""
        probabilities = np.exp(log_softmax(logits.astype(np.float64), axis=1))
        return float(log_loss(y.argmax(1), probabilities, labels=range(len(self.names))))

    def accuracy(self, y: np.ndarray, logits: np.ndarray) -> float:
        """Return the share of images whose most probable class is theirs."""
        return float((logits.argmax(1) == y.argmax(1)).mean())

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """Return the softmax."""
        return softmax(logits.astype(np.float64), axis=1)

    def logits(self, probabilities: np.ndarray) -> np.ndarray:
        """Return the logarithms."""
        return np.log(np.maximum(probabilities, _LEAST))


class FindingObjective(Objective):
    """Which findings are present; each is a yes or no of its own, and one that is not labelled is not learnt from."""

    def check(self, head: Head, labels: Labels) -> None:
        """Raise a `ModelError` if a finding is never present or never absent, or the head is one of classes."""
        if head.output != "softmax":
            raise ModelError(
                f"head.output is {head.output}, which is for classes; findings have a logit each: leave head.output out"
            )
        lacking = labels.absent
        if lacking:
            name = lacking[0]
            side = "present" if not labels.present[:, self.names.index(name)].any() else "absent"
            others = f", and present or absent is missing for {len(lacking) - 1} more" if len(lacking) > 1 else ""
            raise ModelError(
                f"no training image has finding {name!r} labelled as {side}{others}; expected both for each finding; "
                "raise limit, change splits, or leave the finding out"
            )

    def loss(self, smoothing: float = 0.0, weights: np.ndarray | None = None, shift: np.ndarray | None = None) -> Any:
        """Return the binary cross-entropy of the findings."""
        return FindingCrossEntropy(smoothing, weights, shift)

    def metrics(self, shift: np.ndarray | None = None) -> list[Any]:
        """Return cross-entropy, and accuracy: the share of labels that are right at a probability of one half."""

        def cross_entropy(y: Any, z: Any) -> Any:
            return _binary_cross_entropy(y, _shifted(z, shift))

        return [_LabelledMean(cross_entropy, MONITORED), _LabelledMean(_is_right, "accuracy")]

    def shift(self, y: np.ndarray) -> np.ndarray:
        """Return the log-odds of each finding among its labels."""
        return self.prior(y)

    def weights(self, y: np.ndarray) -> np.ndarray:
        """Return the inverse frequency of absent and present, float `(2, k)`; 0 for a side without labels."""
        counts = np.stack([(y == 0).sum(0), (y == 1).sum(0)])
        return np.where(counts, counts.sum(0) / ((counts > 0).sum(0).clip(1) * counts.clip(1)), 0.0)

    def strata(self, y: np.ndarray) -> np.ndarray:
        """Return the rarest finding of each image; images without any are a stratum of their own."""
        present = y == 1
        counts = np.where(present, present.sum(0), len(y) + 1)
        return np.where(present.any(1), counts.argmin(1), len(self.names))

    def prior(self, y: np.ndarray) -> np.ndarray | None:
        """Return the log-odds of each finding among its labels: from 0 a rare one takes most of a short training."""
        labelled = ~np.isnan(y)
        return logit((np.where(labelled, y, 0).sum(0) + 0.5) / (labelled.sum(0) + 1)).astype(np.float32)

    def penalty(self, l2: float) -> float:
        """Return it divided by k, as the loss is: each finding is then penalised as if it were alone."""
        return l2 / len(self.names)

    def validation_loss(self, y: np.ndarray, logits: np.ndarray) -> float:
        """Return the mean binary cross-entropy of the labelled entries; NaN where there is none."""
        labelled, z = ~np.isnan(y), logits.astype(np.float64)
        if not labelled.any():
            return float("nan")
        truth = y[labelled]
        return float(-(truth * log_expit(z[labelled]) + (1 - truth) * log_expit(-z[labelled])).mean())

    def accuracy(self, y: np.ndarray, logits: np.ndarray) -> float:
        """Return the share of labelled entries that are right at a probability of one half."""
        labelled = ~np.isnan(y)
        return float(((logits > 0) == (y == 1))[labelled].mean()) if labelled.any() else float("nan")

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """Return the sigmoid."""
        return expit(logits.astype(np.float64))

    def logits(self, probabilities: np.ndarray) -> np.ndarray:
        """Return the log-odds."""
        return logit(np.clip(probabilities, _LEAST, 1 - _LEAST))


def of(labels: Labels) -> Objective:
    """Return the objective of labels."""
    return (ClassObjective if labels.exclusive else FindingObjective)(labels.names)
