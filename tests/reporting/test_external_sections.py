"""The sections of notebook 08 say what is known of another source, and why the rest is not."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from helpers import bundles, finding_bundles, findings
from helpers.projects import ROOT
from scanbook import config
from scanbook.data import images
from scanbook.data.manifest import finding_column
from scanbook.errors import DataError
from scanbook.reporting import external, external_answers, notebook
from scanbook.runner.comparing import reading, table

REST = {"title": "Elsewhere", "question": "Which colour?", "backbones": ["mobilenet_v2_0.35"], "weights": "scanbook"}
CLASSES = {"red": (200, 70, 60), "green": (70, 200, 60), "blue": (60, 70, 200)}


def patch(path: Path, colour: Any, draw: np.random.Generator, side: int = 40) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.array(colour) + draw.normal(0, 25, (side, side, 3)) + draw.normal(0, 30, 3)
    path.write_bytes(images.encode_png(np.clip(pixels, 0, 255).astype(np.uint8)))


def write_study(home: Path, name: str, **keys: Any) -> None:
    (home / "notebooks" / "studies").mkdir(parents=True, exist_ok=True)
    content = {"study": name, "bootstrap_rounds": 40, **REST, **keys}
    (home / "notebooks" / "studies" / f"{name}.yaml").write_text(yaml.safe_dump(content, sort_keys=False))


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, folder in (("HOME", tmp_path), ("DATA", tmp_path / "data"), ("REPORTS", tmp_path / "reports")):
        monkeypatch.setenv(f"SCANBOOK_{name}", str(folder))
    return tmp_path


def report(study: str, bundle: Path) -> SimpleNamespace:
    """Run the notebook's own cells; return its variables, and what its page opens with."""
    file = json.loads((ROOT / "notebooks" / "08_external_validation.ipynb").read_text())
    cells = ["".join(cell["source"]) for cell in file["cells"] if cell["cell_type"] == "code"]
    defined: dict[str, Any] = {"STUDY": study, "PROFILE": "quick", "DATA": "", "SET": "", "BUNDLE": str(bundle)}
    for cell in cells[2:]:  # after that of Colab and the parameters
        exec(cell, defined)
    measured = defined["session"]._measurements
    return SimpleNamespace(answer=measured["answer"], warnings=measured.get("warnings", []), **defined)


def write_classes(home: Path, name: str, counts: dict[str, int], seed: int, **keys: Any) -> None:
    draw = np.random.default_rng(seed)
    for label, count in counts.items():
        for number in range(count):
            patch(home / "data" / name / label / f"{name}-{label}-{number}.png", CLASSES[label], draw)
    write_study(home, name, dataset={"adapter": "folder", "classes": {key: key for key in CLASSES}}, **keys)


def write_bundle(home: Path, **changes: Any) -> Path:
    rates = {name: {"value": 0.9, "low": 0.8, "high": 1.0} for name in ("sensitivity", "specificity")}
    points = {name: {"classes": [name], "threshold": 0.4, **rates} for name in bundles.CLASSES}
    return bundles.write(home / "bundle", operating_points=points, **changes).folder


def test_a_single_class_and_no_internal_images(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_classes(home, "far", {"red": 24}, 0)
    made = report("far", write_bundle(home))
    assert any("All external images are of one class, red: AUROC" in text for text in made.warnings)
    assert any("compared on the classes that both have, red. The model can also answer green, blue." in text
               for text in made.warnings)  # fmt: skip
    assert any("not available here: unknown study 'colours'" in text for text in made.warnings)
    assert np.isnan(made.metrics.loc["auroc", "external"]) and made.metrics.loc["accuracy", "external"] > 0.8
    assert "difference" not in made.metrics and made.shifts.empty
    printed = capsys.readouterr().out
    assert "positives of each target: sensitivity alone says something" in printed
    assert "not defined" in printed and "NaN" not in printed and "nan" not in printed.replace("finance", "")
    assert len(made.answer) <= 5 and made.answer[0].startswith("How the sources differ is not known")
    card = pd.read_csv(made.session.folder / "tables" / "metrics_of_card.csv", index_col=0)
    assert card.loc["accuracy", "value"] == 0.9, "what the card states stands in for the internal images"


@pytest.mark.slow
def test_both_sources_of_classes(home: Path) -> None:
    write_classes(home, "colours", dict.fromkeys(CLASSES, 30), 0)
    write_classes(home, "far", {"red": 60, "green": 12, "blue": 12}, 1)
    made = report("far", write_bundle(home, about={"title": "Which colour?", "profile": "quick"}))
    assert made.found.available is not None, made.found.own
    assert made.shifts.index[0] == "prevalence", made.shifts
    assert made.answer[0].startswith("The shift that stands out most is in prevalence (AUROC 0.")
    assert "a difference of" in made.answer[1] and made.answer[4].startswith("With labels of ")
    assert not any("measure resolution" in text for text in made.warnings)
    results = json.loads((made.session.folder / "results.json").read_text())
    assert results["external_images"] == 84 and results["headline"].startswith("far: accuracy ")


def shown_at_start(study: str, bundle: Path) -> SimpleNamespace:
    """Run the first section alone."""
    session = notebook.Session("08_external_validation", config.load(study, "quick"))
    found = external.start(session, str(bundle))
    tables = {path.stem for path in (session.folder / "tables").iterdir()}
    return SimpleNamespace(found=found, warnings=session._measurements.get("warnings", []), tables=tables)


def copy_first_images(home: Path, source: str, target: str, count: int = 3) -> None:
    for number in range(count):
        for label in CLASSES:
            content = (home / "data" / source / label / f"{source}-{label}-{number}.png").read_bytes()
            (home / "data" / target / label / f"{target}-{label}-{number}.png").write_bytes(content)


def test_copies_of_a_cross_validated_bundles_own_images_are_looked_for(home: Path) -> None:
    """The network learned from the images of all folds: none is a test image, and each may be a copy."""
    write_classes(home, "colours", dict.fromkeys(CLASSES, 12), 0, splits={"folds": 3})
    write_classes(home, "far", dict.fromkeys(CLASSES, 10), 1)
    copy_first_images(home, "colours", "far")
    bundle = write_bundle(home, about={"profile": "quick"})
    made = shown_at_start("far", bundle)
    assert len(made.found.shared) == 9 and len(made.found.external) == 21 and "shared" in made.tables
    assert made.found.internal is None and len(made.found.training("train", "validation").frame) == 36
    assert any("learned from the images of all folds: none is left as a test image" in text for text in made.warnings)
    assert external_answers.record(made.found)["shared_images"] == 9
    own = config.load("far", "quick", str(home / "data" / "colours"))
    with pytest.raises(DataError, match="36 of 36 images of far are byte-identical to images of colours, from which"):
        external.start(notebook.Session("08_external_validation", own), str(bundle))


def test_the_page_does_not_say_that_there_are_no_copies_where_none_was_looked_for(home: Path) -> None:
    write_classes(home, "far", dict.fromkeys(CLASSES, 4), 0)
    made = shown_at_start("far", write_bundle(home))
    assert "shared" not in made.tables and external_answers.record(made.found)["shared_images"] is None
    assert any("copies of the bundle's own were not looked for" in text for text in made.warnings)


@pytest.mark.slow
def test_a_cross_validated_bundle_is_compared_with_its_card(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_classes(home, "colours", dict.fromkeys(CLASSES, 20), 0, splits={"folds": 3})
    write_classes(home, "far", dict.fromkeys(CLASSES, 20), 1)
    made = report("far", write_bundle(home, about={"profile": "quick"}))
    assert "difference" not in made.metrics and set(made.shifts.index) > {"prevalence"}
    assert (made.session.folder / "tables" / "metrics_of_card.csv").is_file()
    features = pd.read_csv(made.session.folder / "tables" / "features.csv", index_col=0)
    printed = capsys.readouterr().out
    assert list(features.index) == ["external images"] and "are the control" not in printed
    assert "since no internal image is left as a test image" in printed and "not available" not in printed


def finish_as_the_runner_does(made: SimpleNamespace) -> Path:
    """Write what makes a report whole, and move it to a folder of its own."""
    folder, study = made.session.folder, made.session.study
    results = json.loads((folder / "results.json").read_text())
    facts = {"title": "External validation", "study": study.resolved(), "fingerprints": {}, "results": results}
    (folder / "metrics.json").write_text(json.dumps(facts | {"finished": "2026-11-01T10:00:00+00:00"}))
    (folder / "report.html").write_text("<title>x</title>")
    return folder.rename(folder.parents[2] / f"{made.found.bundle.name}-{folder.name}")


@pytest.mark.slow
def test_two_bundles_on_one_source_are_compared(home: Path) -> None:
    write_classes(home, "far", {"red": 14, "green": 14, "blue": 14}, 1)
    places = []
    for name, gain in (("colours", 5), ("paler", 1)):
        bundle = write_bundle(home / name, name=name, graph={"gain": gain})
        places.append(finish_as_the_runner_does(report("far", bundle)))
    runs = reading.read_runs(list(map(str, places)))
    assert [run.model for run in runs] == ["bundle colours", "bundle paler"]
    assert all(run.figures["value"].notna().all() and "accuracy" in run.figures.index for run in runs)
    [comparison] = table.compare_with_first(runs)
    assert comparison.paired and "the same 42 test images" in comparison.why
    assert comparison.differences["accuracy"].value == 0, "paler answers are no others"
    assert comparison.differences["brier"].low > 0


def test_images_of_two_sources_are_told_apart_by_more_than_their_names(home: Path) -> None:
    write_classes(home, "far", dict.fromkeys(CLASSES, 4), 0)
    found = shown_at_start("far", write_bundle(home)).found
    kept = external_answers.predictions_to_keep(found)
    assert not set(kept.image_id) & set(found.external.image_id)
    assert np.array_equal(kept.probabilities, found.external.probabilities)


def write_findings(home: Path, name: str, count: int, seed: int, share: float, **keys: Any) -> None:
    """Write a table of images, two of a patient, whose channels are bright where a finding is present."""
    draw, rows = np.random.default_rng(seed), []
    for number in range(count):
        present = draw.random(3) < share
        file = f"{name}-{number}.png"
        patch(home / "data" / name / file, np.where(present, 190, 70), draw)
        labels = [str(int(value)) if draw.random() > 0.05 else "" for value in present]
        rows.append([file, f"{name} {number // 2}", *labels])
    columns = ["image", "patient", *finding_bundles.names(3)]
    pd.DataFrame(rows, columns=columns).to_csv(home / "data" / name / "labels.csv", index=False)
    table = {"adapter": "table", "csv": "labels.csv", "image_column": "image", "group_column": "patient"}
    write_study(home, name, dataset={**table, "findings": list(finding_bundles.names(3))}, **keys)


def test_the_page_says_where_nothing_can_be_weighted(tmp_path: Path) -> None:
    """No image of the other source is labelled with both findings."""
    ward = findings.ward(tmp_path, 40, missing=0)
    first, last = (finding_column(name) for name in findings.FINDINGS[::2])
    even = np.arange(40) % 2 == 0
    partly = ward.with_frame(
        ward.frame.assign(**{first: ward.frame[first].mask(even), last: ward.frame[last].mask(~even)})
    )
    found = SimpleNamespace(source=partly, compared=findings.FINDINGS)
    text = external._balance_in_words(found, ward, pd.DataFrame(index=["scanner and size"]))
    assert text.endswith("compared without weights to equal prevalence, and prevalence is not compared as a whole.")
    found.source = ward
    assert "are weighted to the internal labels" in external._balance_in_words(found, ward, pd.DataFrame())


@pytest.mark.slow
def test_both_sources_of_findings(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_findings(home, "chest", 120, 0, 0.4)
    mapping = {"Atelectasis": "Atelectasis", "Cardiomegaly": "Cardiomegaly"}
    write_findings(home, "far", 160, 1, 0.15, external={"classes": mapping})
    folder = finding_bundles.write(home / "bundle", about={"title": "Which findings?", "profile": "quick"}).folder
    made = report("far", folder)
    assert made.found.compared == ("Atelectasis", "Cardiomegaly") and made.found.available is not None
    assert made.found.excluded.index.tolist() == ["Effusion"]
    assert list(made.metrics.index) == ["auroc", "auprc", "brier", "ece"]
    assert made.metrics.loc["auroc", "external"] > 0.8
    assert made.needed["external"]["method"] and set(made.ranges) == set(made.found.compared)
    assert made.shifts.index[0] == "prevalence", made.shifts
    assert set(made.local["target"]) == {"", *made.found.compared}
    printed = capsys.readouterr().out
    assert "nan" not in printed.lower().replace("finance", "")
    assert "images without a label of some compared finding are excluded" in printed
    written = {path.stem for path in (made.session.folder / "figures").iterdir()}
    names = {"sources", "prevalence", "shifts", "reliability", "thresholds", "decision_curves", "local_labels"}
    assert written >= names
