"""The blocks of a study, and the study itself."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from scanbook import runtime
from scanbook.catalogue import BACKBONES, POLICIES, SEGMENTATION_METHODS
from scanbook.errors import StudyError
from scanbook.study.block import Block, Count, Fraction, OpenShare, Penalty, Positive, Rate, Seed, Share
from scanbook.study.data import Data, StandIn

Language = Literal["pt", "ko"]
"""Languages beside English in which a study may name its classes."""

KAGGLE = "kaggle"
"""The value of DATA that downloads a dataset with the user's Kaggle credentials."""

Rule = Literal["blank", "dark", "blurred", "near_duplicates"]


def _name(what: str, known: Collection[str], more: str = "") -> AfterValidator:
    """Refuses a name that is not among the known ones; with `more`, several known ones may be joined by "+"."""

    def check(name: str) -> str:
        for part in name.split("+") if more else [name]:
            if part not in known:
                raise ValueError(f"unknown {what} {part!r}; expected one of {', '.join(known)}{more}")
        return name

    return AfterValidator(check)


Backbone = Annotated[str, _name("backbone", BACKBONES)]
Method = Annotated[str, _name("method", SEGMENTATION_METHODS)]
Augmentation = Annotated[str, _name("policy", POLICIES, ", or several joined by +")]
"""Name of a policy, or of several, joined by "+"."""


class Parts(Block):
    """Parts where the source has none.

    Fold 0 of `test_folds` is test, fold 0 of `validation_folds` of the rest is validation.
    """

    test_folds: Annotated[int, Field(ge=2)] = 5
    validation_folds: Annotated[int, Field(ge=2)] = 5
    seed: Seed = 0


class Quality(Block):
    """Cleaning: images that one of the rules in `drop` catches leave training, and only training.

    "near_duplicates" drops a training image that shows nearly the same as one in validation or test.
    """

    drop: list[Rule] = []


class Schedule(Block):
    """How a network is trained. The rate warms up over the first epoch, then falls to zero on a cosine."""

    epochs: Positive = 10
    learning_rate: Rate = 3e-4
    batch_size: Positive = 32


class UNet(Schedule):
    """Training of the U-Net, on at most `images` training images that have masks."""

    epochs: Positive = 9
    learning_rate: Rate = 4e-3
    batch_size: Positive = 16
    images: Positive = 2000


class Segmentation(Block):
    """What is segmented, by which methods, and what is made of it.

    `use` names the method whose masks cut images out; "auto" is the best on validation where there are masks, else the
    first. `background` is what is painted outside the mask; a crop keeps `margin` of the mask's box around it.
    """

    target: Literal["lesion", "lungs", "retina"] = "lesion"
    methods: Annotated[list[Method], Field(min_length=1)] = list(SEGMENTATION_METHODS)
    use: str = "auto"
    background: Literal["white", "black", "mean"] = "white"
    margin: Fraction = 0.1
    unet: UNet = UNet()

    @model_validator(mode="after")
    def _uses_one_of_its_methods(self) -> Segmentation:
        if self.use not in ("auto", *self.methods):
            raise ValueError(f"use is {self.use!r}; expected auto, or one of methods: {', '.join(self.methods)}")
        return self


class Published(Block):
    """One table of a published study, as it was printed there.

    `notebook` is the notebook that shows it, and `rows` maps the name of each row to its columns. Where rows and
    columns are named as this run's, and the images are the dataset's own, the two are shown together; of a table of
    one `backbone`, only where this run's is the same.

    `recompute` says what is computed anew from raw figures and shown beside what was printed: "speedup", from the
    columns seconds and workers (empty where their number says nothing); "scaled_speedup", from those and the work done,
    the column that `of` names; "cost" per million predictions, from USD an hour and each network's ms; "comparison" of
    the rows `first` and `second` of the "cost" table that `of` names.
    """

    notebook: str
    caption: str
    backbone: str = ""
    rows: Annotated[dict[str, dict[str, float | int | str | None]], Field(min_length=1)]
    recompute: Literal["", "speedup", "scaled_speedup", "cost", "comparison"] = ""
    of: str = ""
    note: str = ""

    @model_validator(mode="after")
    def _has_what_is_recomputed_from(self) -> Published:
        needs = {
            "speedup": ["seconds"],
            "scaled_speedup": ["seconds", "workers", self.of],
            "cost": ["USD an hour"],
            "comparison": ["first", "second"],
        }.get(self.recompute, [])
        for row, values in self.rows.items():
            for column in needs:
                if column not in values:
                    raise ValueError(f"row {row!r} has no {column!r}; {self.recompute} is recomputed from it")
        if self.recompute == "comparison" and not self.of:
            raise ValueError("a comparison is of a table; expected its name as of")
        return self


class Head(Block):
    """What stands on a backbone's pooled features, and how it is trained on cached ones.

    `units` are hidden layers (Dense, ReLU). `output` is "softmax"; "sigmoid", one score for two classes; or "ordinal",
    one step from each grade to the next. One head is trained for each penalty in `l2`; validation chooses. With an
    `augmentation` it learns from `views` augmented copies of each training image too.
    """

    units: list[Positive] = []
    output: Literal["softmax", "sigmoid", "ordinal"] = "softmax"
    epochs: Positive = 20
    learning_rate: Rate = 1e-2
    batch_size: Positive = 64
    l2: Annotated[list[Penalty], Field(min_length=1)] = [0.01, 0.05, 0.25]
    augmentation: Augmentation = "none"
    views: Positive = 4


class Training(Schedule):
    """Training of a whole network; the weights of the epoch with the lowest validation loss are kept.

    `rate_schedule`: "cosine", as in `Schedule`; "plateau", halved when validation loss has not fallen for
    `plateau_patience` epochs; or "constant". `patience` is the number of epochs without a lower validation loss after
    which training stops. `balance` makes up for rare classes: "class_weights" in the loss, or "sampling", every class
    drawn as often as any other.
    """

    rate_schedule: Literal["cosine", "plateau", "constant"] = "cosine"
    plateau_patience: Positive = 3
    patience: Positive | None = None
    balance: Literal["none", "class_weights", "sampling"] = "none"
    label_smoothing: Fraction = 0.0
    weight_decay: Penalty = 0.0


class FineTuning(Training):
    """Training of a pretrained network in stages: its head, then its top layers, then all.

    The head starts as the frozen backbone's. It learns `head_epochs` more on augmented images; then the last `top` of
    the layers, as a share, learn for `top_epochs`; then all for `epochs`. `first_layer_rate` is the first layer's share
    of the learning rate; those between it and the head follow on a geometric scale. Weight decay is the same for all.
    """

    head_epochs: Count = 0
    top_epochs: Count = 0
    top: Share = 0.3
    first_layer_rate: Share = 1.0


class Evaluation(Block):
    """What the test report says beyond the metrics of every study.

    `ordered`: the classes are grades in their order, so that quadratic weighted kappa counts. `findings` names sets of
    classes that are one decision, such as "malignant"; each gets, as every class does, the threshold that has
    `specificity` on validation, and predictive values at its `prevalence`, where none is stated at the test part's. The
    model answers "not sure" below the confidence that the share `answered` of the validation images has.
    `subgroups` are columns of metadata. `robustness_images` is how many test images are corrupted. `test_time_views`
    is the number of augmented views that are averaged with the image itself; `ensemble` averages the seeds' networks.
    """

    ordered: bool = False
    findings: dict[str, list[str]] = {}
    specificity: Fraction = 0.9
    answered: Share = 0.9
    prevalence: dict[str, OpenShare] = {}
    subgroups: list[str] = []
    robustness_images: Positive = 500
    test_time_views: Count = 0
    ensemble: bool = False


def _with_one(sizes: list[int]) -> list[int]:
    """Refuses batch sizes without 1, at which the cost of a prediction is told."""
    if 1 not in sizes:
        raise ValueError(f"batch sizes are {sizes}; expected 1 among them, at which the cost of a prediction is told")
    return sizes


class Benchmark(Block):
    """How much the hardware notebook measures.

    `images`, at most so many, and `epochs` are of each training arm. Inference is timed in windows of `window_seconds`,
    at most `windows` of them, until the medians of the last three differ by no more than `stable`, as a share; with all
    threads, and with one too where `one_thread` says so. `calibration_images` training images calibrate int8. `price`
    is what an hour of this machine costs, in USD; None where it is not rented.
    """

    images: Positive = 512
    epochs: Positive = 3
    batch_sizes: Annotated[list[Positive], AfterValidator(_with_one)] = [1, 8, 32]
    windows: Annotated[int, Field(ge=3)] = 12
    window_seconds: Rate = 0.25
    stable: Share = 0.05
    one_thread: bool = True
    calibration_images: Positive = 300
    price: Rate | None = None


class Study(Block):
    """One study, resolved for a profile: what each stage is a function of.

    `limit` samples about so many images of the dataset, whole groups; `limit_shares` says whether as many of each class
    as of any other, or in the source's shares, as a prevalence asks for. `max_per_class` keeps at
    most so many training images of a class; validation and test keep the source's prevalence. `input` is what the
    classifiers see: images as they are, cut out by a mask, or cropped to its box. `scratch` trains without pretrained
    weights; `fine_tuning` starts from the frozen backbone's head, and is repeated with `seeds` seeds from `seed` on.
    `class_names` names classes in other languages, for the people whom the service answers: language, class, name.
    """

    study: str
    title: str
    question: str
    modality: str = "images"
    dataset: Data
    stand_in: StandIn | None = None
    parts: Parts = Parts()
    limit: Positive | None = None
    limit_shares: Literal["even", "source"] = "even"
    max_per_class: Positive | None = None
    quality: Quality = Quality()
    segmentation: Segmentation = Segmentation()
    input: Literal["original", "cutout", "crop"] = "original"
    image_size: Annotated[int, Field(ge=32, le=1024)] = 96
    backbones: Annotated[list[Backbone], Field(min_length=1)]
    weights: Literal["auto", "imagenet", "scanbook", "none"] = "auto"
    augmentation: Augmentation = "none"
    head: Head = Head()
    scratch: Training = Training()
    fine_tuning: FineTuning = FineTuning()
    seeds: Positive = 1
    evaluation: Evaluation = Evaluation()
    benchmark: Benchmark = Benchmark()
    bootstrap_rounds: Positive = 1000
    seed: Seed = 0
    published: dict[str, Published] = {}
    class_names: dict[Language, dict[str, Annotated[str, Field(min_length=1)]]] = {}
    profile: Literal["smoke", "quick", "full"] = "quick"
    data: str = ""
    on_stand_in: bool = False

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
            return f"drawn images that stand in for the real ones, in their layout (the real ones: {source}){seen}"
        return ("images drawn by scanbook" if self.dataset.adapter == "drawn" else f"real images ({source})") + seen

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
