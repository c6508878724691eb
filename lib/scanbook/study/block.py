"""What the blocks of a study share: no unknown keys, no changes, and the types of their values."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Fraction = Annotated[float, Field(ge=0, le=1)]
Share = Annotated[float, Field(gt=0, le=1)]
OpenShare = Annotated[float, Field(gt=0, lt=1)]
Count = Annotated[int, Field(ge=0)]
Positive = Annotated[int, Field(gt=0)]
Rate = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Penalty = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Block(BaseModel):
    """A block of keys in a study."""

    model_config = ConfigDict(extra="forbid", frozen=True)
