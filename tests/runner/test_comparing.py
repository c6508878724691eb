"""Comparisons of runs: planted predictions whose differences are known, and what cannot be compared."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from helpers import pages
from helpers.models import findings
from helpers.projects import ROOT
from scanbook import cli, config, evaluation
from scanbook.errors import RunError
from scanbook.evaluation import AnyPredictions, Predictions, pseudonymous
from scanbook.reporting.records import HISTORY, PREDICTIONS, join_histories
from scanbook.runner import index
from scanbook.runner.comparing import page, pairing, reading, table

HISTORY_OF = pd.DataFrame(
    {"epoch": [1, 2], "loss": [1.0, 0.8], "accuracy": [0.5, 0.6], "validation_loss": [1.1, 0.9]}
    | {"validation_accuracy": [0.4, 0.5], "seconds": [1.0, 2.0]}
)


REPORTS = ("05_fine_tuning", "08_my_question", "09_other_question")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A reports folder of the test's own."""
    monkeypatch.setenv("SCANBOOK_HOME", str(ROOT))
    monkeypatch.setenv("SCANBOOK_REPORTS", str(tmp_path / "reports"))
    return tmp_path / "reports"


def predicted(right: float, seed: int = 0, count: int = 200, classes: tuple[str, ...] = ("a", "b")) -> Predictions:
    """Predictions of which exactly a share is right; images, labels and patients are the same whatever the seed."""
    y = np.arange(count) % len(classes)
    order = np.random.default_rng(seed).permutation(count)
    answer = y.copy()
    answer[order[: round(count * (1 - right))]] += 1
    p = np.full((count, len(classes)), 0.3 / (len(classes) - 1))
    p[np.arange(count), answer % len(classes)] = 0.7
    return Predictions([f"Silva {i}.png" for i in range(count)], [f"Ana {i // 2}" for i in range(count)], y, p, classes)


def report(
    folder: Path,
    test: AnyPredictions | None,
    name: str = "05_fine_tuning",
    study: str = "synthetic",
    overrides: str = "",
    results: Mapping[str, Any] | None = None,
) -> Path:
    """A whole report of a notebook, as the runner leaves it."""
    resolved = config.load(study, "smoke", overrides=overrides)
    place = folder / study / "smoke" / name
    place.mkdir(parents=True)
    if results is None:
        summary = evaluation.summary(test, rounds=200).astype(object).where(lambda frame: frame.notna(), None)
        results = {"model": "net, fine-tuned", "summary": summary.T.to_dict()}
    if test is not None:
        pseudonymous(test).save(place / PREDICTIONS)
        join_histories({"seed 0": HISTORY_OF}).to_csv(place / HISTORY, index=False)
    facts = {"title": "Fine-tuning", "study": resolved.resolved(), "fingerprints": {"data": ""}, "seconds": 12.0}
    facts |= {"finished": "2026-11-01T10:00:00+00:00", "hardware": {"processor": "a chip", "cores": 2}}
    facts |= {"versions": {"keras": "3.1" if overrides else "3.0"}, "commit": "abc", "results": dict(results)}
    (place / "report.html").write_text("<title>x</title>")
    (place / "metrics.json").write_text(json.dumps(facts))
    return place


def record(folder: Path, validation: AnyPredictions, **facts: Any) -> Path:
    """A record of one network, as a sweep leaves it."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"net-{len(list(folder.glob('*.json')))}.json"
    validation.save(file.with_suffix(".csv"))
    file.write_text(json.dumps({"network": "net", "backbone": "small_cnn", "policy": "none", "seconds": 1.5} | facts))
    return file


def check_page(path: Path) -> str:
    text = path.read_text()
    pages.check_file(path)
    assert ">nan" not in text.lower() and " nan" not in text.lower() and "None" not in text
    assert "Silva" not in text and "Ana" not in text, "a comparison names no image and no patient"
    return text


# --- the same images


def test_planted_differences_are_found_paired_whatever_the_order_of_the_images(home: Path, tmp_path: Path) -> None:
    better, worse = predicted(0.9, 1), predicted(0.7, 2)
    report(home, better)
    report(tmp_path / "copied" / "reports", worse.subset(np.arange(200)[::-1]), overrides="fine_tuning.epochs=9 seed=3")
    path = page.compare(["synthetic/smoke", str(tmp_path / "copied" / "reports" / "synthetic" / "smoke")], "mine")
    assert path == home / "compare" / "mine" / "index.html"
    text = check_page(path)
    content = json.loads(path.with_name("results.json").read_text())
    names = [run["name"] for run in content["runs"]]
    assert names == [f"synthetic/smoke ({tmp_path.name})", "synthetic/smoke (copied)"]
    differences = content["differences"][names[1]]
    assert differences["paired"] and "the same 200 test images, in 100 groups" in differences["why"]
    value, low, high = differences["accuracy"]
    assert value == pytest.approx(-0.2) and low < -0.2 < high < 0
    own = evaluation.comparison(worse, better, ("accuracy",), rounds=4000)
    assert (low, high) == pytest.approx(tuple(own.loc["accuracy", ["low", "high"]]), abs=0.015)
    assert differences["AUROC of b"][0] == pytest.approx(own.loc["AUROC of b (DeLong)", "difference"])
    assert f"{names[0]} is better than {names[1]} by 0.200 accuracy" in text
    assert content["settings"] == {
        "fine_tuning.epochs": {names[0]: "1", names[1]: "9"},
        "seed": {names[0]: "0", names[1]: "3"},
    }
    shown = pd.read_csv(path.with_name("settings.csv"), index_col=0)
    assert list(shown.index) == ["fine_tuning.epochs", "seed"]
    assert {"learning_curves.svg", "roc.svg", "reliability.svg", "figures.svg", "differences.svg"} <= {
        file.name for file in path.parent.iterdir()
    }
    assert "keras" in text and "a chip, 2 cores" in text and '<a href="../../synthetic/smoke/05_fine_tuning' in text
    assert '<a href="compare/mine/index.html">' in index.write().read_text()


def test_the_classes_may_have_another_order() -> None:
    first, other = predicted(0.9, 1, classes=("a", "b", "c")), predicted(0.8, 2, classes=("a", "b", "c"))
    turned = pairing._reorder(other, ("c", "a", "b"))
    assert turned.classes == ("c", "a", "b") and turned.correct.mean() == pytest.approx(0.8)
    [one, two] = [compared("one", first), compared("two", turned)]
    [comparison] = table.compare_with_first([one, two])
    assert comparison.paired and comparison.differences["accuracy"].value == pytest.approx(-0.1)


def compared(name: str, predictions: AnyPredictions | None, split: str = "test", **study: Any) -> reading.Compared:
    """A run with predictions alone."""
    figures = evaluation.summary(predictions, rounds=50) if predictions is not None else pd.DataFrame()
    kept = None if predictions is None else pseudonymous(predictions)
    return reading.Compared(Path(name), name, study, "net", split, figures, {}, kept, {}, {})


# --- other images


def other_labels(predictions: Predictions) -> Predictions:
    y = predictions.y_true.copy()
    y[:3] = 1 - y[:3]
    return Predictions(predictions.image_id, predictions.group, y, predictions.probabilities, predictions.classes)


def regrouped(predictions: Predictions) -> Predictions:
    group = [f"g{i // 4}" for i in range(len(predictions))]
    return Predictions(predictions.image_id, group, predictions.y_true, predictions.probabilities, predictions.classes)


def synthetic(seed: int) -> dict[str, Any]:
    return {"dataset": {"adapter": "synthetic", "images": 100, "seed": seed}, "on_stand_in": False}


FIRST = predicted(0.8)


@pytest.mark.parametrize(
    ("run", "why"),
    [
        (compared("b", None), "b kept no predictions"),
        (compared("b", findings()), "a predicts classes, b findings"),
        (compared("b", predicted(0.8, classes=("a", "c"))), "only in a: b; only in b: c"),
        (compared("b", FIRST, "validation"), "of a are of test images, those of b of validation images"),
        (compared("b", FIRST, **synthetic(1)), "their images are of different datasets"),
        (compared("b", FIRST.subset(np.arange(120))), "120 of the 200 and 120 test images are in both"),
        (compared("b", other_labels(FIRST)), "3 of the 200 images that both have are labelled differently"),
        (compared("b", regrouped(FIRST)), "grouped by patient in different ways"),
    ],
    ids=["none", "findings", "labels", "split", "dataset", "some", "relabelled", "regrouped"],
)
def test_a_comparison_of_unlike_runs_says_why_it_is_not_paired(run: reading.Compared, why: str) -> None:
    first = compared("a", FIRST, **synthetic(0))
    [comparison] = table.compare_with_first([first, run])
    assert not comparison.paired and not comparison.by_class
    assert comparison.why.startswith("Not paired: ") and why in comparison.why and comparison.why.count(".") <= 2


def test_a_head_on_embeddings_is_paired_with_a_network_on_the_images(home: Path, tmp_path: Path) -> None:
    report(home, predicted(0.9, 1))
    report(tmp_path / "other" / "reports", predicted(0.8, 2), overrides="dataset.embeddings=vectors.npz")
    path = page.compare(["synthetic/smoke", str(tmp_path / "other" / "reports" / "synthetic" / "smoke")], "mine")
    content = json.loads(path.with_name("results.json").read_text())
    [differences] = content["differences"].values()
    assert differences["paired"]


def test_other_images_of_one_study_differ_without_pairs(home: Path) -> None:
    whole = predicted(0.8, count=400)
    halves = whole.subset(np.arange(200)), whole.subset(np.arange(200, 400))
    [comparison] = table.compare_with_first([compared("a", halves[0]), compared("b", halves[1])])
    assert "none of the 200 and 200 test images is in both" in comparison.why
    gap = comparison.differences["accuracy"]
    expected = halves[1].correct.mean() - halves[0].correct.mean()
    assert gap.value == pytest.approx(expected) and gap.low < expected < gap.high
    assert (gap.high - gap.low) / 2 == pytest.approx(1.96 * np.sqrt(2 * 0.8 * 0.2 / 200), rel=0.35)


def test_unlike_studies_share_the_metrics_that_both_have(home: Path, capsys: pytest.CaptureFixture) -> None:
    report(home, predicted(0.8))
    report(home, findings(), study="chexpert")
    assert cli.main(["compare", "synthetic/smoke", "chexpert/smoke"]) == 0
    path = Path(capsys.readouterr().out.strip())
    text = check_page(path)
    assert "synthetic/smoke predicts classes, chexpert/smoke findings" in text
    assert "They predict different labels" in text
    differences = json.loads(path.with_name("results.json").read_text())["differences"]["chexpert/smoke"]
    assert set(differences) == {"paired", "why", "auroc", "auprc", "brier", "ece"}
    assert None not in differences["auroc"]
    assert path == page.compare(["synthetic/smoke", "chexpert/smoke"]), "the same runs have the same page"


def test_findings_are_compared_like_classes(home: Path, tmp_path: Path) -> None:
    report(home, findings(skill=2.0), study="chexpert")
    report(tmp_path / "other", findings(skill=0.5, seed=1), study="chexpert", overrides="seed=1")
    path = page.compare(["chexpert/smoke", str(tmp_path / "other/chexpert/smoke/05_fine_tuning")])
    assert "finding 2" in check_page(path)
    [differences] = json.loads(path.with_name("results.json").read_text())["differences"].values()
    assert differences["paired"] and differences["auroc"][2] < 0 and differences["AUROC of finding 1"][2] < 0
    assert not path.with_name("reliability.svg").exists(), "of classes alone"


def test_an_old_report_is_compared_by_its_figures_alone(home: Path, tmp_path: Path) -> None:
    report(home, predicted(0.8))
    old = report(tmp_path / "old", predicted(0.6, 3))
    for file in (PREDICTIONS, HISTORY):
        (old / file).unlink()
    path = page.compare(["synthetic/smoke", str(old)])
    assert "kept no predictions, as reports of earlier versions did not" in check_page(path)
    [differences] = json.loads(path.with_name("results.json").read_text())["differences"].values()
    assert not differences["paired"] and differences["accuracy"][2] < 0


def test_a_metric_that_is_not_defined_is_said_to_be_so(home: Path) -> None:
    report(home, predicted(0.8))
    lacking = predicted(0.8).subset(np.flatnonzero(FIRST.y_true == 0))
    report(home, lacking, "08_external_validation")
    path = page.compare(["synthetic/smoke", "synthetic/smoke/08_external_validation"])
    text = check_page(path)
    assert ">not defined<" in text
    assert json.loads(path.with_name("results.json").read_text())["main metric"] == "brier"


@pytest.mark.usefixtures("home")
def test_bundles_of_unlike_datasets_are_paired_on_the_images_of_one_external_source(tmp_path: Path) -> None:
    paired = {}
    for case, results in (("own", {}), ("external", {"external_study": "ward"})):
        bundles = [
            report(tmp_path / case / data, predicted(skill), "08_external_validation", overrides=data, results=results)
            for data, skill in (("dataset.images=80", 0.8), ("dataset.images=90", 0.6))
        ]
        path = page.compare([str(folder) for folder in bundles])
        [differences] = json.loads(path.with_name("results.json").read_text())["differences"].values()
        paired[case] = differences["paired"]
    assert paired == {"own": False, "external": True}


def test_notebooks_without_a_model_are_compared_by_their_numbers(home: Path, tmp_path: Path) -> None:
    for folder, images in ((home, 100), (tmp_path / "other", 120)):
        results = {"counts": {"images": images, "note": "text"}, "gap": [0.5, 0.4, 0.6], "flag": True, "none": None}
        report(folder, None, "01_eda", results=results)
    path = page.compare(["synthetic/smoke/01_eda", str(tmp_path / "other/synthetic/smoke/01_eda")])
    text = check_page(path)
    assert "counts · images" in text and "gap · low" in text and "No metric is defined in all" in text
    assert "flag" not in text


def test_what_a_notebook_of_ones_own_records_is_no_error(home: Path) -> None:
    report(home, None, results={"summary": {"accuracy": 0.8, "auroc": {"value": "high"}, "note": 1}})
    report(home, None, "08_my_question", results={"summary": "0.8", "summaries": [1]})
    report(home, None, "09_other_question", results={"summary": {"accuracy": 0.7}})
    first, nothing, other = (reading.read(home / "synthetic/smoke" / name) for name in sorted(REPORTS))
    assert first.figures["value"].to_dict() == pytest.approx({"accuracy": 0.8, "auroc": np.nan}, nan_ok=True)
    assert nothing.figures.empty
    [comparison] = table.compare_with_first([first, other])
    assert comparison.differences["accuracy"].value == pytest.approx(-0.1)
    assert "minus synthetic/smoke: −0.100 accuracy, without an interval" in check_page(
        page.compare(["synthetic/smoke", "synthetic/smoke/09_other_question"])
    )


def test_folds_have_no_image_in_common(home: Path) -> None:
    whole = predicted(0.8, count=360)
    ends = np.cumsum([0, 50, 54, 58, 62, 66, 70])  # of unequal sizes, as patients make them
    for fold in range(6):
        rows = np.arange(ends[fold], ends[fold + 1])
        record(home / "folds", whole.subset(rows), fold=f"fold {fold}", split="test")
    path = page.compare([str(file) for file in sorted((home / "folds").glob("*.json"))])
    text = check_page(path)
    assert "0 of 5 differences from <strong>fold 0</strong> are paired" in text
    assert "none of the 50 and 54 test images is in both" in text


# --- records


def test_many_trials_are_one_table_sorted_by_the_main_metric(home: Path) -> None:
    folder = home / "synthetic" / "smoke" / "sweep" / "trials"
    for seed in range(20):
        record(folder, predicted(0.55 + 0.02 * ((7 * seed) % 20), seed), seed=seed)
    path = page.compare(["synthetic/smoke/sweep"])
    text = check_page(path)
    content = json.loads(path.with_name("results.json").read_text())
    assert len(content["runs"]) == 20 and content["runs"][0]["name"] == "seed 0", "common parts are not repeated"
    rows = text.split('aria-label="Table of figures"')[1].split("</table>")[0].split("<tr>")[2:]
    values = [float(row.split('class="number">')[1][:5]) for row in rows]
    assert values == sorted(values, reverse=True) and len(values) == 20 and values[0] == 0.93
    assert "Of 20 runs seed 17 has the best accuracy: 0.930" in text
    assert "Of 20 runs the curves show seed 0 and the 5 best others." in text
    assert all(entry["paired"] for entry in content["differences"].values())
    [row] = [row for row in rows if ">seed 0<" in row]
    assert "the first" in row
    assert len(pd.read_csv(path.with_name("figures.csv"))["run"].unique()) == 20


def test_a_record_names_settings_split_and_training(tmp_path: Path) -> None:
    study = config.load("synthetic", "smoke").resolved()
    facts = {"study": study, "split": "test", "fold": "fold 2", "policy": None, "history": HISTORY_OF.to_dict("list")}
    run = reading.read(record(tmp_path, predicted(0.8), **facts))
    assert run.name == "net, fold 2" and run.split == "test" and run.whole_study
    pd.testing.assert_frame_equal(run.histories[""], HISTORY_OF)
    assert run.numbers["accuracy.value"] == pytest.approx(0.8) and run.numbers["seconds"] == 1.5
    old = reading.read(record(tmp_path, predicted(0.7), seed=4))
    assert not old.whole_study and old.settings == {"backbones": '["small_cnn"]', "augmentation": "none", "seed": "4"}
    settings = table.settings([run, old])
    assert set(settings.index) <= {"backbones", "augmentation", "seed"}, "what was not recorded does not differ"


# --- what is refused, in a line


def test_what_cannot_be_compared_is_one_line(home: Path, capsys: pytest.CaptureFixture) -> None:
    place = report(home, predicted(0.8))
    stopped = home / "synthetic" / "quick" / "05_fine_tuning"
    shutil.copytree(place, stopped)
    (stopped / "metrics.json").unlink()
    failed = home / "synthetic" / "full" / "05_fine_tuning"
    failed.mkdir(parents=True)
    facts = json.loads((place / "metrics.json").read_text()) | {"sentence": "out of memory"}
    (failed / "failure.json").write_text(json.dumps(facts))
    half = record(home / "trials", predicted(0.8))
    half.with_suffix(".csv").write_text("nothing")
    for words, error in (
        ([], "no run to compare; name two or more, each as study/profile"),
        (["synthetic/smoke"], "synthetic/smoke is one run; name two or more"),
        (["synthetic/smoke", "nix/smoke"], "unknown run 'nix/smoke'; expected"),
        (["synthetic/smoke", "synthetic/smoke"], "synthetic/smoke is named twice"),
        (["synthetic/smoke", str(place)], "are the same run; name each run once"),
        (["synthetic/smoke", "synthetic/quick"], "is not a whole report: its run was stopped"),
        (["synthetic/smoke", "synthetic/full"], "is the report of a failure (out of memory)"),
        (["synthetic/smoke", str(half)], "net-0.csv is missing or damaged"),
        (["synthetic/smoke", "x", "--name", "../x"], "--name is '../x', expected letters"),
    ):
        assert cli.main(["compare", *words]) == 1
        printed = capsys.readouterr().err
        assert error in printed and printed.count("\n") == 1, printed
    with pytest.raises(RunError, match="holds synthetic/smoke/05_fine_tuning"):
        reading.find("nix")
    assert not (home / "compare").exists()


def test_equal_names_are_told_apart(home: Path, tmp_path: Path) -> None:
    report(home, predicted(0.8))
    report(tmp_path / "lisbon", predicted(0.8))
    report(tmp_path / "seoul", predicted(0.8))
    words = ["synthetic/smoke", *(str(tmp_path / place / "synthetic/smoke") for place in ("lisbon", "seoul"))]
    names = [run.name for run in reading.read_runs(words)]
    assert names == ["synthetic/smoke (reports)", "synthetic/smoke (lisbon)", "synthetic/smoke (seoul)"]


@pytest.mark.slow
def test_the_page_is_shown_in_a_browser(home: Path, tmp_path: Path) -> None:
    report(home, predicted(0.8))
    report(home, predicted(0.7, 1, classes=("a", "b", "c")), study="skin11")
    path = page.compare(["synthetic/smoke", "skin11/smoke"])
    with pages.browser() as chromium:
        pages.check_shown(chromium, path)
