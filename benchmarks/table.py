"""The comparisons as data: which sides, how many images, and the goal."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks import inputs
from benchmarks.comparisons import Comparison, Row
from benchmarks.sides import LIMIT, Side
from scanbook.data.adapters.synthetic import dermoscopy

SCANBOOK, BASELINE = "scanbook", "baseline"


@dataclass(frozen=True)
class Sizes:
    """Sizes of each comparison, in images unless stated.

    `transfer` and `held_out` are training and validation images of the frozen transfer, `further` those of its
    accuracy; of `epochs` epochs the large network's baseline runs `measured`. Several `passes` over the images make
    fast work long enough to time. The JPEG files, of `photo` pixels (height, width), show `distinct` synthetic lesions.
    `streaming` counts are of synthetic datasets of `streaming_each` images each.
    `parallel_images` are the fewest images of a study that one and two processes train, in all splits.
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
"""Sizes at which every comparison runs in seconds; the figures mean nothing."""

SMALL, LARGE = "mobilenet_v2_0.35", "resnet50"
LARGE_CLASSES = 10
"""Classes of the dermnet study, whose head the large network gets."""
LARGE_HEAD = [512]
_NAMES = {SMALL: "MobileNetV2 0.35", LARGE: "ResNet50", "mobilenet_1.0": "MobileNet", "vgg19": "VGG19"}
_RANDOM = "Random weights with the batch-norm statistics of synthetic lesions: only time is compared."


@dataclass(frozen=True)
class _Location:
    """Folder of the inputs of a run."""

    folder: Path
    sizes: Sizes
    shipped: str

    def input(self, what: str, name: str, **options: Any) -> tuple[Side, str]:
        """Return a side that writes one input, and the path of that input."""
        path = str(self.folder / name)
        return Side(what, "benchmarks.inputs:write", "", {"what": what, "path": path, **options}, True), path

    def lesions(self) -> tuple[Side, str]:
        """Return the input of synthetic lesions, as many as the largest comparison takes."""
        sizes = self.sizes
        transfer = sizes.transfer + sizes.held_out + sizes.further
        count = max(transfer, sizes.features, sizes.fine_tuned + 2, sizes.augmented)
        return self.input("lesions", "lesions.npz", count=count, size=sizes.large_size)

    def weights(self, backbone: str) -> tuple[Side, str]:
        """Return the input of random weights with batch-norm statistics."""
        lesions = self.lesions()[1]
        return self.input("weights", f"{backbone}.npz", backbone=backbone, lesions=lesions, size=self.sizes.large_size)


def make_comparisons(
    folder: Path, shipped: Path, sizes: Sizes | None = None, data: Path | None = None
) -> list[Comparison]:
    """Return all comparisons that are measured in turn.

    Args:
        folder: Folder of their inputs.
        shipped: The weights of MobileNetV2 0.35 that come with scanbook.
        sizes: Sizes of each.
        data: Folder with JPEG files; None for synthetic ones.
    """
    location = _Location(folder, sizes or Sizes(), str(shipped))
    return [
        _transfer_large(location),
        _transfer_small(location),
        _features(location),
        _augmentation(location),
        _decoding(location, data),
        _fine_tuning(location),
        *(_int8(location, name) for name in (SMALL, *location.sizes.networks)),
        _http(location),
    ]


def _side(name: str, function: str, description: str, options: dict[str, Any], warms_itself: bool = False) -> Side:
    return Side(name, f"benchmarks.{function}", description, options, warms_itself)


def _transfer_large(location: _Location) -> Comparison:
    sizes = location.sizes
    (lesions, _), (weights, file) = location.lesions(), location.weights(LARGE)
    shape: dict[str, Any] = {"units": LARGE_HEAD, "classes": LARGE_CLASSES}
    return _transfer(location, LARGE, file, **shape, measured=sizes.measured, prepare=(lesions, weights))


def _transfer_small(location: _Location) -> Comparison:
    shape: dict[str, Any] = {"units": [], "classes": len(dermoscopy.CLASSES)}
    prepare = (location.lesions()[0],)
    return _transfer(location, SMALL, location.shipped, **shape, measured=location.sizes.epochs, prepare=prepare)


def _transfer(
    location: _Location,
    backbone: str,
    weights: str,
    *,
    units: list[int],
    classes: int,
    measured: int,
    prepare: tuple[Side, ...],
) -> Comparison:
    sizes, small = location.sizes, backbone == SMALL
    options = {
        "lesions": location.lesions()[1],
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
    epochs = (
        f"{measured} of {sizes.epochs} epochs are measured: without augmentation all but the first do the same work, "
    )
    epochs += "so the median of the measured ones counts for the rest. "
    accuracy = f"Accuracy is that of {sizes.further:,} further images, and its time does not count: one of "
    accuracy += f"{sizes.held_out} validation images is most of a point."
    row = Row(
        "transfer-mobilenet" if small else "transfer-resnet50",
        f"frozen transfer, {sizes.epochs} epochs, {name}, {sizes.transfer} images and {sizes.held_out} for validation",
        *(SCANBOOK, BASELINE, "s", sizes.transfer, "baseline / scanbook", 25.0),
        accuracy=small,
        note=accuracy if small else epochs + _RANDOM,
    )
    scanbook = f"builds and converts {name}, extracts its features once by OpenVINO, trains {head} on them"
    baseline = (
        f"builds {name} frozen with {head} on top, and fits all of it, every epoch through the backbone, batch 32"
    )
    sides = {
        SCANBOOK: _side(SCANBOOK, "scanbook_side:transfer", scanbook, options, True),
        BASELINE: _side(BASELINE, "baseline:transfer", baseline, options | {"measured": measured}, True),
    }
    return Comparison(sides, (row,), sizes.pairs, prepare)


def _features(location: _Location) -> Comparison:
    sizes, (lesions, path) = location.sizes, location.lesions()
    options = {
        "lesions": path,
        "backbone": SMALL,
        "weights": location.shipped,
        "size": sizes.small_size,
        "count": sizes.features,
    }
    traced = "tf.function"
    sides = {
        SCANBOOK: _side(
            SCANBOOK, "scanbook_side:extract", "OpenVINO in float32, several requests at a time, batches of 8", options
        ),
        BASELINE: _side(BASELINE, "baseline:predict", "model.predict, traced beforehand, batches of 32", options),
        traced: _side(traced, "baseline:traced", "a traced tf.function, batches of 32", options),
    }
    what = f"feature extraction, {_NAMES[SMALL]}, {sizes.small_size} px"
    rest: tuple[Any, ...] = ("images/s", sizes.features, "scanbook / baseline")
    rows = (
        Row("features", what, SCANBOOK, BASELINE, *rest, 5.0),
        Row("features-traced", what, SCANBOOK, traced, *rest, None, note="Shown for comparison, without a goal."),
    )
    return Comparison(sides, rows, sizes.pairs, (lesions,))


def _augmentation(location: _Location) -> Comparison:
    sizes, (lesions, path) = location.sizes, location.lesions()
    options = {"lesions": path, "size": sizes.large_size, "count": sizes.augmented}
    scanbook = "one affine warp per image, in threads, batches of 32"
    baseline = "ImageDataGenerator with the study's parameters, batches of 32"
    sides = {
        SCANBOOK: _side(SCANBOOK, "scanbook_side:augment", scanbook, options | {"epochs": sizes.augmented_passes}),
        BASELINE: _side(BASELINE, "baseline:augment", baseline, options),
    }
    what = f"augmentation of the skin11 study, {sizes.large_size} px, decoded images in, batches out"
    row = Row("augmentation", what, SCANBOOK, BASELINE, "images/s", sizes.augmented, "scanbook / baseline", 20.0)
    return Comparison(sides, (row,), sizes.pairs, (lesions,))


def jpegs(folder: Path, sizes: Sizes, data: Path | None) -> tuple[tuple[Side, ...], str, int]:
    """Return the sides that write the JPEG files, the folder of the files, and their number."""
    if data is not None:
        return (), str(data), min(len(inputs.jpeg_paths(data)), sizes.jpegs)
    location = _Location(folder, sizes, "")
    height, width = sizes.photo
    side, path = location.input(
        "jpegs", "jpegs", count=sizes.jpegs, height=height, width=width, distinct=sizes.distinct
    )
    return (side,), path, sizes.jpegs


def datasets(folder: Path, sizes: Sizes) -> tuple[Side, str]:
    """Return the side that writes the datasets that exceed memory, and their folder."""
    location, limit = _Location(folder, sizes, ""), 12 * LIMIT
    options = {"count": max(sizes.streaming), "images": sizes.streaming_each, "size": sizes.streaming_size}
    side, path = location.input("datasets", "datasets", **options)
    return replace(side, limit=limit), path


def _decoding(location: _Location, data: Path | None) -> Comparison:
    sizes, size = location.sizes, location.sizes.decoded_size
    prepare, path, count = jpegs(location.folder, sizes, data)
    options = {"folder": path, "size": size, "count": count}
    cached = "scanbook, cached"
    height, width = sizes.photo
    synthetic = f"Synthetic images of {width} × {height} pixels, JPEG quality {inputs.QUALITY}. "
    note = ("" if data else synthetic) + "The files are in the page cache on both sides."
    sides = {
        SCANBOOK: _side(
            SCANBOOK, "scanbook_side:decode", "decodes and resizes in threads into a memory-mapped file", options, True
        ),
        cached: _side(
            cached,
            "scanbook_side:from_cache",
            "finds that file in the store and reads every image, in batches of 32",
            options,
        ),
        BASELINE: _side(
            BASELINE, "baseline:decode", "cv2.imread and cv2.resize in one loop, into one array", options, True
        ),
    }
    rest: tuple[Any, ...] = ("s", count, "baseline / scanbook")
    rows = (
        Row(
            "decode", f"decode and resize {count:,} JPEGs to {size} px, cold", SCANBOOK, BASELINE, *rest, 1.6, note=note
        ),
        Row("decode-cached", f"the same {count:,} images again, from cache", cached, BASELINE, *rest, 20.0, note=note),
    )
    return Comparison(sides, rows, sizes.pairs, prepare)


def _fine_tuning(location: _Location) -> Comparison:
    sizes, (lesions, path) = location.sizes, location.lesions()
    bare = "bare step"
    options = {"lesions": path, "backbone": SMALL, "weights": location.shipped, "size": sizes.small_size}
    more = {"count": sizes.fine_tuned, "policy": "dermoscopy", "epochs": sizes.fine_tuned_epochs}
    scanbook = "reads, augments and trains batches of 32, epochs after the first"
    baseline = "the compiled train step of the same network, again and again on one batch in memory"
    sides = {
        SCANBOOK: _side(SCANBOOK, "scanbook_side:fine_tuning", scanbook, options | more, True),
        bare: _side(bare, "scanbook_side:bare_step", baseline, options | {"steps": sizes.steps}, True),
    }
    what = f"fine-tuning with augmentation, {_NAMES[SMALL]}, {sizes.small_size} px"
    note = "Each measurement trains anew; its first epoch, which traces, does not count."
    row = Row("fine-tuning", what, SCANBOOK, bare, "images/s", sizes.fine_tuned, "scanbook / baseline", 0.95, note=note)
    return Comparison(sides, (row,), sizes.pairs, (lesions,))


def _int8(location: _Location, backbone: str) -> Comparison:
    sizes, (lesions, path) = location.sizes, location.lesions()
    small = backbone == SMALL
    size = sizes.small_size if small else sizes.large_size
    if small:
        maker, classifier = location.input(
            *("classifier", f"{backbone}.keras"),
            **{"backbone": backbone, "weights": location.shipped, "lesions": path, "size": size},
            **{"train": sizes.transfer, "held_out": sizes.held_out},
        )
        weights = ""
    else:
        (maker, weights), classifier = location.weights(backbone), ""
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
        SCANBOOK: _side(
            SCANBOOK,
            "scanbook_side:network",
            "OpenVINO in int8, calibrated on training images",
            options | {"int8": True},
        ),
        precise: _side(precise, "scanbook_side:network", "OpenVINO in float32", options | {"int8": False}),
    }
    row = Row(
        f"int8-{backbone}",
        f"int8 throughput, {_NAMES.get(backbone, backbone)}, {size} px",
        *(SCANBOOK, precise, "images/s", count, "scanbook / baseline", 1.8 if small else 2.5),
        accuracy=small,
        note=f"Accuracy is that of {sizes.further:,} lesions outside the training images." if small else _RANDOM,
    )
    return Comparison(sides, (row,), sizes.pairs, (lesions, maker))


def _http(location: _Location) -> Comparison:
    sizes, (lesions, _), (weights, file) = location.sizes, location.lesions(), location.weights(LARGE)
    size = sizes.large_size
    exported, bundle = location.input(
        "bundle", "bundle", backbone=LARGE, weights=file, size=size, classes=LARGE_CLASSES
    )
    picture, photograph = location.input("photograph", "photograph.jpg", height=480, width=640)
    alone = "engine alone"
    baseline_options = {
        **{"photograph": photograph, "backbone": LARGE, "weights": file},
        **{"size": size, "classes": LARGE_CLASSES, "count": sizes.requests},
    }
    served = "gunicorn with OpenVINO: decoded in memory, answered with probabilities"
    baseline = "Flask's development server: saved to disk, read back, model.predict"
    sides = {
        SCANBOOK: _side(
            *(SCANBOOK, "scanbook_side:service", served),
            {"folder": bundle, "photograph": photograph, "count": sizes.requests},
            True,
        ),
        alone: _side(
            *(alone, "scanbook_side:engine_alone", "the service's engine on one image in memory, latency mode"),
            {"folder": bundle, "count": sizes.requests},
        ),
        BASELINE: _side(BASELINE, "baseline:flask", baseline, baseline_options, True),
    }
    what = f"one HTTP prediction, {_NAMES[LARGE]} {size} px, JPEG of 640 × 480 pixels, p50"
    rest: tuple[Any, ...] = ("s", sizes.requests, "scanbook / baseline")
    note = "A form with one file; the time does not include a connection. " + _RANDOM
    rows = (
        Row("http", what, SCANBOOK, BASELINE, *rest, 1 / 6, "≤", note=note),
        Row("http-engine", what, SCANBOOK, alone, *rest, 2.0, "≤", note=note),
    )
    return Comparison(sides, rows, sizes.pairs, (lesions, weights, exported, picture))
