"""What the blocks of a study share: no unknown keys, no changes, the types of their values, and what describes them."""

from __future__ import annotations

from collections.abc import Collection
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from scanbook.registry import BACKBONES, POLICIES, SEGMENTATION_METHODS

Fraction = Annotated[float, Field(ge=0, le=1)]
Share = Annotated[float, Field(gt=0, le=1)]
OpenShare = Annotated[float, Field(gt=0, lt=1)]
Count = Annotated[int, Field(ge=0)]
Positive = Annotated[int, Field(gt=0)]
Rate = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Penalty = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Block(BaseModel):
    """A block of keys in a study. The text under a key is its description in the reference of the settings."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def _name(what: str, known: Collection[str], more: str = "") -> tuple[AfterValidator, Any]:
    """Refuses a name that is not among the known ones; with `more`, several known ones may be joined by "+"."""

    def check(name: str) -> str:
        for part in name.split("+") if more else [name]:
            if part not in known:
                raise ValueError(f"unknown {what} {part!r}; expected one of {', '.join(known)}{more}")
        return name

    # what a schema can say of it: a joined name is none of the enumeration
    return AfterValidator(check), Field(json_schema_extra={"examples" if more else "enum": list(known)})


Backbone = Annotated[str, *_name("backbone", BACKBONES)]
Method = Annotated[str, *_name("method", SEGMENTATION_METHODS)]
Augmentation = Annotated[str, *_name("policy", POLICIES, ", or several joined by +")]
"""Name of a policy, or of several, joined by "+"."""
