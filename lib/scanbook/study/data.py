"""Where a study's images come from: one block an adapter, and the drawn images that stand in for it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from scanbook.study.block import Block, Positive, Seed


class Source(Block):
    """What every dataset says of itself.

    `claimed` is the number of images of each class that the source states, `claimed_parts` that of each of its parts.
    `kaggle` is what `DATA=kaggle` downloads:
    "owner/dataset", or "competitions/name".
    """

    source: str = ""
    licence: str = ""
    claimed: dict[str, int] = {}
    claimed_parts: dict[str, int] = {}
    kaggle: str = ""


class Folders(Source):
    """What datasets of image files share.

    `classes` renames the classes, and leaves out those that it does not name: it maps a class folder's name, or a
    label of the table, to the class; `*` stands for any characters. Its order is the class order. `extra_classes` adds
    a second source: class name to a folder of images, relative to the dataset's own or absolute.
    """

    classes: dict[str, str] = {}
    extra_classes: dict[str, str] = {}


class DrawnData(Source):
    """Dermoscopy-like images that the library draws, `size` pixels a side."""

    adapter: Literal["drawn"]
    images: Positive = 1800
    size: Positive = 192
    seed: Seed = 0


class FolderData(Folders):
    """Class folders, `<class>/*`, or with parts, `train|val|test/<class>/*`.

    They lie in `root`, where there is such a folder. Where a class folder holds a folder named `images`, its images are
    those; masks of the same name lie in its folder `masks`. `claimed_in_names` reads what each class folder's name
    claims to hold, as in "2. Melanoma 15.75k".
    """

    adapter: Literal["folder"]
    root: str = "."
    claimed_in_names: bool = False


class TableData(Folders):
    """A CSV with one row an image, beside folders of images and, where there are some, masks.

    `duplicates_csv` lists pairs of images that the source knows to be duplicates, in its first two columns; the two
    then belong to one group.
    """

    adapter: Literal["table"]
    csv: str
    image_column: str
    label_column: str
    group_column: str = ""
    part_column: str = ""
    image_folders: list[str] = ["."]
    mask_folder: str = ""
    mask_suffix: str = ""
    metadata: list[str] = []
    duplicates_csv: str = ""


class MedMnistData(Source):
    """A MedMNIST archive (.npz), `size` pixels a side: images, labels and official parts."""

    adapter: Literal["medmnist"]
    flag: str
    size: Literal[28, 64, 128, 224] = 28


ADAPTERS: dict[str, type[Source]] = {
    "drawn": DrawnData,
    "folder": FolderData,
    "table": TableData,
    "medmnist": MedMnistData,
}
Data = Annotated[DrawnData | FolderData | TableData | MedMnistData, Field(discriminator="adapter")]


class StandIn(Block):
    """Images that the library draws in a dataset's natural layout, for running the study where the dataset is not.

    `classes` says for each class what is drawn for it: a picture of `datasets.drawn.kinds`. Classes get shares of
    `images` in proportion to the dataset's `claimed` counts, and at least `fewest` each.
    """

    classes: dict[str, str]
    images: Positive = 600
    fewest: Positive = 12
    size: Positive = 128
    seed: Seed = 0
