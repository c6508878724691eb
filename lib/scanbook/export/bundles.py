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
from scanbook.bundle import Bundle, answering
from scanbook.config import Study
from scanbook.data import cards, dicom, folds, presence, splits
from scanbook.data.manifest import TEST, VALIDATION, Manifest
from scanbook.evaluation import AnyPredictions, Calibration
from scanbook.export import answers, formats
from scanbook.export.formats import Saved
from scanbook.inspection import grad_cam
from scanbook.models import backbones, engines
from scanbook.training import label_check

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
        return pd.concat(
            [self.saved.parity, formats.parity_table(self.saved.reference, sources, self.saved.thresholds)]
        )


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
    trained: training.TrainedModel, manifest: Manifest, *, calibration: float | Calibration, arm: str = ""
) -> AnyPredictions:
    return manifest.predictions(TEST, trained.logits(TEST), calibration)


def export_study(study: Study, folder: Path, *, on_test: OnTest = _predict_test) -> Export:
    """Export a study's model; train what the store lacks.

    Calibration and thresholds come from validation, metrics from test.

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
    trained = _prepare(study, on_test)
    model, manifest, images = trained.model, trained.model.manifest, trained.model.images
    described = study if model.models is None else folds.study_of_all_images(study)
    exported = _build(model)
    written, saved = _write(
        folder,
        study,
        manifest,
        exported,
        images=images,
        logits=trained.logits,
        dataset_card=cards.of_study(described, label_check.exclude(described, splits.split_study(described))),
        **trained.description,
    )
    rows = formats.select_fixed(manifest)
    parts = [
        manifest.predictions(split, model.logits(split), model.calibration).probabilities
        for split in (TEST, VALIDATION)
        if len(manifest.rows(split))
    ]
    return Export(written, manifest, images, rows, np.concatenate(parts)[: len(rows)], saved)


def export_plain(study: Study, folder: Path, *, on_test: OnTest = _predict_test) -> Bundle:
    """Export a study's model in float32 alone, as Keras and OpenVINO, which takes seconds; train what the store lacks.

    Its answers are those of `export_study`'s bundle, whose float32 model it has. Nothing is compared.

    Args:
        study: The study.
        folder: Folder of the bundle; an older bundle there is replaced.
        on_test: As in `export_study`.

    Raises:
        BundleError: `folder` holds something else.
        StudyError: The study names an unknown class.
    """
    bundle.check_target(folder)
    trained = _prepare(study, on_test)
    exported = _build(trained.model)
    written, _ = _write(
        folder, study, trained.model.manifest, exported, images=None, logits=None, **trained.description
    )
    return written


@dataclass(frozen=True)
class _Trained:
    """A study's model with all that a bundle says of it.

    Attributes:
        model: The model.
        logits: Its logits for the validation images, before calibration, float32 `(v, k)`.
        description: Calibration, metrics, texts, operating points and the rule of exams.
    """

    model: training.ExportedModel
    logits: np.ndarray
    description: dict[str, Any]


def _prepare(study: Study, on_test: OnTest) -> _Trained:
    model = training.train_exported_model(study, segmentation.prepare)
    manifest, logits, calibration = model.manifest, model.logits(VALIDATION), model.calibration
    own = manifest.predictions(VALIDATION, logits, calibration)
    if model.models is None:
        test = on_test(model.network, manifest, calibration=calibration)
        chosen = answers.describe_answers(study, own, test)
        exam = answers.describe_exams(study, manifest, logits, model.network.logits(TEST))
    else:
        validation, test = _predict_folds(model.models, on_test)
        chosen = answers.describe_answers(study, validation, test, None if model.averaged else own)
        exam = answers.describe_exams_of_folds(study, model)
    about = {"backbone": model.name, **_describe_weights(study, model)}
    if model.evidence:
        about["evidence"] = model.evidence
    if model.keeps_test:
        kept = on_test(model, manifest, calibration=calibration)
        about["test split of the source"] = answers.describe_test(kept, study)
    if noted := presence.notes(manifest if model.models is None else model.models.manifest):
        about["splits"] = " ".join(noted)
    metrics = evaluation.summary(test, **study.resamples)
    description = {"calibration": calibration, "metrics": metrics, "about": about, "exam": exam, **chosen}
    return _Trained(model, logits, description)


def _describe_weights(study: Study, model: training.ExportedModel) -> dict[str, str]:
    """Return, for the card, where the pretrained weights of an exported model come from."""
    used = [network.backbone for network, _ in model.members if network.kind != "from scratch"]
    if not used:
        return {"weights": "none: trained from random weights"}
    weights = backbones.resolve(study.model_copy(update={"backbones": list(dict.fromkeys(used))}))[0]
    table = backbones.tabulate_origins(weights)
    titles = {
        "weights": "source",
        "pretrained on": "pretrained_on",
        "licence of the weights": "licence",
        "SHA-256 of the weights": "sha256",
    }
    if len(table) == 1:
        return {title: str(table[column].iloc[0]) for title, column in titles.items()}
    return {
        title: "; ".join(f"{name}: {text}" for name, text in table[column].items()) for title, column in titles.items()
    }


def _predict_folds(models: training.StudyModels, on_test: OnTest) -> tuple[AnyPredictions, AnyPredictions]:
    """Return the calibrated predictions of the networks of all folds, for validation and for test."""
    validation, test = {}, {}
    for split in models.splits:
        network, manifest = split.networks[0], split.manifest
        fitted = training.calibrate(split.study, manifest, network)
        validation[split.fold] = manifest.predictions(VALIDATION, network.logits(VALIDATION), fitted)
        test[split.fold] = on_test(network, manifest, calibration=fitted, arm=split.label_of(network))
    return models.pool(validation), models.pool(test)


def _build(model: training.ExportedModel) -> Any:
    """Return the network that is exported, with calibrated probabilities and heat maps."""
    networks = [network.load_model() for network, _ in model.members]
    calibrated = [
        grad_cam.add_heat_maps(network, fitted) for network, (_, fitted) in zip(networks, model.members, strict=True)
    ]
    return grad_cam.average(calibrated) if model.averaged else calibrated[0]


def write_bundle(
    folder: Path,
    study: Study,
    manifest: Manifest,
    model: Any,
    *,
    metrics: pd.DataFrame,
    about: dict[str, str],
    temperature: float | Calibration = 1.0,
    images: np.ndarray | None = None,
    **more: Any,
) -> Bundle:
    """Export a trained network as a bundle.

    Args:
        folder: Folder of the bundle; an older bundle there is replaced.
        study: The study; gives image size and texts.
        manifest: The dataset; gives the order of classes or findings.
        model: A trained network of `backbones.build`, from uint8 images to logits.
        metrics: Test metrics, as `evaluation.summary` gives them: `value`, `low`, `high` by metric.
        about: Further topics for the model card.
        temperature: Temperature fitted on validation; of findings their calibration.
        images: Pixels of the dataset, uint8 `(n, h, w, 3)`. Without them the bundle has only Keras and OpenVINO in
            float32, and nothing is compared.
        more: `abstain_below`, `operating_points` and `exam` of the bundle, and `dataset_card`, as `bundle.write` takes
            it.

    Raises:
        BundleError: A float32 format does not agree with the trained network; nothing was written.
    """
    logits = None
    if images is not None:
        logits = engines.predict_rows(engines.KerasEngine(model), images, manifest.rows(VALIDATION))[0]
    more |= {"calibration": temperature, "metrics": metrics, "about": about}
    exported = grad_cam.add_heat_maps(model, temperature)
    return _write(folder, study, manifest, exported, images=images, logits=logits, **more)[0]


def _write(
    folder: Path,
    study: Study,
    manifest: Manifest,
    exported: Any,
    *,
    images: np.ndarray | None,
    logits: np.ndarray | None,
    calibration: float | Calibration,
    metrics: pd.DataFrame,
    about: dict[str, str],
    dataset_card: str = "",
    **more: Any,
) -> tuple[Bundle, Saved]:
    given: dict[str, Any] = {"calibration": answers.by_finding(calibration, manifest.findings)}
    if manifest.classes:
        given = {"temperature": calibration}
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        if images is None:
            formats.save_plain(exported, work)
            paths = {style: work / bundle.FILES[style] for style in ("openvino", "keras")}
            saved = Saved(paths, np.empty((0, len(manifest.names))), pd.DataFrame(), pd.DataFrame(), {}, {})
        else:
            options = {"logits": logits, "folder": work, "calibration": calibration}
            thresholds = answering.find_thresholds(more["operating_points"]) if manifest.findings else None
            saved = formats.save(study, manifest, images, exported, **options, thresholds=thresholds)
        description = Bundle(
            folder,
            name=study.study,
            classes=manifest.classes,
            findings=manifest.findings,
            image_size=study.size,
            names=study.names_of(manifest.names),
            parity=saved.parity.to_dict(orient="index"),
            int8=saved.int8.get("openvino_int8", {}),
            litert_int8=saved.int8.get("litert_int8", {}),
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
            **given,
            **more,
        )
        written = bundle.write(description, saved.paths, dataset_card=dataset_card, packages=_packages(manifest))
    return written, saved


def _packages(manifest: Manifest) -> list[str]:
    """Return the installed packages that a service of these images needs besides `bundle.PACKAGES`."""
    if not any(map(dicom.is_dicom_file, manifest.frame["path"].head(32))):
        return []
    return [name for name in DICOM_PACKAGES if list(distributions(name=name))]


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
    """Return the formats of a bundle with their sizes, and the reason why one is missing, one sentence each."""
    sizes = {style: engines.size_on_disk(written.folder / path) / 2**20 for style, path in written.models.items()}
    names = [f"{name} ({sizes[style]:.3g} MiB)" for style, name in bundle.FORMAT_NAMES.items() if style in sizes]
    sentences = [f"Formats: {', '.join(names)}."]
    for style, figures in written.losses.items():
        state = "kept" if style in written.models else "excluded"
        sentences.append(f"{bundle.int8_sentence(figures, bundle.FORMAT_NAMES[style])} It was {state}.")
    sentences += bundle.excluded_sentences(written)
    return " ".join(sentences)
