"""Networks: a name becomes a flat Keras model from uint8 images to logits, with its weights.

The backbone is built on the preprocessed input itself, never nested: nested backbones break heat maps and exports.
"""

from __future__ import annotations

import importlib
import warnings
import zipfile
import zlib
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from scanbook import runtime
from scanbook.catalogue import BACKBONES, BackboneSpec
from scanbook.errors import ModelError
from scanbook.store import file_digest, stage
from scanbook.study import Study

keras = runtime.keras()
layers = keras.layers

SHIPPED = Path(__file__).parent / "weights"
FEATURE_MAP, FEATURES, LOGITS = "feature_map", "features", "logits"
"""Names of the last feature map, of the pooled features and of the logits in every model."""

_IMAGENET_MEAN, _IMAGENET_DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_CAFFE_MEAN = (103.939, 116.779, 123.68)


@dataclass(frozen=True)
class Weights:
    """Pretrained weights of a backbone.

    Attributes:
        source: "imagenet", "scanbook" (drawn images), or "none": random.
        path: The arrays, in the order of the backbone's `get_weights`; None for random ones.
        digest: SHA-256 of that file, "" for random ones.
    """

    source: str
    path: Path | None = None
    digest: str = ""


RANDOM = Weights("none")
POLICIES = ("auto", "imagenet", "scanbook", "none")
"""What a study's `weights` can say."""


def pretrained(name: str, wanted: str) -> Weights:
    """Finds pretrained weights.

    Args:
        name: A backbone.
        wanted: "imagenet"; "scanbook" for those that come with the library; "auto" for ImageNet's where they are in the
            Keras cache or can be downloaded, else the library's; "none" for random weights.

    Raises:
        ModelError: There are none, with the reason; or the backbone or the policy is unknown.
    """
    spec = _spec(name)
    if wanted not in POLICIES:
        raise ModelError(f"unknown policy of weights {wanted!r}; expected one of {', '.join(POLICIES)}")
    if wanted == "none":
        return RANDOM
    if not spec.pretrained:
        raise ModelError(f"backbone {name} has no pretrained weights; train it from scratch, or name another backbone")
    if wanted in ("auto", "imagenet"):
        try:
            folder = stage("imagenet", {"backbone": name}, lambda work: _fetch_imagenet(spec, work), __name__)
        except ModelError:
            if wanted == "imagenet" or not spec.shipped:
                raise
        else:
            path = folder / "weights.npz"
            return Weights("imagenet", path, file_digest(path))
    if not spec.shipped:
        shipped = ", ".join(each.name for each in BACKBONES.values() if each.shipped)
        raise ModelError(f"scanbook ships no weights for {name}, only for {shipped}; set weights to auto or imagenet")
    path = SHIPPED / spec.shipped
    if not path.is_file():
        raise ModelError(f"the shipped weights {path} are missing; run make pretrain, or install scanbook again")
    return Weights("scanbook", path, file_digest(path))


def resolve(study: Study) -> tuple[dict[str, Weights], dict[str, str]]:
    """Pretrained weights of the study's backbones.

    Returns:
        The weights by backbone, in the study's order; and the reason by backbone for which there are none.
    """
    found, missing = {}, {}
    for name in study.pretrained_backbones:
        if study.weights == "none":
            missing[name] = f"no pretrained weights for {name}: the study sets weights to none"
            continue
        try:
            found[name] = pretrained(name, study.weights)
        except ModelError as error:
            missing[name] = str(error)
    return found, missing


def _fetch_imagenet(spec: BackboneSpec, folder: Path) -> None:
    """Keeps ImageNet weights as arrays; the donor takes any image size, so that one file serves all."""
    try:
        if spec.builder.startswith("keras_hub"):
            donor = _attribute(spec.builder).from_preset(spec.arguments["preset"])
        else:
            with warnings.catch_warnings():
                # MobileNet's builders say that they take the weights of 224 pixels; without a top they are those of any
                warnings.filterwarnings("ignore", message="`input_shape` is undefined")
                donor = _attribute(spec.builder)(
                    include_top=False, weights="imagenet", input_shape=(None, None, 3), **spec.arguments
                )
    except Exception as error:  # each source fails in its own way: URLError, OSError, Kaggle's and Keras's own
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ModelError(
            f"no ImageNet weights for {spec.name}: not in the Keras cache and not downloadable ({reason})"
        ) from error
    np.savez(folder / "weights.npz", *_arrays(donor))


def _arrays(donor: Any) -> list[np.ndarray]:
    """Weights of a network with ImageNet weights, as they fit the network that its builder makes without.

    EfficientNet's builder divides the normalised image once more, with ImageNet weights alone (tensorflow#49930); here
    that is part of the variance, from which `build` normalises.
    """
    for layer, following in pairwise(donor.layers):
        if isinstance(layer, layers.Normalization) and isinstance(following, layers.Rescaling):
            mean, variance, count = layer.get_weights()
            layer.set_weights([mean, variance / np.square(following.scale), count])
    return donor.get_weights()


def build(name: str, size: tuple[int, int], classes: int, weights: Weights = RANDOM) -> Any:
    """Builds a network.

    Random networks get a batch-normalisation momentum of 0.9: with the 0.999 that ImageNet's builders set, the moving
    averages would lag behind a short training and its test accuracy would say nothing.

    Args:
        name: A backbone.
        size: Height and width of the images.
        classes: Number of classes.
        weights: Pretrained weights of the backbone, or `RANDOM`.

    Returns:
        A `keras.Model` from uint8 RGB `(n, h, w, 3)` to logits, float32 `(n, classes)`, with layers named
        `feature_map`, `features` and `logits`.

    Raises:
        ModelError: The backbone is unknown, or the weights cannot be read or are of another shape.
    """
    spec = _spec(name)
    images = keras.Input((*size, 3), dtype="uint8", name="images")
    body = _body(spec, images, _preprocess(images, spec))
    if weights.path:
        _load(body, weights, name)
    else:
        for layer in body.layers:
            if isinstance(layer, layers.BatchNormalization):
                layer.momentum = 0.9
    feature_map = layers.Activation("linear", name=FEATURE_MAP, dtype="float32")(body.output)
    features = layers.GlobalAveragePooling2D(name=FEATURES)(feature_map)
    logits = layers.Dense(classes, dtype="float32", name=LOGITS)(features)
    return keras.Model(images, logits, name=name.replace(".", "_"))


def body_weights(model: Any) -> list[np.ndarray]:
    """Weights of a network without its head, in the order in which `build` loads them."""
    return keras.Model(model.input, model.get_layer(FEATURE_MAP).output).get_weights()


def pooled(model: Any) -> Any:
    """The part of a network that ends in the pooled features, float32 `(n, channels)`."""
    return keras.Model(model.input, model.get_layer(FEATURES).output)


def _spec(name: str) -> BackboneSpec:
    if name not in BACKBONES:
        raise ModelError(f"unknown backbone {name!r}; expected one of {', '.join(BACKBONES)}")
    return BACKBONES[name]


def _attribute(path: str) -> Any:
    module, name = path.split(":")
    return getattr(importlib.import_module(module), name)


def _preprocess(images: Any, spec: BackboneSpec) -> Any:
    """Normalisation as standard layers, so that an exported model needs none of scanbook's code."""
    if spec.scaling == "0..255":
        return layers.Rescaling(1.0, name="preprocessing")(images)
    if spec.scaling == "caffe":
        bgr = keras.ops.flip(images, axis=-1)
        return layers.Rescaling(1.0, offset=[-mean for mean in _CAFFE_MEAN], name="preprocessing")(bgr)
    if spec.scaling == "imagenet":
        scale = [1 / (255 * deviation) for deviation in _IMAGENET_DEVIATION]
        offset = [-mean / deviation for mean, deviation in zip(_IMAGENET_MEAN, _IMAGENET_DEVIATION, strict=True)]
        return layers.Rescaling(scale, offset=offset, name="preprocessing")(images)
    return layers.Rescaling(1 / 127.5, offset=-1.0, name="preprocessing")(images)


def _body(spec: BackboneSpec, images: Any, preprocessed: Any) -> Any:
    if not spec.builder:
        return keras.Model(images, _baseline_cnn(preprocessed))
    if spec.name == "resnet18":
        backbone = _attribute(spec.builder)(
            input_conv_filters=[64],
            input_conv_kernel_sizes=[7],
            stackwise_num_filters=[64, 128, 256, 512],
            stackwise_num_blocks=[2, 2, 2, 2],
            stackwise_num_strides=[1, 2, 2, 2],
            block_type="basic_block",
            image_shape=(None, None, 3),
        )
        return keras.Model(images, backbone.call(preprocessed))
    return _attribute(spec.builder)(include_top=False, weights=None, input_tensor=preprocessed, **spec.arguments)


def _baseline_cnn(images: Any) -> Any:
    """Four blocks of convolution, batch normalisation and pooling: what one would write first."""
    x = images
    for filters in (16, 32, 64, 128):
        x = layers.Conv2D(filters, 3, padding="same", use_bias=False)(x)
        x = layers.BatchNormalization()(x)
        x = layers.ReLU()(x)
        x = layers.MaxPooling2D()(x)
    return x


def _load(body: Any, weights: Weights, name: str) -> None:
    try:
        with np.load(weights.path) as arrays:
            values = [arrays[key].astype(np.float32) for key in arrays.files]
    except (OSError, ValueError, TypeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ModelError(
            f"weights {weights.path} cannot be read as an .npz archive; remove the file, so that it is fetched again"
        ) from error
    expected = [tuple(each.shape) for each in body.weights]
    found = [value.shape for value in values]
    if expected != found:
        first = next(
            (i for i, pair in enumerate(zip(expected, found, strict=False)) if pair[0] != pair[1]),
            min(len(expected), len(found)),
        )
        raise ModelError(
            f"weights {weights.path} do not fit {name}: {len(found)} arrays, expected {len(expected)}; "
            f"they differ from array {first} on; remove the file or name the right backbone"
        )
    body.set_weights(values)
    for layer in body.layers:
        if isinstance(layer, layers.Normalization):
            layer.finalize_state()  # it normalises with constants that it makes from its weights; nothing else does


def summary(model: Any) -> dict[str, float]:
    """Parameters in all, trainable ones, and size in MiB at 4 bytes a parameter."""
    trainable = sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)
    total = model.count_params()
    return {"parameters": total, "trainable": trainable, "size (MiB)": round(total * 4 / 2**20, 2)}


def describe(found: dict[str, Weights], missing: dict[str, str]) -> str:
    """One sentence on where each backbone's pretrained weights come from, and why some have none."""
    names = {"imagenet": "ImageNet", "scanbook": "drawn images (shipped with scanbook)", "none": "none"}
    have = ", ".join(f"{name}: {names[weights.source]}" for name, weights in found.items())
    lack = " ".join(f"Not run: {reason}." for reason in missing.values())
    return f"Pretrained weights: {have or 'none'}. {lack}".strip()
