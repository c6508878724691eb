"""A bundle on labelled images of another source: the predictions for both sources, and what was excluded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd

from scanbook.bundle import Bundle
from scanbook.config import Study
from scanbook.data import quality
from scanbook.data.manifest import TEST, TRAIN, Manifest
from scanbook.errors import DataError
from scanbook.evaluation import AnyPredictions, FindingPredictions, Predictions
from scanbook.evaluation.sources import EXTERNAL, Point
from scanbook.external.labels import map_labels
from scanbook.external.predicting import predict
from scanbook.external.sharing import SHARED, find_shared, join_sources
from scanbook.external.sources import Internal, load_external, load_internal, open_bundle


@dataclass(frozen=True)
class Validation:
    """What notebook 08 reports.

    Attributes:
        bundle: The bundle.
        other: Study of the other source.
        source: Its images, all in the test split, with the bundle's labels; shared ones are not among them.
        external: The bundle's predictions for them.
        compared: Classes or findings by which the sources are compared: those that both have.
        names: The other source's name of each of the bundle's labels.
        points: Thresholds of the bundle, by target or finding, of those that are compared.
        excluded: Names of the other source that none of the bundle's stands for, with their images.
        unreadable: Images of the other source that cannot be decoded.
        shared: Its images that are copies of the bundle's, as `find_shared` lists them; none is looked for where the
            bundle's images are not available.
        own: The images of the bundle's study; a sentence where they are not available.
        internal: The bundle's predictions for its test images; None where they are not available, or where
            none is a test image.
        left: Internal test images that are not compared, since the other source lacks their class.
        scanned: `quality.scan` of both sources joined; empty where the first is not available.
        kept: What must live as long as the bundle's folder.
    """

    bundle: Bundle
    other: Study
    source: Manifest
    external: AnyPredictions
    compared: tuple[str, ...]
    names: Mapping[str, tuple[str, ...]]
    points: Mapping[str, Point]
    excluded: pd.DataFrame
    unreadable: int
    shared: pd.DataFrame
    own: Internal | str
    internal: AnyPredictions | None
    left: int = 0
    scanned: pd.DataFrame = field(default_factory=pd.DataFrame, repr=False)
    kept: Any = field(default=None, repr=False)

    @property
    def available(self) -> Internal | None:
        """The images of the bundle's study, where they are available."""
        return None if isinstance(self.own, str) else self.own

    @property
    def single(self) -> bool:
        """Whether all external images are of one class."""
        return isinstance(self.external, Predictions) and len(np.unique(self.external.y_true)) < 2

    def unit(self, source: str = EXTERNAL) -> str:
        """Return what is resampled of a source: "patient", or "image" where it names no patients."""
        manifest = self.source if source == EXTERNAL or self.available is None else self.available.manifest
        return "patient" if manifest.facts.get("grouped", False) else "image"

    @property
    def ordered(self) -> bool:
        """Whether the classes are ordered grades, as either study says."""
        return not self.bundle.findings and any(study.ordered for study in self.studies)

    @property
    def studies(self) -> tuple[Study, ...]:
        """The studies of both sources, the other one first."""
        return (self.other, *([self.available.study] if self.available else []))

    @property
    def specificity(self) -> float:
        """Specificity for which the bundle's thresholds were chosen, or that the other study requests."""
        return self.studies[-1].evaluation.specificity

    def training(self, *splits: str) -> Manifest | None:
        """Return the bundle's own images of some splits, training by default, that have a compared label."""
        if self.available is None:
            return None
        manifest = self.available.manifest
        chosen = manifest.with_frame(manifest.frame.iloc[manifest.rows(*(splits or (TRAIN,)))])
        return restrict(chosen, self.compared)


def validate(study: Study, path: str = "", **options: Any) -> Validation:
    """Return the predictions of a bundle for another source's images, beside those for its own test images.

    Args:
        study: The notebook's study.
        path: Folder of the bundle, as `open_bundle` takes it.
        options: Of `export.export_plain`, where the study's own model is exported.

    Raises:
        DataError: The other source is the bundle's own, or no image of it remains.
        StudyError: Names are unknown, or no other source is named.
        BundleError: The bundle is not whole.
    """
    opened = open_bundle(study, path, **options)
    bundle = opened.bundle
    manifest, unreadable = load_external(opened.other)
    manifest, names, excluded = map_labels(manifest, bundle, opened.mapping, opened.other.study)
    own = load_internal(bundle, opened.own)
    shared, scanned = pd.DataFrame(columns=SHARED), pd.DataFrame()
    if isinstance(own, Internal) and len(manifest.frame):
        shared = find_shared(own.manifest, manifest)
        scanned = quality.scan(join_sources(own.manifest, manifest))  # as `find_shared` did
    kept = ~manifest.frame["image_id"].astype(str).isin(set(shared["image"]))
    manifest = manifest.with_frame(manifest.frame[kept])
    if manifest.frame.empty:
        raise DataError(
            f"no image of study {opened.other.study} remains that has a label of bundle {bundle.name!r} and is not "
            "among its own; name another source"
        )
    external = _predictions(bundle, manifest, manifest.rows(TEST))
    internal, left = None, 0
    compared = tuple(name for name in bundle.labels if name in names and name not in _lacking(external))
    if isinstance(own, Internal) and len(tested := own.manifest.rows(TEST)):
        internal = _predictions(bundle, own.manifest, tested)
        if bundle.classes:
            compared = tuple(name for name in compared if name not in internal.absent) or compared
            whole = len(internal)
            internal, external = (_of_classes(side, compared) for side in (internal, external))
            left = whole - (len(internal) if internal is not None else 0)
            manifest = restrict(manifest, compared)
    if bundle.findings:
        internal, external = (side and _of_findings(side, compared) for side in (internal, external))
    return Validation(
        bundle, opened.other, manifest, external, compared, names, _points(bundle, compared), excluded, unreadable,
        shared, own, internal, left, scanned, opened.kept,
    )  # fmt: skip


def restrict(manifest: Manifest, compared: tuple[str, ...]) -> Manifest:
    """Return the images of some classes; of findings all images."""
    if manifest.findings:
        return manifest
    return manifest.with_frame(manifest.frame[manifest.frame["label"].isin(compared)])


def _lacking(external: AnyPredictions) -> set[str]:
    """Return the classes without an image, or the findings without a label."""
    if isinstance(external, Predictions):
        return set(external.absent)
    labelled = ~np.isnan(external.y_true).all(axis=0)
    return {name for name, known in zip(external.findings, labelled, strict=True) if not known}


def _predictions(bundle: Bundle, manifest: Manifest, rows: np.ndarray) -> AnyPredictions:
    values = predict(bundle, manifest, rows)
    frame = manifest.frame.iloc[rows]
    images, groups = frame["image_id"].astype(str), frame["group"].astype(str)
    if bundle.findings:
        labels = manifest.labels.values[rows]
        return FindingPredictions(images, groups, labels, values.clip(0, 1), bundle.findings)
    return Predictions(images, groups, manifest.y[rows], values, bundle.classes)


def _of_classes(predictions: Predictions, compared: tuple[str, ...]) -> Predictions | None:
    chosen = np.isin(predictions.y_true, [predictions.classes.index(name) for name in compared])
    return predictions.subset(chosen) if chosen.any() else None


def _of_findings(predictions: FindingPredictions, compared: tuple[str, ...]) -> FindingPredictions:
    columns = [predictions.findings.index(name) for name in compared]
    y_true, probabilities = predictions.y_true[:, columns], predictions.probabilities[:, columns]
    return replace(predictions, y_true=y_true, probabilities=probabilities, findings=compared)


def _points(bundle: Bundle, compared: tuple[str, ...]) -> dict[str, Point]:
    """Return the thresholds of the bundle for what is compared.

    Of classes they are those of targets that some, but not all, compared ones are of: of a target of all of them there
    are no negatives. Of a single compared class its own targets remain, since sensitivity is known.
    """
    points = {}
    for name, point in bundle.operating_points.items():
        members = tuple(point.get("classes", (name,)))
        cut = point["threshold"]
        if bundle.findings and name not in compared:
            continue
        shared = set(members) & set(compared)
        if bundle.classes and (not shared or len(shared) == len(compared) > 1):
            continue
        points[name] = Point(members, np.nan if cut is None else float(cut))
    return points
