"""The answers of a bundle to image files, by the decoder, model and calibration with which its service answers."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from scanbook import runtime
from scanbook.bundle import Bundle
from scanbook.data.manifest import Manifest
from scanbook.serving.predictor import Predictor
from scanbook.store import file_digest, stage


def predict(bundle: Bundle, manifest: Manifest, rows: np.ndarray) -> np.ndarray:
    """Return the calibrated probabilities that the service of a bundle gives for images.

    Args:
        bundle: The bundle.
        manifest: The images.
        rows: Rows of readable images, int `(m,)`.

    Returns:
        float64 `(m, k)`, columns in the order of the bundle's classes or findings.
    """
    chosen = manifest.with_frame(manifest.frame.iloc[rows])
    model = bundle.model_path()
    files = [file_digest(path) for path in (model, model.with_suffix(".bin"))]
    inputs = {"model": files, "size": bundle.image_size, "manifest": chosen.fingerprint()}
    folder = stage("external", inputs, lambda work: _predict(bundle, chosen, work), __name__)
    return np.load(folder / "probabilities.npy").astype(np.float64)


def _predict(bundle: Bundle, manifest: Manifest, folder: Path) -> None:
    predictor = Predictor(bundle)
    paths = manifest.frame["path"].to_numpy()
    # one request per image, as many at a time as there are processors
    answers = runtime.in_threads(lambda path: predictor.predict([Path(path).read_bytes()])[0].probabilities, paths)
    values = list(runtime.progress(answers, "answers of the bundle", len(paths)))
    np.save(folder / "probabilities.npy", np.stack(values) if values else np.empty((0, len(bundle.labels))))
