"""Where a study's images come from: one block an adapter, and the synthetic images that stand in for it."""

from __future__ import annotations

from typing import Annotated, Literal, Union

from pydantic import Field

from scanbook.config.block import Block, Positive, Seed


class Source(Block):
    """What every dataset says of itself."""

    source: str = ""
    """Where the images are from, as reports name it."""
    licence: str = ""
    """Licence of the images, as reports and cards name it."""
    claimed: dict[str, int] = {}
    """Number of images of each class that the source states; notebook 01 holds the count against it."""
    claimed_splits: dict[str, int] = {}
    """Number of images of each part that the source states."""
    kaggle: str = ""
    """What `DATA=kaggle` downloads: `owner/dataset`, or `competitions/name`."""


class Folders(Source):
    """What datasets of image files share."""

    classes: dict[str, str] = {}
    """Class of each class folder's name, or of each label of the table, in class order; `*` stands for any characters.
    What it does not name is left out. Empty: every folder or label is a class of its own name."""
    extra_classes: dict[str, str] = {}
    """A second source: class name to a folder of images, relative to the dataset's own or absolute."""


class SyntheticData(Source):
    """Dermoscopy-like images that scanbook draws."""

    adapter: Literal["synthetic"]
    """Selects this block."""
    images: Positive = 1800
    """Number of images."""
    size: Positive = 192
    """Their side, in pixels."""
    seed: Seed = 0
    """Seed that they are drawn from."""


class FolderData(Folders):
    """Class folders, `<class>/*`, or with parts, `train|val|test/<class>/*`.

    Where a class folder holds a folder named `images`, its images are those; masks of the same name lie in its folder
    `masks`.
    """

    adapter: Literal["folder"]
    """Selects this block."""
    root: str = "."
    """Folder below DATA in which the class folders lie, where there is such a folder."""
    claimed_in_names: bool = False
    """Whether class folders' names claim how many images they hold, as "2. Melanoma 15.75k" does."""


class TableData(Folders):
    """A CSV with one row an image, beside folders of images and, where there are some, masks."""

    adapter: Literal["table"]
    """Selects this block."""
    csv: str
    """The table, below DATA."""
    image_column: str
    """Column of the image's file name, with or without extension."""
    label_column: str
    """Column of the class."""
    group_column: str = ""
    """Column of the patient or lesion; parts never share one. Empty: every image counts as a group of its own."""
    split_column: str = ""
    """Column of the part: train, val (or valid, validation) or test. Empty: scanbook makes the parts."""
    image_folders: list[str] = ["."]
    """Folders of images below DATA; where two hold an image of one name, the first counts."""
    mask_folder: str = ""
    """Folder of masks below DATA."""
    mask_suffix: str = ""
    """What a mask's name has after its image's."""
    metadata: list[str] = []
    """Columns that are kept, for notebook 01 and for `evaluation.subgroups`."""
    duplicates_csv: str = ""
    """A CSV that lists pairs of duplicates in its first two columns; the two then belong to one group."""


class MedMnistData(Source):
    """A MedMNIST archive (.npz): images, labels and official parts."""

    adapter: Literal["medmnist"]
    """Selects this block."""
    flag: str
    """Name of the archive, such as bloodmnist."""
    size: Literal[28, 64, 128, 224] = 28
    """Side of its images, in pixels."""


ADAPTERS: dict[str, type[Source]] = {
    "synthetic": SyntheticData,
    "folder": FolderData,
    "table": TableData,
    "medmnist": MedMnistData,
}
Data = Annotated[Union[tuple(ADAPTERS.values())], Field(discriminator="adapter")]  # noqa: UP007


class StandIn(Block):
    """Images that scanbook draws in a dataset's natural layout, for running the study where the dataset is not.

    Classes get shares of `images` in proportion to the dataset's `claimed` counts, and at least `fewest` each.
    """

    classes: dict[str, str]
    """What is drawn for each class: a picture of `scanbook.data.adapters.synthetic.kinds`."""
    images: Positive = 600
    """Number of images."""
    fewest: Positive = 12
    """Number of images that every class has at least."""
    size: Positive = 128
    """Their side, in pixels."""
    seed: Seed = 0
    """Seed that they are drawn from."""
