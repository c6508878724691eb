"""Figures as files: SVG where that is small, pixels for figures of many images."""

from __future__ import annotations

import base64
import io
import math
from dataclasses import dataclass, field
from typing import Literal

import matplotlib as mpl
from matplotlib.figure import Figure
from PIL import Image

from scanbook.reporting.plots import names, style

LARGEST_SVG = 150_000
"""Bytes beyond which a figure is written as pixels."""
DPI = 150
"""Pixels per inch, enough for a screen with two pixels per point."""
LARGEST_SIDE = 12_000
"""Most pixels of a side; WebP allows 16,383."""
LARGEST_AREA = 40_000_000
"""Most pixels of a figure, which takes four bytes for each while it is drawn."""
QUALITY = 85
"""WebP quality of the figure in a page; the file beside the page is lossless."""
# letters as outlines look the same wherever they are shown; fixed names make the file the same in every run
_SVG = {"svg.fonttype": "path", "svg.hashsalt": "scanbook"}


@dataclass(frozen=True)
class Written:
    """A figure as bytes.

    Attributes:
        file: Content of the file: SVG, or lossless PNG.
        suffix: Suffix of the file.
        image: The image in a page: the same SVG, or WebP, a tenth of the size of a PNG of photographs.
        kind: Media type of `image`.
        key: Texts that no installed font can draw, by the number in brackets that stands for each.
    """

    file: bytes
    suffix: Literal["svg", "png"]
    image: bytes
    kind: Literal["image/svg+xml", "image/webp"]
    key: dict[str, str] = field(default_factory=dict)

    @property
    def uri(self) -> str:
        """`image` as a data address, so that a page needs no other file."""
        return f"data:{self.kind};base64,{base64.b64encode(self.image).decode()}"


def write(figure: Figure, numbers: dict[str, int] | None = None) -> Written:
    """Return a figure as SVG or, if that is larger than `LARGEST_SVG`, as pixels.

    Args:
        figure: A figure; `names.fit` changes its texts.
        numbers: Numbers that stand for texts in earlier figures; those of this one are added.
    """
    vectors, pixels, small = io.BytesIO(), io.BytesIO(), io.BytesIO()
    with style.own_settings():  # some are read only as a figure is written
        mpl.rcParams.update(_SVG)
        key = names.fit(figure, {} if numbers is None else numbers)
        figure.savefig(vectors, format="svg", metadata={"Date": None})
        if vectors.tell() <= LARGEST_SVG:
            return Written(vectors.getvalue(), "svg", vectors.getvalue(), "image/svg+xml", key)
        figure.savefig(pixels, format="png", dpi=_dots(figure))
    with Image.open(pixels) as image:
        image.convert("RGB").save(small, "webp", quality=QUALITY)
    return Written(pixels.getvalue(), "png", small.getvalue(), "image/webp", key)


def _dots(figure: Figure) -> float:
    """Return the pixels per inch of a figure, fewer where it would be too large."""
    width, height = figure.get_size_inches()
    return min(DPI, LARGEST_SIDE / max(width, height), math.sqrt(LARGEST_AREA / (width * height)))


def title(figure: Figure) -> str:
    """Return the title of a figure above its panels, or above its first one."""
    titles = (axis.get_title(where) for axis in figure.axes for where in ("left", "center"))
    return " ".join((figure.get_suptitle() or next(filter(None, titles), "")).split())
