"""The study, with its smallest blocks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from scanbook import runtime
from scanbook.config.block import Augmentation, Block, Count, Described, Listed, Positive, Seed, word_or_keys
from scanbook.config.data import Data, StandIn
from scanbook.config.external import External
from scanbook.config.pretraining import Pretraining
from scanbook.config.reporting import Benchmark, Evaluation, Published
from scanbook.config.training import FineTuning, Head, LearningCurve, Segmentation, Sweep, Training
from scanbook.errors import StudyError
from scanbook.registry import BACKBONES, EMBEDDINGS, FILE, PRESET, Policy, short_name, view_policy

Language = Literal["pt", "ko"]
"""Languages beside English in which a study can name its classes."""

KAGGLE = "kaggle"
"""The value of DATA that downloads a dataset with the user's Kaggle credentials."""

Rule = Literal["blank", "dark", "blurred", "near_duplicates", "label_conflict"]


class Splits(Block):
    """Splits where the source has none, stratified by class or findings; all images of a group are in one split."""

    test_folds: Annotated[int, Field(ge=2)] = 5
    """Number of folds, of which one is the test split."""
    validation_folds: Annotated[int, Field(ge=2)] = 5
    """Number of folds of the other images, of which one is the validation split."""
    seed: Seed = 0
    """Seed of the folds."""
    folds: Annotated[int, Field(ge=2)] | None = None
    """Number of outer folds of cross-validation; each in turn is the test split of a run of its own, and everything is
    chosen on its other images. null: one test split."""
    repeats: Positive = 1
    """Number of times that cross-validation is repeated, each time with other folds."""
    folds_by: str = ""
    """Column of metadata, such as the hospital, in place of `folds`: the images of each of its values are one fold."""
    pool: bool = False
    """Whether the images of a test split that the source gives are divided into folds like the others; else they stay
    out of the folds, and are evaluated once, at the end."""
    fold: Count | None = None
    """Number of the one outer fold that is evaluated, from 1 to `folds` × `repeats`; null: all of them. 0: no image is
    test, as for a network that learns from the images of all folds."""
    exported: Literal["all_images", "fold_average"] = "all_images"
    """What notebook 07 exports of a cross-validated study. all_images: one network that learns from the images of all
    folds; fold_average: the average of the folds' networks, as one graph. The results on its card are cross-validated.
    """

    @property
    def cross_validated(self) -> bool:
        """Whether there are outer folds."""
        return bool(self.folds or self.folds_by)

    @model_validator(mode="after")
    def _folds_fit_together(self) -> Splits:
        if self.folds and self.folds_by:
            raise ValueError(
                f"folds is {self.folds} and folds_by is {self.folds_by!r}; expected one of them: the values of "
                f"{self.folds_by} state how many folds there are"
            )
        if self.folds_by and self.repeats > 1:
            raise ValueError(f"repeats is {self.repeats}, and the folds of folds_by are always the same; remove it")
        needing = {"repeats": self.repeats > 1, "pool": self.pool, "fold": self.fold is not None}
        needing["exported"] = self.exported != "all_images"
        for key, stated in needing.items():
            if stated and not self.cross_validated:
                raise ValueError(f"{key} is {getattr(self, key)}, which needs folds, such as folds: 5")
        if self.folds and (self.fold or 0) > self.folds * self.repeats:
            raise ValueError(f"fold is {self.fold}; expected 1 to {self.folds * self.repeats}")
        return self


class Quality(Block):
    """Cleaning of the training split; the other splits stay as they are."""

    drop: list[Rule] = []
    """Rules that exclude images from training; near_duplicates: images that show nearly the same as an image of
    validation or test; label_conflict: images whose label looks wrong to a head that learned from other
    patients, and has a probability below 5 %, were all labels equally frequent."""


class Study(Block):
    """One study, resolved for a profile; each stage is a function of it."""

    study: str
    """Name of the study, the same as that of its file."""
    title: str
    """Title, shown in reports."""
    question: str
    """Question that the study answers, in one sentence."""
    modality: str = "images"
    """Kind of images, shown in dataset and model cards."""
    dataset: Data
    """Source of the images."""
    stand_in: StandIn | None = None
    """Synthetic images for use where the real ones are not available; null: the study needs the real ones."""
    splits: Splits = Splits()
    """Division of the images into splits, where the source has none."""
    limit: Positive | None = None
    """Approximate number of images to sample, whole groups at a time; null: all are used."""
    limit_class_balance: Literal["even", "source"] = "even"
    """Classes of the sample; even: equally many images of each class; source: the prevalence of the source."""
    max_per_class: Positive | None = None
    """Largest number of training images per class; validation and test keep the prevalence of the source. An image of
    several findings counts for the rarest of them; images without any are one class."""
    quality: Quality = Quality()
    """Images excluded from training."""
    segmentation: Segmentation = Segmentation()
    """Segmented structure and methods."""
    input: Literal["original", "cutout", "crop"] = "original"
    """Input of the classifiers: images as they are, cut out by a mask, or cropped to the mask's bounding box."""
    image_size: Annotated[int, Field(ge=32, le=1024)] = 96
    """Side of the images that every model takes, in pixels."""
    backbones: Annotated[list[Described], Field(min_length=1)]
    """Networks that notebook 04 compares; 05 fine-tunes the one with the best validation result. Beside the names,
    `hub:` and a preset of KerasHub (`hub:dinov2_small`, `hub:hf://timm/resnet18.a1_in1k`, `hub:folder`), or `file:` and
    a network that Keras saved (`file:network.keras`); relative paths start at the project."""
    weights: word_or_keys(Literal["auto", "imagenet", "scanbook", "none"], dict[Listed, str]) = "auto"
    """Pretrained weights; auto: ImageNet's where they are cached or can be downloaded, else those of scanbook. Or files
    by backbone, such as `{resnet50: RadImageNet-ResNet50_notop.h5}` (.h5, .weights.h5, .keras or .npz; relative paths
    start at the project); backbones without one are auto."""
    pretraining: dict[Described, Pretraining] = {}
    """What is known of pretrained weights, by backbone; `file:` networks need their `scaling`. Of `dataset.embeddings`,
    by the name `embeddings`."""
    augmentation: Augmentation = "none"
    """Augmentation policy of the training images."""
    head: Head = Head()
    """Classifier head on the features of a backbone."""
    scratch: Training = Training()
    """Training without pretrained weights."""
    fine_tuning: FineTuning = FineTuning()
    """Training of a pretrained network, from the head of the frozen backbone."""
    seeds: Positive = 1
    """Number of repetitions of fine-tuning, with seeds from `seed` on; several show the spread."""
    sweep: Sweep = Sweep()
    """Grid of networks that `make sweep` trains."""
    learning_curve: LearningCurve = LearningCurve()
    """Results by the number of training patients."""
    evaluation: Evaluation = Evaluation()
    """Contents of the test report."""
    benchmark: Benchmark = Benchmark()
    """Size of the measurements of notebook 06."""
    external: External = External()
    """Another source of labelled images, for notebook 08."""
    bootstrap_rounds: Positive = 1000
    """Bootstrap resamples for every interval."""
    seed: Seed = 0
    """Seed of all random numbers: networks, batches, augmentation, resamples."""
    published: dict[str, Published] = {}
    """Tables of a published study, by name."""
    class_names: dict[Language, dict[str, Annotated[str, Field(min_length=1)]]] = {}
    """Names of classes in other languages, for the users of the service: language, class, name."""
    profile: Literal["smoke", "quick", "full"] = "quick"
    """Profile that the study was resolved for."""
    data: str = ""
    """Folder or file of the dataset; empty: its folder in `data/`."""
    on_stand_in: bool = False
    """Whether synthetic images stand in for the real ones."""

    @model_validator(mode="after")
    def _views_differ(self) -> Study:
        if self.evaluation.test_time_views and view_policy(self.augmentation) == Policy():
            raise ValueError(
                "evaluation.test_time_views need an augmentation policy that moves, mirrors or colours images, and "
                f"{self.augmentation} does not; expected such as dihedral"
            )
        return self

    @model_validator(mode="after")
    def _backbones_have_names_of_their_own(self) -> Study:
        names: dict[str, str] = {}
        for backbone in dict.fromkeys([*self.backbones, *self.sweep.backbones]):
            former = names.setdefault(short_name(backbone), backbone)
            if former != backbone:
                raise ValueError(
                    f"backbones {former} and {backbone} would both be {short_name(backbone)} in reports; "
                    "rename one of them"
                )
        return self

    @model_validator(mode="after")
    def _adjusted_logits_are_possible(self) -> Study:
        for key, values in (("scratch", self.scratch), ("fine_tuning", self.fine_tuning)):
            if values.logit_adjustment and self.head.output == "ordinal":
                raise ValueError(
                    f"{key}.logit_adjustment is {values.logit_adjustment:g}, and an ordinal head has no logit of its "
                    "own for each grade; set it to 0, or head.output to softmax"
                )
        return self

    @model_validator(mode="after")
    def _vectors_have_a_file(self) -> Study:
        if EMBEDDINGS in self.backbones and not self.dataset.embeddings:
            raise ValueError(
                f"backbones names {EMBEDDINGS}, which are vectors in place of images; expected their file in "
                "dataset.embeddings, or another backbone"
            )
        return self

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the images that every model takes, in pixels."""
        return self.image_size, self.image_size

    @property
    def location(self) -> Path:
        """Place of the dataset, which need not exist: `data`, else its folder in `data/`."""
        return runtime.path_from_text(self.data) if self.data not in ("", KAGGLE) else runtime.data_dir() / self.study

    @property
    def sources(self) -> list[Path]:
        """Every place of the dataset: `location`, and the folders outside of it that the study names."""
        keys = self.dataset.model_dump(include={"root", "image_folders", "mask_folder", "extra_classes"})
        folders = [keys.get("root", ""), keys.get("mask_folder", ""), *keys.get("image_folders", ())]
        folders += keys.get("extra_classes", {}).values()
        paths = dict.fromkeys((self.location / folder).resolve() for folder in folders if folder)
        inside = self.location.resolve()
        return [self.location, *(path for path in paths if path.exists() and not path.is_relative_to(inside))]

    @property
    def embeddings(self) -> Path | None:
        """File of the vectors that the models take in place of images; None where they take images."""
        named = self.dataset.embeddings
        return runtime.path_in_project(named) if named else None

    @property
    def licence(self) -> str:
        """Licence of the images that the study runs on."""
        return "Apache-2.0" if self.on_stand_in else self.dataset.licence

    @property
    def runs_on(self) -> str:
        """Whether the images are real or synthetic, and their source, as reports and model cards show it."""
        source = self.dataset.source
        view = {"original": "", "cutout": ", cut out by a mask", "crop": ", cropped to a mask's box"}[self.input]
        if self.on_stand_in:
            return f"synthetic images that stand in for the real ones, in their layout (the real ones: {source}){view}"
        return ("synthetic images" if self.dataset.adapter == "synthetic" else f"real images ({source})") + view

    @property
    def ordered(self) -> bool:
        """Whether the classes are ordered grades."""
        return self.evaluation.ordered or self.head.output == "ordinal"

    @property
    def resamples(self) -> dict[str, int]:
        """Number and seed of the resamples of every interval, as the functions of `evaluation` take them."""
        return {"rounds": self.bootstrap_rounds, "seed": self.seed}

    @property
    def weight_files(self) -> dict[str, str]:
        """Files of weights that the study names, by listed backbone."""
        return self.weights if isinstance(self.weights, dict) else {}

    @property
    def pretrained_backbones(self) -> list[str]:
        """Backbones of the study for which pretrained weights exist, in its order."""
        return [
            name
            for name in self.backbones
            if name not in BACKBONES or BACKBONES[name].pretrained or name in self.weight_files
        ]

    @property
    def pretrained_paths(self) -> dict[str, Path]:
        """Files and folders of networks and weights that the study names, by what names them; they need not exist."""
        names = [*self.backbones, *self.sweep.backbones]
        named = {name: name.removeprefix(FILE) for name in names if name.startswith(FILE)}
        named |= {name: name.removeprefix(PRESET) for name in names if name.startswith(PRESET)}
        return {name: runtime.path_in_project(text) for name, text in (named | self.weight_files).items()}

    def names_of(self, classes: Sequence[str]) -> dict[str, tuple[str, ...]]:
        """Return the names of classes by language, in their order; the English name where a class has no other.

        Args:
            classes: As the manifest orders them.

        Raises:
            StudyError: `class_names` names a class that neither the images nor the study have.
        """
        allowed = {*classes, *self.named_labels}
        for language, names in self.class_names.items():
            unknown = [name for name in names if name not in allowed]
            if unknown:
                raise StudyError(
                    f"study {self.study}: class_names.{language} names the class {unknown[0]!r}; "
                    f"expected one of {', '.join(classes)}"
                )
        return {
            language: tuple(names.get(name, name) for name in classes) for language, names in self.class_names.items()
        }

    @property
    def named_labels(self) -> set[str]:
        """Classes or findings that the study names; the images that are there may lack some of them."""
        keys = self.dataset.model_dump(include={"classes", "extra_classes", "claimed"})
        stand_in = self.stand_in.classes if self.stand_in and not keys.get("classes") else {}
        findings = getattr(self.dataset, "finding_names", {}).values()  # a stand-in has some of them
        named = (*keys.get("classes", {}).values(), *keys.get("extra_classes", ()), *keys["claimed"])
        return {*named, *stand_in, *findings}

    def resolved(self) -> dict[str, Any]:
        """Return all that a result can depend on, as plain JSON: every attribute except the places of data."""
        return self.model_dump(mode="json", exclude={"data": True, "external": {"data"}})
