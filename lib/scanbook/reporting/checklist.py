"""`checklist.html` of a study: what reporting guidelines ask for, and which section of which report answers it."""

from __future__ import annotations

from functools import cache
from typing import Annotated, Literal, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field

from scanbook.reporting.records import Run
from scanbook.reporting.report import TEMPLATES, environment

FILE = TEMPLATES / "checklists.yaml"
State = Literal["answered", "in part", "open", "not run"]
"""Of an item: "open" needs a person, "not run" a notebook."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Item(_Strict):
    """One item of a guideline.

    Attributes:
        number: As the guideline counts.
        asks: What it asks for, in our words.
        answers: The headings that answer it, by notebook.
        open: What a person has to answer; empty where the sections say all.
    """

    number: str
    asks: str
    answers: dict[str, Annotated[tuple[str, ...], Field(min_length=1)]] = {}
    open: str = ""

    def state(self, run: Run) -> State:
        """Whether the reports of a run answer it."""
        if not self.answers:
            return "open"
        if any(run.reports[notebook].status != "done" for notebook in self.answers):
            return "not run"
        return "in part" if self.open else "answered"


class Topic(_Strict):
    """Items under one heading of a guideline."""

    name: str
    items: Annotated[tuple[Item, ...], Field(min_length=1)]


class Guideline(_Strict):
    """A reporting guideline.

    Attributes:
        name: What it is called for short.
        title: In full.
        cite: The paper, with its DOI as `url`.
        url: Where the paper is.
        topics: Its items.
    """

    name: str
    title: str
    cite: str
    url: str
    topics: tuple[Topic, ...]

    def counts(self, run: Run) -> dict[State, int]:
        """How many items are in each state."""
        states = [item.state(run) for topic in self.topics for item in topic.items]
        return {state: states.count(state) for state in get_args(State)}


@cache
def guidelines() -> tuple[Guideline, ...]:
    """The guidelines, in the order of the page."""
    return tuple(map(Guideline.model_validate, yaml.safe_load(FILE.read_bytes())))


def page(run: Run) -> str:
    """The checklists of a study."""
    return environment().get_template("checklist.html.j2").render(run=run, guidelines=guidelines())
