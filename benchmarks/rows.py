"""The table of comparisons as data: what is measured against what, how much of it, and the goal."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks import material
from benchmarks.contests import Contest, Row
from benchmarks.pairs import LIMIT, Side
from scanbook.data.adapters.synthetic import dermoscopy

OURS, USUAL = "scanbook", "usual practice"


@dataclass(frozen=True)
class Sizes:
    """How much each comparison does: images, unless said.

    `transfer` and `held_out` are training and validation images of the frozen transfer, `further` those that its
    accuracy is on; of `epochs` epochs the big network's usual practice runs `measured`. `passes` over images stretch
    what is too fast to time. `distinct` lesions are drawn for the JPEG files, of `photo` pixels (height, width).
    `streaming` counts are of synthetic datasets of `streaming_each` images each.
    `parallel_images` are the fewest images of a study that one and two processes train, in every part.
    """

    pairs: int = 3
    transfer: int = 512
    held_out: int = 128
    further: int = 1024
    epochs: int = 20
    measured: int = 2
    features: int = 512
    augmented: int = 256
    augmented_passes: int = 16
    jpegs: int = 10_015
    distinct: int = 200
    photo: tuple[int, int] = (450, 600)
    decoded_size: int = 224
    small_size: int = 160
    large_size: int = 224
    fine_tuned: int = 1024
    fine_tuned_epochs: int = 2
    steps: int = 32
    calibration: int = 128
    inferred: int = 32
    inferred_small: int = 512
    requests: int = 100
    growth: tuple[int, ...] = (1000, 3000, 10_000)
    growth_size: int = 96
    streaming: tuple[int, ...] = (2000, 20_000, 200_000)
    streaming_each: int = 2000
    streaming_size: int = 128
    networks: tuple[str, ...] = ("mobilenet_1.0", "resnet50", "vgg19")
    parallel_networks: tuple[str, ...] = ("mobilenet_v2_0.35", "baseline_cnn", "resnet18")
    parallel_images: int = 360
    parallel_size: int = 96
    parallel_epochs: int = 4
    parallel_rounds: int = 2


QUICK = Sizes(
    pairs=2,
    transfer=48,
    held_out=16,
    further=32,
    epochs=4,
    features=64,
    augmented=32,
    augmented_passes=2,
    jpegs=60,
    distinct=8,
    photo=(90, 120),
    decoded_size=64,
    small_size=64,
    large_size=64,
    fine_tuned=64,
    fine_tuned_epochs=2,
    steps=3,
    calibration=8,
    inferred=16,
    inferred_small=32,
    requests=10,
    growth=(20, 40, 60),
    streaming=(120, 240),
    streaming_each=120,
    streaming_size=64,
    networks=("mobilenet_1.0",),
    parallel_networks=("baseline_cnn",),
    parallel_images=72,
    parallel_size=48,
    parallel_epochs=3,
    parallel_rounds=1,
)
"""Sizes at which every comparison runs in seconds and its figures mean nothing."""

SMALL, LARGE = "mobilenet_v2_0.35", "resnet50"
LARGE_CLASSES = 10
"""Of the dermnet study whose head the large network gets."""
LARGE_HEAD = [512]
_NAMES = {SMALL: "MobileNetV2 0.35", LARGE: "ResNet50", "mobilenet_1.0": "MobileNet", "vgg19": "VGG19"}
_RANDOM = "Random weights with the batch-norm statistics of synthetic lesions: time only."


@dataclass(frozen=True)
class _Place:
    """Where the material of a run lies."""

    folder: Path
    sizes: Sizes
    shipped: str

    def need(self, what: str, name: str, **options: Any) -> tuple[Side, str]:
        """A side that makes one thing, and where it will lie."""
        path = str(self.folder / name)
        return Side(what, "benchmarks.material:make", "", {"what": what, "path": path, **options}, True), path

    def lesions(self) -> tuple[Side, str]:
        """Synthetic lesions, as many as the hungriest comparison takes."""
        sizes = self.sizes
        transfer = sizes.transfer + sizes.held_out + sizes.further
        count = max(transfer, sizes.features, sizes.fine_tuned + 2, sizes.augmented)
        return self.need("lesions", "lesions.npz", count=count, size=sizes.large_size)

    def weights(self, backbone: str) -> tuple[Side, str]:
        """Random weights with batch-norm statistics."""
        lesions = self.lesions()[1]
        return self.need("weights", f"{backbone}.npz", backbone=backbone, lesions=lesions, size=self.sizes.large_size)


def table(folder: Path, shipped: Path, sizes: Sizes | None = None, data: Path | None = None) -> list[Contest]:
    """All contests that are measured in turn.

    Args:
        folder: Where their material is made.
        shipped: The weights of MobileNetV2 0.35 that come with scanbook.
        sizes: How much each does.
        data: Folder with JPEG files; None draws them.
    """
    place = _Place(folder, sizes or Sizes(), str(shipped))
    return [
        _transfer_large(place),
        _transfer_small(place),
        _features(place),
        _augmentation(place),
        _decoding(place, data),
        _fine_tuning(place),
        *(_int8(place, name) for name in (SMALL, *place.sizes.networks)),
        _http(place),
    ]


def _side(name: str, function: str, did: str, options: dict[str, Any], warms_itself: bool = False) -> Side:
    return Side(name, f"benchmarks.{function}", did, options, warms_itself)


def _transfer_large(place: _Place) -> Contest:
    sizes = place.sizes
    (lesions, _), (weights, file) = place.lesions(), place.weights(LARGE)
    shape: dict[str, Any] = {"units": LARGE_HEAD, "classes": LARGE_CLASSES}
    return _transfer(place, LARGE, file, **shape, measured=sizes.measured, prepare=(lesions, weights))


def _transfer_small(place: _Place) -> Contest:
    shape: dict[str, Any] = {"units": [], "classes": len(dermoscopy.CLASSES)}
    prepare = (place.lesions()[0],)
    return _transfer(place, SMALL, place.shipped, **shape, measured=place.sizes.epochs, prepare=prepare)


def _transfer(
    place: _Place,
    backbone: str,
    weights: str,
    *,
    units: list[int],
    classes: int,
    measured: int,
    prepare: tuple[Side, ...],
) -> Contest:
    sizes, small = place.sizes, backbone == SMALL
    options = {
        "lesions": place.lesions()[1],
        "backbone": backbone,
        "weights": weights,
        "size": sizes.small_size if small else sizes.large_size,
        "units": units,
        "classes": classes,
        "train": sizes.transfer,
        "validation": sizes.held_out,
        "further": sizes.further if small else 0,
        "epochs": sizes.epochs,
    }
    name = _NAMES[backbone]
    head = "Dense(512) and Dense(10)" if units else f"Dense({classes})"
    said = f"{measured} of {sizes.epochs} epochs measured: without augmentation all but the first do the same work, so "
    said += "those measured later stand for the rest. "
    accuracy = f"Accuracy is that of {sizes.further:,} further images, outside the clock: of {sizes.held_out} "
    accuracy += "validation images one is most of a point."
    row = Row(
        "transfer-mobilenet" if small else "transfer-resnet50",
        f"frozen transfer, {sizes.epochs} epochs, {name}, {sizes.transfer} images and {sizes.held_out} for validation",
        *(OURS, USUAL, "s", sizes.transfer, "other / ours", 25.0),
        accuracy=small,
        note=accuracy if small else said + _RANDOM,
    )
    did = f"builds and converts {name}, extracts its features once by OpenVINO, trains {head} on them"
    usual = f"builds {name} frozen with {head} on top, and fits all of it, every epoch through the backbone, batch 32"
    sides = {
        OURS: _side(OURS, "ours:transfer", did, options, True),
        USUAL: _side(USUAL, "usual:transfer", usual, options | {"measured": measured}, True),
    }
    return Contest(sides, (row,), sizes.pairs, prepare)


def _features(place: _Place) -> Contest:
    sizes, (lesions, path) = place.sizes, place.lesions()
    options = {
        "lesions": path,
        "backbone": SMALL,
        "weights": place.shipped,
        "size": sizes.small_size,
        "count": sizes.features,
    }
    traced = "tf.function"
    sides = {
        OURS: _side(OURS, "ours:extract", "OpenVINO in float32, several requests at a time, batches of 8", options),
        USUAL: _side(USUAL, "usual:predict", "model.predict, traced before, batches of 32", options),
        traced: _side(traced, "usual:traced", "a traced tf.function, batches of 32", options),
    }
    what = f"feature extraction, {_NAMES[SMALL]}, {sizes.small_size} px"
    rest: tuple[Any, ...] = ("images/s", sizes.features, "ours / other")
    rows = (
        Row("features", what, OURS, USUAL, *rest, 5.0),
        Row("features-traced", what, OURS, traced, *rest, None, note="Shown for comparison, without a goal."),
    )
    return Contest(sides, rows, sizes.pairs, (lesions,))


def _augmentation(place: _Place) -> Contest:
    sizes, (lesions, path) = place.sizes, place.lesions()
    options = {"lesions": path, "size": sizes.large_size, "count": sizes.augmented}
    ours = "one affine warp an image, in threads, batches of 32"
    usual = "ImageDataGenerator with the study's parameters, batches of 32"
    sides = {
        OURS: _side(OURS, "ours:augment", ours, options | {"epochs": sizes.augmented_passes}),
        USUAL: _side(USUAL, "usual:augment", usual, options),
    }
    what = f"augmentation of the skin11 study, {sizes.large_size} px, decoded images in, batches out"
    row = Row("augmentation", what, OURS, USUAL, "images/s", sizes.augmented, "ours / other", 20.0)
    return Contest(sides, (row,), sizes.pairs, (lesions,))


def jpegs(place_folder: Path, sizes: Sizes, data: Path | None) -> tuple[tuple[Side, ...], str, int]:
    """What makes the JPEG files, where they lie, and how many there are."""
    if data is not None:
        return (), str(data), min(len(material.files(data)), sizes.jpegs)
    place = _Place(place_folder, sizes, "")
    height, width = sizes.photo
    side, path = place.need("jpegs", "jpegs", count=sizes.jpegs, height=height, width=width, distinct=sizes.distinct)
    return (side,), path, sizes.jpegs


def datasets(place_folder: Path, sizes: Sizes) -> tuple[Side, str]:
    """What draws the datasets that are too large for memory, and where they lie."""
    place, limit = _Place(place_folder, sizes, ""), 12 * LIMIT
    options = {"count": max(sizes.streaming), "each": sizes.streaming_each, "size": sizes.streaming_size}
    side, path = place.need("datasets", "datasets", **options)
    return replace(side, limit=limit), path


def _decoding(place: _Place, data: Path | None) -> Contest:
    sizes, size = place.sizes, place.sizes.decoded_size
    prepare, path, count = jpegs(place.folder, sizes, data)
    options = {"folder": path, "size": size, "count": count}
    cached = "scanbook, cached"
    height, width = sizes.photo
    drawn = f"Synthetic images of {width} × {height} pixels, JPEG quality {material.QUALITY}. "
    note = ("" if data else drawn) + "The files are in the page cache on both sides."
    sides = {
        OURS: _side(OURS, "ours:decode", "decodes and resizes in threads into a memory-mapped file", options, True),
        cached: _side(
            cached, "ours:from_cache", "finds that file in the store and reads every image, in batches of 32", options
        ),
        USUAL: _side(USUAL, "usual:decode", "cv2.imread and cv2.resize in one loop, into one array", options, True),
    }
    rest: tuple[Any, ...] = ("s", count, "other / ours")
    rows = (
        Row("decode", f"decode and resize {count:,} JPEGs to {size} px, cold", OURS, USUAL, *rest, 1.6, note=note),
        Row("decode-cached", f"the same {count:,} images again, from cache", cached, USUAL, *rest, 20.0, note=note),
    )
    return Contest(sides, rows, sizes.pairs, prepare)


def _fine_tuning(place: _Place) -> Contest:
    sizes, (lesions, path) = place.sizes, place.lesions()
    bare = "bare step"
    options = {"lesions": path, "backbone": SMALL, "weights": place.shipped, "size": sizes.small_size}
    more = {"count": sizes.fine_tuned, "policy": "dermoscopy", "epochs": sizes.fine_tuned_epochs}
    ours = "reads, augments and trains batches of 32, epochs after the first"
    other = "the compiled train step of the same network, again and again on one batch in memory"
    sides = {
        OURS: _side(OURS, "ours:fine_tuning", ours, options | more, True),
        bare: _side(bare, "ours:bare_step", other, options | {"steps": sizes.steps}, True),
    }
    what = f"fine-tuning with augmentation, {_NAMES[SMALL]}, {sizes.small_size} px"
    note = "Each measurement trains anew; its first epoch, which traces, is left out."
    row = Row("fine-tuning", what, OURS, bare, "images/s", sizes.fine_tuned, "ours / other", 0.95, note=note)
    return Contest(sides, (row,), sizes.pairs, (lesions,))


def _int8(place: _Place, backbone: str) -> Contest:
    sizes, (lesions, path) = place.sizes, place.lesions()
    small = backbone == SMALL
    size = sizes.small_size if small else sizes.large_size
    if small:
        maker, classifier = place.need(
            *("classifier", f"{backbone}.keras"),
            **{"backbone": backbone, "weights": place.shipped, "lesions": path, "size": size},
            **{"train": sizes.transfer, "held_out": sizes.held_out},
        )
        weights = ""
    else:
        (maker, weights), classifier = place.weights(backbone), ""
    count = sizes.inferred_small if small else sizes.inferred
    options = {
        "lesions": path,
        "backbone": backbone,
        "weights": weights,
        "classifier": classifier,
        "size": size,
        "calibration": sizes.calibration,
        "count": count,
        "passes": 2 if small else 1,
        "held_out": [sizes.transfer + sizes.held_out, sizes.further],
    }
    precise = "OpenVINO float32"
    sides = {
        OURS: _side(OURS, "ours:network", "OpenVINO in int8, calibrated on training images", options | {"int8": True}),
        precise: _side(precise, "ours:network", "OpenVINO in float32", options | {"int8": False}),
    }
    row = Row(
        f"int8-{backbone}",
        f"int8 throughput, {_NAMES.get(backbone, backbone)}, {size} px",
        *(OURS, precise, "images/s", count, "ours / other", 1.8 if small else 2.5),
        accuracy=small,
        note=f"Accuracy is that of {sizes.further:,} lesions that were not trained on." if small else _RANDOM,
    )
    return Contest(sides, (row,), sizes.pairs, (lesions, maker))


def _http(place: _Place) -> Contest:
    sizes, (lesions, _), (weights, file) = place.sizes, place.lesions(), place.weights(LARGE)
    size = sizes.large_size
    exported, bundle = place.need("bundle", "bundle", backbone=LARGE, weights=file, size=size, classes=LARGE_CLASSES)
    picture, photograph = place.need("photograph", "photograph.jpg", height=480, width=640)
    alone = "engine alone"
    usual = {
        **{"photograph": photograph, "backbone": LARGE, "weights": file},
        **{"size": size, "classes": LARGE_CLASSES, "count": sizes.requests},
    }
    served = "gunicorn with OpenVINO: decoded in memory, answered with probabilities"
    other = "Flask's development server: saved to disk, read back, model.predict"
    sides = {
        OURS: _side(
            *(OURS, "ours:service", served), {"folder": bundle, "photograph": photograph, "count": sizes.requests}, True
        ),
        alone: _side(
            *(alone, "ours:engine_alone", "the service's engine on one image in memory, latency mode"),
            {"folder": bundle, "count": sizes.requests},
        ),
        USUAL: _side(USUAL, "usual:flask", other, usual, True),
    }
    what = f"one HTTP prediction, {_NAMES[LARGE]} {size} px, JPEG of 640 × 480 pixels, p50"
    rest: tuple[Any, ...] = ("s", sizes.requests, "ours / other")
    note = "A form with one file over a new connection. " + _RANDOM
    rows = (
        Row("http", what, OURS, USUAL, *rest, 1 / 6, "≤", note=note),
        Row("http-engine", what, OURS, alone, *rest, 2.0, "≤", note=note),
    )
    return Contest(sides, rows, sizes.pairs, (lesions, weights, exported, picture))
