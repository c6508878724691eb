"""Class names in Portuguese and Korean: every class of a study has one, and a name of no class is refused."""

from __future__ import annotations

import unicodedata
from typing import get_args

import pytest

from helpers import planted
from helpers.projects import shipped
from scanbook import bundle, config
from scanbook.config import Study, blocks
from scanbook.data.adapters.medmnist import ARCHIVES
from scanbook.data.adapters.synthetic import dermoscopy
from scanbook.data.adapters.synthetic.plan import class_of
from scanbook.errors import StudyError

NAMED = [name for name in shipped() if name not in ("folder", "medmnist")]  # their classes are anybody's


def classes_of(chosen: Study) -> set[str]:
    source = chosen.dataset
    if source.adapter == "synthetic":
        return set(dermoscopy.CLASSES)
    if source.adapter == "medmnist":
        return {*ARCHIVES[source.flag].classes, *ARCHIVES[source.flag].findings}
    if findings := getattr(source, "finding_names", {}):
        return set(findings.values())
    if chosen.stand_in:
        return {name for key in chosen.stand_in.classes if (name := class_of(key, source))}
    return set(source.claimed)


@pytest.mark.parametrize("name", NAMED)
@pytest.mark.parametrize("language", ["pt", "ko"])
def test_every_class_of_every_study_has_a_name_of_its_own(name: str, language: str) -> None:
    chosen = config.load(name)
    expected = sorted(classes_of(chosen))
    names = chosen.names_of(expected)[language]
    assert set(chosen.class_names[language]) == set(expected)
    assert len(set(names)) == len(names) and all(label.strip() == label for label in names)
    hangul = [any(unicodedata.name(letter, "").startswith("HANGUL") for letter in label) for label in names]
    assert all(hangul) if language == "ko" else not any(hangul)


def test_names_come_in_class_order_and_english_stands_in() -> None:
    chosen = planted.study(class_names={"pt": {"brick": "tijolo"}, "ko": {"sky": "하늘", "leaf": "잎"}})
    assert chosen.names_of(planted.CLASSES) == {"pt": ("sky", "leaf", "tijolo"), "ko": ("하늘", "잎", "brick")}
    assert planted.study().names_of(planted.CLASSES) == {}


def test_a_name_of_no_class_is_one_line() -> None:
    chosen = planted.study(class_names={"pt": {"brik": "tijolo"}})
    with pytest.raises(StudyError, match=r"class_names\.pt names the class 'brik'; expected one of sky, leaf, brick"):
        chosen.names_of(planted.CLASSES)


def test_a_class_that_a_sample_or_an_override_leaves_out_keeps_its_name() -> None:
    chosen = config.load("dermnet")
    few = sorted(classes_of(chosen))[:5]
    assert all(len(names) == 5 for names in chosen.names_of(few).values())
    assert config.load("ham10000").names_of(["mel", "nv"])["pt"] == ("melanoma", "nevo melanocítico")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ("class_names.fr.nevus=naevus", "class_names.fr: input should be 'pt' or 'ko' (got 'fr')"),
        ("class_names.pt.nevus=\"''\"", "class_names.pt.nevus: string should have at least 1 character (got '')"),
        ("class_names.pt.nevus=[a]", "class_names.pt.nevus: input should be a valid string (got ['a'])"),
    ],
)
def test_a_wrong_language_or_name_is_one_line(overrides: str, message: str) -> None:
    with pytest.raises(StudyError) as refused:
        config.load("synthetic", "", "", overrides)
    assert str(refused.value) == f"study synthetic: {message}"


def test_a_study_names_classes_in_what_the_service_speaks() -> None:
    assert {"en", *get_args(blocks.Language)} == set(bundle.LANGUAGES)
