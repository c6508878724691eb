"""Builds a backbone with its head and weights: a flat Keras model from uint8 images to logits.

The backbone is built on the preprocessed input itself, never nested: nested backbones break heat maps and exports.
"""

from __future__ import annotations

import math
import re
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from scanbook import runtime
from scanbook.config import Head
from scanbook.errors import ModelError
from scanbook.models import heads
from scanbook.models.backbones import families
from scanbook.models.backbones.kerashub import import_kerashub
from scanbook.models.backbones.weights import RANDOM, Weights, attribute, spec_of
from scanbook.registry import EMBEDDINGS, BackboneSpec

keras = runtime.keras()
layers = keras.layers

FEATURE_MAP, FEATURES, LOGITS = "feature_map", "features", heads.LOGITS
"""Names of the last feature map, of the pooled features and of the logits in every model."""
_OTHERS = ("images", "preprocessing", "tokens")
"""Other names of layers that are added to a backbone."""


def build(name: str, size: tuple[int, int], classes: int, weights: Weights = RANDOM, head: Head = heads.SOFTMAX) -> Any:
    """Build a network.

    Random networks get a batch-normalisation momentum of 0.9: with the 0.999 of the builders for ImageNet, the moving
    averages would lag behind a short training, and its test accuracy would be meaningless.

    Args:
        name: Name of a backbone.
        size: Height and width of the images.
        classes: Number of classes.
        weights: Pretrained weights of the backbone, or `RANDOM`.
        head: The head on the pooled features.

    Returns:
        A `keras.Model` from uint8 RGB `(n, h, w, 3)` to logits, float32 `(n, classes)`, with layers named
        `feature_map`, `features` and `logits`; of a study of vectors, from these, float32 `(n, channels)`, without a
        feature map, and `size` does not count. The feature map is float32 `(n, h', w', channels)`; of a vision
        transformer it is the patch tokens, and the features are the class token or the patches' mean.

    Raises:
        ModelError: The backbone is unknown, the images are too small for it or do not divide into its patches, the
            weights cannot be read or are of another shape, or the head does not fit the number of classes.
    """
    spec = spec_of(name, weights)
    if spec.name == EMBEDDINGS:
        vectors = keras.Input((spec.arguments["channels"],), dtype="float32", name="vectors")
        return keras.Model(vectors, heads.attach(_features(spec, vectors, size), classes, head), name=EMBEDDINGS)
    check_size(spec, size)
    images = keras.Input((*size, 3), dtype="uint8", name="images")
    body = _body(spec, images, size, weights)
    if weights.random:
        for layer in body._flatten_layers():  # also those inside other layers
            if isinstance(layer, layers.BatchNormalization):
                layer.momentum = 0.9
    logits = heads.attach(_features(spec, body.output, size), classes, head)
    return keras.Model(images, logits, name=re.sub(r"[^\w-]", "_", name))


def load(path: Path) -> Any:
    """Load a network that was saved as `.keras`, for predictions: without its optimizer.

    KerasHub is imported only for files with its layers.

    Raises:
        ModelError: The file cannot be read, or is not a Keras model.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            if b'"keras_hub' in archive.read("config.json"):
                import_kerashub()
        model = keras.models.load_model(path, compile=False)
    except (OSError, KeyError, ValueError, TypeError, zipfile.BadZipFile, zlib.error) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ModelError(f"{path} cannot be loaded as a .keras model ({reason}); save or train it again") from error
    _reserve_names(model)
    return model


def _reserve_names(model: Any) -> None:
    """Reserve the names of a restored network's operations: Keras counts only the names that it gave itself.

    The first `-x` of a process is called "negative", as was the first of the process that saved the network.
    """
    for operation in model.operations:
        name, number = re.fullmatch(r"(.+?)(?:_(\d+))?", operation.name).groups()
        while keras.backend.get_uid(name) <= int(number or 0):
            pass


def free_names(model: Any) -> None:
    """Rename the layers of a network that have names of those that `build` adds, or of a head's."""
    for layer in model._flatten_layers():  # also those inside other layers
        if layer.name in (FEATURE_MAP, FEATURES, *_OTHERS) or heads.names_layer_of_head(layer.name):
            layer.name = f"own_{layer.name}"


def body_weights(model: Any) -> list[np.ndarray]:
    """Return the weights of a network without its head, float32, in the order in which `build` loads them."""
    return pooled(model).get_weights()


def set_weights(model: Any, values: list[np.ndarray]) -> None:
    """Set the weights of a network, float32, in the order of `get_weights`."""
    model.set_weights(values)
    for layer in model.layers:
        if isinstance(layer, layers.Normalization):
            layer.finalize_state()  # it alone normalises with constants computed from its weights


def pooled(model: Any) -> Any:
    """Return the part of a network that ends in the pooled features, float32 `(n, channels)`."""
    return keras.Model(model.input, model.get_layer(FEATURES).output)


def summary(model: Any) -> dict[str, float]:
    """Return the numbers of all parameters, of trainable ones and of the head's, and the size in MiB (float32)."""
    trainable = sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)
    total, head = model.count_params(), sum(layer.count_params() for layer in heads.head_layers(model))
    return {"parameters": total, "trainable": trainable, "head": head, "size (MiB)": round(total * 4 / 2**20, 2)}


def check_size(spec: BackboneSpec, size: tuple[int, int]) -> None:
    """Raise a `ModelError` if a backbone does not take images of a height and width, with sizes that it takes."""
    requested = f"{size[0]}×{size[1]}"
    if min(size) < spec.smallest:
        raise ModelError(
            f"images of {requested} pixels are too small for {spec.name}: its smallest side is {spec.smallest}; "
            "raise image_size or name another backbone"
        )
    if spec.square and size[0] != size[1]:
        raise ModelError(f"images of {requested} pixels are not square, as {spec.name} needs them: set image_size")
    if any(side % spec.patch for side in size):
        nearest = [[spec.patch * rounded(side / spec.patch) for side in size] for rounded in (math.floor, math.ceil)]
        sizes = ["×".join(map(str, sides)) for sides in nearest if min(sides) >= spec.smallest]
        if len(sizes) > 1:
            expected = f"sizes that do are {sizes[0]} and {sizes[1]}: set image_size to one of them"
        else:
            expected = f"size that does is {sizes[0]}: set image_size to it"
        raise ModelError(
            f"images of {requested} pixels do not divide into the {spec.patch}-pixel patches of {spec.name}; "
            f"the nearest {expected}"
        )


def _preprocess(images: Any, spec: BackboneSpec) -> Any:
    """Normalise images with standard layers: an exported model needs no code of scanbook."""
    scaling = spec.scaling
    levels = keras.ops.flip(images, axis=-1) if scaling.bgr else images
    scale, offset = (
        list(values) if isinstance(values, tuple) else values for values in (scaling.scale, scaling.offset)
    )
    return layers.Rescaling(scale, offset=offset, name="preprocessing")(levels)


def _body(spec: BackboneSpec, images: Any, size: tuple[int, int], weights: Weights) -> Any:
    """Return the flat network from images to the last feature map, with its weights."""
    preprocessed = _preprocess(images, spec)
    if "config" in spec.arguments:
        network = _from_config(spec, size)
        if weights.path:
            _load(network, weights, spec, size)
        return keras.Model(images, _apply(spec, network, preprocessed))
    if not spec.builder:
        filters, bias = {"baseline_cnn": ((16, 32, 64, 128), False), "small_cnn": ((8, 16), True)}[spec.name]
        body = keras.Model(images, _convolutional_blocks(preprocessed, filters, bias))
    else:
        body = attribute(spec.builder)(include_top=False, weights=None, input_tensor=preprocessed, **spec.arguments)
    if any(isinstance(layer, keras.Sequential) for layer in body.layers):  # ConvNeXt's stem and downsampling
        body = keras.models.clone_model(body, input_tensors=images, call_function=_call_flat)
    if weights.path:
        _load(body, weights, spec, size)
    return body


def _from_config(spec: BackboneSpec, size: tuple[int, int]) -> Any:
    """Build a network from its configuration, for images of a height and width."""
    config = dict(spec.arguments["config"])
    for key in ("image_shape", "position_embedding_shape"):  # of DINOv2 the latter is that of its pretraining
        if key in config:
            config[key] = (*size, 3)
    network = attribute(spec.builder).from_config(config)
    _reserve_names(network)
    return families.trunk(network) if spec.builder.startswith("keras_hub") else network


def _apply(spec: BackboneSpec, network: Any, preprocessed: Any) -> Any:
    """Apply a network's layers one after the other; nested networks, too."""
    try:
        flat = _flat(network)
        if len(flat.output.shape) == 2:
            flat = _name_last_map(spec, flat)
        return flat.call({key: preprocessed for key in flat.input} if isinstance(flat.input, dict) else preprocessed)
    except ValueError as error:
        height, width = preprocessed.shape[1:3]
        own = [side for side in network.inputs[0].shape[1:3] if side]
        remedy = f"its own, {'×'.join(map(str, own))}" if own else "another one"
        raise ModelError(
            f"{spec.name} does not take images of {height}×{width} pixels ({str(error).splitlines()[0]}); set "
            f"image_size to {remedy}"
        ) from error


def _flat(network: Any) -> Any:
    """Return a functional network with the same layers, without networks among them."""
    if not any(isinstance(layer, keras.Model) for layer in network.layers):
        return network
    return keras.models.clone_model(network, clone_function=lambda layer: layer, call_function=_call_flat)


def _name_last_map(spec: BackboneSpec, network: Any) -> Any:
    """Return a flat network that ends in a vector with its last map, from which the vector is made, named."""
    maps = [layer for layer in network.layers if len(getattr(layer.output, "shape", ())) == 4]
    if len(maps) < 2:  # the input is the first
        raise ModelError(
            f"{spec.name} ends in a vector and has no feature map before it, which heat maps need; save a network that "
            "has one"
        )

    def call(layer: Any, *inputs: Any, **options: Any) -> Any:
        output = layer(*inputs, **options)
        return layers.Activation("linear", name=FEATURE_MAP, dtype="float32")(output) if layer is maps[-1] else output

    return keras.models.clone_model(network, clone_function=lambda layer: layer, call_function=call)


def _call_flat(layer: Any, *inputs: Any, **options: Any) -> Any:
    """Call a layer; call the layers of a nested network one after the other, for a flat model."""
    if not isinstance(layer, keras.Model):
        return layer(*inputs, **options)
    (x,) = inputs
    return _flat(layer).call(x)


def _convolutional_blocks(images: Any, filters: Sequence[int], bias: bool) -> Any:
    """Apply blocks of convolution, batch normalisation and pooling: four of the baseline, two of the X-ray study."""
    x = images
    for count in filters:
        x = layers.Conv2D(count, 3, padding="same", use_bias=bias)(x)
        x = layers.BatchNormalization()(x)
        x = layers.ReLU()(x)
        x = layers.MaxPooling2D()(x)
    return x


def _features(spec: BackboneSpec, output: Any, size: tuple[int, int]) -> Any:
    """Name the feature map and pool it, in float32."""
    float32 = {"dtype": "float32"}
    if len(output.shape) == 2:  # the map before it has its name already
        return layers.Activation("linear", name=FEATURES, **float32)(output)
    if len(output.shape) == 3:
        return _features_of_tokens(spec, output, size)
    feature_map = layers.Activation("linear", name=FEATURE_MAP, **float32)(output)
    pooling = layers.GlobalMaxPooling2D if spec.pooling == "max" else layers.GlobalAveragePooling2D
    return pooling(name=FEATURES, **float32)(feature_map)


def _features_of_tokens(spec: BackboneSpec, output: Any, size: tuple[int, int]) -> Any:
    """Name the patches' tokens, which come last, row by row, and pool them, or take the first token, the class's."""
    float32 = {"dtype": "float32"}
    height, width, channels = size[0] // spec.patch, size[1] // spec.patch, output.shape[-1]
    tokens = layers.Activation("linear", name="tokens", **float32)(output)
    patches = layers.Cropping1D((spec.prefix, 0), **float32)(tokens) if spec.prefix else tokens
    others = spec.prefix - 1 + height * width
    if spec.pooling == "class token":
        token = layers.Cropping1D((0, others), **float32)(tokens)
    feature_map = layers.Reshape((height, width, channels), name=FEATURE_MAP, **float32)(patches)
    if spec.pooling != "class token":
        return layers.GlobalAveragePooling2D(name=FEATURES, **float32)(feature_map)
    # joined again and cut: a saved network keeps the map only if the logits depend on it
    rows = layers.Reshape((height * width, channels), **float32)(feature_map)
    joined = layers.Concatenate(axis=1, **float32)([token, rows])
    cut = layers.Cropping1D((0, height * width), **float32)(joined)
    return layers.Reshape((channels,), name=FEATURES, **float32)(cut)


def _load(body: Any, weights: Weights, spec: BackboneSpec, size: tuple[int, int]) -> None:
    try:
        with np.load(weights.path) as arrays:
            values = [arrays[key].astype(np.float32) for key in arrays.files]
    except (OSError, ValueError, TypeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ModelError(
            f"weights {weights.path} cannot be read as an .npz archive; remove the file, so that it is fetched again"
        ) from error
    _fit_positions(values, body, spec, (size[0] // spec.patch, size[1] // spec.patch))
    expected = [tuple(weight.shape) for weight in body.weights]
    shapes = [value.shape for value in values]
    if expected != shapes:
        first = next(
            (i for i, pair in enumerate(zip(expected, shapes, strict=False)) if pair[0] != pair[1]),
            min(len(expected), len(shapes)),
        )
        raise ModelError(
            f"weights {weights.path} do not fit {spec.name}: {len(shapes)} arrays, expected {len(expected)}; "
            f"they differ from array {first} on; remove the file or name the right backbone"
        )
    set_weights(body, values)


def _fit_positions(values: list[np.ndarray], body: Any, spec: BackboneSpec, grid: tuple[int, int]) -> None:
    """Interpolate position embeddings, `(rows, channels)` or `(1, rows, channels)`, for another number of patches."""
    antialias = spec.arguments.get("config", {}).get("antialias_in_interpolation", True)
    for index, (weight, value) in enumerate(zip(body.weights, values, strict=False)):
        if weight.path.endswith("position_ids"):  # a constant, which CLIP and SigLIP keep among their weights
            values[index] = np.asarray(weight)
        elif "position_embedding" in weight.path and len(weight.shape) == value.ndim and value.shape != weight.shape:
            rows = _interpolated(
                value.reshape(-1, value.shape[-1]), grid, weight.shape[-2] - math.prod(grid), antialias
            )
            values[index] = rows.reshape(*value.shape[:-2], *rows.shape)


def _interpolated(embeddings: np.ndarray, grid: tuple[int, int], prefix: int = 1, antialias: bool = True) -> np.ndarray:
    """Interpolate position embeddings to another number of patches, by their place in the image.

    As in section 3.2 of the vision transformer's paper (Dosovitskiy et al., ICLR 2021); bicubic, with antialiasing
    where they become fewer.

    Args:
        embeddings: float32 `(prefix + s², channels)`: those of other tokens, such as the class's, then those of a
            square image's patches, row by row.
        grid: Patches along height and width.
        prefix: Number of the other tokens' embeddings.
        antialias: Whether fewer ones are antialiased; DINOv2 was not pretrained so.

    Returns:
        float32 `(prefix + height · width, channels)`; the embeddings themselves if their patches are not another
        square.
    """
    count = len(embeddings) - prefix
    side = math.isqrt(max(count, 0))
    if side * side != count or side == 0 or grid == (side, side):
        return embeddings
    square = embeddings[prefix:].reshape(1, side, side, -1)
    resized = keras.ops.image.resize(square, grid, interpolation="bicubic", antialias=antialias)
    rows = keras.ops.convert_to_numpy(resized).reshape(grid[0] * grid[1], -1)
    return np.concatenate([embeddings[:prefix], rows])
