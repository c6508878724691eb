"""Texts of figures that come from the data: names as words, and numbers for names that no installed font can draw."""

from __future__ import annotations

import re
import textwrap
import unicodedata
from functools import cache

import matplotlib as mpl
from matplotlib import font_manager
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.text import Text

from scanbook.runtime import legible

FONT = "DejaVu Sans"
"""The font that comes with matplotlib."""
LONGEST = 40
"""Most characters of a name in a figure."""
_MORE_FONTS = (
    *("Noto Sans CJK", "Noto Sans JP", "Noto Sans KR", "Noto Sans SC", "Noto Sans TC", "Source Han Sans"),
    *("PingFang", "Hiragino Sans", "Apple SD Gothic Neo", "AppleGothic", "Microsoft YaHei", "Microsoft JhengHei"),
    *("Yu Gothic", "Meiryo", "MS Gothic", "SimHei", "SimSun", "Malgun Gothic", "NanumGothic", "NanumBarunGothic"),
    *("IPAexGothic", "IPAGothic", "TakaoGothic", "VL Gothic", "WenQuanYi", "AR PL", "Droid Sans Fallback", "UnDotum"),
    *("Noto Sans", "Nirmala UI", "Mangal", "Lohit", "Kohinoor", "Leelawadee", "Thonburi", "Segoe UI", "Arial Unicode"),
    *("FreeSans", "Unifont"),
)
"""Starts of the names of common fonts with other scripts, the preferred ones first."""
_SURELY_FITS = 40
"""Characters of a title up to which its place is not measured."""
# letters that are joined, reordered or written from the right, which matplotlib does since 3.11
_SHAPED = re.compile("[\u0590-\u08ff\u0900-\u0dff\u1000-\u109f\u1780-\u17ff\ufb1d-\ufdff\ufe70-\ufeff]")
_SHAPES = mpl.__version_info__ >= (3, 11)
_FOREIGN = "[^\\x00-\\x7f\\s“”…–—−→×]"
"""A character that may belong to a word of another script."""
_CONTROL = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029]+")


def readable(name: object) -> str:
    """Return a column or metric name as words: "blood_pressure" → "blood pressure", a tuple of them joined."""
    if isinstance(name, tuple):
        return ", ".join(map(readable, name))
    return " ".join(legible(str(name)).replace("_", " ").split())


def shorten(text: str, most: int = LONGEST) -> str:
    """Return a text of at most `most` characters: of a longer one its start, "…" and its end."""
    end = most // 3
    return text if len(text) <= most else f"{text[: most - end - 1].rstrip()}…{text[-end:].lstrip()}"


def name_of(value: object, most: int = LONGEST) -> str:
    """Return a name from the data, such as a class's, as a figure shows it: in words, in one line, and not too long."""
    return shorten(readable(value), most) or "(empty)"


def wrap(text: str, width: int) -> str:
    """Return a text in lines of at most `width` characters; those of East Asia are as wide as two."""
    wide = sum(unicodedata.east_asian_width(character) in "WF" for character in text)
    return textwrap.fill(text, max(4, width * len(text) // (len(text) + wide)) if wide else width)


def fit(figure: Figure, numbers: dict[str, int]) -> dict[str, str]:
    """Let every text of a figure be read: find fonts for its characters, and break titles that are too wide.

    What no font can draw is replaced by a number in brackets, which a key beside the figure explains.

    Args:
        figure: A figure that was not written yet.
        numbers: Numbers that earlier figures gave to texts; those of this figure are added.

    Returns:
        The texts that were replaced, by what stands for them: {"[1]": "日本"}.
    """
    key: dict[str, str] = {}
    for axes in figure.axes:
        if axes.get_visible() and axes.axison:
            for axis in (axes.xaxis, axes.yaxis):
                _fit_ticks(axis, numbers, key)
    for text in figure.findobj(Text):
        if not text.get_text().isascii() or _CONTROL.search(text.get_text()):
            text.set_text(_drawn(text.get_text(), numbers, key))
            _set_fonts(text)
    _break_titles(figure)
    return key


def _break_titles(figure: Figure) -> None:
    """Break the titles that would leave the figure, once it is known where they start."""
    titles = [(figure.get_suptitle(), figure.texts)]
    titles += [(axes.get_title("left"), axes.get_children()) for axes in figure.axes if axes.get_visible()]
    texts = [
        artist
        for title, artists in titles
        if max(map(len, title.split("\n"))) > _SURELY_FITS
        for artist in artists
        if isinstance(artist, Text) and artist.get_text() == title
    ]
    if texts:
        figure.draw_without_rendering()
    for text in texts:
        place, title = text.get_window_extent(), text.get_text()
        room = 0.985 * figure.bbox.x1 - place.x0  # letters of other sizes differ in width by a little
        if place.width > room:
            longest = max(map(len, title.split("\n")))
            width = max(20, int(longest * room / place.width))
            text.set_text("\n".join(textwrap.fill(line, width) for line in title.split("\n")))


def _fit_ticks(axis: Axis, numbers: dict[str, int], key: dict[str, str]) -> None:
    """Replace the labels of an axis, which its formatter would write again, and choose their fonts."""
    labels = [label.get_text() for label in axis.get_ticklabels()]
    if all(label.isascii() and not _CONTROL.search(label) for label in labels):
        return
    drawn = [_drawn(label, numbers, key) for label in labels]
    if drawn != labels:
        axis.set_ticks(axis.get_ticklocs(), labels=drawn)
    for label in axis.get_ticklabels():
        _set_fonts(label)


def _drawn(text: str, numbers: dict[str, int], key: dict[str, str]) -> str:
    """Return a text with numbers in the place of what no font can draw."""
    text = unicodedata.normalize("NFC", _CONTROL.sub(" ", legible(text)))
    missing = {character for character in text if not character.isspace() and not _font_of(character)}
    if missing:
        # the whole word: half of it could not be read either
        word = f"{_FOREIGN}*[{re.escape(''.join(missing))}]{_FOREIGN}*"
        text = re.sub(rf"{word}(?:\s*{word})*", lambda match: _number(match[0], numbers, key), text)
    # what is left of marks without a shape, such as those of direction, would be drawn as boxes
    return "".join(character for character in text if unicodedata.category(character) != "Cf" and character != "\ufe0f")


def _number(text: str, numbers: dict[str, int], key: dict[str, str]) -> str:
    shown = f"[{numbers.setdefault(''.join(text.split()), len(numbers) + 1)}]"  # the same however it was broken
    key.setdefault(shown, " ".join(text.split()))
    return shown


def _set_fonts(text: Text) -> None:
    fonts = [_font_of(character) for character in text.get_text() if not character.isspace()]
    others = [font for font in dict.fromkeys(fonts) if font and font != FONT]
    if others:
        text.set_fontfamily([FONT, *others])


@cache
def _font_of(character: str) -> str:
    """Return the first font that can draw a character; "" where none can, or where no font is needed."""
    if _SHAPED.match(character) and not _SHAPES:
        return ""
    if unicodedata.category(character) == "Cf" or character == "\ufe0f":
        return FONT
    return next((family for family in _families() if ord(character) in _characters(family)), "")


@cache
def _families() -> tuple[str, ...]:
    installed = sorted({entry.name for entry in font_manager.fontManager.ttflist})
    return (FONT, *dict.fromkeys(family for start in _MORE_FONTS for family in installed if family.startswith(start)))


@cache
def _characters(family: str) -> frozenset[int]:
    try:
        path = font_manager.findfont(font_manager.FontProperties(family=[family]), fallback_to_default=False)
        return frozenset(font_manager.get_font(path).get_charmap())
    except (OSError, RuntimeError, ValueError):  # a font that is gone, or that FreeType cannot read
        return frozenset()
