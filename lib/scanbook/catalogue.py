"""What a study can name: backbones, augmentation policies and segmentation methods, as plain data.

No module is imported for it, so that a study is checked in milliseconds. `backbones` builds from these entries and
`augmentation` draws from them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Scaling = Literal["-1..1", "0..255", "caffe", "imagenet"]


@dataclass(frozen=True)
class BackboneSpec:
    """One backbone: where its builder is and what it expects.

    Attributes:
        name: Name in studies and reports.
        builder: `module:attribute` of the builder; empty for scanbook's own.
        scaling: Range of values that the pretrained weights expect: [-1, 1]; [0, 255]; "caffe", BGR minus the ImageNet
            mean; or "imagenet", [0, 1] minus the ImageNet mean over its deviation.
        arguments: Further arguments of the builder.
        pretrained: Whether ImageNet weights exist for it.
        shipped: File of weights that come with scanbook, in `lib/scanbook/weights/`.
    """

    name: str
    builder: str
    scaling: Scaling
    arguments: dict[str, float | int | str] = field(default_factory=dict)
    pretrained: bool = True
    shipped: str = ""


_APPLICATIONS = "keras.applications"

BACKBONES: dict[str, BackboneSpec] = {
    spec.name: spec
    for spec in (
        BackboneSpec("baseline_cnn", "", "-1..1", pretrained=False),
        BackboneSpec(
            "mobilenet_v2_0.35",
            f"{_APPLICATIONS}:MobileNetV2",
            "-1..1",
            {"alpha": 0.35},
            shipped="mobilenet_v2_0.35_drawn.npz",
        ),
        BackboneSpec("mobilenet_v2_1.0", f"{_APPLICATIONS}:MobileNetV2", "-1..1", {"alpha": 1.0}),
        BackboneSpec("mobilenet_0.25", f"{_APPLICATIONS}:MobileNet", "-1..1", {"alpha": 0.25}),
        BackboneSpec("mobilenet_1.0", f"{_APPLICATIONS}:MobileNet", "-1..1", {"alpha": 1.0}),
        BackboneSpec("efficientnet_b0", f"{_APPLICATIONS}:EfficientNetB0", "0..255"),
        BackboneSpec("densenet121", f"{_APPLICATIONS}:DenseNet121", "imagenet"),
        BackboneSpec("resnet50", f"{_APPLICATIONS}:ResNet50", "caffe"),
        BackboneSpec("resnet50_v2", f"{_APPLICATIONS}:ResNet50V2", "-1..1"),
        BackboneSpec("vgg16", f"{_APPLICATIONS}:VGG16", "caffe"),
        BackboneSpec("resnet18", "keras_hub.models:ResNetBackbone", "imagenet", {"preset": "resnet_18_imagenet"}),
    )
}


@dataclass(frozen=True)
class Policy:
    """Ranges that one augmentation draws from, uniformly, for every training image.

    Attributes:
        rotation: Largest angle, in degrees, to either side.
        shift: Largest shift, as a share of the side, along each axis.
        shear: Largest shear angle, in degrees.
        zoom: Scale is drawn between 1 - zoom and 1 + zoom.
        flip_horizontal: Mirror left to right with probability one half.
        flip_vertical: Mirror top to bottom with probability one half.
        brightness: Largest change of brightness, as a share of 255.
        contrast: Contrast factor is drawn between 1 - contrast and 1 + contrast.
        colour: Largest gain of one channel relative to the others.
        fill: What shows beyond the edge: the mirrored image, or its nearest pixel.
    """

    rotation: float = 0.0
    shift: float = 0.0
    shear: float = 0.0
    zoom: float = 0.0
    flip_horizontal: bool = False
    flip_vertical: bool = False
    brightness: float = 0.0
    contrast: float = 0.0
    colour: float = 0.0
    fill: Literal["reflect", "nearest"] = "reflect"


POLICIES: dict[str, Policy] = {
    "none": Policy(),
    # shear of the skin11 study: 0.15 in Keras's generator is 0.15 degrees, kept as published
    "skin11": Policy(rotation=30, shift=0.1, shear=0.15, flip_horizontal=True, fill="nearest"),
    "dihedral": Policy(rotation=180, flip_horizontal=True, flip_vertical=True),
    "photometric": Policy(brightness=0.1, contrast=0.2, colour=0.05),
    "dermoscopy": Policy(
        rotation=180,
        shift=0.05,
        zoom=0.15,
        flip_horizontal=True,
        flip_vertical=True,
        brightness=0.06,
        contrast=0.15,
        colour=0.04,
    ),
    # no mirror: it would put the heart on the wrong side
    "xray": Policy(rotation=8, shift=0.05, zoom=0.1, brightness=0.08, contrast=0.15),
}

SEGMENTATION_METHODS: tuple[str, ...] = ("k-means RGB", "k-means Lab", "Otsu", "GrabCut", "U-Net")
"""What a study can name under `segmentation.methods`."""
