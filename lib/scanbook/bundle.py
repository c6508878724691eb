"""The bundle: a folder that runs alone.

It holds the model, the class names, the image size, the thresholds, the test metrics, a model card, the code that
serves it and a checksum of every file. What a service and a notebook must agree on is read from here and written
nowhere else: a published service named seven classes of ten wrongly because labels and model travelled apart.

The OpenVINO model takes uint8 RGB `(n, h, w, 3)` and gives calibrated probabilities, float32 `(n, k)`, then one
class-activation map a class, float32 `(n, h', w', k)`, not normalised.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from scanbook.errors import BundleError
from scanbook.store import atomic_write, file_digest, write_json

FORMAT = 1
DESCRIPTION, CHECKSUMS, CARD, REQUIREMENTS = "bundle.json", "checksums.json", "MODEL_CARD.md", "requirements.txt"
INTENDED_USE = "Research and teaching, not a diagnosis."

PACKAGES = ("flask", "gunicorn", "numpy", "opencv-python-headless", "openvino", "werkzeug")
"""What the serving code imports."""

CODE = (
    "__init__.py",
    "errors.py",
    "runtime.py",
    "store.py",
    "dicom.py",
    "images.py",
    "engines",
    "bundle.py",
    "serving",
)
"""Modules that travel in the bundle, so that it runs where scanbook is not installed."""

AGAIN = "copy the whole bundle again, or run notebook 07_export_flask again"


@dataclass(frozen=True)
class Bundle:
    """An exported model and all that its answers depend on.

    Attributes:
        folder: Where it lies.
        name: Name of the model, as answers give it.
        classes: Class names in the order of the probabilities.
        image_size: Height and width of the model's input, in pixels.
        temperature: Temperature that calibrated the logits; it is already inside the model.
        abstain_below: The service answers "not sure" where the largest probability is below this.
        models: File name of the model in each format; "openvino" always, "keras" where it was exported.
        metrics: Test metrics by printed name: a number, or a mapping with `value`, `low` and `high` (95 % interval).
        about: Text for the model card by topic; `title`, `question`, `intended_use` and `limits` have their own places,
            the others (`data`, `licence`, `backbone`, `weights`, `profile`, ...) are listed.
    """

    folder: Path
    name: str
    classes: tuple[str, ...]
    image_size: tuple[int, int]
    temperature: float
    abstain_below: float
    models: dict[str, str]
    metrics: dict[str, Any] = field(default_factory=dict)
    about: dict[str, str] = field(default_factory=dict)

    @property
    def model(self) -> Path:
        """The OpenVINO model, which the service runs."""
        return self.folder / self.models["openvino"]


@dataclass(frozen=True)
class Section:
    """One part of a model card.

    Attributes:
        heading: Its title.
        paragraphs: Sentences.
        rows: A table, its first row the column names; empty for none.
    """

    heading: str
    paragraphs: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()


def write(
    folder: Path,
    *,
    name: str,
    classes: tuple[str, ...],
    image_size: tuple[int, int],
    temperature: float,
    abstain_below: float,
    models: Mapping[str, Path],
    metrics: Mapping[str, Any],
    about: Mapping[str, str],
    packages: Sequence[str] = (),
) -> Bundle:
    """Writes a bundle and checks it as `load` does, then puts it in the place of an older one.

    Args:
        folder: The bundle's folder; an earlier bundle there is removed once the new one is whole.
        name: See `Bundle`, as the others not listed here.
        classes: Class names in the order of the model's outputs.
        image_size: Height and width in pixels.
        temperature: Above 0.
        abstain_below: Between 0 and 1.
        models: Model file by format, copied in: "openvino" (the `.xml`, with its `.bin` beside it) and others.
        metrics: Test metrics.
        about: Text for the model card.
        packages: What the service needs beside `PACKAGES`.

    Raises:
        BundleError: Something is missing or inconsistent, or `folder` holds something else; nothing was changed.
    """
    if folder.exists() and not (folder / DESCRIPTION).is_file() and (not folder.is_dir() or any(folder.iterdir())):
        raise BundleError(f"{folder} exists and is no bundle; expected an empty or new folder, name another one")
    names = {style: path.name for style, path in models.items()}
    made = Bundle(
        folder, name, tuple(classes), tuple(image_size), float(temperature), float(abstain_below), names,
        {key: _finite(value) for key, value in metrics.items()}, {key: str(value) for key, value in about.items()},
    )  # fmt: skip
    _check_values(made)
    folder.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    try:
        for path in models.values():
            for file in (path, path.with_suffix(".bin")) if path.suffix == ".xml" else (path,):
                if not file.is_file():
                    raise BundleError(f"model file {file} is missing; export the model before its bundle")
                shutil.copyfile(file, work / file.name)
        _copy_code(work)
        values = asdict(made)
        del values["folder"]
        write_json(work / DESCRIPTION, {"format": FORMAT, **values})
        atomic_write(work / CARD, card_markdown(made))
        atomic_write(
            work / REQUIREMENTS, "".join(f"{package}=={version(package)}\n" for package in (*PACKAGES, *packages))
        )
        write_json(work / CHECKSUMS, {name: file_digest(work / name) for name in _files(work)})
        load(work)
        os.chmod(work, 0o755)
        _swap(work, folder)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return made


def read(folder: Path) -> Bundle:
    """Reads a bundle and verifies its files, without opening the model.

    Raises:
        BundleError: A file is missing, changed or unknown, or the description is not valid.
    """
    folder = Path(folder).resolve()
    if not (folder / DESCRIPTION).is_file():
        raise BundleError(
            f"{folder} is no bundle: it has no {DESCRIPTION}; run notebook 07_export_flask, or name its bundle folder"
        )
    listed = _json(folder / CHECKSUMS)
    present = _files(folder)
    for name in listed:
        if name not in present:
            raise BundleError(f"{folder / name} is missing; {AGAIN}")
    for name in present:
        if name not in listed:
            raise BundleError(f"{folder / name} is not part of the bundle; remove it")
        if file_digest(folder / name) != listed[name]:
            raise BundleError(f"{folder / name} was changed after the export (its checksum differs); {AGAIN}")
    values = _json(folder / DESCRIPTION)
    written = values.pop("format", None)
    if written != FORMAT:
        raise BundleError(
            f"{folder / DESCRIPTION} has format {written!r}, expected {FORMAT}; run notebook 07_export_flask again"
        )
    try:
        values |= {"classes": tuple(values["classes"]), "image_size": tuple(values["image_size"])}
        bundle = Bundle(folder, **values)
    except (KeyError, TypeError) as error:
        raise BundleError(f"{folder / DESCRIPTION} lacks a key or has an unknown one ({error}); {AGAIN}") from error
    _check_values(bundle)
    for name in bundle.models.values():
        if name not in listed:
            raise BundleError(f"{folder / DESCRIPTION} names the model file {name!r}, which the bundle lacks; {AGAIN}")
    return bundle


def load(folder: Path) -> Bundle:
    """Reads a bundle and verifies its files and that labels and image size match the model.

    Raises:
        BundleError: A file is missing, changed or unknown, or description and model do not fit.
    """
    bundle = read(folder)
    _check_model(bundle)
    return bundle


def card(bundle: Bundle) -> list[Section]:
    """The model card in parts, for Markdown and HTML alike."""
    height, width = bundle.image_size
    about = dict(bundle.about)
    what = [text for text in (about.pop("title", ""), about.pop("question", "")) if text]
    use, limits = about.pop("intended_use", INTENDED_USE), about.pop("limits", "")
    facts = [(key.replace("_", " "), value) for key, value in about.items()]
    takes = (
        f"It reads one colour image, resized to {height} × {width} pixels (height × width), and gives a probability "
        f"for each of {len(bundle.classes)} classes."
    )
    return [
        Section("What it is", (*what, takes)),
        Section("Intended use", (use,)),
        Section("Data and training", rows=(("Topic", "Description"), *facts) if facts else ()),
        Section("Classes", ("In the order of the probabilities: " + ", ".join(bundle.classes) + ".",)),
        Section(
            "Test metrics",
            ("Measured once, on test images that neither training nor calibration saw.",),
            (("Metric", "Value", "95 % interval"), *(_metric_row(*item) for item in bundle.metrics.items())),
        ),
        Section(
            "Limits",
            (
                *((limits,) if limits else ()),
                f"Probabilities are calibrated for images of one source (temperature {bundle.temperature:.3g}); "
                "for images from other devices, clinics or patients they can be wrong.",
                "It knows these classes alone and gives one of them to every image, whatever the image shows.",
                f"Where the largest probability is below {bundle.abstain_below:.2f} it answers “not sure”.",
                "A heat map shows what moved the model towards a class. It does not outline a finding.",
            ),
        ),
    ]


def card_markdown(bundle: Bundle) -> str:
    """The model card as Markdown."""
    lines = [f"# {bundle.name}", ""]
    for section in card(bundle):
        lines += [f"## {section.heading}", ""]
        for paragraph in section.paragraphs:
            lines += [paragraph, ""]
        if section.rows:
            rows = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in section.rows]
            lines += [rows[0], "|" + " --- |" * len(section.rows[0]), *rows[1:], ""]
    run = f"pip install -r {REQUIREMENTS}\npython -m scanbook.serving"
    lines += ["## Run it", "", "In this folder:", "", "```sh", run, "```", ""]
    return "\n".join(lines)


def _metric_row(name: str, metric: Any) -> tuple[str, str, str]:
    values = metric if isinstance(metric, Mapping) else {"value": metric}
    value, low, high = (values.get(key) for key in ("value", "low", "high"))
    interval = "" if low is None or high is None else f"{low:.3f} to {high:.3f}"
    shown = "not defined" if value is None else f"{value:,}" if isinstance(value, int) else f"{value:.3f}"
    return name.replace("_", " "), shown, interval


def _finite(metric: Any) -> Any:
    """A metric as plain JSON numbers; NaN, which JSON lacks, becomes null."""
    if isinstance(metric, Mapping):
        return {str(key): _finite(value) for key, value in metric.items()}
    if metric is None or isinstance(metric, int):
        return metric
    return float(metric) if math.isfinite(metric) else None


def _check_values(bundle: Bundle) -> None:
    def refuse(key: str, value: object, expected: str) -> BundleError:
        return BundleError(
            f"bundle {bundle.name!r}: {key} is {value!r}, expected {expected}; correct it and export again"
        )

    if len(bundle.classes) < 2 or not all(isinstance(each, str) and each for each in bundle.classes):
        raise refuse("classes", bundle.classes, "two or more names")
    if len(set(bundle.classes)) != len(bundle.classes):
        raise refuse("classes", bundle.classes, "names that differ")
    if len(bundle.image_size) != 2 or not all(isinstance(side, int) and side > 0 for side in bundle.image_size):
        raise refuse("image_size", bundle.image_size, "a height and a width in pixels")
    if "openvino" not in bundle.models:
        raise refuse("models", bundle.models, "an 'openvino' model among them")
    if not isinstance(bundle.temperature, float) or not bundle.temperature > 0:
        raise refuse("temperature", bundle.temperature, "a number above 0")
    if not isinstance(bundle.abstain_below, float) or not 0 <= bundle.abstain_below <= 1:
        raise refuse("abstain_below", bundle.abstain_below, "a probability between 0 and 1")


def _check_model(bundle: Bundle) -> None:
    """Opens the OpenVINO graph, without compiling it, and compares its input and outputs with the description."""
    import openvino as ov

    path = bundle.model
    try:
        graph = ov.Core().read_model(path)
    except RuntimeError as error:
        raise BundleError(f"{path} cannot be opened as an OpenVINO model; {AGAIN}") from error
    source, outputs = graph.inputs[0], graph.outputs
    shape = tuple(_width(source, axis) for axis in range(source.get_partial_shape().rank.get_length()))
    if source.get_element_type() != ov.Type.u8 or shape[1:] != (*bundle.image_size, 3):
        kind = source.get_element_type().get_type_name()
        expected = (*bundle.image_size, 3)
        raise BundleError(
            f"{path} takes {kind} images {shape[1:]}, expected u8 {expected} ({DESCRIPTION}); export the model again"
        )
    if len(outputs) != 2:
        raise BundleError(
            f"{path} has {len(outputs)} outputs, expected probabilities and heat maps; export the model again"
        )
    for output, title, rank in zip(outputs, ("probabilities", "heat maps"), (2, 4), strict=True):
        if (found := output.get_partial_shape().rank.get_length()) != rank:
            raise BundleError(f"{path} gives {title} with {found} axes, expected {rank}; export the outputs in order")
        if (width := _width(output, -1)) != len(bundle.classes):
            raise BundleError(
                f"{path} gives {title} of {width} classes, {DESCRIPTION} names {len(bundle.classes)}; "
                "export labels and model together"
            )


def _width(port: Any, axis: int) -> int:
    """Length of one axis of a model's input or output; -1 where it is free."""
    shape = port.get_partial_shape()
    size = shape[axis % shape.rank.get_length()]
    return size.get_length() if size.is_static else -1


def _files(folder: Path) -> list[str]:
    """Every file of a bundle but the checksums and what Python compiled, as sorted relative names."""
    files = (path.relative_to(folder) for path in folder.rglob("*") if not path.is_dir())
    return sorted(path.as_posix() for path in files if path.name != CHECKSUMS and "__pycache__" not in path.parts)


def _json(path: Path) -> dict[str, Any]:
    """A JSON object written by `write_json`, to the byte."""
    try:
        text = path.read_bytes().decode()
        values = json.loads(text)
    except FileNotFoundError as error:
        raise BundleError(f"{path} is missing; {AGAIN}") from error
    except (OSError, ValueError) as error:
        raise BundleError(f"{path} cannot be read as JSON; {AGAIN}") from error
    # nothing vouches for the checksums themselves, so their file must be exactly what the export writes
    if not isinstance(values, dict) or json.dumps(values, indent=2, ensure_ascii=False) + "\n" != text:
        raise BundleError(f"{path} was changed after the export; {AGAIN}")
    return values


def _copy_code(folder: Path) -> None:
    package = Path(__file__).parent
    target = folder / package.name
    target.mkdir()
    for name in CODE:
        if (package / name).is_dir():
            shutil.copytree(package / name, target / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copyfile(package / name, target / name)


def _swap(work: Path, folder: Path) -> None:
    """Puts `work` in the place of `folder`, and the old one back if that fails."""
    old = work.with_name(f"{work.name}.old")
    if folder.exists():
        os.replace(folder, old)
    try:
        os.replace(work, folder)
    except OSError:
        if old.exists():
            os.replace(old, folder)
        raise
    shutil.rmtree(old, ignore_errors=True)
