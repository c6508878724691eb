"""Lists of the images on which weights were pretrained."""

import hashlib

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scanbook.data import corpus
from scanbook.errors import DataError


@pytest.mark.parametrize(
    ("name", "short"),
    [
        ("ISIC_0024306.jpg", "isic_0024306"),
        ("train/nv/ISIC_0024306.JPG", "isic_0024306"),
        (r"C:\images\a b.Png", "a b"),
        ("1.2.840.113619", "1.2.840.113619"),
        ("1.2.840.113619.dcm", "1.2.840.113619"),
        ("patient", "patient"),
        (".hidden", ".hidden"),
        ("trailing.", "trailing."),
    ],
)
def test_names_are_compared_without_folder_and_ending(name, short):
    assert corpus.short_name(name) == short


@given(st.text(st.characters(exclude_characters="/\\", codec="utf-8"), min_size=1))
def test_a_name_in_any_folder_is_the_same(name):
    assert corpus.short_name(f"folder/{name}") == corpus.short_name(name)


@pytest.fixture
def frame(tmp_path):
    """Four images, of which the file of the last is missing."""
    rows = []
    for index, content in enumerate((b"one", b"two", b"three", None)):
        path = tmp_path / f"File_{index}.png"
        if content:
            path.write_bytes(content)
        rows.append((f"id{index}", str(path)))
    return pd.DataFrame(rows, columns=["image_id", "path"])


def listed(frame, path, *lines):
    path.write_text("\n".join(lines))
    found = corpus.read(path)
    return len(found), np.flatnonzero(found.contains(frame)).tolist()


def test_images_are_found_by_id_name_and_content(frame, tmp_path):
    path = tmp_path / "list.txt"
    assert listed(frame, path, "# RadImageNet", "", "ID0", "other.png") == (2, [0])
    assert listed(frame, path, "brain/file_1.JPEG", "FILE_3") == (2, [1, 3])
    digest = hashlib.sha256(b"three").hexdigest()
    assert listed(frame, path, digest.upper(), "id0.png", '"id1"') == (3, [0, 1, 2])
    assert listed(frame, path, "﻿id2") == (1, [2])
    assert listed(frame, path, "file") == (1, []), "a part of a name is not the name"
    assert listed(frame, path, hashlib.sha256(b"").hexdigest()) == (1, []), "a missing file has no content"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "there is no list"),
        (b"", "is empty"),
        (b"\n# nothing\n  \n", "is empty"),
        (b"\xff\xfe\x81", "cannot be read"),
        (b"PK\0\0", "is no text"),
    ],
)
def test_what_is_no_list_is_one_line(content, words, tmp_path):
    path = tmp_path / "list.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=words) as refused:
        corpus.read(path)
    assert "\n" not in str(refused.value)


def test_a_folder_is_one_line(tmp_path):
    with pytest.raises(DataError, match="cannot be read"):
        corpus.read(tmp_path)
