"""Figures as files: SVG where that is small, pixels for figures of many images."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from typing import Literal

import matplotlib as mpl
from matplotlib.figure import Figure
from PIL import Image

from scanbook.reporting.plots import style

LARGEST_SVG = 150_000
"""Bytes beyond which a figure is written as pixels."""
DPI = 150
"""Pixels per inch, enough for a screen with two pixels per point."""
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
    """

    file: bytes
    suffix: Literal["svg", "png"]
    image: bytes
    kind: Literal["image/svg+xml", "image/webp"]

    @property
    def uri(self) -> str:
        """`image` as a data address, so that a page needs no other file."""
        return f"data:{self.kind};base64,{base64.b64encode(self.image).decode()}"


def write(figure: Figure) -> Written:
    """Return a figure as SVG or, if that is larger than `LARGEST_SVG`, as pixels."""
    vectors, pixels, small = io.BytesIO(), io.BytesIO(), io.BytesIO()
    with style.own_settings():  # some are read only as a figure is written
        mpl.rcParams.update(_SVG)
        figure.savefig(vectors, format="svg", metadata={"Date": None})
        if vectors.tell() <= LARGEST_SVG:
            return Written(vectors.getvalue(), "svg", vectors.getvalue(), "image/svg+xml")
        figure.savefig(pixels, format="png", dpi=DPI)
    with Image.open(pixels) as image:
        image.convert("RGB").save(small, "webp", quality=QUALITY)
    return Written(pixels.getvalue(), "png", small.getvalue(), "image/webp")


def title(figure: Figure) -> str:
    """Return the title of a figure above its panels, or above its first one."""
    titles = (axis.get_title(where) for axis in figure.axes for where in ("left", "center"))
    return " ".join((figure.get_suptitle() or next(filter(None, titles), "")).split())
