"""The price table, `notebooks/prices.yaml`: what an hour of a machine costs, from which source, of which day."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Annotated

import yaml
from pydantic import Field, ValidationError

from scanbook import runtime
from scanbook.errors import StudyError
from scanbook.study.block import Block, Positive, Rate

Text = Annotated[str, Field(min_length=1)]


class Price(Block):
    """What an hour of an instance costs, in USD, without storage, traffic and tax."""

    usd_per_hour: Rate
    """The price, in USD."""
    vcpus: Positive
    """Virtual processors."""
    memory_gb: Rate
    """Memory, in GB."""
    isa: Text
    """The processor's instruction set."""
    region: str = ""
    """Where the price holds; empty where that is not known."""
    gpu: str = ""
    """The GPU; empty where there is none."""
    source: Text
    """Where the price is from."""
    date: datetime.date
    """When it was read there."""


def prices_file() -> Path:
    """The file that the user edits."""
    return runtime.project_root() / "notebooks" / "prices.yaml"


def prices() -> dict[str, Price]:
    """The price of each instance, in the order of the file; none where there is no such file.

    Raises:
        StudyError: A key is unknown or missing, or a value is none.
    """
    path = prices_file()
    if not path.is_file():
        return {}
    try:
        content = yaml.safe_load(path.read_bytes()) or {}
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date such as 2026-13-45
        where = f", line {error.problem_mark.line + 1}" if getattr(error, "problem_mark", None) else ""
        raise StudyError(f"{path}{where} is not valid YAML; check indentation and dates there") from error
    if not isinstance(content, dict):
        raise StudyError(f"{path} holds {content!r}; expected instances, each with the keys {_keys()}")
    return {str(name): _price(path, str(name), values) for name, values in content.items()}


def _price(path: Path, name: str, values: object) -> Price:
    if not isinstance(values, dict):
        raise StudyError(f"{path}: {name} is {values!r}; expected a block with the keys {_keys()}")
    try:
        return Price.model_validate(values)
    except ValidationError as error:
        # a key that is spelt wrong is missing too: the unknown one says more
        problem = min(error.errors(), key=lambda each: each["type"] != "extra_forbidden")
        key = ".".join([name, *map(str, problem["loc"])])
        if problem["type"] == "extra_forbidden":
            raise StudyError(f"{path}: unknown key {key!r} ({problem['input']!r}); expected one of {_keys()}") from None
        if problem["type"] == "missing":
            raise StudyError(f"{path}: key {key!r} is missing; add it") from None
        message = problem["msg"]
        raise StudyError(f"{path}: {key}: {message[0].lower()}{message[1:]} (got {problem['input']!r})") from None


def _keys() -> str:
    return ", ".join(Price.model_fields)
