"""What is wrong with a study's images is told before any notebook starts."""

from __future__ import annotations

import sys

from scanbook import runtime
from scanbook.config import Study


def check_images(study: Study, label: str) -> None:
    """List, read and split the images of a study as its notebooks will; print what a reader must know of them.

    Nothing happens where the images are scanbook's own and the models take them. What is read is kept in the store,
    where notebook 01 finds it.

    Args:
        study: The study; its data are available.
        label: What begins each printed line.

    Raises:
        DataError: The images do not fit the study, or cannot be split; or an image lacks its vector.
        StudyError: The study names a class that the images do not have.
    """
    if not study.embeddings and (study.on_stand_in or study.dataset.adapter == "synthetic"):
        return
    from scanbook import segmentation
    from scanbook.data import embeddings, splits

    manifest = splits.split_study(study).manifest
    if study.embeddings:
        embeddings.load(study, manifest)
    if not (manifest.frame["mask_path"] != "").any():
        segmentation.runnable_methods(study, manifest)
    for note in (*splits.notes(manifest), *manifest.facts.get("notes", ())):
        print(f"{label}: {runtime.legible(note)}", file=sys.stderr)
