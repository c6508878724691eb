"""The study itself, with its smallest blocks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from scanbook import runtime
from scanbook.config.block import Augmentation, Backbone, Block, Positive, Seed
from scanbook.config.data import Data, StandIn
from scanbook.config.reporting import Benchmark, Evaluation, Published
from scanbook.config.training import FineTuning, Head, Segmentation, Sweep, Training
from scanbook.errors import StudyError
from scanbook.registry import BACKBONES

Language = Literal["pt", "ko"]
"""Languages beside English in which a study may name its classes."""

KAGGLE = "kaggle"
"""The value of DATA that downloads a dataset with the user's Kaggle credentials."""

Rule = Literal["blank", "dark", "blurred", "near_duplicates"]


class Splits(Block):
    """Parts where the source has none, stratified by class, whole groups at a time."""

    test_folds: Annotated[int, Field(ge=2)] = 5
    """One of so many folds is test."""
    validation_folds: Annotated[int, Field(ge=2)] = 5
    """One of so many folds of the rest is validation."""
    seed: Seed = 0
    """Seed of the folds."""


class Quality(Block):
    """Cleaning of the training part, and of no other."""

    drop: list[Rule] = []
    """Images that one of these rules catches leave training; near_duplicates: what shows nearly the same as an image of
    validation or test."""


class Study(Block):
    """One study, resolved for a profile: what each stage is a function of."""

    study: str
    """Name of the study, that of its file."""
    title: str
    """Title, as reports show it."""
    question: str
    """What the study asks, in one sentence."""
    modality: str = "images"
    """What kind of images these are, as cards say it."""
    dataset: Data
    """Where the images come from."""
    stand_in: StandIn | None = None
    """What is drawn where the real images are not there; without it, the study needs them."""
    splits: Splits = Splits()
    """How the images are divided where the source does not."""
    limit: Positive | None = None
    """About so many images are sampled, whole groups; null: all are used."""
    limit_shares: Literal["even", "source"] = "even"
    """Whether the sample has as many images of each class, or the source's shares, so that the prevalence stays."""
    max_per_class: Positive | None = None
    """Training images of a class, at most; validation and test keep the source's prevalence."""
    quality: Quality = Quality()
    """What leaves training."""
    segmentation: Segmentation = Segmentation()
    """What is segmented, and how."""
    input: Literal["original", "cutout", "crop"] = "original"
    """What classifiers see: images as they are, cut out by a mask, or cropped to its box."""
    image_size: Annotated[int, Field(ge=32, le=1024)] = 96
    """Side at which every model sees an image, in pixels."""
    backbones: Annotated[list[Backbone], Field(min_length=1)]
    """Networks that notebook 04 compares; 05 fine-tunes the one that validation likes best."""
    weights: Literal["auto", "imagenet", "scanbook", "none"] = "auto"
    """Pretrained weights; auto: ImageNet's where they are cached or can be downloaded, else scanbook's own."""
    augmentation: Augmentation = "none"
    """Policy for training images."""
    head: Head = Head()
    """What stands on a backbone."""
    scratch: Training = Training()
    """Training without pretrained weights."""
    fine_tuning: FineTuning = FineTuning()
    """Training that starts from the frozen backbone's head."""
    seeds: Positive = 1
    """How often fine-tuning is repeated, with seeds from `seed` on; more than one shows the spread."""
    sweep: Sweep = Sweep()
    """What `make sweep` trains."""
    evaluation: Evaluation = Evaluation()
    """What the test report says."""
    benchmark: Benchmark = Benchmark()
    """How much notebook 06 measures."""
    bootstrap_rounds: Positive = 1000
    """Resamples behind every interval."""
    seed: Seed = 0
    """Seed of all that is drawn: networks, batches, augmentation, resamples."""
    published: dict[str, Published] = {}
    """Tables of the published study, by name."""
    class_names: dict[Language, dict[str, Annotated[str, Field(min_length=1)]]] = {}
    """Names of classes in other languages, for the people whom the service answers: language, class, name."""
    profile: Literal["smoke", "quick", "full"] = "quick"
    """Profile that the study was resolved for."""
    data: str = ""
    """Where the dataset lies; empty: its folder in `data/`."""
    on_stand_in: bool = False
    """Whether the images are drawn in place of the real ones."""

    @model_validator(mode="after")
    def _views_differ(self) -> Study:
        if self.evaluation.test_time_views and self.augmentation == "none":
            raise ValueError("evaluation.test_time_views are of a policy; expected an augmentation other than none")
        return self

    @property
    def size(self) -> tuple[int, int]:
        """Height and width at which every model sees an image."""
        return self.image_size, self.image_size

    @property
    def location(self) -> Path:
        """Where the dataset lies, or would lie: `data`, else its folder in `data/`."""
        return Path(self.data) if self.data not in ("", KAGGLE) else runtime.data_dir() / self.study

    @property
    def sources(self) -> list[Path]:
        """Every place that the dataset lies in: `location`, and the folders that it names outside of it."""
        named = self.dataset.model_dump(include={"root", "image_folders", "mask_folder", "extra_classes"})
        folders = [named.get("root", ""), named.get("mask_folder", ""), *named.get("image_folders", ())]
        folders += named.get("extra_classes", {}).values()
        there = [path for folder in folders if folder and (path := (self.location / folder).resolve()).exists()]
        inside = self.location.resolve()
        return [self.location, *dict.fromkeys(path for path in there if not path.is_relative_to(inside))]

    @property
    def licence(self) -> str:
        """Licence of the images that the study runs on."""
        return "Apache-2.0" if self.on_stand_in else self.dataset.licence

    @property
    def runs_on(self) -> str:
        """Whether the images are real or drawn, and their source, as reports and model cards say it."""
        source = self.dataset.source
        seen = {"original": "", "cutout": ", cut out by a mask", "crop": ", cropped to a mask's box"}[self.input]
        if self.on_stand_in:
            return f"synthetic images that stand in for the real ones, in their layout (the real ones: {source}){seen}"
        return ("images drawn by scanbook" if self.dataset.adapter == "synthetic" else f"real images ({source})") + seen

    @property
    def ordered(self) -> bool:
        """Whether the classes are grades in their order."""
        return self.evaluation.ordered or self.head.output == "ordinal"

    @property
    def pretrained_backbones(self) -> list[str]:
        """The study's backbones for which pretrained weights exist, in its order."""
        return [name for name in self.backbones if BACKBONES[name].pretrained]

    def names_of(self, classes: Sequence[str]) -> dict[str, tuple[str, ...]]:
        """Names of classes by language, in their order; English stands in where a class has none.

        Args:
            classes: As the manifest orders them.

        Raises:
            StudyError: `class_names` names a class that neither the images nor the study have.
        """
        known = {*classes, *self._named_classes}
        for language, names in self.class_names.items():
            unknown = [name for name in names if name not in known]
            if unknown:
                raise StudyError(
                    f"study {self.study}: class_names.{language} names the class {unknown[0]!r}; "
                    f"expected one of {', '.join(classes)}"
                )
        return {
            language: tuple(names.get(name, name) for name in classes) for language, names in self.class_names.items()
        }

    @property
    def _named_classes(self) -> set[str]:
        """Classes that the study itself knows; a sample or an override may leave some of them out of the images."""
        named = self.dataset.model_dump(include={"classes", "extra_classes", "claimed"})
        stand_in = self.stand_in.classes if self.stand_in and not named.get("classes") else {}
        return {*named.get("classes", {}).values(), *named.get("extra_classes", ()), *named["claimed"], *stand_in}

    def resolved(self) -> dict[str, Any]:
        """All that a result can depend on, as plain JSON: everything but where the data lies."""
        return self.model_dump(mode="json", exclude={"data"})
