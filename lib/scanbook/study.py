"""Studies: which dataset, backbones and hyper-parameters, as validated YAML with three profiles and overrides.

A study file holds the values of the `quick` profile; its `profiles:` block says what `smoke` and `full` change. The
resolved `Study` is frozen and travels through every stage.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from scanbook import runtime
from scanbook.catalogue import BACKBONES, POLICIES
from scanbook.errors import StudyError

PROFILES = ("smoke", "quick", "full")

SMOKE: dict[str, Any] = {
    "limit": 64,
    "image_size": 64,
    "head": {"epochs": 5, "l2": [0.03, 0.3], "views": 1},
    "scratch": {"epochs": 1},
    "fine_tuning": {"epochs": 1},
    "benchmark": {"images": 32, "epochs": 1, "batch_sizes": [1, 8], "windows": 3},
    "bootstrap_rounds": 100,
}
"""What the smoke profile changes in every study, for tests; a study's own `profiles.smoke` goes on top."""

Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[int, Field(gt=0)]
Rate = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Penalty = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class _Block(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Source(_Block):
    """What every dataset says of itself; `claimed` is the number of images a class that the source states."""

    source: str = ""
    licence: str = ""
    claimed: dict[str, int] = {}


class DrawnData(_Source):
    """Dermoscopy-like images that the library draws, `size` pixels a side."""

    adapter: Literal["drawn"]
    images: Positive = 1800
    size: Positive = 192
    seed: Seed = 0


class FolderData(_Source):
    """Class folders, `<class>/*`, or with parts, `train|val|test/<class>/*`."""

    adapter: Literal["folder"]


class TableData(_Source):
    """A CSV with one row an image, beside folders of images and, where there are some, masks."""

    adapter: Literal["table"]
    csv: str
    image_column: str
    label_column: str
    group_column: str = ""
    part_column: str = ""
    image_folders: list[str] = ["."]
    mask_folder: str = ""
    mask_suffix: str = ""
    metadata: list[str] = []


class MedMnistData(_Source):
    """A MedMNIST archive (.npz) at 28 pixels: images, labels and official parts."""

    adapter: Literal["medmnist"]
    flag: str


_ADAPTERS: dict[str, type[BaseModel]] = {
    "drawn": DrawnData,
    "folder": FolderData,
    "table": TableData,
    "medmnist": MedMnistData,
}
Data = Annotated[DrawnData | FolderData | TableData | MedMnistData, Field(discriminator="adapter")]


class Parts(_Block):
    """Parts where the source has none.

    Fold 0 of `test_folds` is test, fold 0 of `validation_folds` of the rest is validation.
    """

    test_folds: Annotated[int, Field(ge=2)] = 5
    validation_folds: Annotated[int, Field(ge=2)] = 5
    seed: Seed = 0


class Head(_Block):
    """A linear head on cached features, one for each penalty in `l2`; validation chooses.

    `views` is the number of augmented copies of each training image, where a policy asks for them.
    """

    epochs: Positive = 20
    learning_rate: Rate = 1e-2
    batch_size: Positive = 64
    l2: Annotated[list[Penalty], Field(min_length=1)] = [0.01, 0.05, 0.25]
    views: Positive = 4


class Training(_Block):
    """Training of a whole network. The rate warms up over the first epoch, then falls to zero on a cosine."""

    epochs: Positive = 10
    learning_rate: Rate = 3e-4
    batch_size: Positive = 32
    label_smoothing: Fraction = 0.0


class Benchmark(_Block):
    """How much the hardware notebook measures: training images and epochs, batch sizes and repeated windows."""

    images: Positive = 512
    epochs: Positive = 3
    batch_sizes: Annotated[list[Positive], Field(min_length=1)] = [1, 8, 32]
    windows: Positive = 5


class Study(_Block):
    """One study, resolved for a profile: what each stage is a function of.

    `scratch` trains without pretrained weights; `fine_tuning` starts from the frozen backbone's head.
    """

    study: str
    title: str
    question: str
    modality: str = "images"
    dataset: Data
    parts: Parts = Parts()
    limit: Positive | None = None
    image_size: Annotated[int, Field(ge=32, le=1024)] = 96
    backbones: Annotated[list[str], Field(min_length=1)]
    weights: Literal["auto", "imagenet", "scanbook", "none"] = "auto"
    augmentation: str = "none"
    head: Head = Head()
    scratch: Training = Training()
    fine_tuning: Training = Training()
    benchmark: Benchmark = Benchmark()
    bootstrap_rounds: Positive = 1000
    seed: Seed = 0
    profile: Literal["smoke", "quick", "full"] = "quick"
    data: str = ""

    @field_validator("backbones")
    @classmethod
    def _known_backbones(cls, names: list[str]) -> list[str]:
        for name in names:
            if name not in BACKBONES:
                raise ValueError(f"unknown backbone {name!r}; expected one of {', '.join(BACKBONES)}")
        return names

    @field_validator("augmentation")
    @classmethod
    def _known_policy(cls, name: str) -> str:
        if name not in POLICIES:
            raise ValueError(f"unknown policy {name!r}; expected one of {', '.join(POLICIES)}")
        return name

    @property
    def size(self) -> tuple[int, int]:
        """Height and width at which every model sees an image."""
        return self.image_size, self.image_size

    @property
    def location(self) -> Path:
        """Where the dataset lies, or would lie: `data`, else its folder in `data/`."""
        return Path(self.data) if self.data else runtime.data_dir() / self.study

    @property
    def pretrained_backbones(self) -> list[str]:
        """The study's backbones for which pretrained weights exist, in its order."""
        return [name for name in self.backbones if BACKBONES[name].pretrained]

    def resolved(self) -> dict[str, Any]:
        """All that a result can depend on, as plain JSON: everything but where the data lies."""
        return self.model_dump(mode="json", exclude={"data"})


def studies_dir() -> Path:
    """Folder of the study files."""
    return runtime.project_root() / "notebooks" / "studies"


def studies() -> list[str]:
    """Names of the studies that can be run, sorted."""
    return sorted(path.stem for path in studies_dir().glob("*.yaml"))


def load(name: str, profile: str = "", data: str = "", overrides: str = "") -> Study:
    """Reads a study and resolves it for a profile.

    Args:
        name: Name of a file in `notebooks/studies/`, without `.yaml`.
        profile: "smoke", "quick" or "full"; empty means the variable `SCANBOOK_PROFILE`, else "quick".
        data: Folder or file of the dataset; empty means its place in `data/`.
        overrides: Space-separated `key=value` pairs; a dot reaches into a block, as in `fine_tuning.epochs=3`.

    Raises:
        StudyError: The study, the profile, a key or a value is unknown or of the wrong type.
    """
    content, profiles = _read(name)
    profile = profile or os.environ.get("SCANBOOK_PROFILE", "") or "quick"
    if profile not in PROFILES:
        raise StudyError(f"unknown profile {profile!r}; expected one of {', '.join(PROFILES)}")
    values = _merge(content, SMOKE) if profile == "smoke" else content
    values = _merge(values, profiles.get(profile) or {})
    for pair in overrides.split():
        values = _override(values, pair)
    for key, variable in (("profile", "PROFILE"), ("data", "DATA")):
        if key in values:
            raise StudyError(
                f"study {name}: {key} is set to {values[key]!r} as a key; pass it as {variable}={values[key]} instead"
            )
    values |= {"profile": profile, "data": data and str(Path(data).expanduser().resolve())}
    try:
        resolved = Study.model_validate(values)
    except ValidationError as error:
        raise StudyError(f"study {name}: {_explain(error)}") from None
    if resolved.study != name:
        raise StudyError(
            f"study {name}: its key study says {resolved.study!r}; expected {name!r}, the name of its file"
        )
    return resolved


def _read(name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Keys of a study file, and what its profiles change."""
    path = studies_dir() / f"{name}.yaml"
    if not path.is_file():
        raise StudyError(f"unknown study {name!r}; expected one of {', '.join(studies())}, or add {path}")
    try:
        content = yaml.safe_load(path.read_bytes())
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date such as 2020-13-45
        where = f", line {error.problem_mark.line + 1}" if getattr(error, "problem_mark", None) else ""
        raise StudyError(
            f"study {name}: {path.name}{where} is not valid YAML; check indentation and colons there"
        ) from error
    if not isinstance(content, dict):
        raise StudyError(f"study {name}: {path.name} holds no keys; expected a block like the other studies'")
    profiles = content.pop("profiles", None) or {}
    if not isinstance(profiles, dict):
        raise StudyError(
            f"study {name}: profiles is {profiles!r}; expected a block with the keys {', '.join(PROFILES)}"
        )
    for key, changes in profiles.items():
        if key not in PROFILES:
            raise StudyError(
                f"study {name}: unknown profile {key!r} in profiles; expected one of {', '.join(PROFILES)}"
            )
        if not isinstance(changes, dict | None):
            raise StudyError(
                f"study {name}: profiles.{key} is {changes!r}; expected a block of the keys that this profile changes"
            )
    return content, profiles


def _merge(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in changes.items():
        inner = merged.get(key)
        merged[key] = _merge(inner, value) if isinstance(inner, dict) and isinstance(value, dict) else value
    return merged


def _override(values: dict[str, Any], pair: str) -> dict[str, Any]:
    key, separator, text = pair.partition("=")
    if not separator or not key:
        raise StudyError(f"override {pair!r} has no '='; expected key=value, such as fine_tuning.epochs=3")
    try:
        change: Any = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date such as 2020-13-45
        raise StudyError(
            f"override {key}: {text!r} is not a YAML value; expected a number, a word or a [list]"
        ) from error
    for part in reversed(key.split(".")):
        change = {part: change}
    return _merge(values, change)


def _explain(error: ValidationError) -> str:
    """The first problem that pydantic found, as one line."""
    problem = error.errors()[0]
    location = problem["loc"]
    adapter = len(location) > 1 and location[0] == "dataset"  # pydantic puts the adapter's name after "dataset"
    key = ".".join(str(part) for part in (location[:1] + location[2:] if adapter else location))
    if problem["type"] == "extra_forbidden":
        block = _block_at(location[:-1])
        return f"unknown key {key!r}; expected one of {', '.join(block.model_fields)}"
    if problem["type"] == "missing":
        return f"key {key!r} is missing; add it to the study"
    if problem["type"] == "union_tag_not_found":
        return f"key 'dataset.adapter' is missing; expected one of {', '.join(_ADAPTERS)}"
    if problem["type"] == "union_tag_invalid":
        return f"dataset.adapter: unknown adapter {problem['ctx']['tag']!r}; expected one of {', '.join(_ADAPTERS)}"
    message = problem["msg"].removeprefix("Value error, ")
    return f"{key}: {message[0].lower()}{message[1:]} (got {problem['input']!r})"


def _block_at(location: tuple[int | str, ...]) -> type[BaseModel]:
    block: type[BaseModel] = Study
    if location[:1] == ("dataset",):
        block, location = _ADAPTERS[str(location[1])], location[2:]
    for part in location:
        if str(part) in block.model_fields:
            annotation = block.model_fields[str(part)].annotation
            block = annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else block
    return block
