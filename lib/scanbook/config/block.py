"""What the blocks of a study share: a base class, the types of values, and the check of names."""

from __future__ import annotations

from collections.abc import Collection
from functools import partial
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Discriminator, Field, Tag

from scanbook import registry
from scanbook.errors import StudyError
from scanbook.registry import BACKBONES, EMBEDDINGS, FILE, POLICIES, PRESET, SEGMENTATION_METHODS

Fraction = Annotated[float, Field(ge=0, le=1)]
Share = Annotated[float, Field(gt=0, le=1)]
OpenShare = Annotated[float, Field(gt=0, lt=1)]
Count = Annotated[int, Field(ge=0)]
Positive = Annotated[int, Field(gt=0)]
Rate = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Penalty = Annotated[float, Field(ge=0, allow_inf_nan=False)]


TAG = "~"
"""Start of the tags of `word_or_keys`, which pydantic puts into the location of an error."""


def word_or_keys(word: Any, keys: Any) -> Any:
    """Return the type of a value that is a word (or null), or has keys; an error is about the one that was written."""
    tagged = Annotated[word, Tag(f"{TAG}word")] | Annotated[keys, Tag(f"{TAG}keys")]
    return Annotated[
        tagged, Discriminator(lambda value: TAG + ("keys" if isinstance(value, dict | BaseModel) else "word"))
    ]


class Block(BaseModel):
    """A block of keys in a study. The text under a key is its description in the reference of the settings."""

    model_config = ConfigDict(extra="forbid", frozen=True)


_NAMES: dict[str, Collection[str]] = {
    "backbone": BACKBONES,
    "listed backbone": BACKBONES,
    "method": SEGMENTATION_METHODS,
    "policy": POLICIES,
}

MORE = "more"
"""Key of a schema: what is allowed beside its examples."""
_MORE = {
    "backbone": ", hub:PRESET or file:PATH",
    "listed backbone": "",
    "method": "",
    "policy": ", or several joined by +",
}


def check_name(kind: str, name: str) -> str:
    """Return a name that a study may use.

    Args:
        kind: "backbone", "method" or "policy".
        name: The name; of policies, several may be joined by "+"; of backbones also a preset or file.

    Raises:
        ValueError: The name, or one of those joined, is unknown, or those joined exclude each other.
    """
    if kind == "backbone" and name.startswith((PRESET, FILE)):
        if name in (PRESET, FILE):
            raise ValueError(f"{name!r} names nothing; expected such as hub:dinov2_small or file:network.keras")
        return name
    joined = kind == "policy"
    for single in name.split("+") if joined else [name]:
        if single not in _NAMES[kind]:
            raise ValueError(f"unknown {kind} {single!r}; expected one of {', '.join(_NAMES[kind])}{_MORE[kind]}")
    if joined:
        try:
            registry.policy(name)
        except StudyError as error:
            raise ValueError(str(error)) from None
    return name


def _name(kind: str) -> tuple[AfterValidator, Any]:
    # where more is allowed than the names, these are the examples of a schema, not its enumeration
    schema = {"examples": list(_NAMES[kind]), MORE: _MORE[kind]} if _MORE[kind] else {"enum": list(_NAMES[kind])}
    return AfterValidator(partial(check_name, kind)), Field(json_schema_extra=schema)


def _check_described(name: str) -> str:
    return name if name == EMBEDDINGS else check_name("backbone", name)


Backbone = Annotated[str, *_name("backbone")]
Described = Annotated[str, AfterValidator(_check_described), _name("backbone")[1]]
"""Name of a backbone, or `embeddings`."""
Listed = Annotated[str, *_name("listed backbone")]
"""Name of a backbone of the registry: neither a preset nor a file."""
Method = Annotated[str, *_name("method")]
Augmentation = Annotated[str, *_name("policy")]
"""Name of a policy, or of several, joined by "+"."""
