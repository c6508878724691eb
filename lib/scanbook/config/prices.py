"""The price table, `notebooks/prices.yaml`: what an hour of a machine costs, and what its GPUs do; source and day."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import Field, ValidationError, model_validator

from scanbook import runtime
from scanbook.config.block import Backbone, Block, Count, Positive, Rate
from scanbook.errors import StudyError

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
    gpus: Count = 0
    """How many of them it has."""
    source: Text
    """Where the price is from."""
    date: datetime.date
    """When it was read there."""

    @model_validator(mode="after")
    def _has_its_gpus(self) -> Price:
        if bool(self.gpu) != bool(self.gpus):
            raise ValueError(f"gpu is {self.gpu!r} and gpus {self.gpus}; expected both, or neither")
        return self


class Throughput(Block):
    """A published speed of a network on one GPU, in half precision."""

    network: Backbone
    """Name of the network."""
    image_size: Positive
    """Side of the images, in pixels."""
    task: Literal["training", "inference"]
    """What was timed: whole training steps, or forward passes."""
    batch: Positive | None = None
    """Images in a batch; null where that is not published."""
    images_per_second: Rate
    """The speed."""
    source: Text
    """Where it is published, with the software and its version."""
    date: datetime.date
    """When it was read there."""


class Gpu(Block):
    """What a GPU can do, as it is published: nothing here was measured by scanbook."""

    peak_tflops: Rate
    """Most that it computes, in TFLOP/s, without sparsity."""
    precision: Text
    """The number format that this holds for."""
    memory_gb: Rate
    """Its memory, in GB."""
    memory_gb_per_second: Rate
    """How fast it reads its memory, in GB/s."""
    link: str = ""
    """What connects it to the other GPUs of a machine; empty where there are none."""
    link_gb_per_second: Rate | None = None
    """How fast it sends to them, one way, in GB/s; null where there are none."""
    forward_ms: Annotated[list[Rate], Field(min_length=2, max_length=2)]
    """A forward pass of one image, in ms, by the quickest and by the slowest published software: starting a network's
    operations takes that long, however few images there are."""
    source: Text
    """Where all this is from."""
    date: datetime.date
    """When it was read there."""
    published: list[Throughput] = []
    """Speeds of networks on it."""


GPUS = "gpus"
"""Key of the file that holds no instance, but GPUs by name."""
Kind = TypeVar("Kind", bound=Block)


def prices_file() -> Path:
    """The file that the user edits."""
    return runtime.project_root() / "notebooks" / "prices.yaml"


def prices() -> dict[str, Price]:
    """The price of each instance, in the order of the file; none where there is no such file.

    Raises:
        StudyError: A key is unknown or missing, or a value is none; or there is no GPU of an instance's name.
    """
    content = _content()
    known = _gpus(content)
    found = {name: _checked(Price, name, values) for name, values in content.items() if name != GPUS}
    for name, each in found.items():
        if known and each.gpu and each.gpu not in known:
            raise StudyError(
                f"{prices_file()}: {name}.gpu is {each.gpu!r}; expected one of {', '.join(known)}, or add it to {GPUS}"
            )
    return found


def gpus() -> dict[str, Gpu]:
    """What is published of each GPU, by name.

    Raises:
        StudyError: A key is unknown or missing, or a value is none.
    """
    return _gpus(_content())


def _gpus(content: dict[str, Any]) -> dict[str, Gpu]:
    listed = content.get(GPUS) or {}
    if not isinstance(listed, dict):
        raise StudyError(f"{prices_file()}: {GPUS} is {listed!r}; expected a block for each GPU")
    return {str(name): _checked(Gpu, f"{GPUS}.{name}", values) for name, values in listed.items()}


def _content() -> dict[str, Any]:
    path = prices_file()
    if not path.is_file():
        return {}
    try:
        content = yaml.safe_load(path.read_bytes()) or {}
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date such as 2026-13-45
        where = f", line {error.problem_mark.line + 1}" if getattr(error, "problem_mark", None) else ""
        raise StudyError(f"{path}{where} is not valid YAML; check indentation and dates there") from error
    if not isinstance(content, dict):
        raise StudyError(f"{path} holds {content!r}; expected instances, each with the keys {_keys(Price)}")
    return {str(name): values for name, values in content.items()}


def _checked(block: type[Kind], name: str, values: object) -> Kind:
    path = prices_file()
    if not isinstance(values, dict):
        raise StudyError(f"{path}: {name} is {values!r}; expected a block with the keys {_keys(block)}")
    try:
        return block.model_validate(values)
    except ValidationError as error:
        # a key that is spelt wrong is missing too: the unknown one says more
        problem = min(error.errors(), key=lambda each: each["type"] != "extra_forbidden")
        key = ".".join([name, *map(str, problem["loc"])])
        if problem["type"] == "extra_forbidden":
            of = Throughput if "published" in problem["loc"] else block
            said = f"unknown key {key!r} ({problem['input']!r}); expected one of {_keys(of)}"
            raise StudyError(f"{path}: {said}") from None
        if problem["type"] == "missing":
            raise StudyError(f"{path}: key {key!r} is missing; add it") from None
        message = problem["msg"].removeprefix("Value error, ")
        got = "" if problem["type"] == "value_error" else f" (got {problem['input']!r})"
        raise StudyError(f"{path}: {key}: {message[0].lower()}{message[1:]}{got}") from None


def _keys(block: type[Block]) -> str:
    return ", ".join(block.model_fields)
