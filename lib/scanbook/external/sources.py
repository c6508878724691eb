"""The bundle and its two sources: the images of its own study, and those of another one."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from scanbook import bundle as bundles
from scanbook import config, segmentation
from scanbook.bundle import Bundle
from scanbook.config import Study
from scanbook.data import adapters, folds, quality, splits
from scanbook.data.manifest import TEST, Manifest
from scanbook.errors import RunError, ScanbookError, StudyError


@dataclass(frozen=True)
class Internal:
    """The images of a bundle's own study.

    Attributes:
        study: The study.
        manifest: Its images, split as when the bundle was trained.
        note: Why none of them is a test image; "" where some are.
    """

    study: Study
    manifest: Manifest
    note: str = ""


@dataclass(frozen=True)
class Opened:
    """A bundle with what it is validated on.

    Attributes:
        bundle: The bundle.
        other: Study of the other source.
        own: The bundle's own study, where the session has resolved it; None where the bundle alone names it.
        mapping: The bundle's name of each of the other source's labels.
        kept: What must live as long as the bundle's folder.
    """

    bundle: Bundle
    other: Study
    own: Study | None
    mapping: dict[str, str]
    kept: Any = None


def open_bundle(study: Study, path: str, **options: Any) -> Opened:
    """Return the bundle that a notebook validates, and the study of the other source.

    Args:
        study: The notebook's study.
        path: Folder of a bundle: the images of the study are then the other source. Empty: the study names another
            source, and its own model is exported, from the store, into a temporary folder.
        options: Of `export.export_plain`.

    Raises:
        StudyError: Neither names a source.
        RunError: There is no such folder.
        BundleError: The folder is not a whole bundle.
    """
    if path:
        folder = Path(path).expanduser().resolve()
        if not folder.is_dir():
            raise RunError(f"no bundle at {folder}; name the folder of an exported model with BUNDLE")
        mapping = {} if study.external.study else study.external.classes
        return Opened(bundles.load(folder), study, None, mapping)
    if not study.external.study:
        raise StudyError(
            f"study {study.study} names no other source; add external: {{study: name}} to its file, or run "
            f"make validate STUDY={study.study} BUNDLE=path, which takes its images as the other source of a bundle"
        )
    from scanbook import export  # which imports Keras

    other = config.load(study.external.study, study.profile, study.external.data)
    kept = tempfile.TemporaryDirectory(prefix="scanbook-bundle-")
    written = export.export_plain(study, Path(kept.name) / "bundle", **options)
    return Opened(written, other, study, study.external.classes, kept)


def load_external(study: Study) -> tuple[Manifest, int]:
    """Return the readable images of another source as one test split, and how many images are unreadable.

    A limited number of images is sampled in the shares of the source, since its prevalence is a result. No rule by
    which a study excludes training images applies.
    """
    manifest = adapters.load(study.model_copy(update={"limit_class_balance": "source"}), fewest_classes=1)
    scanned = quality.scan(manifest)
    readable = (scanned["error"] == "").to_numpy()
    if study.input != "original":
        manifest = _cut(study, manifest, scanned)
    frame = manifest.frame[readable].assign(split=TEST)
    return manifest.with_frame(frame), int((~readable).sum())


def _cut(study: Study, manifest: Manifest, scanned: pd.DataFrame) -> Manifest:
    """Return the images as the study's `input` states them, cut out or cropped, all that are readable.

    Method and clean-up are chosen, and a U-Net is trained, on the study's own splits, where it has masks for that.
    """
    readable, split = (scanned["error"] == "").to_numpy(), np.full(len(manifest.frame), "", object)
    if (manifest.frame["mask_path"] != "").any():
        assigned = splits.assign(manifest, scanned, folds.one_split(study.splits, manifest))
        split = assigned.manifest.frame["split"].to_numpy(object)
    whole = manifest.with_frame(manifest.frame.assign(split=np.where(readable & (split == ""), TEST, split)))
    return segmentation.cut(study, whole)


def load_internal(bundle: Bundle, own: Study | None) -> Internal | str:
    """Return the images of a bundle's own study, or a sentence that says why they are not available.

    Args:
        bundle: The bundle.
        own: The study, where it is resolved; None: that of the bundle's name and profile, as it is on this machine.
    """
    note = ""
    try:
        study = own or config.load(bundle.name, str(bundle.about.get("profile", "")))
        prepared = study
        if study.splits.cross_validated and study.splits.fold is None and not folds.keeps_test(study):
            prepared = folds.study_of_all_images(study)
            note = (
                f"Study {study.study} is cross-validated, and its exported model learned from the images of all folds: "
                "none is left as a test image. The internal figures are those of its card, from the folds."
            )
        manifest = segmentation.prepare(prepared)
    except ScanbookError as error:
        return f"The images of the bundle's study are not available here: {error}."
    here = f"{study.runs_on}: {len(manifest.frame)} images, {manifest.frame['group'].nunique()} groups"
    if manifest.names != bundle.labels or here != bundle.about.get("data", here):
        theirs = bundle.about.get("data", "not stated")
        return (
            f"The images of study {bundle.name} on this machine are not those of the bundle: here {here}, of "
            f"{', '.join(manifest.names)}; the bundle's: {theirs}, of {', '.join(bundle.labels)}."
        )
    return Internal(study, manifest, note)
