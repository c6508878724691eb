"""How much arithmetic a network takes, counted on its graph."""

from __future__ import annotations

from typing import Any

from scanbook import runtime

TRAINING = 3
"""Arithmetic of a training step over that of its forward pass: the backward pass takes two products where the forward
pass takes one, for the gradients of inputs and of weights (Amodei and Hernandez, "AI and Compute", OpenAI, 2018)."""


def forward(model: Any) -> float:
    """Floating-point operations of a forward pass of one image; a multiplication with its addition counts as two.

    TensorFlow's profiler counts those of convolutions, matrix products, normalisation and sums on the traced graph.

    Args:
        model: A `keras.Model` with one input of a fixed size, on TensorFlow.
    """
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    shape = (1, *model.input.shape[1:])
    # constants, since the profiler knows no shapes of variables
    traced = tf.function(lambda images: model(images, training=False)).get_concrete_function(
        tf.TensorSpec(shape, model.input.dtype)
    )
    graph = convert_variables_to_constants_v2(traced).graph
    builder = tf.compat.v1.profiler.ProfileOptionBuilder
    options = builder(builder.float_operation()).with_empty_output().build()
    return float(tf.compat.v1.profiler.profile(graph, options=options).total_float_ops)


def depthwise(model: Any) -> bool:
    """Whether it convolves channel by channel, as MobileNets and EfficientNets do.

    Such a convolution has little arithmetic for what it reads, and reaches a small share of any processor's peak.
    """
    layers = runtime.keras().layers
    kinds = (layers.DepthwiseConv2D, layers.SeparableConv2D)
    return any(isinstance(layer, kinds) for layer in model._flatten_layers(include_self=False))
