"""Where a network looks: class activation maps, inside the model itself.

For a linear head on globally averaged features, Grad-CAM's weights are the head's own (Selvaraju et al., ICCV 2017,
section 3.1), so the map is a product of the last feature map and the head: exact, without gradients, and exportable.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np

from scanbook import backbones, runtime

keras = runtime.keras()


def with_heat_maps(model: Any, temperature: float) -> Any:
    """The network as it is exported: calibrated probabilities and heat maps.

    Args:
        model: A network of `backbones.build`, trained.
        temperature: What the logits are divided by before the softmax.

    Returns:
        A `keras.Model` from uint8 RGB `(n, h, w, 3)` to probabilities, float32 `(n, k)`, and class activation maps,
        float32 `(n, h', w', k)`, in logits: averaged over a map, plus the head's bias, they are the class's logit.
    """
    head = model.get_layer(backbones.LOGITS)
    kernel, _ = head.get_weights()
    scaled = keras.layers.Rescaling(1.0 / temperature, name="temperature")(model.output)
    probabilities = keras.layers.Softmax(name="probabilities")(scaled)
    maps = keras.layers.Conv2D(kernel.shape[1], 1, use_bias=False, name="heat_maps")
    exported = keras.Model(model.input, [probabilities, maps(model.get_layer(backbones.FEATURE_MAP).output)])
    maps.set_weights([kernel[None, None]])
    return exported


def grad_cam(maps: np.ndarray, classes: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Grad-CAM of one class an image, from the heat maps that `with_heat_maps` gives.

    Args:
        maps: float32 `(n, h', w', k)`.
        classes: Class to show for each image, int `(n,)`.
        size: Height and width to enlarge to.

    Returns:
        float32 `(n, height, width)` between 0 and 1; all zeros where nothing speaks for the class.
    """
    chosen = np.maximum(maps[np.arange(len(maps)), :, :, classes], 0)
    chosen = chosen / np.maximum(chosen.max((1, 2), keepdims=True), 1e-9)
    return np.stack(
        [cv2.resize(each, size[::-1], interpolation=cv2.INTER_LINEAR) for each in chosen.astype(np.float32)]
    )
