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
from scanbook.config.blocks import KAGGLE, Study
from scanbook.config.data import ADAPTERS
from scanbook.errors import StudyError

PROFILES = ("smoke", "quick", "full")

NOT_KEYS = {"profile": "PROFILE", "data": "DATA", "on_stand_in": ""}
"""What a resolved study knows and no file or override sets, and the variable that gives it; "" where it follows."""

RENAMED_KEYS = {
    "parts": "splits",
    "dataset.claimed_parts": "dataset.claimed_splits",
    "dataset.part_column": "dataset.split_column",
    "segmentation.target": "segmentation.structure",
    "evaluation.findings": "evaluation.targets",
    "evaluation.answered": "evaluation.coverage",
}
"""Keys that had another name, with the new one; the old one still works."""

RENAMED_NAMES = {"drawn": "synthetic"}
"""Names of studies and adapters that had another name, with the new one."""

SMOKE: dict[str, Any] = {
    "limit": 64,
    "image_size": 64,
    "head": {"epochs": 5, "l2": [0.03, 0.3], "views": 1},
    "scratch": {"epochs": 1},
    "fine_tuning": {"epochs": 1},
    "seeds": 1,
    "sweep": {"seeds": 2},
    "evaluation": {"robustness_images": 24},
    "benchmark": {
        **{"images": 32, "epochs": 1, "batch_sizes": [1, 8], "calibration_images": 32},
        **{"windows": 3, "window_seconds": 0.05, "one_thread": False},
    },
    "segmentation": {"unet": {"epochs": 1, "images": 32}},
    "bootstrap_rounds": 100,
}
"""What the smoke profile changes in every study, for tests; a study's own `profiles.smoke` goes on top."""


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
        data: Folder or file of the dataset; "kaggle" to download it; empty means its place in `data/`, or where there
            is none the study's stand-in.
        overrides: Space-separated `key=value` pairs; a dot reaches into a block, as in `fine_tuning.epochs=3`, and
            quotes hold a value with spaces together.

    Raises:
        StudyError: The study, the profile, a key or a value is unknown or of the wrong type.
    """
    name = current_name(name)
    content, profiles = _read(name)
    profile = profile or os.environ.get("SCANBOOK_PROFILE", "") or "quick"
    if profile not in PROFILES:
        raise StudyError(f"unknown profile {profile!r}; expected one of {', '.join(PROFILES)}")
    values = _merge(content, SMOKE) if profile == "smoke" else content
    values = _merge(values, profiles.get(profile) or {})
    try:
        pairs = shlex.split(overrides)
    except ValueError as error:
        raise StudyError(f"overrides {overrides!r} have a quote that is not closed; close it") from error
    for pair in pairs:
        values = _merge(values, _renamed(name, _override(pair)))
    for key, variable in NOT_KEYS.items():
        if key in values and not variable:
            raise StudyError(f"study {name}: {key} is no key; remove it: it follows from DATA")
        if key in values:
            raise StudyError(
                f"study {name}: {key} is set to {values[key]!r} as a key; pass it as {variable}={values[key]} instead"
            )
    where = data if data in ("", KAGGLE) else str(Path(data).expanduser().resolve())
    values |= {"profile": profile, "data": where}
    try:
        resolved = Study.model_validate(values)
    except ValidationError as error:
        raise StudyError(f"study {name}: {_explain(error)}") from None
    if resolved.study != name:
        raise StudyError(
            f"study {name}: its key study says {resolved.study!r}; expected {name!r}, the name of its file"
        )
    if resolved.stand_in and not data and not resolved.location.exists():
        # a stand-in is drawn as large as it is wanted; the file's limit is of the real images
        limit = resolved.limit if any(pair.startswith("limit=") for pair in pairs) else None
        return resolved.model_copy(update={"on_stand_in": True, "limit": limit})
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
    content = _renamed(name, content)
    for key, changes in profiles.items():
        if key not in PROFILES:
            raise StudyError(
                f"study {name}: unknown profile {key!r} in profiles; expected one of {', '.join(PROFILES)}"
            )
        if not isinstance(changes, dict | None):
            raise StudyError(
                f"study {name}: profiles.{key} is {changes!r}; expected a block of the keys that this profile changes"
            )
        profiles[key] = _renamed(name, changes or {})
    return content, profiles


def _merge(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in changes.items():
        inner = merged.get(key)
        merged[key] = _merge(inner, value) if isinstance(inner, dict) and isinstance(value, dict) else value
    return merged


def _override(pair: str) -> dict[str, Any]:
    key, separator, text = pair.partition("=")
    if not separator or not key:
        raise StudyError(f"override {pair!r} has no '='; expected key=value, such as fine_tuning.epochs=3")
    try:
        change: Any = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date such as 2020-13-45
        raise StudyError(
            f"override {key}: {text!r} is not a YAML value; expected a number, a word or a [list], "
            f"and quotes round a value with spaces: \"{key}='…'\""
        ) from error
    for part in reversed(key.split(".")):
        change = {part: change}
    return change


def current_name(name: str) -> str:
    """Return the present name of a study or an adapter; print one line where it was renamed and is not the user's."""
    new = RENAMED_NAMES.get(name)
    if not new or (studies_dir() / f"{name}.yaml").is_file():
        return name
    _note(f"study {name!r} is now called {new!r}")
    return new


def _renamed(study: str, values: dict[str, Any]) -> dict[str, Any]:
    """Return the same keys and adapter by their present names, and print one line for each that was renamed."""
    result = dict(values)
    for old, new in RENAMED_KEYS.items():
        *blocks, key = old.split(".")
        inner = result
        for block in blocks:
            inner = inner.get(block, {})
            if not isinstance(inner, dict):
                inner = {}
        if key in inner:
            _note(f"study {study}: key {old!r} is now called {new!r}")
            block = ".".join(blocks)
            moved = {(new.rsplit(".")[-1] if each == key else each): value for each, value in inner.items()}
            result = moved if not blocks else result | {block: moved}
    source = result.get("dataset")
    if isinstance(source, dict) and source.get("adapter") in RENAMED_NAMES:
        new = RENAMED_NAMES[source["adapter"]]
        _note(f"study {study}: adapter {source['adapter']!r} is now called {new!r}")
        result |= {"dataset": source | {"adapter": new}}
    return result


@cache
def _note(line: str) -> None:
    """Print a line to stderr, once in a process."""
    print(f"scanbook: {line}; the old name still works", file=sys.stderr)


def _explain(error: ValidationError) -> str:
    """The first problem that pydantic found, as one line."""
    problem = error.errors()[0]
    location = problem["loc"]
    adapter = len(location) > 1 and location[0] == "dataset"  # pydantic puts the adapter's name after "dataset"
    named = location[:1] + location[2:] if adapter else location
    key = ".".join(str(part) for part in named if part != "[key]")  # what pydantic adds where a key is wrong
    if problem["type"] == "extra_forbidden":
        block = _block_at(location[:-1])
        return f"unknown key {key!r}; expected one of {', '.join(block.model_fields)}"
    if problem["type"] == "missing":
        return f"key {key!r} is missing; add it to the study"
    if problem["type"] == "union_tag_not_found":
        return f"key 'dataset.adapter' is missing; expected one of {', '.join(ADAPTERS)}"
    if problem["type"] == "union_tag_invalid":
        return f"dataset.adapter: unknown adapter {problem['ctx']['tag']!r}; expected one of {', '.join(ADAPTERS)}"
    message = problem["msg"].removeprefix("Value error, ")
    whole = problem["type"] == "value_error" and isinstance(problem["input"], dict)  # a block, not the value in it
    where, got = f"{key}: " if key else "", "" if whole else f" (got {problem['input']!r})"
    return f"{where}{message[0].lower()}{message[1:]}{got}"


def _block_at(location: tuple[int | str, ...]) -> type[BaseModel]:
    block: type[BaseModel] = Study
    if location[:1] == ("dataset",):
        block, location = ADAPTERS[str(location[1])], location[2:]
    for part in location:
        if str(part) in block.model_fields:
            block = inner_block(block.model_fields[str(part)].annotation) or block
    return block


def inner_block(annotation: Any) -> type[BaseModel] | None:
    """The block that a key holds: itself, an optional one, or one of a mapping; None where it holds none."""
    inner = (annotation, *get_args(annotation))
    return next((each for each in inner if isinstance(each, type) and issubclass(each, BaseModel)), None)
