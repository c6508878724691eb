"""The reference of the settings, as Markdown: `scanbook reference` prints it, and the documentation has it as a page.

Types, allowed values and defaults are those of the models; the description of a key is the text under it in their
source.
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

from scanbook.config.block import MORE
from scanbook.config.blocks import Study
from scanbook.config.data import ADAPTERS, Source
from scanbook.config.loading import NOT_KEYS, SMOKE, inner_block
from scanbook.config.prices import Price

_START = """# Keys of a study

There is one file per study, in `notebooks/studies/`; the tables below describe each key. They are generated from the
models that check the files; `scanbook reference` prints them.

A file holds the values of the `quick` profile; its block `profiles` holds the changes of `smoke` and `full`, as in
`profiles: {full: {image_size: 224}}`. `SET` changes keys for one run, with a dot into a block:
`make reports SET="fine_tuning.epochs=3 backbones=[vgg16]"`. Each of these overrides those before it: the default; the
file; in the smoke profile the column *smoke*; the file's `profiles`; `SET`. An unknown key, a wrong type or an unknown
name is an error of one line that names the allowed ones.
"""
_PRICES = "One block per instance type in `notebooks/prices.yaml`; notebook 06 compares them with this machine."
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
    """Return the whole reference: tables of the study's own keys, of each block in it, and of the price table."""
    sections = [_section("The study", Study, "Keys at the top level of a file.", SMOKE, NOT_KEYS)]
    sections.append(_section("dataset", Source, "Keys of every dataset. `adapter` selects one of the blocks below."))
    for adapter, block in ADAPTERS.items():
        sections.append(_section(f"dataset, adapter: {adapter}", block, skip={"adapter", *Source.model_fields}))
    sections += [_section(title, block, smoke=smoke) for title, block, smoke in _blocks(Study, SMOKE)]
    sections.append(_section("Prices", Price, _PRICES))
    return "\n".join([_START, *sections])


def _blocks(
    block: type[BaseModel], smoke: Mapping[str, Any], place: str = ""
) -> Iterator[tuple[str, type[BaseModel], Mapping[str, Any]]]:
    """Yield every block inside a block, except `dataset`: its key, its class, and what the smoke profile changes."""
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
    """Return the table of one block."""
    schemas = {key: schema for key, schema in block.model_json_schema()["properties"].items() if key not in skip}
    descriptions = _descriptions(block)
    blocks = {key for key, field in block.model_fields.items() if key == "dataset" or inner_block(field.annotation)}
    changed = smoke.keys() & schemas.keys() - blocks
    rows = []
    for key, schema in schemas.items():
        default = "required" if block.model_fields[key].is_required() else _value(schema.get("default"))
        if key in blocks and "oneOf" not in schema:
            cells = [f"`{key}`", "block", "" if schema.get("default") else default]
        else:
            cells = [f"`{key}`", _type(schema), default]
        smoke_cell = [_value(smoke[key]) if key in changed else ""] if changed else []
        rows.append([*cells, *smoke_cell, descriptions[key]])
    if rows:  # an adapter may have no keys of its own
        header = ["key", "value", "default", *(["smoke"] if changed else []), "what it does"]
        rows = [header, ["---"] * len(header), *rows]
    lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join([f"## {title}", "", intro or " ".join(inspect.getdoc(block).split()), "", *lines, ""])


def _descriptions(block: type[BaseModel]) -> dict[str, str]:
    """Return the text under each key in the source of a block and of its base classes, as one line.

    pydantic can read it too (`use_attribute_docstrings`), but would do so at every start of the program.
    """
    descriptions: dict[str, str] = {}
    for base in reversed(block.__mro__):
        if base is BaseModel or not issubclass(base, BaseModel):
            continue
        body = ast.parse(textwrap.dedent(inspect.getsource(base))).body[0].body
        for key, text in pairwise(body):
            if isinstance(key, ast.AnnAssign) and isinstance(text, ast.Expr):
                descriptions[key.target.id] = " ".join(ast.literal_eval(text.value).split())
    return descriptions


def _type(schema: Mapping[str, Any]) -> str:
    """Return the type and the allowed values of a JSON schema, in words."""
    if "$ref" in schema:
        return "block"
    for choices in ("anyOf", "oneOf"):
        if choices in schema:
            return " or ".join(dict.fromkeys(_type(choice) for choice in schema[choices]))
    if names := schema.get("enum") or schema.get("examples"):
        return ", ".join(_value(name) for name in names) + schema.get(MORE, "")
    if schema["type"] == "array":
        return f"list: {_type(schema['items'])}"
    if schema["type"] == "object":
        return f"by name: {_type(schema['additionalProperties'])}"
    limits = " and ".join(f"{sign} {schema[name]}" for name, sign in _LIMITS.items() if name in schema)
    return f"{_TYPES[schema.get('format', schema['type'])]} {limits}".rstrip()


def _value(value: Any) -> str:
    """Return a value as it stands in a study file."""
    if value == "":
        return "empty"
    text = yaml.safe_dump(value, default_flow_style=True, width=1000, allow_unicode=True)
    return f"`{text.removesuffix('...' + chr(10)).strip()}`"
