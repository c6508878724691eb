"""KerasHub's families of image networks: what each is pooled by, which sizes it takes, and where its features end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from math import prod
from typing import Any

from scanbook import runtime
from scanbook.registry import Pooling

keras = runtime.keras()

Config = dict[str, Any]


@dataclass(frozen=True)
class Sizes:
    """The images that a network takes, and its tokens.

    Attributes:
        patch: Side of a patch of the output's tokens, of which both sides of an image are multiples; 1 for any size.
        smallest: Smallest side.
        square: Whether both sides must be equal.
        prefix: Number of tokens before the patches'.
    """

    patch: int = 1
    smallest: int = 32
    square: bool = False
    prefix: int = 0


@dataclass(frozen=True)
class Family:
    """A class of KerasHub's backbones.

    Attributes:
        title: Name in messages.
        since: First version of KerasHub with it, and the version of Keras that this needs.
        pooling: How features are made of its output.
        sizes: Function from a configuration to the sizes.
        tower: Attribute with the image network, where there is one for texts beside it.
        presets: Starts of the names of its presets.
    """

    title: str
    since: tuple[str, str]
    presets: tuple[str, ...]
    pooling: Pooling = "mean"
    sizes: Callable[[Config], Sizes] = lambda config: Sizes()
    tower: str = ""


def _patches(config: Config, prefix: int, square: bool = False) -> Sizes:
    patch = config["patch_size"]
    side = patch if isinstance(patch, int) else max(patch)
    return Sizes(side, side, square, prefix + int(config.get("num_register_tokens", 0)))


def _mit(config: Config) -> Sizes:
    stride = prod(config["layerwise_strides"])  # other sizes, and rectangles, give wrong maps without an error
    return Sizes(stride, stride, square=True)


def _swin(config: Config) -> Sizes:
    stride = config["patch_size"] * 2 ** (len(config["depths"]) - 1)
    return Sizes(stride, stride * config["window_size"])


_FIRST = ("0.18", "3.5")
_TOKENS, _SQUARE = partial(_patches, prefix=1), partial(_patches, prefix=1, square=True)
FAMILIES: dict[str, Family] = {
    "EfficientNetBackbone": Family("EfficientNet", _FIRST, ("efficientnet",)),
    "ResNetBackbone": Family("ResNet", _FIRST, ("resnet",)),
    "DenseNetBackbone": Family("DenseNet", _FIRST, ("densenet",)),
    "VGGBackbone": Family("VGG", _FIRST, ("vgg",)),
    "XceptionBackbone": Family("Xception", ("0.21", "3.5"), ("xception",)),
    "MobileNetBackbone": Family("MobileNetV3", _FIRST, ("mobilenet_v3",)),
    "MobileNetV5Backbone": Family("MobileNetV5", ("0.23", "3.8"), ("mobilenetv5",)),
    "CSPNetBackbone": Family("CSPNet", ("0.20", "3.5"), ("csp_", "darknet")),
    "HGNetV2Backbone": Family("HGNetV2", ("0.22", "3.8"), ("hgnetv2",)),
    "MiTBackbone": Family("MiT", _FIRST, ("mit_",), sizes=_mit),
    "SwinTransformerBackbone": Family("Swin", ("0.29", "3.13"), ("swin",), "mean of patches", _swin),
    "ViTBackbone": Family("ViT", ("0.19", "3.5"), ("vit_",), "class token", _TOKENS),
    # a token for distillation follows the class token
    "DeiTBackbone": Family("DeiT", ("0.22", "3.8"), ("deit",), "class token", partial(_patches, prefix=2)),
    "DINOV2Backbone": Family("DINOv2", ("0.22", "3.8"), ("dinov2",), "mean of patches", _SQUARE),
    "DINOV3Backbone": Family("DINOv3", ("0.24", "3.8"), ("dinov3",), "mean of patches", _TOKENS),
    "CLIPBackbone": Family("CLIP", _FIRST, ("clip",), "class token", _SQUARE, "vision_encoder"),
    "MetaCLIP2Backbone": Family(
        "MetaCLIP 2", ("0.27", "3.13"), ("metaclip",), "class token", _SQUARE, "vision_encoder"
    ),
    "SigLIPBackbone": Family(
        "SigLIP",
        ("0.20", "3.5"),
        ("siglip", "medsiglip"),
        "mean of patches",
        partial(_patches, prefix=0, square=True),
        "vision_encoder",
    ),
}
"""By name of the class. Versions are those of the wheels, of which 0.32 alone was run."""


def trunk(network: Any) -> Any:
    """Return the part of a network of KerasHub that ends in one feature map, `(n, h, w, channels)`, or in tokens.

    The result is the network itself where that has no other outputs and no head. MetaCLIP 2 gets a new normalisation:
    it keeps its own beside the network.

    Args:
        network: A backbone, or the image network of one with texts.

    Returns:
        A `keras.Model`; tokens are float32 `(n, tokens, channels)`, before the attention that pools SigLIP's.
    """
    kind, output = type(network).__name__, network.output
    if isinstance(output, dict):  # HGNetV2's stages
        output = output[max(key for key in output if key.startswith("stage"))]
    elif kind.startswith("SigLIP"):
        output = network.post_layer_norm.output
    elif kind.startswith("MetaCLIP2"):
        output = keras.layers.LayerNormalization(epsilon=1e-5, name=FINAL_NORM)(output)
    else:
        return network
    return keras.Model(network.inputs[0], output)


FINAL_NORM = "vision_post_layer_norm"
"""Name of the normalisation that MetaCLIP 2 keeps beside its image network."""


def missing_family(class_name: str, preset: str = "") -> Family | None:
    """Return the family of a class, or of a preset's name, that the installed KerasHub may lack; None for no family."""
    if class_name:
        return FAMILIES.get(class_name)
    return next((family for family in FAMILIES.values() if preset.startswith(family.presets)), None)
