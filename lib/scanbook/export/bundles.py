"""Writes the model of a study as a bundle."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from scanbook import bundle, evaluation, segmentation, training
from scanbook.bundle import Bundle
from scanbook.config import Study
from scanbook.data import cards, dicom, pixels, presence
from scanbook.data.manifest import TEST, VALIDATION, Manifest
from scanbook.evaluation import AnyPredictions, Calibration
from scanbook.export import formats
from scanbook.export.formats import Saved
from scanbook.inspection import grad_cam
from scanbook.models import engines

DICOM_PACKAGES = ("pydicom", "python-gdcm")
"""Packages that a service needs to read DICOM files."""

OnTest = Callable[..., AnyPredictions]


@dataclass(frozen=True)
class Export:
    """A bundle and the comparison of its formats.

    Attributes:
        bundle: The written bundle.
        manifest: The dataset, split.
        images: Its pixels, uint8 `(n, h, w, 3)`.
        rows: The fixed images, int64 `(m,)`, of `formats.select_fixed`.
        stored: Their probabilities, from the stored logits of training, float64 `(m, k)`.
        saved: The formats and their parity; its paths no longer exist.
    """

    bundle: Bundle
    manifest: Manifest
    images: np.ndarray
    rows: np.ndarray
    stored: np.ndarray
    saved: Saved

    def parity(self, sources: dict[str, np.ndarray]) -> pd.DataFrame:
        """Return the `formats.parity_table` of every format and of further probabilities for the fixed images."""
        return pd.concat([self.saved.parity, formats.parity_table(self.saved.reference, sources)])


def describe_input(study: Study) -> str:
    """Return which images a service of the study's model expects, for report and model card."""
    if study.input == "original":
        return "Send images as the camera took them."
    form = "cut out by a mask" if study.input == "cutout" else "cropped to the box of a mask"
    return (
        f"Send images that are already {form}, as the study's `segmentation` makes them: the model learned from these "
        "alone, and the service does not segment."
    )


def _predict_test(
    trained: training.TrainedModel, manifest: Manifest, *, calibration: float | Calibration
) -> AnyPredictions:
    return manifest.predictions(TEST, trained.logits(TEST), calibration)


def export_study(study: Study, folder: Path, *, on_test: OnTest = _predict_test) -> Export:
    """Export a study's model; train what the store lacks.

    Temperature and thresholds come from validation, metrics from test.

    Args:
        study: The study.
        folder: Folder of the bundle; an older bundle there is replaced.
        on_test: Predicts the test images; a notebook's session counts these predictions.

    Raises:
        BundleError: `folder` holds something else, or a float32 format does not agree with the trained network; an
            older bundle stays unchanged.
        StudyError: The study names an unknown class.
    """
    bundle.check_target(folder)
    manifest = segmentation.prepare(study)
    images = pixels.load(manifest, study.size)
    tuned = training.train_final_model(study, manifest, images)
    logits = tuned.logits(VALIDATION)
    temperature = evaluation.fit_temperature(logits, manifest.y[manifest.rows(VALIDATION)])
    validation = manifest.predictions(VALIDATION, logits, temperature)
    test = on_test(tuned, manifest, calibration=temperature)
    settings, options = study.evaluation, {"rounds": study.bootstrap_rounds, "seed": study.seed}
    points = evaluation.targets_table(validation, test, settings.targets, specificity=settings.specificity, **options)
    written, saved = _write(
        folder,
        study,
        manifest,
        tuned.load_model(),
        images=images,
        logits=logits,
        temperature=temperature,
        abstain_below=evaluation.abstain_below(validation, settings.coverage),
        metrics=evaluation.summary(test, **options),
        about={"backbone": tuned.name} | ({"splits": " ".join(noted)} if (noted := presence.notes(manifest)) else {}),
        operating_points=_operating_points(study, points),
        dataset_card=cards.of_study(study),
    )
    rows = formats.select_fixed(manifest)
    stored = np.concatenate([test.probabilities, validation.probabilities])[: len(rows)]
    return Export(written, manifest, images, rows, stored, saved)


def write_bundle(
    folder: Path,
    study: Study,
    manifest: Manifest,
    model: Any,
    *,
    temperature: float,
    abstain_below: float,
    metrics: pd.DataFrame,
    about: dict[str, str],
    images: np.ndarray | None = None,
    **more: Any,
) -> Bundle:
    """Export a trained network as a bundle.

    Args:
        folder: Folder of the bundle; an older bundle there is replaced.
        study: The study; gives image size and texts.
        manifest: The dataset; gives the class order.
        model: A trained network of `backbones.build`, from uint8 images to logits.
        temperature: Temperature fitted on validation.
        abstain_below: Confidence below which the service answers "not sure", chosen on validation.
        metrics: Test metrics, as `evaluation.summary` gives them: `value`, `low`, `high` by metric.
        about: Further topics for the model card.
        images: Pixels of the dataset, uint8 `(n, h, w, 3)`. Without them the bundle has only Keras and OpenVINO in
            float32, and nothing is compared.
        more: `operating_points` of the bundle, and `dataset_card`, as `bundle.write` takes it.

    Raises:
        BundleError: A float32 format does not agree with the trained network; nothing was written.
    """
    logits = None
    if images is not None:
        logits = engines.predict_rows(engines.KerasEngine(model), images, manifest.rows(VALIDATION))[0]
    more |= {"temperature": temperature, "abstain_below": abstain_below, "metrics": metrics, "about": about}
    return _write(folder, study, manifest, model, images=images, logits=logits, **more)[0]


def _write(
    folder: Path,
    study: Study,
    manifest: Manifest,
    model: Any,
    *,
    images: np.ndarray | None,
    logits: np.ndarray | None,
    temperature: float,
    metrics: pd.DataFrame,
    about: dict[str, str],
    dataset_card: str = "",
    **more: Any,
) -> tuple[Bundle, Saved]:
    exported = grad_cam.add_heat_maps(model, temperature)
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        if images is None:
            formats.save_plain(exported, work)
            paths = {style: work / bundle.FILES[style] for style in ("openvino", "keras")}
            saved = Saved(paths, np.empty((0, len(manifest.classes))), pd.DataFrame(), pd.DataFrame(), {}, {})
        else:
            saved = formats.save(study, manifest, images, exported, name=model.name, logits=logits, folder=work)
        description = Bundle(
            folder,
            name=study.study,
            classes=manifest.classes,
            image_size=study.size,
            temperature=temperature,
            names=study.names_of(manifest.classes),
            parity=saved.parity.to_dict(orient="index"),
            int8=saved.int8,
            excluded=saved.excluded,
            hub={**cards.licence(study), "tags": cards.tags(study), "datasets": [study.study]},
            metrics=metrics.to_dict(orient="index"),
            about={
                "title": study.title,
                "question": study.question,
                "data": f"{study.runs_on}: {len(manifest.frame)} images, {manifest.frame['group'].nunique()} groups",
                "licence": study.licence,
                "profile": study.profile,
                "input": describe_input(study),
                **about,
            },
            **more,
        )
        written = bundle.write(description, saved.paths, dataset_card=dataset_card, packages=_packages(manifest))
    return written, saved


def _packages(manifest: Manifest) -> list[str]:
    """Return the installed packages that a service of these images needs besides `bundle.PACKAGES`."""
    if not any(map(dicom.is_dicom_file, manifest.frame["path"].head(32))):
        return []
    return [name for name in DICOM_PACKAGES if list(distributions(name=name))]


def _operating_points(study: Study, table: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """Return `evaluation.targets_table` for a bundle."""
    return {
        target: {
            "classes": list(study.evaluation.targets.get(target, [target])),
            "threshold": row["threshold"],
            **{
                rate: {"value": row[rate], "low": row[f"{rate}_low"], "high": row[f"{rate}_high"]}
                for rate in ("sensitivity", "specificity")
            },
        }
        for target, row in table.iterrows()
    }


def list_files(written: Bundle) -> pd.DataFrame:
    """Return the size of each file and folder at the top of a bundle, `MiB`, sorted by name."""
    paths = sorted(written.folder.iterdir(), key=lambda path: path.name.lower())
    # a graph and its weights are separate rows
    sizes = {
        f"{path.name}/" if path.is_dir() else path.name: (
            engines.size_on_disk(path) if path.is_dir() else path.stat().st_size
        )
        for path in paths
    }
    return (pd.Series(sizes, dtype=float) / 2**20).rename_axis("file").to_frame("MiB")


def summarise_formats(written: Bundle) -> str:
    """Return the formats of a bundle and the reason why one is missing, one sentence each."""
    names = [name for style, name in bundle.FORMAT_NAMES.items() if style in written.models]
    sentences = [f"Formats: {', '.join(names)}."]
    if written.int8:
        state = "kept" if "openvino_int8" in written.models else "excluded"
        sentences.append(f"{bundle.int8_sentence(written.int8)} It was {state}.")
    sentences += [
        f"{bundle.FORMAT_NAMES[style]} is not available: {reason.rstrip('.')}."
        for style, reason in written.excluded.items()
    ]
    return " ".join(sentences)
