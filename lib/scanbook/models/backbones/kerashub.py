"""KerasHub, with corrections of faults that keep its networks from being saved, converted or loaded.

Each correction says what goes wrong without it, as seen in KerasHub 0.32 with Keras 3.15; a class that the installed
version lacks is passed over.
"""

from __future__ import annotations

import importlib
import logging
import warnings
from collections.abc import Callable
from functools import cache
from typing import Any

from scanbook import runtime
from scanbook.errors import ModelError

_MODELS = "keras_hub.src.models."
_SWIN = "swin_transformer.swin_transformer_layers"

Config = dict[str, Any]


@cache
def import_kerashub() -> Any:
    """Import KerasHub, which registers its layers, and correct its faults; return the package.

    Raises:
        ModelError: It is not installed, or cannot be imported.
    """
    try:
        package = importlib.import_module("keras_hub")
    except ImportError as error:
        reason = str(error).splitlines()[0]
        raise ModelError(f"KerasHub cannot be imported ({reason}); install it: pip install keras-hub") from error
    for correct in (_configurations, _unbuilt_layers, _kept_tensors, _token_counts, _positions_of_dinov2, _swin_mask):
        correct()
    logging.getLogger("tensorflow").addFilter(_is_no_retracing)
    return package


def _is_no_retracing(record: logging.LogRecord) -> bool:
    """Return whether a message is not that on grouped convolutions: Keras traces each anew where no graph is traced."""
    return "_conv_xla" not in record.getMessage()


def _class(path: str) -> Any:
    """Return a class by `module:name`; None where the installed KerasHub has none."""
    module, name = path.split(":")
    try:
        return getattr(importlib.import_module(_MODELS + module), name, None)
    except ImportError:
        return None


def _correct_config(path: str, change: Callable[[Any, Config], None]) -> None:
    """Change what a layer writes as its configuration."""
    layer_class = _class(path)
    if layer_class is None:
        return
    original = layer_class.get_config

    def get_config(self: Any) -> Config:
        config = original(self)
        change(self, config)
        return config

    layer_class.get_config = get_config


def _configurations() -> None:
    """Layers write configurations that their own constructors refuse: a saved network could not be loaded."""

    def without(*keys: str) -> Callable[[Any, Config], None]:
        return lambda layer, config: [config.pop(key, None) for key in keys] and None

    # numbers that follow from the image's size, and of ViT a lost setting
    def patching(layer: Any, config: Config) -> None:
        without("num_patches", "num_positions")(layer, config)
        config["use_patch_bias"] = layer.use_patch_bias

    _correct_config("vit.vit_layers:ViTPatchingAndEmbedding", patching)
    _correct_config("deit.deit_layers:DeiTEmbeddings", without("num_patches", "num_positions"))

    # a layer and a misspelt key, in place of three settings
    def hierarchical(layer: Any, config: Config) -> None:
        without("mlp", "drop_prop")(layer, config)
        config |= {
            "sr_ratio": layer.attn.sr_ratio,
            "drop_prob": layer.drop_prop,
            "layer_norm_epsilon": layer.norm1.epsilon,
        }

    _correct_config("mit.mit_layers:HierarchicalTransformerEncoder", hierarchical)

    # the number of features, 1792 in EfficientNetV2 rw_s and rw_m: a network that is built again would have 1280
    def features(layer: Any, config: Config) -> None:
        config["num_features"] = layer.get_layer("top_conv").filters

    _correct_config("efficientnet.efficientnet_backbone:EfficientNetBackbone", features)
    _attribute_less_config("deit.deit_layers:DeiTEncoder", "key_dim")
    normalisation = _reference("keras.layers", "LayerNormalization")
    _class_in_config(f"{_SWIN}:PatchEmbedding", "norm_layer", "norm_layer", normalisation)
    merging = _reference(_MODELS + _SWIN, "PatchMerging")
    _class_in_config(f"{_SWIN}:SwinTransformerStage", "downsample", "_downsample_cls", merging)


def _attribute_less_config(path: str, attribute: str) -> None:
    """`get_config` reads an attribute that the layer does not have, and a key that its constructor does not know."""
    layer_class = _class(path)
    if layer_class is None:
        return
    if not hasattr(layer_class, attribute):
        setattr(layer_class, attribute, None)
    _correct_config(path, lambda layer, config: config.pop(attribute, None) and None)


def _reference(module: str, name: str) -> Config:
    """Return what Keras deserialises to a class itself, also by KerasHub's own `from_config`."""
    return {"module": module, "class_name": "function", "config": name, "registered_name": name}


def _class_in_config(path: str, key: str, attribute: str, reference: Config) -> None:
    """`get_config` serialises a class as if it were a layer, and fails."""
    layer_class = _class(path)
    if layer_class is None:
        return
    original = layer_class.get_config

    def get_config(self: Any) -> Config:
        kept = getattr(self, attribute)
        setattr(self, attribute, None)
        try:
            config = original(self)
        finally:
            setattr(self, attribute, kept)
        return config | {key: reference if kept else None}

    layer_class.get_config = get_config


def _unbuilt_layers() -> None:
    """Layers without `build`: a saved network marks them as built before their parts are, which then get no weights."""
    names = (f"{_SWIN}:PatchEmbedding", f"{_SWIN}:SwinTransformerStage")
    mit = ("mit.mit_layers:OverlappingPatchingAndEmbedding", "mit.mit_layers:HierarchicalTransformerEncoder")
    for layer_class in filter(None, map(_class, names + mit)):
        layer_class.get_build_config = lambda self: None
        layer_class.build_from_config = lambda self, config: None


def _kept_tensors() -> None:
    """Tensors that layers keep become arrays: a traced function takes them for inputs, which ONNX then asks for."""
    for path, name in (
        ("vit.vit_layers:ViTPatchingAndEmbedding", "position_ids"),
        ("metaclip_2.metaclip_2_layers:MetaCLIP2VisionEmbedding", "position_ids"),
        ("dinov3.dinov3_layers:DINOV3RopePositionEmbedding", "inv_freq"),
        (f"{_SWIN}:WindowAttention", "relative_position_index"),
    ):
        layer_class = _class(path)
        if layer_class is not None:
            setattr(layer_class, name, _array_property(name))


def _array_property(name: str) -> property:
    """Return a property that keeps what it is set to as a NumPy array; `__init__` is not wrapped: Keras inspects it."""
    key = f"_{name}_array"

    def get(self: Any) -> Any:
        if key not in self.__dict__:
            raise AttributeError(name)
        return self.__dict__[key]

    def keep(self: Any, value: Any) -> None:
        self.__dict__[key] = runtime.keras().ops.convert_to_numpy(value)

    return property(get, keep)


def _token_counts() -> None:
    """SigLIP's embedding claims one token too many; DINOv2's and DINOv3's take the height for the width."""

    def shape_of(prefix: Callable[[Any], int]) -> Callable[..., tuple[int | None, ...]]:
        def compute_output_shape(self: Any, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
            sides = input_shape[1:3] if self.data_format == "channels_last" else input_shape[2:4]
            known = None not in sides
            count = prefix(self) + (sides[0] // self.patch_size) * (sides[1] // self.patch_size) if known else None
            return (input_shape[0], count, self.hidden_dim)

        return compute_output_shape

    for path, prefix in (
        ("siglip.siglip_layers:SigLIPVisionEmbedding", lambda layer: 0),
        ("dinov2.dinov2_layers:DINOV2Embedding", lambda layer: 1 + layer.num_register_tokens),
        ("dinov3.dinov3_layers:DINOV3PatchEmbedding", lambda layer: 0),
        ("dinov3.dinov3_layers:DINOV3Embedding", lambda layer: 1 + layer.num_register_tokens),
    ):
        layer_class = _class(path)
        if layer_class is not None:
            layer_class.compute_output_shape = shape_of(prefix)


def _positions_of_dinov2() -> None:
    """Fine-tuned position embeddings are saved as they are.

    KerasHub resizes them to the size of pretraining and back, and not at all where the sum of their changes is
    negative: after loading, the logits of a tiny network differed by a quarter of their spread.
    """
    layer_class = _class("dinov2.dinov2_layers:DINOV2Embedding")
    if layer_class is None:
        return
    original = layer_class.load_own_variables

    def save(self: Any, store: Any) -> None:
        runtime.keras().layers.Layer.save_own_variables(self, store)

    def load(self: Any, store: Any) -> None:
        original(self, store)
        variables = self._trainable_variables + self._non_trainable_variables
        positions = self.interpolated_position_embeddings
        index = next(str(place) for place, variable in enumerate(variables) if variable is positions)
        if index in store and tuple(store[index].shape) == tuple(positions.shape):
            positions.assign(store[index])

    layer_class.save_own_variables, layer_class.load_own_variables = save, load


def _swin_mask() -> None:
    """Swin writes its mask of shifted windows by `slice_update`, XlaDynamicUpdateSlice, which OpenVINO lacks."""
    if _class(f"{_SWIN}:SwinTransformerStage") is not None:
        importlib.import_module(_MODELS + _SWIN).ops = _Operations()
        # Keras takes the shifted windows' mask for one of a sequence, and says once per block that it is lost
        warnings.filterwarnings("ignore", message=r".*of type WindowAttention\) was passed an input with a mask")


class _Operations:
    """`keras.ops`, whose `slice_update` at known places is padding and a sum."""

    def __getattr__(self, name: str) -> Any:
        return getattr(runtime.keras().ops, name)

    @staticmethod
    def slice_update(inputs: Any, start_indices: Any, updates: Any) -> Any:
        """Return the inputs with a block replaced."""
        ops = runtime.keras().ops
        if not all(isinstance(start, int) for start in start_indices):
            return ops.slice_update(inputs, start_indices, updates)
        block = [slice(start, start + int(size)) for start, size in zip(start_indices, updates.shape, strict=True)]
        pads = [(part.start, int(side) - part.stop) for part, side in zip(block, inputs.shape, strict=True)]
        return inputs + ops.pad(updates - inputs[tuple(block)], pads)
