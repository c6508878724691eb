"""The predictions of one model for one set of images: the input of every metric, test and figure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.special import softmax

from scanbook.errors import DataError
from scanbook.store import atomic_write

_PROBABILITY = "p_"


@dataclass(frozen=True, eq=False)
class Predictions:
    """The class probabilities that one model predicts for n images of k classes.

    Attributes:
        image_id: (n,) str, one name per image, each once.
        group: (n,) str, the patient or lesion the image belongs to: the unit that is resampled. An image with no
            known patient is a group of its own.
        y_true: (n,) int64, position of the true class in `classes`.
        probabilities: (n, k) float64, rows sum to 1 (within 1e-3).
        classes: k class names, in the order of the columns.
        fold: (n,) str, the fold of cross-validation whose model predicts the image, None for one model; the metrics
            that rank images are then means over the folds, since the scores of two models are not on one scale.

    Raises:
        DataError: a shape, a label or a probability is not as above.
    """

    image_id: NDArray[np.str_]
    group: NDArray[np.str_]
    y_true: NDArray[np.int64]
    probabilities: NDArray[np.float64]
    classes: tuple[str, ...]
    fold: NDArray[np.str_] | None = None

    def __post_init__(self) -> None:
        image_id, group, fold = check_images(self.image_id, self.group, self.fold)
        classes = tuple(str(name) for name in self.classes)
        probabilities = np.asarray(self.probabilities, dtype=np.float64)
        n, k = len(image_id), len(classes)
        if k < 2 or len(set(classes)) != k:
            raise DataError(f"classes are {classes}: expected two or more different names")
        if probabilities.shape != (n, k):
            raise DataError(f"probabilities have shape {probabilities.shape}: expected ({n}, {k}), one row per image")
        if np.shape(self.y_true) != (n,):
            raise DataError(f"y_true has shape {np.shape(self.y_true)}: expected ({n},), one value per image")
        _check_probabilities(probabilities, image_id)
        self.__dict__.update(  # the dataclass is frozen
            image_id=image_id, group=group, y_true=_labels(self.y_true, k), probabilities=probabilities
        )
        self.__dict__.update(classes=classes, fold=fold)

    def __len__(self) -> int:
        return len(self.image_id)

    @property
    def names(self) -> tuple[str, ...]:
        """The classes, in the order of the columns."""
        return self.classes

    @property
    def y_pred(self) -> NDArray[np.int64]:
        """(n,) int64, the most probable class (the first of equals)."""
        return self.probabilities.argmax(axis=1)

    @property
    def absent(self) -> tuple[str, ...]:
        """Classes of which there is no image, in class order."""
        counts = np.bincount(self.y_true, minlength=len(self.classes))
        return tuple(name for name, count in zip(self.classes, counts, strict=True) if not count)

    @property
    def confidence(self) -> NDArray[np.float64]:
        """(n,) float64, the probability of the most probable class."""
        return self.probabilities.max(axis=1)

    @property
    def correct(self) -> NDArray[np.bool_]:
        """(n,) bool, whether the most probable class is the true one."""
        return self.y_pred == self.y_true

    def subset(self, chosen: ArrayLike) -> Predictions:
        """Return the predictions for some of the images.

        Args:
            chosen: (n,) bool, or positions.
        """
        return replace(self, **rows_of(self, chosen))

    def with_temperature(self, t: float) -> Predictions:
        """Return the predictions after calibration: softmax(log p / t) = softmax(logits / t) (Guo et al., 2017).

        Args:
            t: Temperature, above 0, from `fit_temperature` on validation images. No prediction changes.

        Raises:
            DataError: t is not a positive number.
        """
        if not (np.isfinite(t) and t > 0):
            raise DataError(f"temperature is {t}: expected a positive number; fit it with fit_temperature")
        with np.errstate(divide="ignore"):  # a probability of 0 stays 0
            logits = np.log(self.probabilities)
        return replace(self, probabilities=softmax(logits / t, axis=1))

    def single(self, image_id: str) -> str:
        """Return the prediction for one image in words, to check by hand: "True: 5, Predicted: 5, 0.87".

        Args:
            image_id: Name of the image.

        Returns:
            True class, predicted class, and the probability of the predicted class with two decimals.

        Raises:
            DataError: the image is unknown.
        """
        rows = np.flatnonzero(self.image_id == str(image_id))
        if len(rows) == 0:
            raise DataError(f"image_id {image_id!r} is not among the {len(self)} images, such as {self.image_id[0]!s}")
        row = rows[0]
        true, predicted = self.classes[self.y_true[row]], self.classes[self.y_pred[row]]
        return f"True: {true}, Predicted: {predicted}, {self.confidence[row]:.2f}"

    def captions(self, positions: ArrayLike) -> list[str]:
        """Return true class, predicted class and its probability of some of the images, for figures."""
        chosen = np.asarray(positions)  # there may be none: a model may be right for every image
        rows = zip(self.y_true[chosen], self.y_pred[chosen], self.confidence[chosen], strict=True)
        return [f"true {self.classes[y]}\npredicted {self.classes[p]} {confidence:.2f}" for y, p, confidence in rows]

    def to_frame(self) -> pd.DataFrame:
        """Return one row per image: image_id, group, fold where there are some, true, predicted, `p_<class>`."""
        names = np.array(self.classes)
        frame = images_frame(self).assign(true=names[self.y_true], predicted=names[self.y_pred])
        columns = [_PROBABILITY + name for name in self.classes]
        return pd.concat([frame, pd.DataFrame(self.probabilities, columns=columns)], axis=1)

    @classmethod
    def from_frame(cls, frame: pd.DataFrame) -> Predictions:
        """Return the predictions that `to_frame` wrote; the order of the `p_` columns is the class order.

        The column `predicted` may be missing.

        Raises:
            DataError: a column is missing, or a true class has no column.
        """
        missing = [name for name in ("image_id", "group", "true") if name not in frame.columns]
        if missing:
            raise DataError(f"predictions lack the column {missing[0]!r}: found {', '.join(map(str, frame.columns))}")
        columns = [name for name in frame.columns if str(name).startswith(_PROBABILITY)]
        classes = tuple(name.removeprefix(_PROBABILITY) for name in columns)
        y_true = pd.Index(classes).get_indexer(pd.Index(frame["true"].astype(str)))
        if (y_true < 0).any():
            unknown = frame["true"].astype(str)[y_true < 0].iloc[0]
            raise DataError(f"true class {unknown!r} has no column p_{unknown}: found {', '.join(columns) or 'none'}")
        image_id, group, fold = read_images(frame)
        return cls(image_id, group, y_true, frame[columns].to_numpy(np.float64), classes, fold)

    def save(self, path: Path) -> None:
        """Write a CSV file, which other statistics packages read too; `load` returns the same bits."""
        atomic_write(Path(path), self.to_frame().to_csv(index=False, lineterminator="\n"))

    @classmethod
    def load(cls, path: Path) -> Predictions:
        """Read what `save` wrote.

        Raises:
            DataError: the file does not exist or is not a table of predictions.
        """
        return cls.from_frame(read_table(path, _PROBABILITY))


def choose_by_fold(validation: Any, test: Any, choose: Callable[[Any], ArrayLike]) -> dict[str, NDArray[np.float64]]:
    """Return what is chosen on validation images, such as thresholds, by fold: for each fold on its own images.

    Args:
        validation: Predictions of the models that predict the test images, for the images of their validation splits.
        test: Predictions; where they are of one model, the fold is called "".
        choose: Function of predictions.

    Raises:
        DataError: A fold of the test images has no validation images.
    """
    if test.fold is None:
        return {"": np.asarray(choose(validation), np.float64)}
    names = pd.unique(test.fold)
    missing = [name for name in names if validation.fold is None or name not in validation.fold]
    if missing:
        raise DataError(f"{missing[0]} has no validation images: expected the predictions of the same folds")
    return {name: np.asarray(choose(validation.subset(validation.fold == name)), np.float64) for name in names}


def of_images(chosen: Mapping[str, NDArray[np.float64]], test: Any) -> NDArray[np.float64]:
    """Return what `choose_by_fold` chose for each image: (n, …), or (1, …) where one model predicts all of them."""
    names = [""] if test.fold is None else test.fold
    return np.stack([chosen[name] for name in names])


def read_table(path: Path, prefix: str) -> pd.DataFrame:
    """Return a saved table of predictions, as text but for the columns whose name starts with `prefix`.

    Raises:
        DataError: The file does not exist or is not such a table.
    """
    try:
        # As text: names such as "NA" and "007" must be read unchanged, and pandas versions round differently.
        frame = pd.read_csv(path, dtype=str, keep_default_na=False)
        columns = [name for name in frame.columns if name.startswith(prefix)]
        return frame.astype(dict.fromkeys(columns, np.float64))
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"cannot read predictions from {path}: {reason}; make them again") from None


def rows_of(predictions: Any, chosen: ArrayLike) -> dict[str, NDArray[Any]]:
    """Return the arrays of predictions for some of the images, by attribute.

    Args:
        predictions: n images.
        chosen: (n,) bool, or positions.
    """
    rows = np.asarray(chosen)
    arrays = {name: getattr(predictions, name) for name in ("image_id", "group", "y_true", "probabilities", "fold")}
    return {name: array[rows] for name, array in arrays.items() if array is not None}


def images_frame(predictions: Any) -> pd.DataFrame:
    """Return the columns image_id, group and, of several folds, fold."""
    arrays = {name: getattr(predictions, name) for name in ("image_id", "group", "fold")}
    return pd.DataFrame({name: array for name, array in arrays.items() if array is not None})


def read_images(frame: pd.DataFrame) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any] | None]:
    """Return what `images_frame` wrote: names of images, their groups and folds, None without."""
    image_id, group = (frame[name].to_numpy(object) for name in ("image_id", "group"))
    return image_id, group, frame["fold"].to_numpy(object) if "fold" in frame else None


def check_images(
    image_id: ArrayLike, group: ArrayLike, fold: ArrayLike | None = None
) -> tuple[NDArray[np.str_], NDArray[np.str_], NDArray[np.str_] | None]:
    """Return the names of images, of their groups and of their folds, (n,) each.

    Raises:
        DataError: There is no image, a name is empty, an image occurs twice in a fold, or there is not one group per
            image.
    """
    images, groups = _names(image_id, "image_id"), _names(group, "group")
    folds = None if fold is None else _names(fold, "fold")
    if len(images) == 0:
        raise DataError("predictions hold no image: expected at least one; check that the split is not empty")
    for field, values in {"group": groups, "fold": images if folds is None else folds}.items():
        if values.shape != images.shape:
            raise DataError(f"{field} has shape {values.shape}: expected {images.shape}, one value per image")
    repeated = pd.DataFrame({"image": images, "fold": "" if folds is None else folds}).duplicated()
    if repeated.any():
        raise DataError(f"image_id {str(images[repeated.argmax()])!r} occurs twice: predict each image once")
    return images, groups, folds


def pool(by_fold: Mapping[str, Any]) -> Any:
    """Return the predictions of the models of several folds as one table.

    Args:
        by_fold: Predictions for the images of each fold, by its name; all of the same classes or findings.

    Raises:
        DataError: There is no fold, or classes or findings differ.
    """
    folds = list(by_fold.values())
    if not folds:
        raise DataError("there are no folds to pool: expected the predictions of at least one")
    for other in folds[1:]:
        check_names(folds[0], other)
    arrays = {
        name: np.concatenate([getattr(predictions, name) for predictions in folds])
        for name in ("image_id", "group", "y_true", "probabilities")
    }
    return replace(folds[0], **arrays, fold=np.repeat(list(by_fold), [len(predictions) for predictions in folds]))


def failures(predictions: Predictions, count: int = 12) -> NDArray[np.int64]:
    """Return the positions of the most confident incorrect predictions, in descending order of confidence.

    Args:
        predictions: n images.
        count: Largest number of positions.

    Returns:
        (count or fewer,) int64; of images with equal confidence the earlier comes first.
    """
    return _most_confident(predictions, ~predictions.correct, count)


def successes(predictions: Predictions, count: int = 12) -> NDArray[np.int64]:
    """Return the positions of the most confident correct predictions; arguments and order as for `failures`."""
    return _most_confident(predictions, predictions.correct, count)


def check_names(a: Any, b: Any) -> None:
    """Raise a `DataError` where the classes or findings of two models differ, or their order."""
    if type(a) is not type(b):
        raise DataError("one model predicts classes, the other findings: compare models of the same labels")
    if a.names != b.names:
        kind = "classes" if isinstance(a, Predictions) else "findings"
        raise DataError(f"{kind} differ, {a.names} and {b.names}: compare models of one order")


def check_same(a: Any, b: Any) -> None:
    """Raise a `DataError` where images, labels, groups, classes or findings of two models differ, or their order."""
    check_names(a, b)
    if len(a) != len(b):
        raise DataError(f"{len(a)} and {len(b)} images: compare models on the same images, in the same order")
    if (a.fold is None) != (b.fold is None):
        raise DataError("one model is cross-validated, the other is not: compare models on the same folds")
    for field in ("image_id", "y_true", "group", *(("fold",) if a.fold is not None else ())):
        first, second = getattr(a, field), getattr(b, field)
        differ = (first != second) & ~(pd.isna(first) & pd.isna(second))
        if differ.any():
            row = int(differ.reshape(len(a), -1).any(axis=1).argmax())
            raise DataError(
                f"{field} of row {row} differs, {getattr(a, field)[row]!s} and {getattr(b, field)[row]!s}: "
                "compare models on the same images, in the same order"
            )


def _most_confident(predictions: Predictions, mask: NDArray[np.bool_], count: int) -> NDArray[np.int64]:
    rows = np.flatnonzero(mask)
    return rows[np.argsort(-predictions.confidence[rows], kind="stable")][:count]


def _names(values: ArrayLike, field: str) -> NDArray[np.str_]:
    array = np.asarray(values, dtype=object)
    if array.ndim != 1:
        raise DataError(f"{field} has shape {array.shape}: expected one name per image")
    names = array.astype(str)
    empty = pd.isna(array) | (names == "")
    if empty.any():
        # Pooled under one empty name, images without a patient would be resampled as one patient.
        row = int(empty.argmax())
        raise DataError(f"{field} of row {row} is empty: give each image a name, and a separate group")
    return names


def _labels(values: ArrayLike, k: int) -> NDArray[np.int64]:
    array = np.asarray(values)
    if not np.issubdtype(array.dtype, np.integer):
        raise DataError(f"y_true has dtype {array.dtype}: expected integers from 0 to {k - 1}")
    outside = (array < 0) | (array >= k)
    if outside.any():
        raise DataError(f"y_true holds {array[outside][0]}: expected 0 to {k - 1}, the positions of the {k} classes")
    return array.astype(np.int64)


def _check_probabilities(probabilities: NDArray[np.float64], image_id: NDArray[np.str_]) -> None:
    outside = ~((probabilities >= 0) & (probabilities <= 1 + 1e-3)).all(axis=1)
    if outside.any():
        row = int(outside.argmax())
        raise DataError(
            f"probabilities of image {str(image_id[row])!r} are {probabilities[row].tolist()}: "
            "expected numbers between 0 and 1; pass logits through a softmax first"
        )
    sums = probabilities.sum(axis=1)
    off = np.abs(sums - 1) > 1e-3
    if off.any():
        row = int(off.argmax())
        raise DataError(
            f"probabilities of image {str(image_id[row])!r} sum to {sums[row]:.6g}: expected 1; "
            "pass logits through a softmax first"
        )
