"""Names whose bytes are not UTF-8, and terminals that show few characters: what is written and printed bears both."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from scanbook import config, runtime
from scanbook.errors import ScanbookError
from scanbook.store import atomic_write, fingerprint, write_json

NAME = os.fsdecode(b"caf\xe9 \xff")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("日本 é", "日本 é"),
        (NAME, r"caf\xe9 \xff"),
        ("é" + NAME, r"écaf\xe9 \xff"),
        ("\ud800", r"\ud800"),
    ],
)
def test_a_byte_that_is_not_utf8_is_shown(text: str, shown: str) -> None:
    assert runtime.legible(text) == shown
    assert runtime.encode(text) == shown.encode()


def test_files_with_such_names_are_utf8(tmp_path: Path) -> None:
    atomic_write(tmp_path / "text", f"{NAME},1\n")
    write_json(tmp_path / "json", {NAME: NAME})
    assert (tmp_path / "text").read_text("utf-8") == "caf\\xe9 \\xff,1\n"
    assert json.loads((tmp_path / "json").read_text("utf-8")) == {r"caf\xe9 \xff": r"caf\xe9 \xff"}
    assert fingerprint(NAME) != fingerprint(runtime.legible(NAME))


def test_a_path_passes_through_utf8() -> None:
    path = Path("/data", NAME)
    assert runtime.path_as_text(path) == "file:///data/caf%E9%20%FF"
    assert runtime.path_from_text(runtime.path_as_text(path)) == path
    assert runtime.path_as_text(Path("/data/日本 50%")) == "/data/日本 50%"
    assert runtime.path_from_text("/data/日本 50%") == Path("/data/日本 50%")


def test_data_of_any_name_is_a_parameter_of_a_notebook(tmp_path: Path) -> None:
    """The address that the study holds is passed on, and leads to the same folder."""
    study = config.load("folder", "smoke", str(tmp_path / NAME))
    study.data.encode()
    assert study.location == tmp_path.resolve() / NAME
    assert config.load("folder", "smoke", study.data) == study


def test_reports_are_kept_in_a_folder_that_a_notebook_can_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCANBOOK_REPORTS", f"/data/{NAME}")
    with pytest.raises(
        ScanbookError, match=r"caf\\xe9 \\xff is a path whose bytes are not UTF-8.*set SCANBOOK_REPORTS"
    ):
        runtime.reports_dir()


@pytest.mark.parametrize("variables", [{"LC_ALL": "C"}, {"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C.UTF-8"}])
def test_a_command_ends_in_one_line_on_every_terminal(variables: dict[str, str]) -> None:
    command = [
        sys.executable,
        "-m",
        "scanbook.cli",
        "run",
        "01_eda",
        "--study",
        "folder",
        "--data",
        b"/caf\xe9/\xe2\x80\xa6",
    ]
    done = subprocess.run(command, capture_output=True, env=os.environ | variables, check=False)
    assert done.returncode == 1 and b"Traceback" not in done.stderr
    assert done.stderr.count(b"\n") == 1 and rb"no data at /caf\xe9/" in done.stderr


def test_markdown_shows_a_name_as_it_is() -> None:
    from markdown_it import MarkdownIt

    name = "$x_1$ *a*|b\\c `q` <b> [l](u) &amp; # ~~d~~"
    table = f"| {runtime.as_markdown(name)} | 1 |\n| --- | --- |"
    html = MarkdownIt("commonmark", {"html": False}).enable("table").render(table)
    assert "<th>$x_1$ *a*|b\\c `q` &lt;b&gt; [l](u) &amp;amp; # ~~d~~</th>" in html
    assert runtime.as_markdown(" two\nlines ") == "two lines"
