"""What the blocks of a study share: a base class, the types of values, and the check of names."""

from __future__ import annotations

from collections.abc import Collection
from functools import partial
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from scanbook import registry
from scanbook.errors import StudyError
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


_NAMES: dict[str, Collection[str]] = {"backbone": BACKBONES, "method": SEGMENTATION_METHODS, "policy": POLICIES}


def check_name(kind: str, name: str) -> str:
    """Return a name that a study may use.

    Args:
        kind: "backbone", "method" or "policy".
        name: The name; of policies, several may be joined by "+".

    Raises:
        ValueError: The name, or one of those joined, is unknown, or those joined exclude each other.
    """
    joined = kind == "policy"
    for single in name.split("+") if joined else [name]:
        if single not in _NAMES[kind]:
            more = ", or several joined by +" if joined else ""
            raise ValueError(f"unknown {kind} {single!r}; expected one of {', '.join(_NAMES[kind])}{more}")
    if joined:
        try:
            registry.policy(name)
        except StudyError as error:
            raise ValueError(str(error)) from None
    return name


def _name(kind: str) -> tuple[AfterValidator, Any]:
    # a joined name is not in a schema's enumeration, so that policies are its examples
    schema = {"examples" if kind == "policy" else "enum": list(_NAMES[kind])}
    return AfterValidator(partial(check_name, kind)), Field(json_schema_extra=schema)


Backbone = Annotated[str, *_name("backbone")]
Method = Annotated[str, *_name("method")]
Augmentation = Annotated[str, *_name("policy")]
"""Name of a policy, or of several, joined by "+"."""
