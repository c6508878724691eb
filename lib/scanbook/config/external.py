"""Block of a study for external validation: another source of images, and how its labels are named."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, Field

from scanbook.config.block import Block

Name = Annotated[str, Field(min_length=1)]


Text = Annotated[str, BeforeValidator(lambda value: "" if value is None else value)]
"""A text that an override can empty: `external.study=`."""


class External(Block):
    """Another source of labelled images, on which notebook 08 validates the study's model.

    A study may also be the other source itself, of a bundle that `make validate` names: it then needs `classes` alone,
    where its names are not those of the bundle.
    """

    study: Text = ""
    """Study of the other source; empty: none is named, and `make reports` does not run notebook 08."""
    data: Text = ""
    """Folder or file of its images; empty: its folder in `data/`."""
    classes: dict[Name, Name] = {}
    """Class or finding of the model by that of the other source: `name in the new images: name in the model`. Several
    may be one of the model's; images of names that are not listed are excluded. Empty: equal names are the same."""
