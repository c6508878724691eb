"""External validation by a command: what runs, with which bundle, and when its report is stale."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from helpers import bundles
from helpers.projects import PARAMETERS, RECORD, write_notebook
from scanbook import cli, config, store
from scanbook.reporting import records, suite
from scanbook.reporting.records import METRICS, REPORT
from scanbook.runner.freshness import Batch


def batch(study: str = "synthetic", overrides: str = "", **options: str) -> Batch:
    return Batch(config.load(study, "smoke", overrides=overrides), overrides, **options)


def make_fresh(made: Batch, *names: str) -> None:
    for name in names or made.notebooks:
        store.write_json(made.folder / name / METRICS, {"fingerprints": made.fingerprints(name)})
        (made.folder / name / REPORT).write_text("whole")


def test_the_notebook_is_run_only_where_a_source_is_named(project: Path) -> None:
    assert batch().notebooks == suite.NOTEBOOKS
    without = tuple(name for name in suite.NOTEBOOKS if name != suite.EXTERNAL)
    assert batch(overrides="external.study=").notebooks == without
    assert batch(overrides="external.study=", bundle="somewhere").notebooks == suite.NOTEBOOKS


def test_the_other_source_concerns_that_notebook_alone(project: Path) -> None:
    make_fresh(batch())
    assert batch().stale() == []
    path = project / "notebooks" / "studies" / "synthetic_hospital.yaml"
    path.write_text(path.read_text().replace("tint: 12", "tint: 13"))
    assert batch().stale() == [suite.EXTERNAL]
    make_fresh(batch())
    path = project / "notebooks" / "studies" / "synthetic.yaml"
    named = "{study: synthetic_hospital, classes: {a: b}}"
    path.write_text(path.read_text().replace("{study: synthetic_hospital}", named))
    assert batch().stale() == [suite.EXTERNAL]
    path.write_text(path.read_text().replace(f"external: {named}", ""))
    assert batch().stale() == []


def test_another_bundle_makes_the_report_stale(project: Path) -> None:
    first = bundles.write(project / "one" / "bundle").folder
    make_fresh(batch(bundle=str(first)), suite.EXTERNAL)
    assert batch(bundle=str(first)).fresh(suite.EXTERNAL)
    second = bundles.write(project / "two" / "bundle", temperature=2.0).folder
    assert not batch(bundle=str(second)).fresh(suite.EXTERNAL)


def test_the_command_gives_the_notebook_its_bundle(project: Path) -> None:
    folder = bundles.write(project / "exported" / "bundle").folder
    record = RECORD.replace('"set": SET', '"set": SET, "bundle": BUNDLE')
    path = write_notebook(project, suite.EXTERNAL, record.format(name=suite.EXTERNAL))
    path.write_text(
        path.read_text().replace(json.dumps(PARAMETERS)[1:-1], json.dumps(f'{PARAMETERS}\nBUNDLE = ""')[1:-1])
    )
    assert suite.takes(suite.EXTERNAL, "BUNDLE") and not suite.takes("01_eda", "BUNDLE")
    assert cli.main(["validate", "--bundle", str(folder), "--set", "external.study="]) == 0
    report = batch().folder / suite.EXTERNAL
    assert json.loads((report / "results.json").read_text())["bundle"] == str(folder)
    assert json.loads((report / METRICS).read_text())["bundle"] == str(folder)
    assert suite.EXTERNAL in records.Run(batch().folder).reports, "the page of the study lists it"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--set", "external.study="], "scanbook: study synthetic names no other source; name a bundle, whose other"),
        (["--bundle", "gone"], "is not a bundle: it has no bundle.json"),
        (["--set", "external.study=nowhere"], "scanbook: unknown study 'nowhere'; expected one of"),
    ],
)
def test_what_is_missing_is_one_line(
    words: list[str], says: str, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["validate", *words]) == 1
    error = capsys.readouterr().err
    assert says in error and error.count("\n") == 1


def test_reports_of_a_study_that_names_no_source_are_whole_without_it(project: Path) -> None:
    made = batch(overrides="external.study=")
    for name in made.notebooks:
        facts = {"title": name, "study": made.study.resolved(), "fingerprints": made.fingerprints(name)}
        store.write_json(made.folder / name / METRICS, facts | {"finished": "2026-01-01T00:00:00"})
        (made.folder / name / REPORT).write_text("whole")
    run = records.Run(made.folder)
    assert run.missing == [] and len(run.done) == len(suite.NOTEBOOKS) - 1
