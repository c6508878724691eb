"""What a bundle says of itself, and the checks that it has to pass before anything is served from it."""

from __future__ import annotations

import json
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from scanbook import runtime
from scanbook.errors import BundleError
from scanbook.store import file_digest

FORMAT = 2
DESCRIPTION, CHECKSUMS, REQUIREMENTS = "bundle.json", "checksums.json", "requirements.txt"
CARD, DATASET_CARD = "MODEL_CARD.md", "DATASET_CARD.md"

FILES = {
    "openvino": "model.xml",
    "openvino_int8": "model_int8.xml",
    "keras": "model.keras",
    "saved_model": "saved_model",
    "onnx": "model.onnx",
}
"""Name of the model in each format: a file, with a `.bin` of the same name beside an `.xml`, or a folder."""
SERVED = {"fp32": "openvino", "int8": "openvino_int8"}
"""The format that the service runs, by precision; the others may be left out of a copy, each as a whole."""
UNWANTED = ("__pycache__", ".DS_Store", "._*")
"""What Python and macOS put into a folder by themselves."""

PLACE = Path("07_export_flask", "bundle")
"""Where the bundle lies among the reports of a study and profile, unless another folder is named."""
AGAIN = "copy the whole bundle again, or export it again (scanbook export, or notebook 07_export_flask)"


@dataclass(frozen=True)
class Bundle:
    """An exported model and all that its answers depend on.

    Attributes:
        folder: Where it lies.
        name: Name of the model, as answers give it.
        classes: Class names in the order of the probabilities, in English.
        image_size: Height and width of the model's input, in pixels.
        temperature: Temperature that calibrated the logits; it is already inside the model.
        abstain_below: The service answers "not sure" where the largest probability is below this.
        models: Name of the model in each format that is there, as in `FILES`; "openvino" always.
        metrics: Test metrics by printed name: a number, or a mapping with `value`, `low` and `high` (95 % interval).
        about: Text for the model card by topic; `title`, `question`, `intended_use` and `limits` have their own places,
            the others (`data`, `licence`, `backbone`, `weights`, `profile`, ...) are listed.
        names: Class names in other languages by their code ("pt", "ko"), in class order.
        operating_points: Yes-or-no decisions by finding: `classes`, whose probabilities are added; `threshold`, chosen
            on validation, at or above which it is found; `sensitivity` and `specificity` on test, as `metrics` are.
        parity: How far each format's answers are from the trained model's on the same images, by place: `difference`
            of the logits as a share of their spread, `same class` in words, `agrees`.
        int8: What int8 loses on the validation `images`: `accuracy`, that of the trained model as `reference`, and
            their `change` with `low` and `high`, as shares; empty where int8 was not tried.
        excluded: Why a format is not there, by format, a sentence each.
        hub: Metadata of the model card that Hugging Face's hub reads: `license`, `tags`, `datasets`.
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
    names: dict[str, tuple[str, ...]] = field(default_factory=dict)
    operating_points: dict[str, dict[str, Any]] = field(default_factory=dict)
    parity: dict[str, dict[str, Any]] = field(default_factory=dict)
    int8: dict[str, Any] = field(default_factory=dict)
    excluded: dict[str, str] = field(default_factory=dict)
    hub: dict[str, Any] = field(default_factory=dict)

    @property
    def model(self) -> Path:
        """The OpenVINO model in float32, which the service runs unless it is told otherwise."""
        return self.model_of("fp32")

    @property
    def precisions(self) -> tuple[str, ...]:
        """In which the service can run it: "fp32", and "int8" where that passed its checks."""
        return tuple(precision for precision, style in SERVED.items() if style in self.models)

    def model_of(self, precision: str) -> Path:
        """The OpenVINO model in a precision, "fp32" or "int8".

        Raises:
            BundleError: The bundle has none; the message says why and which precisions it has.
        """
        style = SERVED.get(precision, "")
        if style not in self.models:
            why = f" ({reason})" if (reason := self.excluded.get(style)) else ""
            raise BundleError(
                f"bundle {self.name!r} has no {precision} model{why}; expected one of {', '.join(self.precisions)}"
            )
        return self.folder / self.models[style]

    def label(self, index: int, language: str = "en") -> str:
        """A class's name in a language; in English where there is none."""
        return self.names.get(language, self.classes)[index]


def of_study(name: str, profile: str) -> Path:
    """Where a study's bundle lies unless another folder is named; nothing but `make clean` or a new export removes it.

    Args:
        name: Of the study.
        profile: "smoke", "quick" or "full".
    """
    return runtime.reports_dir() / name / profile / PLACE


def read(folder: Path) -> Bundle:
    """Reads a bundle and verifies its files, without opening a model.

    A format that the service does not run may be missing as a whole, as in a container's image; what is there has to be
    whole.

    Raises:
        BundleError: A file is missing, changed or unknown, or the description is not valid.
    """
    folder = Path(folder).resolve()
    if not (folder / DESCRIPTION).is_file():
        raise BundleError(
            f"{folder} is no bundle: it has no {DESCRIPTION}; run notebook 07_export_flask, or name its bundle folder"
        )
    absent = _verify(folder)
    values = _json(folder / DESCRIPTION)
    written = values.pop("format", None)
    if written != FORMAT:
        raise BundleError(
            f"{folder / DESCRIPTION} has format {written!r}, expected {FORMAT}; run notebook 07_export_flask again"
        )
    try:
        values |= {
            "classes": tuple(values["classes"]),
            "image_size": tuple(values["image_size"]),
            "names": {language: tuple(names) for language, names in values["names"].items()},
            "models": {style: name for style, name in values["models"].items() if style not in absent},
        }
        bundle = Bundle(folder, **values)
    except (AttributeError, KeyError, TypeError) as error:
        raise BundleError(f"{folder / DESCRIPTION} lacks a key or has an unknown one ({error}); {AGAIN}") from error
    check_values(bundle)
    for style, name in bundle.models.items():
        if not (folder / name).exists():
            raise BundleError(
                f"{folder / DESCRIPTION} names the {style} model {name!r}, which the bundle lacks; {AGAIN}"
            )
    return bundle


def load(folder: Path) -> Bundle:
    """Reads a bundle and verifies its files, and that labels and image size match every OpenVINO model.

    Raises:
        BundleError: A file is missing, changed or unknown, or description and models do not fit.
    """
    bundle = read(folder)
    for precision in bundle.precisions:
        _check_model(bundle, bundle.model_of(precision))
    return bundle


def _verify(folder: Path) -> set[str]:
    """Holds every file against its checksum.

    Returns:
        The formats that are listed and not there.
    """
    listed, present = _json(folder / CHECKSUMS), files(folder)
    there = set(present)
    absent = {
        style
        for style in FILES.keys() - SERVED.values()
        if (own := _of_format(style, listed)) and there.isdisjoint(own)
    }
    spared = {name for style in absent for name in _of_format(style, listed)}
    for name in listed:
        if name not in there and name not in spared:
            raise BundleError(f"{folder / name} is missing; {AGAIN}")
    for name in present:
        if name not in listed:
            raise BundleError(f"{folder / name} is not part of the bundle; remove it")
    # hashing lets go of Python's lock, so that the large files are read side by side
    with ThreadPoolExecutor(runtime.cores()) as pool:
        digests = pool.map(lambda name: file_digest(folder / name), present)
        for name, digest in zip(present, digests, strict=True):
            if digest != listed[name]:
                raise BundleError(f"{folder / name} was changed after the export (its checksum differs); {AGAIN}")
    return absent


def _of_format(style: str, names: Collection[str]) -> list[str]:
    """The files among `names` that a format consists of."""
    path = FILES[style]
    return [name for name in names if name == path or name.startswith(f"{path}/")]


def check_values(bundle: Bundle) -> None:
    """Refuses a description that contradicts itself.

    Raises:
        BundleError: It names the key, its value and what was expected.
    """

    def refuse(key: str, value: object, expected: str) -> BundleError:
        return BundleError(
            f"bundle {bundle.name!r}: {key} is {value!r}, expected {expected}; correct it and export again"
        )

    if len(bundle.classes) < 2 or not all(isinstance(each, str) and each for each in bundle.classes):
        raise refuse("classes", bundle.classes, "two or more names")
    if len(set(bundle.classes)) != len(bundle.classes):
        raise refuse("classes", bundle.classes, "names that differ")
    for language, names in bundle.names.items():
        if len(names) != len(bundle.classes) or not all(isinstance(each, str) and each for each in names):
            raise refuse(f"names.{language}", names, f"a name for each of the {len(bundle.classes)} classes")
        if len(set(names)) != len(names):
            raise refuse(f"names.{language}", names, "names that differ")
    if len(bundle.image_size) != 2 or not all(isinstance(side, int) and side > 0 for side in bundle.image_size):
        raise refuse("image_size", bundle.image_size, "a height and a width in pixels")
    if "openvino" not in bundle.models:
        raise refuse("models", bundle.models, "an 'openvino' model among them")
    if not bundle.models.items() <= FILES.items():
        raise refuse("models", bundle.models, f"some of {FILES}")
    if not isinstance(bundle.temperature, float) or not bundle.temperature > 0:
        raise refuse("temperature", bundle.temperature, "a number above 0")
    if not isinstance(bundle.abstain_below, float) or not 0 <= bundle.abstain_below <= 1:
        raise refuse("abstain_below", bundle.abstain_below, "a probability between 0 and 1")
    for finding, point in bundle.operating_points.items():
        unknown = set(point.get("classes", ())) - set(bundle.classes)
        if unknown:
            raise refuse(f"operating_points.{finding}", sorted(unknown), f"some of {', '.join(bundle.classes)}")


def _check_model(bundle: Bundle, path: Path) -> None:
    """Opens an OpenVINO graph, without compiling it, and compares its input and outputs with the description."""
    import openvino as ov

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


def files(folder: Path) -> list[str]:
    """Every file of a bundle but the checksums and what is `UNWANTED`, as sorted relative names."""
    found = (path.relative_to(folder) for path in folder.rglob("*") if not path.is_dir())
    own = (path for path in found if not any(fnmatch(part, name) for part in path.parts for name in UNWANTED))
    return sorted(path.as_posix() for path in own if path.name != CHECKSUMS)


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
