"""Tables as people save them: any separator and encoding, and which of them name the images of a folder."""

from __future__ import annotations

import csv
import gzip
import io
import re
import zlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import charset_normalizer
import pandas as pd

from scanbook.data.adapters.layouts import MASK_WORDS, words_of
from scanbook.data.adapters.listing import TABLES, WORKBOOKS, Tree
from scanbook.data.adapters.lookup import ImageIndex, is_picture, normalise
from scanbook.errors import DataError

_SEPARATORS = ",;\t|"
_BYTE_ORDER_MARKS = {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16", b"\xef\xbb\xbf": "utf-8-sig"}
# encodings of the programs that write tables, for charset_normalizer
_ENCODINGS = ["cp1252", "cp1250", "cp1251", "cp1253", "cp1254", "gb18030", "big5", "shift_jis", "euc_kr"]
_SIGNS = "°µ±²–—‘’“”…€§\xa0"


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        path: Its file.
        rows: Its rows, all values as text; the index is the number of the row, where the header is row 1.
        separator: Character between its columns.
        encoding: Its encoding.
    """

    path: Path
    rows: pd.DataFrame
    separator: str
    encoding: str

    @property
    def notes(self) -> list[str]:
        """Sentences on how it was read, where a reader could err."""
        if self.encoding.startswith("utf"):
            return []
        return [f"{self.path.name} is not UTF-8 and was read as {self.encoding}: check its letters with accents."]


def read(path: Path) -> Table:
    """Read a table of text. Its encoding and its separator (comma, semicolon, tab or |) are found from its content.

    Raises:
        DataError: The file is missing or is no table.
    """
    if not path.is_file():
        raise DataError(f"{path} does not exist; expected the table that the study names")
    try:
        encoding, text = decode(path.read_bytes())
        separator, text = _separator(text if "\n" in text else text.replace("\r", "\n"))
        width = _width(text, separator)
        rows = pd.read_csv(
            io.StringIO(text),
            sep=separator,
            dtype=str,
            keep_default_na=False,
            skip_blank_lines=False,
            index_col=False,
            usecols=range(width),
        )
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{path} is damaged ({error}); get it again") from error
    except OSError as error:
        raise DataError(f"cannot read {path} ({error.strerror}); give read access to it") from error
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError, csv.Error, ValueError) as error:
        raise DataError(
            f"{path} is not a CSV: {str(error).splitlines()[0]}; expected a header and one row per image"
        ) from error
    rows = rows.fillna("")
    rows.index += 2
    return Table(path, rows[(rows != "").any(axis=1)], separator, encoding)


def _width(text: str, separator: str) -> int:
    """Return the number of cells of the header.

    Raises:
        ValueError: A row has more of them, which pandas would cut.
    """
    width = 0
    for number, row in enumerate(csv.reader(io.StringIO(text), delimiter=separator), 1):
        width = width or len(row)
        if len(row) > width and any(cell.strip() for cell in row[width:]):
            raise ValueError(
                f"row {number} has {len(row)} cells, and the first row {width}: put quotes round a value that holds "
                f"{separator!r}"
            )
    return width


def decode(data: bytes) -> tuple[str, str]:
    """Return the encoding and the text of a file, which gzip may have compressed.

    Raises:
        ValueError: It holds no text.
    """
    if data.startswith(b"\x1f\x8b"):
        data = gzip.decompress(data)
    for mark, encoding in _BYTE_ORDER_MARKS.items():
        if data.startswith(mark):
            text = data.decode(encoding)
            if not any(character.isascii() and character.isprintable() for character in text):
                raise ValueError("it holds no text")
            return encoding, text
    try:
        return "utf-8", data.decode("utf-8")
    except UnicodeDecodeError as error:
        if b"\0" in data:
            raise
        match = charset_normalizer.from_bytes(data, cp_isolation=_ENCODINGS).best()
        if match is None:
            raise error from None
        # Central European and Turkish share most letters with Western, which is far more frequent.
        western = data.decode("cp1252", "replace")
        if match.encoding in ("cp1250", "cp1254") and all(c.isascii() or c.isalpha() or c in _SIGNS for c in western):
            return "cp1252", western
        return match.encoding, data.decode(match.encoding)


def _separator(text: str) -> tuple[str, str]:
    """Return the separator of a table, and its text without Excel's line that names it."""
    if named := re.match(r"sep=(.)\r?\n", text):
        return named[1], text[named.end() :]

    def quality(separator: str) -> tuple[float, int]:
        """Share of the first rows that have as many columns as the header, and that number."""
        lines = [
            row for row, _ in zip(csv.reader(io.StringIO(text), delimiter=separator), range(100), strict=False) if row
        ]
        columns = len(lines[0]) if lines else 0
        return (sum(len(row) == columns for row in lines) / len(lines) if columns > 1 else 0.0), columns

    return max(_SEPARATORS, key=quality), text


@dataclass(frozen=True)
class ImageTable:
    """A table that names images of a folder.

    Attributes:
        table: The table.
        column: The column that names them; "" where the table has no header.
        named: Number of distinct names in it that are those of images, or differ from them in folder or extension.
        prefix: Start of the names that is not below the folder.
        rival: Another column, which names other images; "" if there is none.
    """

    table: Table
    column: str
    named: int
    prefix: str = ""
    rival: str = ""

    @property
    def path(self) -> Path:
        """Its file."""
        return self.table.path

    @property
    def others(self) -> pd.DataFrame:
        """Its other columns."""
        return self.table.rows.drop(columns=self.column)


def image_tables(tree: Tree) -> tuple[list[ImageTable], list[str]]:
    """Return the tables of a folder, at any depth, that name its images, and a sentence for each of the others."""
    # without the folder of a file, which may have the name of a patient, as there may be one for each
    workbooks = [path.name for path in tree.below(tree.root) if path.suffix.lower() in WORKBOOKS]
    paths = [path for path in tree.below(tree.root) if path.name.lower().endswith(TABLES)]
    naming, notes = [], [f"{name} is not read: save it as CSV if it names the images." for name in workbooks]
    index = ImageIndex([tree.root] if paths else [], tree=tree)
    for path in paths:
        name = path.name
        try:
            table = read(path)
        except DataError as error:
            if isinstance(error.__cause__, OSError | EOFError | zlib.error) or _mentions(path, index):
                raise
            notes.append(f"{name} is not read: it is no table with a header.")
            continue
        cells = [normalise(cell) for cell in table.rows.columns]
        if any(cell and (index.find(cell) or (is_picture(cell) and index.resembles(cell))) for cell in cells):
            naming.append(ImageTable(table, "", len(table.rows) + 1))
        elif best := _naming_column(table.rows, index):
            column, named, rival = best
            naming.append(ImageTable(table, column, named, _prefix(table.rows[column], index, tree.root), rival))
        elif column := _folder_column(table.rows, tree):
            raise DataError(
                f"{path} names folders of images in its column {column}, and no images; expected a row for each image; "
                "write a table of the images, with the patient as a column, or move this one away"
            )
        else:
            notes.append(f"{name} is not read: it names no image of the folder.")
    return naming, list(dict.fromkeys(notes))


def _folder_column(rows: pd.DataFrame, tree: Tree) -> str:
    """Return the column that names several folders of images, as in a table of patients; "" if none does.

    Folders that may be classes do not count: those at the top, and those of a name that several have.
    """
    folders = {path.parent for path in tree.images(tree.root)}
    inner = {folder for path in folders for folder in (path, *path.parents) if tree.root in folder.parent.parents}
    counts = Counter(folder.name for folder in inner)
    return next((name for name in rows if sum(counts[cell] == 1 for cell in rows[name].str.strip().unique()) > 2), "")


def _mentions(path: Path, index: ImageIndex) -> bool:
    """Return whether a file that is no table names an image."""
    try:
        cells = re.split(rf"[{_SEPARATORS}\"\r\n]", decode(path.read_bytes())[1])
    except ValueError:
        return False
    return any(index.resembles(normalise(cell)) for cell in cells if cell.strip())


def _naming_column(rows: pd.DataFrame, index: ImageIndex) -> tuple[str, int, str] | None:
    """Return the column that names most images, how many, and another that names others; None where none names any.

    Of two that name as many, it is the one whose names are found as they are. A column of masks is none.
    """
    named: dict[str, int] = {}
    images: dict[str, set[str]] = {}
    for column in rows:
        names = rows[column].str.strip()
        distinct = names[names != ""].unique()
        like = [name for name in map(normalise, distinct) if index.resembles(name)]
        numeric = all(re.fullmatch(r"[\d.+-]*", name) for name in distinct)
        repeated = len(distinct) < 0.9 * len(names) and not index.is_named_by(like)
        if numeric and (2 * len(like) < len(distinct) or repeated):
            continue  # numbers that happen to be names of images, such as ages
        if not like or MASK_WORDS & set(words_of(column)):
            continue
        named[column] = len(like)
        images[column] = {path for name in like for path in index.find(name)}
    if not named:
        return None
    best = max(named, key=lambda column: (named[column], len(images[column])))
    others = (column for column in named if 2 * len(images[column] - images[best]) >= named[best])
    return best, named[best], next(others, "")


def _prefix(names: pd.Series, index: ImageIndex, root: Path) -> str:
    """Return the folders that all names start with and that are not below `root`, where the rest of the names is."""
    normal = names.map(normalise)
    if normal.map(index.find).map(bool).any():
        return ""
    parts = normal.iloc[0].split("/")
    for depth in range(1, len(parts)):
        prefix, rest = "/".join(parts[:depth]) + "/", "/".join(parts[depth:])
        if not normal.str.startswith(prefix).all():
            return ""
        # a bare name may be that of another image in any folder
        if (root / rest).is_file() or ("/" in rest and index.find(rest)):
            return prefix
    return ""


def refuse_guess(tree: Tree) -> None:
    """Raise a `DataError` where a table names images of a folder: classes are then not guessed from its folders."""
    naming, _ = image_tables(tree)
    for table in naming[:1]:
        raise DataError(
            f"{table.path} names images of {tree.root}, so their classes are not guessed from the names of folders; "
            f"write a study that reads the table: scanbook new-study my_images --data {tree.root}; or move the table "
            "away"
        )
