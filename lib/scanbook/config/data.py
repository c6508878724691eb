"""Sources of a study's images: one block per adapter, and the synthetic images that stand in for real ones."""

from __future__ import annotations

import re
from typing import Annotated, Literal, Union

from pydantic import AfterValidator, Field, model_validator

from scanbook.config.block import Block, Positive, Rate, Seed


def _check_pattern(pattern: str) -> str:
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(f"{error} in the regular expression; expected one such as patient\\d+") from None
    return pattern


Pattern = Annotated[str, AfterValidator(_check_pattern)]
_SPLITS = ("train", "validation", "test")
_POLICIES = ("ignore", "positive", "negative")


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
    embeddings: str = ""
    """File of vectors that the models take in place of images, `.npz` with the arrays `image_id` (names, as reports
    show them) and `vector` (float, `(n, channels)`), as `scanbook embed` writes it; relative paths start at the
    project. Networks that `backbones` names are then not used. Empty: the models take images."""
    kaggle: str = ""
    """Dataset that `DATA=kaggle` downloads: `owner/dataset`, or `competitions/name`."""


class Folders(Source):
    """Keys of datasets of image files."""

    classes: dict[str, str] = {}
    """Class of each class folder's name, or of each label or column of the table, in class order; `*` stands for any
    characters. Images of other folders or labels are excluded. Empty: every folder or label is a class of that name."""
    extra_classes: dict[str, str] = {}
    """A second source: class name to a folder of images, relative to the dataset's folder or absolute."""


class Hospital(Block):
    """How another hospital's synthetic images differ from the default ones."""

    frequencies: dict[str, Rate] = {}
    """How many times as frequent a class is; a class that is not named: once."""
    tint: Annotated[float, Field(ge=-60, le=60)] = 0.0
    """Levels that are added to red and taken from blue, 0 to 255."""
    blur: Annotated[float, Field(ge=0, le=10)] = 0.0
    """Standard deviation of the camera's blur, in pixels."""


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
    hospital: Hospital = Hospital()
    """How the images differ from the default ones, as of another hospital."""


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
    count once, as in a table of bounding boxes. The labels have one of four forms: a class in `label_column`; names in
    it that `label_separator` separates, which are findings; a column per finding, named in `findings`; or a column per
    class, of which exactly one is 1, named in `classes` without a `label_column`.
    """

    adapter: Literal["table"]
    """Selects this block."""
    csv: str | dict[str, str]
    """Path of the table, below DATA; or of one table per split, `{train: train.csv, test: valid.csv}`."""
    image_column: str
    """Column of the images' file names: where they have folders or an extension, these decide."""
    path_prefix: str = ""
    """Start of these names that is not below DATA, such as `CheXpert-v1.0-small/`."""
    label_column: str = ""
    """Column of the class, or of the names of findings. Empty: there is a column for each finding or class."""
    label_separator: str = ""
    """What separates names in a cell of `label_column`, such as `|`. They are findings, and one that a cell does not
    name is absent. A list, `['effusion', 'mass']` or `[]`, is read too."""
    no_finding: str = ""
    """Name that stands for no finding, in a cell or as a column, such as `No Finding`."""
    findings: list[str] | dict[str, str] = []
    """Findings: columns, or names in the cells of `label_column`; with `column: finding` they are renamed, and several
    of one finding are joined. Others are ignored. Empty: every name in the cells is a finding."""
    uncertain: str | dict[str, str] = "ignore"
    """How -1, an uncertain finding, counts: `ignore`, `positive` or `negative` (U-Ignore, U-Ones, U-Zeros of CheXpert),
    for all findings, or by finding; those without are ignored."""
    blank: Literal["not labelled", "absent", "absent with no_finding"] = "not labelled"
    """What a blank cell of a finding means; `absent with no_finding`: absent in the rows where the column `no_finding`
    is 1, else not labelled."""
    group_column: str = ""
    """Column of the patient or lesion; splits never share one. Empty: every image is a separate group."""
    group_pattern: Pattern = ""
    """Regular expression of the patient in that column, or in `image_column` where there is none: its first group, or
    the whole match, such as `patient\\d+`."""
    exam_column: str | list[str] = ""
    """Column of the exam, to which several images may belong, or columns that name it together."""
    exam_pattern: Pattern = ""
    """Regular expression of the exam in that column, as in `group_pattern`, such as `patient\\d+/study\\d+`."""
    split_column: str = ""
    """Column of the split: train, validation or test, or such a word as val or testing. Empty: scanbook makes the
    splits."""
    split_lists: dict[str, str] = {}
    """Text files below DATA that list the images of a split, one name per line."""
    include: dict[str, list[str | bool | int | float]] = {}
    """Rows that are read: column, and the values that it has in them, such as `Frontal/Lateral: [Frontal]`."""
    allow_missing: bool = False
    """Whether rows whose image is not there are excluded and counted, as of a dataset that is partly unpacked, and
    columns of `metadata` that are not there are not known."""
    image_folders: list[str] = ["."]
    """Folders of images below DATA; where two hold all images, the first counts."""
    mask_folder: str = ""
    """Folder of masks below DATA."""
    mask_suffix: str = ""
    """Suffix that follows the image's name in its mask's."""
    metadata: list[str] = []
    """Columns of patient metadata, for notebook 01 and for `evaluation.subgroups`."""
    not_told: list[str] = []
    """Further spellings of a patient, a finding or metadata that is not told, beside such as NA, unknown and ?."""
    duplicates_csv: str = ""
    """A table with pairs of duplicate images in its first two columns; both images then belong to one group."""

    @property
    def tables(self) -> dict[str, str]:
        """Split of each table by its path below DATA; "" where the study has one table."""
        return {path: split for split, path in self.csv.items()} if isinstance(self.csv, dict) else {self.csv: ""}

    @property
    def exam_columns(self) -> list[str]:
        """Columns that name the exam together; none where the study names no exams."""
        named = [self.exam_column] if isinstance(self.exam_column, str) else self.exam_column
        return [name for name in named if name] or ([self.image_column] if self.exam_pattern else [])

    @property
    def finding_names(self) -> dict[str, str]:
        """Finding by its name in the source, in the study's order."""
        return self.findings if isinstance(self.findings, dict) else {name: name for name in self.findings}

    @property
    def has_findings(self) -> bool:
        """Whether the labels are findings, and not classes."""
        return bool(self.label_separator or self.findings)

    @model_validator(mode="after")
    def _one_form_of_labels(self) -> TableData:
        named = [key for key in ("classes", "extra_classes") if getattr(self, key)]
        if self.findings and self.label_column and not self.label_separator:
            raise ValueError(
                f"findings in the cells of {self.label_column} need label_separator, which separates their names, such "
                "as '|'; where each finding has a column, leave label_column out"
            )
        if self.label_separator and not self.label_column:
            raise ValueError("label_separator needs label_column, the column whose cells it separates; name it")
        if self.has_findings and named:
            raise ValueError(f"{named[0]} are named beside findings; expected classes or findings; remove one")
        if not (self.label_column or self.findings or self.classes):
            raise ValueError(
                "the labels are not named; expected label_column, findings (a column for each), or classes (a column "
                "for each, exactly one of which is 1)"
            )
        if self.no_finding and self.no_finding in self.finding_names:
            raise ValueError(f"{self.no_finding} is named in findings and as no_finding; remove it from one of them")
        if self.blank == "absent with no_finding" and (self.label_column or not self.no_finding):
            raise ValueError(
                "blank is 'absent with no_finding', which needs a column for each finding, and no_finding, the column "
                "that is 1 where there is none; name them"
            )
        for key in ("no_finding", "uncertain", "blank"):
            if not self.has_findings and getattr(self, key) != type(self).model_fields[key].default:
                raise ValueError(f"{key} is a key of findings, and the labels are classes; name findings, or remove it")
        return self

    @model_validator(mode="after")
    def _known_words(self) -> TableData:
        tables = self.csv if isinstance(self.csv, dict) else {}
        for key, names in (("csv", tables), ("split_lists", self.split_lists)):
            for name in names:
                if name not in _SPLITS:
                    raise ValueError(f"{key} names the split {name!r}; expected {', '.join(_SPLITS)}")
        policies = self.uncertain.values() if isinstance(self.uncertain, dict) else [self.uncertain]
        for policy in policies:
            if policy not in _POLICIES:
                raise ValueError(f"uncertain is {policy!r}; expected {', '.join(_POLICIES)}")
        stated = {"csv": tables, "split_column": self.split_column, "split_lists": self.split_lists}
        named = [key for key, value in stated.items() if value]
        if len(named) > 1:
            raise ValueError(f"{' and '.join(named)} both state the splits; expected one of them")
        if not self.csv:
            raise ValueError("csv names no table; expected its path below DATA")
        return self


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
    dataset that are not here are excluded on the stand-in."""
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
            stated = "both classes and findings" if self.classes else "neither classes nor findings"
            raise ValueError(f"{stated} are named; expected exactly one of the two")
        if self.classes and (self.missing or self.uncertain):
            raise ValueError("missing and uncertain are shares of labels of findings; remove them, or name findings")
        kinds = list(self.findings.values())
        repeated = [name for name, kind in self.findings.items() if kinds.count(kind) > 1]
        if repeated:
            raise ValueError(f"findings {' and '.join(repeated)} have one kind; expected a kind of its own for each")
        return self
