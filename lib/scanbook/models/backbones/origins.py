"""Where presets were pretrained, as far as their names, descriptions and files tell."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from scanbook.config import Pretraining

_CORPORA = (
    ("medsiglip", "medical images with texts"),
    ("metaclip_2", "29 billion images with texts of the web"),
    ("lvd1689m", "LVD-1689M"),
    ("sat493m", "SAT-493M, satellite images"),
    ("dinov2", "LVD-142M"),
    ("laion2b|laion_2b", "LAION-2B"),
    ("siglip", "WebLI"),
    ("clip", "400 million images with texts of the web"),
    ("ade20k", "ADE20K"),
    ("cityscapes", "Cityscapes"),
    ("ig1b", "Instagram, 1 billion images"),
    ("yfcc100m", "YFCC100M"),
    ("jft_in1k", "ImageNet, with images of JFT-300M without labels"),
    ("in22k_in1k", "ImageNet-21k, then ImageNet"),
    ("in12k_in1k", "ImageNet-12k, then ImageNet"),
    ("in21k|in22k|imagenet_?21k", "ImageNet-21k"),
    ("in12k|b5_sw$|b5_sw_imagenet", "ImageNet-12k"),
    ("in1k|imagenet|swin_.*_224|swin_.*_384", "ImageNet"),
)
"""Patterns of names up to their "_ft_", the first that fits; those of KerasHub's presets and of timm's tags."""
_LICENCES = (
    ("medsiglip", "Health AI Developer Foundations terms"),
    ("dinov3", "DINOv3 License"),
    ("dinov2|siglip|deit|^vit_", "Apache-2.0"),
    ("swin|^clip_vit_(base|large)", "MIT"),
)
"""Licences of the weights that their publishers state; presets have no such field, so that these are written down."""


def of_preset(text: str, handle: str, config: Mapping[str, Any]) -> Pretraining:
    """Return what is known of the pretraining of a preset.

    Args:
        text: The preset as KerasHub names it; a local folder only says where it is.
        handle: Where its files come from; "" for a local folder.
        config: Its `config.json`, which of timm's networks has tag and licence.
    """
    details = config.get("pretrained_cfg") or {}
    tag = f"{config.get('architecture', '')}_{details.get('tag', '')}" if details else ""
    name = (text.rsplit("/", maxsplit=1)[-1] if handle else tag).lower()
    first, _, later = name.partition("_ft_")
    corpora = filter(None, (_first(_CORPORA, first), _first(_CORPORA, later)))
    licence = details.get("license") or _first(_LICENCES, name)
    return Pretraining(corpus=", then ".join(corpora), source=handle, licence=licence)


def _first(table: tuple[tuple[str, str], ...], name: str) -> str:
    return next((words for pattern, words in table if name and re.search(pattern, name)), "")
