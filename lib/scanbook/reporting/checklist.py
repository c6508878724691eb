"""`checklist.html` of a study: the items of reporting guidelines, and the sections of the reports that answer them."""

from __future__ import annotations

from functools import cache
from typing import Annotated, Literal, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field

from scanbook.reporting.records import Report, Run
from scanbook.reporting.report import TEMPLATES, environment

FILE = TEMPLATES / "checklists.yaml"
State = Literal["answered", "partly answered", "open", "not run"]
"""State of an item: "open" needs a person, "not run" needs a notebook."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Item(_Strict):
    """One item of a guideline.

    Attributes:
        number: Number in the guideline.
        requirement: The requirement, in our words.
        answers: Headings of the sections that answer it, by notebook.
        open: Points that a person has to answer; empty where the sections answer all.
    """

    number: str
    requirement: str
    answers: dict[str, Annotated[tuple[str, ...], Field(min_length=1)]] = {}
    open: str = ""

    def reports(self, run: Run) -> list[Report]:
        """Return the reports that answer it, of the notebooks that the study runs."""
        return [run.reports[notebook] for notebook in self.answers if notebook in run.reports]

    def state(self, run: Run) -> State:
        """Return whether the reports of a run answer it."""
        reports = self.reports(run)
        if not reports:
            return "open"
        if any(report.status != "done" for report in reports):
            return "not run"
        return "partly answered" if self.open else "answered"


class Topic(_Strict):
    """Items under one heading of a guideline."""

    name: str
    items: Annotated[tuple[Item, ...], Field(min_length=1)]


class Guideline(_Strict):
    """A reporting guideline.

    Attributes:
        name: Short name.
        title: Full title.
        cite: Citation of the paper.
        url: DOI of the paper.
        topics: Topics with their items.
    """

    name: str
    title: str
    cite: str
    url: str
    topics: tuple[Topic, ...]

    def counts(self, run: Run) -> dict[State, int]:
        """Return the number of items in each state."""
        states = [item.state(run) for topic in self.topics for item in topic.items]
        return {state: states.count(state) for state in get_args(State)}


@cache
def guidelines() -> tuple[Guideline, ...]:
    """Return the guidelines, in the order of the page."""
    return tuple(map(Guideline.model_validate, yaml.safe_load(FILE.read_bytes())))


def page(run: Run) -> str:
    """Return the page with the checklists of a study."""
    return environment().get_template("checklist.html.j2").render(run=run, guidelines=guidelines())
