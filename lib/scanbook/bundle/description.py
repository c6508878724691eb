"""Description of a bundle, and the checks that a bundle passes before it is served."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from scanbook import runtime
from scanbook.bundle import answering
from scanbook.errors import BundleError
from scanbook.store import file_digest

FORMAT = 5
"""Version of the bundles that are written: a change of their files or keys raises it, as CONTRIBUTING.md says."""
READ = (2, 3, 4, FORMAT)
"""Versions of the bundles that are read. Version 2 has neither a test table nor cards in HTML; findings and exams came
with version 4, LiteRT with version 5."""
DESCRIPTION, CHECKSUMS, REQUIREMENTS = "bundle.json", "checksums.json", "requirements.txt"
CARD, DATASET_CARD = "MODEL_CARD.md", "DATASET_CARD.md"
HTML = {CARD: "MODEL_CARD.html", DATASET_CARD: "DATASET_CARD.html"}
"""File that holds each card as the service shows it."""

FILES = {
    "openvino": "model.xml",
    "openvino_int8": "model_int8.xml",
    "keras": "model.keras",
    "saved_model": "saved_model",
    "onnx": "model.onnx",
    "litert": "model.tflite",
    "litert_int8": "model_int8.tflite",
}
"""Path of the model in each format: a file or a folder. An `.xml` file has a `.bin` file of the same name beside it."""
INT8 = ("openvino_int8", "litert_int8")
"""Formats in int8: they need not agree with the trained model, and are excluded where they lose too much."""
SERVED = {"fp32": "openvino", "int8": "openvino_int8"}
"""Format that the service runs, by precision. A copy of a bundle may lack the other formats, each as a whole."""
UNWANTED = ("__pycache__", ".DS_Store", "._*")
"""Names of files that Python and macOS add to a folder; they do not belong to a bundle."""

SUBFOLDER = Path("07_export_flask", "bundle")
"""Folder of the bundle below the reports of a study and profile, unless another folder is named."""
REMEDY = "copy the whole bundle again, or export it again (scanbook export, or notebook 07_export_flask)"


@dataclass(frozen=True)
class Bundle:
    """An exported model and everything that its predictions depend on.

    Attributes:
        folder: Folder of the bundle.
        name: Name of the model, as the service reports it.
        classes: Class names in the order of the probabilities, in English; none of a model of findings.
        image_size: Height and width of the model's input, in pixels.
        temperature: Temperature that calibrated the logits of classes; the model already contains it.
        abstain_below: Of classes: the service answers "not sure" where the largest probability is below this value.
        models: Path of the model in each available format, as in `FILES`; always includes "openvino".
        metrics: Test metrics by printed name: a number, or a mapping with `value`, `low` and `high` (95 % interval).
        about: Text for the model card by topic. `title`, `question`, `intended_use` and `limits` have their own
            sections, and `evidence` says on what the metrics were measured; the others (`data`, `licence`, `backbone`,
            `weights`, `pretrained on`, `SHA-256 of the weights`, `profile`, ...) are listed in a table.
        names: Names of the classes or findings in other languages by language code ("pt", "ko"), in their order.
        operating_points: Operating point of each target: `classes`, whose probabilities are added; `threshold`, chosen
            on validation images; `sensitivity` and `specificity` on test images, in the form of `metrics`. Of findings
            that of each, in their order, with its `margin`, as `answering.find_answers` takes them; the threshold is
            None where the validation images lack the finding.
        parity: Difference between each format and the trained model on the same images, by format: `difference` of the
            logits as a share of their spread, `same class` (of findings `same answers`) in words, `agrees`.
        int8: Loss by int8 on the validation `images`: `accuracy`, that of the trained model as `reference`, and their
            `change` with `low` and `high`, as shares; of findings their macro `auroc` in its place, and the shares of
            correct answers, `right` and `right_reference`. Empty where int8 was not tried.
        litert_int8: The same by int8 in LiteRT's format; `int8` is that of the service.
        excluded: Why a format is not available, by format, one sentence each.
        hub: Metadata of the model card for Hugging Face's hub: `license`, `tags`, `datasets`.
        findings: Names of findings in the order of the probabilities, in English, each of which is present or absent;
            none of a model of classes.
        calibration: Calibration of each finding, in their order: `slope` and `offset` of the logit, which the model
            already contains, and the `method`.
        exam: How the images of an exam are answered together: the `rule`, one of `answering.RULES`; the `calibration`
            of exams, a temperature or, of findings, as the attribute; `abstain_below`, or `operating_points` of
            findings, as the attributes, for exams; empty where the images have no exams.
        format: Version of the bundle's files and keys, one of `READ`.
    """

    folder: Path
    name: str
    classes: tuple[str, ...]
    image_size: tuple[int, int]
    temperature: float = 1.0
    abstain_below: float = 0.0
    models: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)
    about: dict[str, str] = field(default_factory=dict)
    names: dict[str, tuple[str, ...]] = field(default_factory=dict)
    operating_points: dict[str, dict[str, Any]] = field(default_factory=dict)
    parity: dict[str, dict[str, Any]] = field(default_factory=dict)
    int8: dict[str, Any] = field(default_factory=dict)
    excluded: dict[str, str] = field(default_factory=dict)
    hub: dict[str, Any] = field(default_factory=dict)
    findings: tuple[str, ...] = ()
    calibration: dict[str, dict[str, Any]] = field(default_factory=dict)
    exam: dict[str, Any] = field(default_factory=dict)
    litert_int8: dict[str, Any] = field(default_factory=dict)
    format: int = FORMAT

    @property
    def labels(self) -> tuple[str, ...]:
        """Classes or findings, in the order of the probabilities."""
        return self.findings or self.classes

    @property
    def losses(self) -> dict[str, dict[str, Any]]:
        """Loss of each format in `INT8` that was tried, whether the bundle has it or not."""
        return {style: values for style, values in zip(INT8, (self.int8, self.litert_int8), strict=True) if values}

    @property
    def precisions(self) -> tuple[str, ...]:
        """Precisions that the service can run: "fp32", and "int8" where that passed its checks."""
        return tuple(precision for precision, style in SERVED.items() if style in self.models)

    def model_path(self, precision: str = "fp32") -> Path:
        """Return the path of the OpenVINO model in a precision.

        Args:
            precision: "fp32" or "int8".

        Raises:
            BundleError: The bundle has no such model; the message gives the reason and the available precisions.
        """
        style = SERVED.get(precision, "")
        if style not in self.models:
            why = f" ({reason})" if (reason := self.excluded.get(style)) else ""
            raise BundleError(
                f"bundle {self.name!r} has no {precision} model{why}; expected one of {', '.join(self.precisions)}"
            )
        return self.folder / self.models[style]

    def label(self, index: int, language: str = "en") -> str:
        """Return the name of a class or finding in a language, or in English where there is no translation."""
        return self.names.get(language, self.labels)[index]


def study_folder(name: str, profile: str) -> Path:
    """Return the default folder of a study's bundle. Only `make clean` and a new export remove the bundle.

    Args:
        name: Name of the study.
        profile: "smoke", "quick" or "full".
    """
    return runtime.reports_dir() / name / profile / SUBFOLDER


def read(folder: Path) -> Bundle:
    """Read a bundle and verify its files, without opening a model.

    A format that the service does not run may be missing as a whole, as in a container image.

    Raises:
        BundleError: A file is missing, changed or unknown, or the description is not valid or has an unknown format.
    """
    folder = Path(folder).resolve()
    if not (folder / DESCRIPTION).is_file():
        raise BundleError(
            f"{folder} is not a bundle: it has no {DESCRIPTION}; run notebook 07_export_flask or name another folder"
        )
    values = _read_json(folder / DESCRIPTION)
    _check_format(folder / DESCRIPTION, values)  # before the files: another format may have others
    absent = _verify(folder)
    bundle = parse(folder, values)
    for style in absent:
        bundle.models.pop(style, None)
    for style, name in bundle.models.items():
        if not (folder / name).exists():
            raise BundleError(
                f"{folder / DESCRIPTION} names the {style} model {name!r}, which the bundle lacks; {REMEDY}"
            )
    return bundle


def _check_format(path: Path, values: dict[str, Any]) -> None:
    version = values.get("format")
    if type(version) is int and version in READ:
        return
    advice = "update scanbook"
    if type(version) is not int or version < FORMAT:
        about = values.get("about")
        profile = about.get("profile") if isinstance(about, dict) else None
        advice = f"export it again: {export_command(values.get('name'), profile)}"
    raise BundleError(f"{path} has format {version!r}, this scanbook reads {', '.join(map(str, READ))}; {advice}")


def export_command(name: object, profile: object) -> str:
    """Return the command that exports a study's bundle again, in one line whatever its description says."""
    words = ["scanbook", "export", "--study", name, *(["--profile", profile] if profile else [])]
    return shlex.join(" ".join(str(word).split()) for word in words)


def parse(folder: Path, values: dict[str, Any]) -> Bundle:
    """Return the bundle that a description, read as JSON, describes.

    Args:
        folder: Folder of the bundle.
        values: Attributes of the bundle, with lists in the place of tuples.

    Raises:
        BundleError: A key is missing or unknown, or a value is not valid.
    """
    try:
        values = values | {
            "classes": tuple(values["classes"]),
            "findings": tuple(values.get("findings", ())),
            "image_size": tuple(values["image_size"]),
            "models": {**values["models"]},
            "names": {language: tuple(names) for language, names in values["names"].items()},
        }
        bundle = Bundle(folder, **values)
    except (AttributeError, KeyError, TypeError) as error:
        raise BundleError(f"{folder / DESCRIPTION} lacks a key or has an unknown one ({error}); {REMEDY}") from error
    _check_values(bundle)
    return bundle


def load(folder: Path) -> Bundle:
    """Read a bundle, verify its files, and check that labels and image size match every OpenVINO model.

    Raises:
        BundleError: A file is missing, changed or unknown, or description and models do not match.
    """
    bundle = read(folder)
    check_models(bundle)
    return bundle


def check_models(bundle: Bundle) -> None:
    """Check that labels and image size match every OpenVINO model.

    Raises:
        BundleError: The message names the model and what it takes or gives.
    """
    for precision in bundle.precisions:
        _check_model(bundle, bundle.model_path(precision))


def _verify(folder: Path) -> set[str]:
    """Compare every file with its checksum.

    Returns:
        Formats that have checksums but no files; the service runs none of them.
    """
    checksums, present = _read_json(folder / CHECKSUMS), list_files(folder)
    paths = {style: _select_format(style, checksums) for style in FILES.keys() - SERVED.values()}
    absent = {style for style, names in paths.items() if names and not names & set(present)}
    optional = {name for style in absent for name in paths[style]}
    for name in checksums:
        if name not in present and name not in optional:
            raise BundleError(f"{folder / name} is missing; {REMEDY}")
    for name in present:
        if name not in checksums:
            raise BundleError(f"{folder / name} is not part of the bundle; remove it")
    # hashing releases Python's lock, so threads read the large files at the same time
    with ThreadPoolExecutor(runtime.cores()) as pool:
        digests = pool.map(lambda name: file_digest(folder / name), present)
        for name, digest in zip(present, digests, strict=True):
            if digest != checksums[name]:
                raise BundleError(f"{folder / name} was changed after the export (its checksum differs); {REMEDY}")
    return absent


def _select_format(style: str, names: Iterable[str]) -> set[str]:
    """Return the names of the files that belong to a format."""
    path = FILES[style]
    return {name for name in names if name == path or name.startswith(f"{path}/")}


def _check_values(bundle: Bundle) -> None:
    """Raise an error for a description that contradicts itself.

    Raises:
        BundleError: The message names the key, its value and what was expected.
    """

    def check(valid: bool, key: str, value: object, expected: str) -> None:
        if not valid:
            raise BundleError(
                f"bundle {bundle.name!r}: {key} is {value!r}, expected {expected}; correct it and export again"
            )

    kind, labels = "findings" if bundle.findings else "classes", bundle.labels
    count = len(labels)
    check(not (bundle.findings and bundle.classes), "classes", bundle.classes, "none beside findings")
    least, in_words = (1, "one") if bundle.findings else (2, "two")
    check(count >= least and _are_names(labels), kind, labels, f"{in_words} or more names")
    check(len(set(labels)) == count, kind, labels, "names that differ")
    for language, names in bundle.names.items():
        key, complete = f"names.{language}", len(names) == count and _are_names(names)
        check(complete, key, names, f"a name for each of the {count} {kind}")
        check(len(set(names)) == count, key, names, "names that differ")
    size = bundle.image_size
    valid = len(size) == 2 and all(isinstance(side, int) and side > 0 for side in size)
    check(valid, "image_size", size, "a height and a width in pixels")
    check("openvino" in bundle.models, "models", bundle.models, "an 'openvino' model among them")
    check(bundle.models.items() <= FILES.items(), "models", bundle.models, f"some of {FILES}")
    temperature, abstain_below = bundle.temperature, bundle.abstain_below
    check(isinstance(temperature, float) and temperature > 0, "temperature", temperature, "a number above 0")
    valid = isinstance(abstain_below, float) and 0 <= abstain_below <= 1
    check(valid, "abstain_below", abstain_below, "a probability between 0 and 1")
    for key, value, expected in answering.find_faults(bundle):
        check(False, key, value, expected)
    for target, point in bundle.operating_points.items():
        unknown = sorted(set(point.get("classes", ())) - set(bundle.classes))
        check(not unknown, f"operating_points.{target}", unknown, f"some of {', '.join(bundle.classes)}")


def _are_names(values: Iterable[object]) -> bool:
    return all(isinstance(value, str) and value for value in values)


def _check_model(bundle: Bundle, path: Path) -> None:
    """Open an OpenVINO graph, without compiling it, and compare its input and outputs with the description."""
    import openvino as ov

    try:
        graph = ov.Core().read_model(path)
    except RuntimeError as error:
        raise BundleError(f"{path} cannot be opened as an OpenVINO model; {REMEDY}") from error
    source, outputs = graph.inputs[0], graph.outputs
    shape, expected = _shape(source)[1:], (*bundle.image_size, 3)
    if source.get_element_type() != ov.Type.u8 or shape != expected:
        kind = source.get_element_type().get_type_name()
        raise BundleError(
            f"{path} takes {kind} images {shape}, expected u8 {expected} ({DESCRIPTION}); export the model again"
        )
    if len(outputs) != 2:
        raise BundleError(
            f"{path} has {len(outputs)} outputs, expected probabilities and heat maps; export the model again"
        )
    for output, title, rank in zip(outputs, ("probabilities", "heat maps"), (2, 4), strict=True):
        shape = _shape(output)
        if len(shape) != rank:
            raise BundleError(
                f"{path} gives {title} with {len(shape)} axes, expected {rank}; export the outputs in order"
            )
        if shape[-1] != len(bundle.labels):
            kind = "findings" if bundle.findings else "classes"
            raise BundleError(
                f"{path} gives {title} of {shape[-1]} {kind}, {DESCRIPTION} names {len(bundle.labels)}; "
                "export labels and model together"
            )


def _shape(port: Any) -> tuple[int, ...]:
    """Return the shape of a model's input or output, with -1 for each free axis."""
    return tuple(size.get_length() if size.is_static else -1 for size in port.get_partial_shape())


def list_files(folder: Path) -> list[str]:
    """Return the sorted relative paths of a bundle's files, without the checksums and `UNWANTED`."""
    paths = (path.relative_to(folder) for path in folder.rglob("*") if not path.is_dir())
    wanted = (path for path in paths if not any(fnmatch(part, name) for part in path.parts for name in UNWANTED))
    return sorted(path.as_posix() for path in wanted if path.name != CHECKSUMS)


def _read_json(path: Path) -> dict[str, Any]:
    """Return a JSON object whose file is byte for byte as `write_json` writes it."""
    try:
        text = path.read_bytes().decode()
        values = json.loads(text)
    except FileNotFoundError as error:
        raise BundleError(f"{path} is missing; {REMEDY}") from error
    except (OSError, ValueError) as error:
        raise BundleError(f"{path} cannot be read as JSON; {REMEDY}") from error
    # there is no checksum of the checksums, so their file must be exactly what the export writes
    if not isinstance(values, dict) or json.dumps(values, indent=2, ensure_ascii=False) + "\n" != text:
        raise BundleError(f"{path} was changed after the export; {REMEDY}")
    return values
