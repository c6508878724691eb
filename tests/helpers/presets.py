"""Tiny presets of KerasHub with random weights, as its `save_to_preset` writes them."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from scanbook.models.backbones.kerashub import import_kerashub

MEAN, DEVIATION = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
IMAGENET = {"scale": [1 / 255 / d for d in DEVIATION], "offset": [-m / d for m, d in zip(MEAN, DEVIATION, strict=True)]}
HALF = {"scale": 1 / 127.5, "offset": -1.0}
_PATCHES = {"num_layers": 2, "num_heads": 2, "hidden_dim": 32}
SETTINGS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "mobilenet": (
        "MobileNet",
        IMAGENET,
        {
            "stackwise_expansion": [[16], [24, 32]],
            "stackwise_num_blocks": [1, 2],
            "stackwise_num_filters": [[8], [16, 16]],
            "stackwise_kernel_size": [[3], [5, 5]],
            "stackwise_num_strides": [[2], [2, 1]],
            "stackwise_se_ratio": [[None], [0.25, 0.25]],
            "stackwise_activation": [["relu"], ["hard_swish"] * 2],
            "stackwise_padding": [[1], [2, 2]],
            "output_num_filters": 32,
            "depthwise_filters": 8,
            "depthwise_stride": 2,
            "depthwise_residual": False,
            "squeeze_and_excite": 0.5,
            "last_layer_filter": 32,
            "input_num_filters": 8,
            "input_activation": "hard_swish",
            "output_activation": "hard_swish",
        },
    ),
    "vit": ("ViT", HALF, _PATCHES | {"image_shape": (64, 64, 3), "patch_size": 16, "mlp_dim": 64}),
    "swin": (
        "SwinTransformer",
        IMAGENET,
        {
            "image_shape": (56, 56, 3),
            "embed_dim": 16,
            "depths": (2, 1),
            "num_heads": (2, 4),
            "window_size": 7,
            "patch_size": 4,
        },
    ),
    "dinov2": (
        "DINOV2",
        IMAGENET,
        _PATCHES
        | {
            "image_shape": (56, 56, 3),
            "position_embedding_shape": (56, 56, 3),
            "patch_size": 14,
            "intermediate_dim": 64,
            "num_register_tokens": 4,
        },
    ),
}
"""By name: start of the class's name, values that the network expects, and its settings."""


def save(name: str, folder: Path) -> Any:
    """Write a preset with its image converter; return the backbone.

    No weight has the value that it starts with: zeros of biases or registers, and ones of scales, would hide faults.
    """
    package = import_kerashub()
    kind, scaling, settings = SETTINGS[name]
    backbone = getattr(package.models, f"{kind}Backbone")(**settings)
    draw = np.random.default_rng(0)
    for weight in backbone.weights:
        start = np.asarray(weight)
        if "position_embeddings" not in weight.path and start.dtype.kind == "f":
            spread = draw.normal(0, 0.1 if start.ndim < 2 else 0.02, start.shape)
            weight.assign(start + (np.abs(spread) if "moving_var" in weight.path else spread))
    backbone.save_to_preset(str(folder))
    side = settings.get("image_shape", (64,))[0]
    converter = getattr(package.layers, f"{kind}ImageConverter")(image_size=(side, side), **scaling)
    converter.save_to_preset(str(folder))
    return backbone


def save_configuration(class_name: str, folder: Path) -> None:
    """Write the configuration alone of a preset of a class."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"registered_name": f"keras_hub>{class_name}", "config": {}}))


def save_timm_resnet18(folder: Path) -> dict[str, np.ndarray]:
    """Write ResNet18 as timm does, `model.safetensors` and `config.json`; return its arrays by timm's names."""
    draw = np.random.default_rng(0)
    arrays: dict[str, np.ndarray] = {}

    def convolution(name: str, filters: int, channels: int, side: int) -> None:
        scale = (2 / (channels * side * side)) ** 0.5
        arrays[f"{name}.weight"] = draw.normal(0, scale, (filters, channels, side, side))

    def normalisation(name: str, count: int) -> None:
        arrays[f"{name}.weight"], arrays[f"{name}.bias"] = draw.uniform(0.5, 1.5, count), draw.normal(0, 0.1, count)
        arrays[f"{name}.running_mean"] = draw.normal(0, 0.1, count)
        arrays[f"{name}.running_var"] = draw.uniform(0.5, 1.5, count)

    convolution("conv1", 64, 3, 7)
    normalisation("bn1", 64)
    before = 64
    for stage, filters in enumerate((64, 128, 256, 512), 1):
        for block in range(2):
            name = f"layer{stage}.{block}"
            convolution(f"{name}.conv1", filters, before, 3)
            normalisation(f"{name}.bn1", filters)
            convolution(f"{name}.conv2", filters, filters, 3)
            normalisation(f"{name}.bn2", filters)
            if stage > 1 and not block:
                convolution(f"{name}.downsample.0", filters, before, 1)
                normalisation(f"{name}.downsample.1", filters)
            before = filters
    arrays = {name: values.astype(np.float32) for name, values in arrays.items()}
    folder.mkdir()
    importlib.import_module("safetensors.numpy").save_file(arrays, folder / "model.safetensors")
    about = {"tag": "a1_in1k", "input_size": [3, 224, 224], "interpolation": "bicubic", "license": "apache-2.0"}
    about |= {"mean": MEAN, "std": DEVIATION}
    config = {"architecture": "resnet18", "num_classes": 1000, "num_features": 512, "pretrained_cfg": about}
    (folder / "config.json").write_text(json.dumps(config))
    return arrays
