"""The price table, `notebooks/prices.yaml`: what an hour of a machine costs, with the source and date of each price."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Annotated

from pydantic import Field, TypeAdapter, ValidationError, model_validator

from scanbook import runtime
from scanbook.config.block import Block, Count, Positive, Rate
from scanbook.config.loading import explain, read_yaml
from scanbook.errors import StudyError

Text = Annotated[str, Field(min_length=1)]


class Price(Block):
    """Price of an instance per hour, in USD, without storage, traffic and tax."""

    usd_per_hour: Rate
    """Price per hour, in USD."""
    vcpus: Positive
    """Virtual processors."""
    memory_gb: Rate
    """Memory, in GB."""
    isa: Text
    """Instruction set of the processor."""
    region: str = ""
    """Region of the price; empty where it is not known."""
    gpu: str = ""
    """Name of the GPU; empty where there is none."""
    gpus: Count = 0
    """Number of GPUs."""
    source: Text
    """Source of the price."""
    date: datetime.date
    """Date on which the price was read there."""

    @model_validator(mode="after")
    def _names_its_gpus(self) -> Price:
        if bool(self.gpu) != bool(self.gpus):
            raise ValueError(f"gpu is {self.gpu!r} and gpus {self.gpus}; expected both, or neither")
        return self


def prices_file() -> Path:
    """Return the file of the price table, which the user edits."""
    return runtime.project_root() / "notebooks" / "prices.yaml"


def prices() -> dict[str, Price]:
    """Return the price of each instance, in the order of the file; empty where there is no such file.

    Raises:
        StudyError: The file is not valid YAML, a key is unknown or missing, or a value is of the wrong type.
    """
    path = prices_file()
    if not path.is_file():
        return {}
    try:
        return TypeAdapter(dict[str, Price]).validate_python(read_yaml(path, str(path)))
    except ValidationError as error:
        raise StudyError(f"{path}: {explain(error, Price)}") from None
