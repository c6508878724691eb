"""The reference of the settings, as Markdown: what `scanbook reference` prints and `notebooks/studies/README.md` holds.

Types, allowed values and defaults are those of the models; what a key does is the text under it in their source.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Collection, Iterator, Mapping
from itertools import pairwise
from types import MappingProxyType
from typing import Any

import yaml
from pydantic import BaseModel

from scanbook.config.blocks import Study
from scanbook.config.data import ADAPTERS, Source
from scanbook.config.loading import NOT_KEYS, SMOKE, inner_block
from scanbook.config.prices import GPUS, Gpu, Price, Throughput

_START = """# Studies

One file a study, and below what each key means. `scanbook reference > notebooks/studies/README.md` writes this page,
from the models that check the files.

A file holds the values of the `quick` profile; its block `profiles` says what `smoke` and `full` change, as in
`profiles: {full: {image_size: 224}}`. `SET` changes keys for one run, with a dot into a block:
`make reports SET="fine_tuning.epochs=3 backbones=[vgg16]"`. Each overrides those before it: the default; the file; in
the smoke profile the column *smoke*; the file's `profiles`; `SET`. An unknown key, a wrong type or an unknown name is
refused in one line that says what is allowed.
"""
_PRICES = "A block for each instance type in `notebooks/prices.yaml`; notebook 06 shows them beside this machine."
_GPUS = f"Below `{GPUS}` in the same file, a block for each GPU: what `scanbook projection` reckons with."
_SPEEDS = "A list of what others measured; a GPU's share of its peak follows from it."
_LIMITS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
_TYPES = {
    "integer": "whole number",
    "number": "number",
    "string": "text",
    "boolean": "true or false",
    "null": "`null`",
    "date": "date",
}


def markdown() -> str:
    """The whole reference: a table of the study's own keys, one of each block in it, and one of the price table."""
    sections = [_section("The study", Study, "What a file says at its top level.", SMOKE, NOT_KEYS)]
    sections.append(_section("dataset", Source, "Of every dataset. Its key `adapter` names one of those below."))
    for adapter, block in ADAPTERS.items():
        sections.append(_section(f"dataset, adapter: {adapter}", block, skip={"adapter", *Source.model_fields}))
    sections += [_section(title, block, smoke=smoke) for title, block, smoke in _blocks(Study, SMOKE)]
    sections.append(_section("Prices", Price, _PRICES))
    sections.append(_section(f"Prices, {GPUS}", Gpu, _GPUS))
    sections.append(_section(f"Prices, {GPUS}: published", Throughput, _SPEEDS))
    return "\n".join([_START, *sections])


def _blocks(
    block: type[BaseModel], smoke: Mapping[str, Any], place: str = ""
) -> Iterator[tuple[str, type[BaseModel], Mapping[str, Any]]]:
    """Every block inside a block: its keys, joined by dots, itself, and what the smoke profile changes in it.

    Those of `dataset` are known by their adapters.
    """
    for key, field in block.model_fields.items():
        inner = inner_block(field.annotation)
        if inner and key != "dataset":
            yield f"{place}{key}", inner, smoke.get(key, {})
            yield from _blocks(inner, smoke.get(key, {}), f"{place}{key}.")


def _section(
    title: str,
    block: type[BaseModel],
    intro: str = "",
    smoke: Mapping[str, Any] = MappingProxyType({}),
    skip: Collection[str] = (),
) -> str:
    properties = block.model_json_schema()["properties"]
    described = _descriptions(block)
    inner = {key for key, field in block.model_fields.items() if key == "dataset" or inner_block(field.annotation)}
    changed = bool(smoke.keys() & properties.keys() - inner)
    columns = ["key", "value", "default", *(["smoke"] if changed else []), "what it does"]
    rows = [columns, ["---"] * len(columns)]
    for key, shown in properties.items():
        if key in skip:
            continue
        default = shown.get("default")
        said = "required" if block.model_fields[key].is_required() else _value(default)
        cells = [f"`{key}`", _type(shown), said] if key not in inner else [f"`{key}`", "block", "" if default else said]
        if changed:
            cells.append("" if key in inner or key not in smoke else _value(smoke[key]))
        rows.append([*cells, described[key]])
    if len(rows) == 2:
        rows = []  # an adapter without keys of its own
    lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join([f"## {title}", "", intro or " ".join(inspect.getdoc(block).split()), "", *lines, ""])


def _descriptions(block: type[BaseModel]) -> dict[str, str]:
    """The text under each key in the source of a block and of those that it is made from, as one line.

    pydantic reads it too where it is told to, and would at every start of the program.
    """
    found: dict[str, str] = {}
    for each in reversed(block.__mro__):
        if each is BaseModel or not issubclass(each, BaseModel):
            continue
        body = ast.parse(textwrap.dedent(inspect.getsource(each))).body[0].body
        for key, text in pairwise(body):
            if isinstance(key, ast.AnnAssign) and isinstance(text, ast.Expr):
                found[key.target.id] = " ".join(ast.literal_eval(text.value).split())
    return found


def _type(shown: Mapping[str, Any]) -> str:
    """A value's type and what is allowed, from its JSON schema, in words."""
    if "anyOf" in shown:
        return " or ".join(dict.fromkeys(_type(each) for each in shown["anyOf"]))
    if names := shown.get("enum") or shown.get("examples"):
        joined = ", ".join(_value(name) for name in names)
        return joined + (", or several joined by `+`" if "examples" in shown else "")
    if shown["type"] == "array":
        return f"list: {_type(shown['items'])}"
    if shown["type"] == "object":
        return f"by name: {_type(shown['additionalProperties'])}"
    limits = [f"{sign} {shown[name]}" for name, sign in _LIMITS.items() if name in shown]
    return " ".join([_TYPES[shown.get("format", shown["type"])], *([" and ".join(limits)] if limits else [])])


def _value(value: Any) -> str:
    """A value as a study file has it."""
    if value == "":
        return "empty"
    text = yaml.safe_dump(value, default_flow_style=True, width=1000, allow_unicode=True)
    return f"`{text.removesuffix('...' + chr(10)).strip()}`"
