"""The service's languages: every string is translated, and what is compiled is what is written.

After a change of a string in `lib/scanbook/serving`, in that folder:

    pybabel extract -F translations/babel.cfg --no-location --omit-header -o messages.pot .
    pybabel update -i messages.pot -d translations --no-fuzzy-matching --ignore-obsolete
    pybabel compile -d translations && rm messages.pot

with the empty strings of both catalogues filled in between the last two.
"""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest
from babel.messages.catalog import Catalog
from babel.messages.extract import extract_from_dir
from babel.messages.frontend import parse_mapping_cfg
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po

import scanbook.serving

SERVING = Path(scanbook.serving.__file__).parent
FOLDER = SERVING / "translations"
LANGUAGES = sorted(path.name for path in FOLDER.iterdir() if path.is_dir())
PLACEHOLDER = re.compile(r"%\(\w+\)[sd]")
TAGGED = re.compile(r"[<>]")


def catalogue(language: str) -> Catalog:
    with (FOLDER / language / "LC_MESSAGES" / "messages.po").open("rb") as file:
        return read_po(file, locale=language)


@pytest.fixture(scope="module")
def extracted() -> set[str | tuple[str, ...]]:
    """Every string that templates and Python mark; the singular and the plural where a count decides."""
    with (FOLDER / "babel.cfg").open() as file:
        methods, options = parse_mapping_cfg(file)
    return {
        tuple(message) if isinstance(message, tuple) else message
        for _, _, message, _, _ in extract_from_dir(str(SERVING), methods, options)
    }


def test_languages() -> None:
    assert LANGUAGES == ["ko", "pt"]


@pytest.mark.parametrize("language", LANGUAGES)
def test_compiled_is_what_is_written(language: str) -> None:
    compiled = io.BytesIO()
    write_mo(compiled, catalogue(language))
    stored = FOLDER / language / "LC_MESSAGES" / "messages.mo"
    assert stored.read_bytes() == compiled.getvalue(), f"run: cd {SERVING} && pybabel compile -d translations"


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_string_is_translated_and_no_other(language: str, extracted: set) -> None:
    assert len(extracted) > 30
    written = {message.id: message for message in catalogue(language) if message.id}
    known = {tuple(key) if isinstance(key, list | tuple) else key for key in written}
    assert known == extracted, "extract and update the catalogues again: see the top of this file"
    for identity, message in written.items():
        assert not message.fuzzy, identity
        forms = message.string if isinstance(message.string, tuple) else (message.string,)
        expected = {"pt": 2, "ko": 1}[language] if message.pluralizable else 1
        assert len(forms) == expected and all(form.strip() for form in forms), identity


@pytest.mark.parametrize("language", LANGUAGES)
def test_translations_keep_what_a_program_fills_in(language: str) -> None:
    for message in catalogue(language):
        if not message.id:
            continue
        source = message.id[-1] if message.pluralizable else message.id
        for form in message.string if message.pluralizable else (message.string,):
            assert sorted(PLACEHOLDER.findall(form)) == sorted(PLACEHOLDER.findall(source)), message.id
            assert "%" not in PLACEHOLDER.sub("", form), message.id
            assert not TAGGED.search(form), message.id


@pytest.mark.parametrize(
    ("language", "script"), [("ko", re.compile("[가-힣]")), ("pt", re.compile(r"[a-zçãõáéíóúâêô]", re.I))]
)
def test_translations_are_in_their_language(language: str, script: re.Pattern) -> None:
    for message in catalogue(language):
        if message.id:
            forms = message.string if message.pluralizable else (message.string,)
            assert all(script.search(form) for form in forms), message.id
            assert not set(forms) & {message.id}, f"{message.id!r} is left in English"
