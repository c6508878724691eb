"""What a study can name: backbones, augmentation policies and segmentation methods, as plain data.

It imports no heavy module, so that a study is checked in milliseconds. `models.backbones` builds networks from these
entries, and `augmentation` samples from their ranges.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from scanbook import runtime
from scanbook.errors import StudyError

Pooling = Literal["mean", "max", "class token", "mean of patches"]

PRESET, FILE = "hub:", "file:"
"""Starts of the names of networks that are not listed here: a preset of KerasHub, and a network saved by Keras."""
EMBEDDINGS = "embeddings"
"""Name of the one backbone of a study whose models take vectors in place of images."""


@dataclass(frozen=True)
class Scaling:
    """The change from levels, 0 to 255, to the values that pretrained weights expect: scale × level + offset.

    Attributes:
        scale: Factor, one for all channels or one for each of red, green and blue.
        offset: Summand, likewise.
        bgr: Whether the channels are put into the order blue, green, red first, which then is that of the offsets.
    """

    scale: float | tuple[float, ...]
    offset: float | tuple[float, ...]
    bgr: bool = False


_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SCALINGS: dict[str, Scaling] = {
    "-1..1": Scaling(1 / 127.5, -1.0),
    "0..1": Scaling(1 / 255, 0.0),
    "0..255": Scaling(1.0, 0.0),
    "caffe": Scaling(1.0, (-103.939, -116.779, -123.68), bgr=True),
    "imagenet": Scaling(
        tuple(1 / (255 * deviation) for deviation in _DEVIATION),
        tuple(-mean / deviation for mean, deviation in zip(_MEAN, _DEVIATION, strict=True)),
    ),
}
"""Scalings by name. caffe: blue, green, red, minus the mean of ImageNet; imagenet: 0 to 1, minus the mean of ImageNet,
divided by its standard deviation."""


@dataclass(frozen=True)
class BackboneSpec:
    """One backbone: its builder and the input that it expects.

    Attributes:
        name: Name in studies and reports.
        builder: `module:attribute` of the builder; empty for scanbook's own networks.
        scaling: What the pretrained weights expect.
        arguments: Further arguments of the builder; with the key `config` it is a class, built from its configuration.
        pretrained: Whether ImageNet weights exist.
        shipped: Name of the weights file that comes with scanbook; empty where there is none.
        pooling: How features are made of the last feature map: its mean or maximum; of a transformer's tokens, the
            class token or the mean of the patches'.
        smallest: Smallest side of an image, in pixels.
        patch: Side of a patch, in pixels, as the last layer sees it; both sides of an image are multiples of it.
        square: Whether both sides must be equal.
        prefix: Number of a transformer's tokens before those of the patches; the class token is the first of them.
    """

    name: str
    builder: str
    scaling: Scaling
    arguments: dict[str, Any] = field(default_factory=dict)
    pretrained: bool = True
    shipped: str = ""
    pooling: Pooling = "mean"
    smallest: int = 32
    patch: int = 1
    square: bool = False
    prefix: int = 0

    @property
    def pooling_in_words(self) -> str:
        """How features are made, for reports."""
        words = {"mean": "mean of the feature map", "max": "maximum of the feature map"}
        return words.get(self.pooling, self.pooling)


def _application(
    name: str, builder: str, scaling: str, smallest: int = 32, shipped: str = "", **arguments: float
) -> BackboneSpec:
    return BackboneSpec(
        name, f"keras.applications:{builder}", SCALINGS[scaling], arguments, smallest=smallest, shipped=shipped
    )


_RESNET18 = {
    "input_conv_filters": [64],
    "input_conv_kernel_sizes": [7],
    "stackwise_num_filters": [64, 128, 256, 512],
    "stackwise_num_blocks": [2, 2, 2, 2],
    "stackwise_num_strides": [1, 2, 2, 2],
    "block_type": "basic_block",
    "image_shape": [None, None, 3],
}
_VIT_B16 = {
    "image_shape": [None, None, 3],
    "patch_size": 16,
    "num_layers": 12,
    "num_heads": 12,
    "hidden_dim": 768,
    "mlp_dim": 3072,
}

BACKBONES: dict[str, BackboneSpec] = {
    spec.name: spec
    for spec in (
        BackboneSpec("baseline_cnn", "", SCALINGS["-1..1"], pretrained=False, smallest=16),
        BackboneSpec("small_cnn", "", SCALINGS["-1..1"], pretrained=False, smallest=4, pooling="max"),
        # the widths that have ImageNet weights
        *(_application(f"mobilenet_{alpha}", "MobileNet", "-1..1", alpha=alpha) for alpha in (0.25, 0.5, 0.75, 1.0)),
        _application(
            "mobilenet_v2_0.35", "MobileNetV2", "-1..1", shipped="mobilenet_v2_0.35_synthetic.npz", alpha=0.35
        ),
        *(
            _application(f"mobilenet_v2_{alpha}", "MobileNetV2", "-1..1", alpha=alpha)
            for alpha in (0.5, 0.75, 1.0, 1.3, 1.4)
        ),
        *(_application(f"efficientnet_b{i}", f"EfficientNetB{i}", "0..255") for i in range(6)),
        _application("vgg16", "VGG16", "caffe"),
        _application("vgg19", "VGG19", "caffe"),
        _application("densenet121", "DenseNet121", "imagenet"),
        _application("densenet201", "DenseNet201", "imagenet"),
        _application("inception_v3", "InceptionV3", "-1..1", smallest=75),
        _application("inception_resnet_v2", "InceptionResNetV2", "-1..1", smallest=75),
        _application("xception", "Xception", "-1..1", smallest=71),
        _application("resnet50", "ResNet50", "caffe"),
        _application("resnet50_v2", "ResNet50V2", "-1..1"),
        _application("resnet152_v2", "ResNet152V2", "-1..1"),
        # without its own preprocessing: scanbook's does the same
        _application("convnext_tiny", "ConvNeXtTiny", "imagenet", include_preprocessing=False),
        BackboneSpec(
            "resnet18",
            "keras_hub.models:ResNetBackbone",
            SCALINGS["imagenet"],
            {"preset": "resnet_18_imagenet", "config": _RESNET18},
        ),
        BackboneSpec(
            "vit_b16",
            "keras_hub.models:ViTBackbone",
            SCALINGS["-1..1"],
            {"preset": "vit_base_patch16_224_imagenet", "config": _VIT_B16},
            pooling="class token",
            smallest=16,
            patch=16,
            prefix=1,
        ),
    )
}


def describe_backbone(spec: BackboneSpec) -> dict[str, Any]:
    """Return a backbone and the version of its builder's package, for the keys of stages and reports."""
    return {"backbone": spec, "builder": runtime.versions_of([spec.builder.split(".")[0]] if spec.builder else [])}


def preset_folder(name: str) -> Path | None:
    """Return the folder of a preset that is on this machine; None for one of a server, or another name."""
    text = name.removeprefix(PRESET)
    if text == name or not text or "://" in text:
        return None
    path = runtime.path_in_project(text)
    return path if path.is_dir() else None


def short_name(backbone: str) -> str:
    """Return the name of a backbone in reports: of a file or a folder, without the folders above it."""
    prefix = next((kind for kind in (FILE, PRESET) if backbone.startswith(kind)), "")
    text = backbone.removeprefix(prefix)
    return backbone if not prefix or "://" in text else prefix + Path(text).name


LARGEST_MAGNITUDE = 10
"""RandAugment's magnitude of the largest strengths, as in its paper; torchvision counts to 30."""


@dataclass(frozen=True)
class Policy:
    """Ranges from which the values of an augmentation are sampled, uniformly, for every training image.

    Attributes:
        rotation: Largest angle, in degrees, to either side.
        shift: Largest shift, as a share of the side, along each axis.
        shear: Largest shear angle, in degrees.
        zoom: The scale is sampled between 1 - zoom and 1 + zoom.
        flip_horizontal: Mirror left to right with probability one half.
        flip_vertical: Mirror top to bottom with probability one half.
        brightness: Largest change of brightness, as a share of 255.
        contrast: The contrast factor is sampled between 1 - contrast and 1 + contrast.
        colour: Largest gain of one channel relative to the others.
        fill: What is shown beyond the edge: the mirrored image, or its nearest pixel.
        mixup: Images of a batch are blended in pairs, labels too, with weights sampled from Beta(mixup, mixup); 0
            blends none (Zhang et al., ICLR 2018).
        cutmix: A box of one image replaces that of another, its area sampled from Beta(cutmix, cutmix), labels by area;
            0 cuts none (Yun et al., ICCV 2019).
        crop: Smallest share of the area of a random crop, which is resized to the image's size, with aspect ratios from
            3/4 to 4/3 (Szegedy et al., CVPR 2015); 1 crops nothing.
        randaugment: Number of operations per image, sampled from fourteen, all of one magnitude; 0 for none (Cubuk et
            al., 2020).
        magnitude: Of these operations, from 0, which changes nothing, to 10.
        trivialaugment: One operation per image, of these fourteen, with a random strength in wide ranges (Müller and
            Hutter, ICCV 2021).

    Raises:
        StudyError: A policy has both RandAugment and TrivialAugment, or a range that cannot be.
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
    mixup: float = 0.0
    cutmix: float = 0.0
    crop: float = 1.0
    randaugment: int = 0
    magnitude: float = 0.0
    trivialaugment: bool = False

    def __post_init__(self) -> None:
        if self.randaugment and self.trivialaugment:
            raise StudyError("randaugment and trivialaugment exclude each other; expected one of them: remove one")
        if not 0 < self.crop <= 1:
            raise StudyError(f"smallest crop {self.crop}; expected a share of the area, above 0, at most 1")
        if not 0 <= self.magnitude <= LARGEST_MAGNITUDE:
            raise StudyError(f"magnitude {self.magnitude}; expected 0 to {LARGEST_MAGNITUDE}")


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
    "mixup": Policy(mixup=0.2),
    "cutmix": Policy(cutmix=1.0),
    # torchvision's defaults, 2 operations of magnitude 9 of 30
    "randaugment": Policy(randaugment=2, magnitude=3),
    "trivialaugment": Policy(trivialaugment=True),
    # not Inception's 0.08, which may leave a lesion out
    "random_crop": Policy(crop=0.5),
}


def policy(name: str) -> Policy:
    """Return a policy by its name, or the combination of several joined by "+", such as "dermoscopy+mixup".

    Where two of them set the same range, the last one counts.

    Raises:
        KeyError: There is no such policy.
        StudyError: The combination has both RandAugment and TrivialAugment.
    """
    ranges: dict[str, Any] = {}
    for single in name.split("+"):
        ranges |= {key: value for key, value in asdict(POLICIES[single]).items() if value != getattr(Policy, key)}
    return Policy(**ranges)


def view_policy(name: str) -> Policy:
    """Return what a policy changes in views of one image that are averaged: neither sampled operations nor mixing."""
    return replace(policy(name), randaugment=0, trivialaugment=False, mixup=0.0, cutmix=0.0)


SEGMENTATION_METHODS: tuple[str, ...] = ("k-means RGB", "k-means Lab", "Otsu", "GrabCut", "U-Net")
"""Methods that a study can name under `segmentation.methods`."""
