"""A notebook whose question a study of vectors cannot answer says why; its other cells do nothing, its page ends."""

import json

import pytest
from bs4 import BeautifulSoup
from IPython.core.interactiveshell import InteractiveShell

from scanbook import config
from scanbook.errors import StudyError
from scanbook.reporting import external, notebook, report, stopping, suite

VECTORS = "dataset.embeddings=vectors.npz"


@pytest.fixture
def shell(tmp_path, monkeypatch):
    monkeypatch.setenv("SCANBOOK_REPORTS", str(tmp_path))
    shell = InteractiveShell()
    monkeypatch.setattr("IPython.get_ipython", lambda: shell)
    return shell


def start(name, overrides=VECTORS):
    return notebook.start(name, "synthetic", "smoke", "", overrides)


@pytest.mark.parametrize("name", [suite.BENCHMARK, suite.EXPORT])
def test_a_notebook_that_needs_the_network_ends_at_its_start(name, shell, capsys):
    session = start(name)
    assert "study has" in capsys.readouterr().out
    recorded = json.loads((session.folder / "results.json").read_text())
    assert recorded == {"headline": {suite.EXPORT: "no bundle is exported"}.get(name, "nothing is measured")}
    shell.user_ns["told"] = []
    shell.run_cell("told.append(session.study)")
    shell.run_cell("metrics = external.show_metrics(session, found)\ntold.append(1)")
    assert shell.user_ns["told"] == [], "cells of the notebook are passed over"
    shell.run_cell("told.append('a cell of the reader')")
    assert shell.user_ns["told"] == ["a cell of the reader"]


def test_cells_run_again_with_another_study(shell):
    start(suite.EXPORT)
    session = start(suite.EXPORT, "")
    shell.user_ns.update(session=session, told=[])
    shell.run_cell("told.append(session.name)")
    assert shell.user_ns["told"] == [suite.EXPORT]


def test_a_bundle_is_validated_on_the_images_of_a_study_of_vectors(shell, monkeypatch):
    session = start(suite.EXTERNAL)
    monkeypatch.setattr(external, "validate", lambda *_, **__: (_ for _ in ()).throw(StudyError("it ran")))
    with pytest.raises(StudyError, match="it ran"):
        external.start(session, "a/bundle")
    assert external.start(session) is None
    recorded = json.loads((session.folder / "results.json").read_text())
    assert recorded == {"headline": "the model is not validated on the other source"}


def test_other_notebooks_and_studies_run(shell):
    with_vectors, without = (config.load("synthetic", "smoke", overrides=text) for text in (VECTORS, ""))
    named = {name for name in suite.NOTEBOOKS if stopping.why_not(with_vectors, name)}
    assert named == {suite.BENCHMARK, suite.EXPORT, suite.EXTERNAL}
    assert not any(stopping.why_not(without, name) for name in suite.NOTEBOOKS)
    start("04_transfer_learning")
    assert stopping._pass_over not in shell.input_transformers_cleanup


def test_a_script_ends_with_the_reason(monkeypatch, tmp_path):
    monkeypatch.setenv("SCANBOOK_REPORTS", str(tmp_path))
    monkeypatch.setattr("IPython.get_ipython", lambda: None)
    with pytest.raises(StudyError, match="study synthetic: no bundle is exported: it needs the network"):
        start(suite.EXPORT)


def test_a_page_ends_where_its_notebook_ended():
    sections = "".join(f'<div class="cell markdown"><h2>{place}. A section</h2></div>' for place in (1, 2, 3))
    stopped = f'<div class="cell"><div class="output"><p class="{stopping.MARK}">No more.</p></div></div>'
    first, rest = sections.split("</div>", 1)
    html, contents = report._for_reading(f"{first}</div>{stopped}{rest}")
    assert [entry["text"] for entry in contents] == ["1. A section"]
    assert "No more." in BeautifulSoup(html, "html.parser").get_text()
    assert len(report._for_reading(sections)[1]) == 3
