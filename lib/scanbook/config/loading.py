"""Reads study files and resolves them for a profile."""

from __future__ import annotations

import os
import shlex
import sys
from functools import cache
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from scanbook import runtime
from scanbook.config.block import TAG
from scanbook.config.blocks import KAGGLE, Study
from scanbook.config.data import ADAPTERS
from scanbook.errors import StudyError
from scanbook.registry import EMBEDDINGS

PROFILES = ("smoke", "quick", "full")

NOT_KEYS = {"profile": "PROFILE", "data": "DATA", "on_stand_in": ""}
"""Attributes of a resolved study that are not keys, and the variable that sets each; "" where it follows from DATA."""

RENAMED_KEYS = {
    "parts": "splits",
    "limit_shares": "limit_class_balance",
    "dataset.claimed_parts": "claimed_splits",
    "dataset.part_column": "split_column",
    "stand_in.fewest": "min_per_class",
    "segmentation.target": "structure",
    "evaluation.findings": "targets",
    "evaluation.answered": "coverage",
}
"""Former keys, and the present name of each in the same block; the former ones still work."""

RENAMED_NAMES = {"drawn": "synthetic"}
"""Former names of studies and adapters, and the present ones; the former ones still work."""

SMOKE: dict[str, Any] = {
    "limit": 64,
    "image_size": 64,
    "head": {"epochs": 5, "l2": [0.03, 0.3], "views": 1},
    "scratch": {"epochs": 1},
    "fine_tuning": {"epochs": 1},
    "seeds": 1,
    "sweep": {"seeds": 2},
    "learning_curve": {"sizes": 5, "repeats": 2},
    "evaluation": {"robustness_images": 24},
    "benchmark": {
        **{"backbone": "baseline_cnn", "images": 32, "epochs": 1, "batch_sizes": [1, 8], "calibration_images": 32},
        **{"windows": 3, "window_seconds": 0.05, "one_thread": False},
    },
    "segmentation": {"unet": {"epochs": 1, "images": 32}},
    "bootstrap_rounds": 100,
}
"""What the smoke profile changes in every study, for tests; a study's own `profiles.smoke` comes after it."""


def studies_dir() -> Path:
    """Return the folder of the study files."""
    return runtime.project_root() / "notebooks" / "studies"


def studies() -> list[str]:
    """Return the names of the studies that can be run, sorted."""
    return sorted(path.stem for path in studies_dir().glob("*.yaml"))


def load(name: str, profile: str = "", data: str = "", overrides: str = "") -> Study:
    """Return a study, read from its file and resolved for a profile.

    Args:
        name: Name of a file in `notebooks/studies/`, without `.yaml`.
        profile: "smoke", "quick" or "full"; empty means the variable `SCANBOOK_PROFILE`, else "quick".
        data: Folder or file of the dataset; "kaggle" to download it; empty means its folder in `data/`, or where there
            is none the study's stand-in.
        overrides: Space-separated `key=value` pairs; a dot reaches into a block, as in `fine_tuning.epochs=3`, and
            quotes hold a value with spaces together.

    Raises:
        StudyError: The study, the profile, a key or a value is unknown or of the wrong type.
    """
    name = _present_name(name)
    content, profiles = _read_study(name)
    profile = profile or os.environ.get("SCANBOOK_PROFILE", "") or "quick"
    if profile not in PROFILES:
        raise StudyError(f"unknown profile {profile!r}; expected one of {', '.join(PROFILES)}")
    changes = _read_overrides(name, overrides)
    values = content
    for block in (SMOKE if profile == "smoke" else {}, profiles.get(profile, {}), changes):
        values = _merge(values, block)
    for key in NOT_KEYS.keys() & values.keys():
        variable = NOT_KEYS[key]
        advice = f"pass it as {variable}={values[key]} instead" if variable else "remove it: it follows from DATA"
        raise StudyError(f"study {name}: {key} is set to {values[key]!r}, and is not a key; {advice}")
    place = data
    if data not in ("", KAGGLE):  # a notebook's parameters and JSON are UTF-8
        place = runtime.path_as_text(runtime.path_from_text(data).expanduser().resolve())
    try:
        study = Study.model_validate(values | {"profile": profile, "data": place})
    except ValidationError as error:
        raise StudyError(f"study {name}: {explain(error, Study)}") from None
    if study.study != name:
        raise StudyError(f"study {name}: its key study is {study.study!r}; expected {name!r}, the name of its file")
    if study.embeddings:
        study = _with_vectors(study)
    if study.stand_in and not data and not study.location.exists():
        # a stand-in has its own number of images; the file's limit is of the real ones
        limit = study.limit if "limit" in changes else None
        return study.model_copy(update={"on_stand_in": True, "limit": limit})
    return study


def _with_vectors(study: Study) -> Study:
    """Return a study whose models take vectors: they are its one backbone, and nothing is made from changed images."""
    changes = {
        "head": {"augmentation": "none"},
        "learning_curve": {"fine_tuning": False},
        "evaluation": {"test_time_views": 0},
    }
    blocks = {key: getattr(study, key).model_copy(update=values) for key, values in changes.items()}
    return study.model_copy(update={"backbones": [EMBEDDINGS], **blocks})


def _read_study(name: str) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Return the keys of a study file, and the changes of each profile."""
    path = studies_dir() / f"{name}.yaml"
    if not path.is_file():
        raise StudyError(f"unknown study {name!r}; expected one of {', '.join(studies())}, or add {path}")
    content = read_yaml(path, f"study {name}: {path.name}")
    profiles = content.pop("profiles", None) or {}
    if not isinstance(profiles, dict):
        raise StudyError(
            f"study {name}: profiles is {profiles!r}; expected a block with the keys {', '.join(PROFILES)}"
        )
    for profile, changes in profiles.items():
        if profile not in PROFILES:
            raise StudyError(
                f"study {name}: unknown profile {profile!r} in profiles; expected one of {', '.join(PROFILES)}"
            )
        if not isinstance(changes, dict | None):
            raise StudyError(
                f"study {name}: profiles.{profile} is {changes!r}; "
                "expected a block of the keys that this profile changes"
            )
        profiles[profile] = _with_present_names(name, changes or {})
    return _with_present_names(name, content), profiles


def read_yaml(path: Path, label: str) -> dict[str, Any]:
    """Return the keys and values of a YAML file.

    Args:
        path: The file.
        label: Name of the file in errors.

    Raises:
        StudyError: The file is not valid YAML, or holds something else than keys.
    """
    try:
        content = yaml.safe_load(path.read_bytes())
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date such as 2020-13-45
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        raise StudyError(f"{label}{line} is not valid YAML; check indentation, colons and dates there") from error
    if not isinstance(content, dict | None):
        raise StudyError(f"{label} is {content!r}; expected keys and values")
    return content or {}


def _read_overrides(study: str, overrides: str) -> dict[str, Any]:
    """Return the keys that overrides change; where two change the same key, the later one counts."""
    try:
        pairs = shlex.split(overrides)
    except ValueError as error:
        raise StudyError(f"overrides {overrides!r} have a quote that is not closed; close it") from error
    changes: dict[str, Any] = {}
    for pair in pairs:
        key, separator, text = pair.partition("=")
        if not separator or not key:
            raise StudyError(
                f"override {pair!r} has no '='; expected key=value, such as fine_tuning.epochs=3, and quotes round a "
                "key with spaces, such as dataset.uncertain.'Lung Opacity'=positive"
            )
        try:
            change = yaml.safe_load(text)
        except (yaml.YAMLError, ValueError) as error:  # ValueError: a date such as 2020-13-45
            raise StudyError(
                f"override {key}: {text!r} is not a YAML value; expected a number, a word or a [list], "
                f"and quotes round a value with spaces: \"{key}='…'\""
            ) from error
        for part in reversed(key.split(".")):
            change = {part: change}
        changes = _merge(changes, change)
    return _with_present_names(study, changes)


def _merge(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in changes.items():
        inner = merged.get(key)
        merged[key] = _merge(inner, value) if isinstance(inner, dict) and isinstance(value, dict) else value
    return merged


def _present_name(study: str) -> str:
    """Return the present name of a study, unless a study of the user has the former one."""
    if study not in RENAMED_NAMES or (studies_dir() / f"{study}.yaml").is_file():
        return study
    _report_renamed(f"study {study!r}", RENAMED_NAMES[study])
    return RENAMED_NAMES[study]


def _with_present_names(study: str, values: dict[str, Any]) -> dict[str, Any]:
    """Return values under the present names of their keys; a former key beside its present one is an error."""
    for former, key in RENAMED_KEYS.items():
        name, _, former_key = former.rpartition(".")
        block = values.get(name) if name else values
        if isinstance(block, dict) and former_key in block:
            present = f"{name}.{key}" if name else key
            if key in block:
                raise StudyError(
                    f"study {study}: {former!r} is now called {present!r}, and both are set; remove {former!r}"
                )
            _report_renamed(f"study {study}: key {former!r}", present)
            renamed = {key if inner == former_key else inner: value for inner, value in block.items()}
            values = values | {name: renamed} if name else renamed
    dataset = values.get("dataset")
    for former, name in RENAMED_NAMES.items():
        if isinstance(dataset, dict) and dataset.get("adapter") == former:
            _report_renamed(f"study {study}: adapter {former!r}", name)
            values = values | {"dataset": dataset | {"adapter": name}}
    return values


@cache
def _report_renamed(former: str, present: str) -> None:
    """Print what was renamed to stderr, each name once in a process."""
    print(f"scanbook: {former} is now called {present!r}; the old name still works", file=sys.stderr)


def explain(error: ValidationError, block: type[BaseModel]) -> str:
    """Return the first problem that pydantic found, as one line; an unknown key comes before the missing one.

    Args:
        error: The error.
        block: The block that was validated, or each of a mapping's values.
    """
    problem = min(error.errors(), key=lambda problem: problem["type"] != "extra_forbidden")
    location = problem["loc"]
    adapter = len(location) > 1 and location[0] == "dataset"  # pydantic puts the adapter's name after "dataset"
    keys = location[:1] + location[2:] if adapter else location
    # pydantic adds "[key]" where a key is wrong
    key = ".".join(str(part) for part in keys if part != "[key]" and not str(part).startswith(TAG))
    match problem["type"]:
        case "extra_forbidden":
            return f"unknown key {key!r}; expected one of {', '.join(_block_at(location[:-1], block).model_fields)}"
        case "missing":
            return f"key {key!r} is missing; add it"
        case "union_tag_not_found":
            return f"key 'dataset.adapter' is missing; expected one of {', '.join(ADAPTERS)}"
        case "union_tag_invalid":
            return f"dataset.adapter: unknown adapter {problem['ctx']['tag']!r}; expected one of {', '.join(ADAPTERS)}"
    message = problem["msg"].removeprefix("Value error, ")
    whole_block = problem["type"] == "value_error" and isinstance(problem["input"], dict)
    place, value = f"{key}: " if key else "", "" if whole_block else f" (got {problem['input']!r})"
    return f"{place}{message[0].lower()}{message[1:]}{value}"


def _block_at(location: tuple[int | str, ...], block: type[BaseModel]) -> type[BaseModel]:
    """Return the block at a location inside another one."""
    if location[:1] == ("dataset",):
        block, location = ADAPTERS[str(location[1])], location[2:]
    for part in location:
        if str(part) in block.model_fields:
            block = inner_block(block.model_fields[str(part)].annotation) or block
    return block


def inner_block(annotation: Any) -> type[BaseModel] | None:
    """Return the block that a key holds: itself, an optional one, or one of a mapping; None where it holds none."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, map(inner_block, get_args(annotation))), None)
