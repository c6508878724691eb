"""The synthetic dataset as a manifest: its files are written into the store once."""

from __future__ import annotations

import json

import pandas as pd

from scanbook import runtime
from scanbook.config import Study, SyntheticData
from scanbook.data.adapters.synthetic import dataset, dermoscopy
from scanbook.data.manifest import Manifest
from scanbook.store import fingerprint, stage


def load(study: Study) -> Manifest:
    """Draws the study's images, unless they lie in the store, and lists them.

    The manifest's facts say what is known of the images: the Bayes accuracy, the planted faults, and the kind of
    each near-duplicate.
    """
    layout = study.dataset
    assert isinstance(layout, SyntheticData)
    inputs = {"images": layout.images, "size": layout.size, "seed": layout.seed}
    folder = stage(
        "synthetic",
        inputs,
        lambda work: dataset.write(work, layout.images, layout.seed, layout.size, runtime.progress),
        __name__,
    )
    source = pd.read_csv(folder / "metadata.csv")
    truth = json.loads((folder / "truth.json").read_text())
    frame = pd.DataFrame(
        {
            "image_id": source["image_id"],
            "path": [str(folder / "images" / f"{name}.jpg") for name in source["image_id"]],
            "label": source["diagnosis"],
            "group": source["patient_id"],
            "mask_path": [str(folder / "masks" / f"{name}.png") for name in source["image_id"]],
            "split": "",
        }
    )
    frame = frame.join(source[["lesion_id", "age", "sex", "site"]])
    facts = {
        "data": fingerprint(inputs, folder.name),
        "grouped": True,
        "bayes_accuracy": truth["bayes_accuracy"],
        "faults": truth["faults"],
        "near_duplicate_kinds": truth["near_duplicate_kinds"],
    }
    return Manifest(study.study, frame, dermoscopy.CLASSES, facts)
