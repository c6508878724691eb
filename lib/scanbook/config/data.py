"""Sources of a study's images: one block per adapter, and the synthetic images that stand in for real ones."""

from __future__ import annotations

from typing import Annotated, Literal, Union

from pydantic import Field, model_validator

from scanbook.config.block import Block, Positive, Seed


class Source(Block):
    """Keys of every dataset."""

    source: str = ""
    """Source of the images, shown in reports."""
    licence: str = ""
    """Licence of the images, shown in reports and cards."""
    claimed: dict[str, int] = {}
    """Number of images of each class that the source states; notebook 01 compares the count with it."""
    claimed_splits: dict[str, int] = {}
    """Number of images of each split that the source states."""
    kaggle: str = ""
    """Dataset that `DATA=kaggle` downloads: `owner/dataset`, or `competitions/name`."""


class Folders(Source):
    """Keys of datasets of image files."""

    classes: dict[str, str] = {}
    """Class of each class folder's name, or of each label of the table, in class order; `*` stands for any characters.
    Images of other folders or labels are excluded. Empty: every folder or label is a class of that name."""
    extra_classes: dict[str, str] = {}
    """A second source: class name to a folder of images, relative to the dataset's folder or absolute."""


class SyntheticData(Source):
    """Synthetic images that look like dermoscopy."""

    adapter: Literal["synthetic"]
    """Selects this block."""
    images: Positive = 1800
    """Number of images."""
    size: Positive = 192
    """Side of the images, in pixels."""
    seed: Seed = 0
    """Seed of the synthetic images."""


class FolderData(Folders):
    """Class folders, `<class>/*`, or with splits, `train|val|test/<class>/*`.

    Where a class folder holds a folder `images`, its images are in there. Masks are in a folder such as `masks` or `GT`
    in it, or beside their images, as `a_mask.png` beside `a.png`.
    """

    adapter: Literal["folder"]
    """Selects this block."""
    root: str = "."
    """Folder below DATA that holds the class folders, where there is such a folder."""
    claimed_in_names: bool = False
    """Whether the names of class folders state how many images they hold, as "2. Melanoma 15.75k" does."""


class TableData(Folders):
    """A table with one row per image, beside folders of images and, where there are some, masks.

    Its separator (comma, semicolon, tab or |) and its encoding are found from its content. Rows of one image that agree
    count once, as in a table of bounding boxes.
    """

    adapter: Literal["table"]
    """Selects this block."""
    csv: str
    """Path of the table, below DATA."""
    image_column: str
    """Column of the images' file names: where they have folders or an extension, these decide."""
    path_prefix: str = ""
    """Start of these names that is not below DATA, such as `CheXpert-v1.0-small/`."""
    label_column: str
    """Column of the class."""
    group_column: str = ""
    """Column of the patient or lesion; splits never share one. Empty: every image is a separate group."""
    split_column: str = ""
    """Column of the split: train, validation or test, or such a word as val or testing. Empty: scanbook makes the
    splits."""
    image_folders: list[str] = ["."]
    """Folders of images below DATA; where two hold all images, the first counts."""
    mask_folder: str = ""
    """Folder of masks below DATA."""
    mask_suffix: str = ""
    """Suffix that follows the image's name in its mask's."""
    metadata: list[str] = []
    """Columns of patient metadata, for notebook 01 and for `evaluation.subgroups`."""
    not_told: list[str] = []
    """Further spellings of a patient or metadata that is not told, beside such as NA, unknown and ?."""
    duplicates_csv: str = ""
    """A table with pairs of duplicate images in its first two columns; both images then belong to one group."""


class MedMnistData(Source):
    """A MedMNIST archive (.npz): images, labels and official splits."""

    adapter: Literal["medmnist"]
    """Selects this block."""
    flag: str
    """Name of the archive, such as bloodmnist."""
    size: Literal[28, 64, 128, 224] = 28
    """Side of the images, in pixels."""


ADAPTERS: dict[str, type[Source]] = {
    "synthetic": SyntheticData,
    "folder": FolderData,
    "table": TableData,
    "medmnist": MedMnistData,
}
Data = Annotated[Union[tuple(ADAPTERS.values())], Field(discriminator="adapter")]  # noqa: UP007


class StandIn(Block):
    """Synthetic images in a dataset's layout, for running the study where the dataset is not available.

    The classes share `images` in proportion to the dataset's `claimed` counts, with at least `min_per_class` each.
    Findings occur together on chest radiographs, as often as `scanbook.data.adapters.synthetic.findings` says.
    """

    classes: dict[str, str] = {}
    """Kind of synthetic image for each class, one of `scanbook.data.adapters.synthetic.kinds`."""
    findings: dict[str, str] = {}
    """Kind of each finding, in place of `classes`: its column, or its name in the cells of the table. Findings of the
    dataset that are not here are left out on the stand-in."""
    images: Positive = 600
    """Number of images."""
    min_per_class: Positive = 12
    """Smallest number of images per class."""
    missing: Annotated[float, Field(ge=0, le=0.9)] = 0.0
    """Share of labels of findings that are blank, at random, outside the source's test split."""
    uncertain: Annotated[float, Field(ge=0, le=0.9)] = 0.0
    """Share of the other labels of findings that are -1, at random, outside the source's test split."""
    size: Positive = 128
    """Side of the images, in pixels."""
    seed: Seed = 0
    """Seed of the synthetic images."""

    @model_validator(mode="after")
    def _classes_or_findings(self) -> StandIn:
        if bool(self.classes) == bool(self.findings):
            stated = "both" if self.classes else "none"
            raise ValueError(f"classes and findings: {stated} of them is given; expected exactly one of the two")
        if self.classes and (self.missing or self.uncertain):
            raise ValueError("missing and uncertain are shares of labels of findings; remove them, or name findings")
        return self
