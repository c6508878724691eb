"""What is wrong with a study's images is told before any notebook starts."""

from __future__ import annotations

import sys

from scanbook.runner.freshness import Batch


def check_images(batch: Batch) -> None:
    """List, read and split the images of a study as its notebooks will; print what a reader must know of them.

    Nothing happens where all reports are fresh, or the images are scanbook's own. What is read is kept in the store,
    where notebook 01 finds it.

    Raises:
        DataError: The images do not fit the study, or cannot be split.
        StudyError: The study names a class that the images do not have.
    """
    study = batch.study
    if study.on_stand_in or study.dataset.adapter == "synthetic" or not batch.stale():
        return
    from scanbook import segmentation
    from scanbook.data import splits

    manifest = splits.split_study(study).manifest
    if not (manifest.frame["mask_path"] != "").any():
        segmentation.runnable_methods(study, manifest)
    for note in manifest.facts.get("notes", ()):
        print(f"{batch.label}: {note}", file=sys.stderr)
