"""The sections of notebook 05 on findings say what is known, and what is not; per exam where there are exams."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from helpers import findings as wards
from helpers import planted
from helpers.models import findings
from scanbook import evaluation
from scanbook.data.manifest import EXAM, finding_column
from scanbook.evaluation import Calibration, Difference
from scanbook.export import answers as export_answers
from scanbook.reporting import answers, exam_sections, finding_sections, notebook, sections, training_sections
from scanbook.training import ExportedModel, SplitModels, StudyModels

NAMES = wards.FINDINGS


@pytest.fixture
def session(tmp_path, monkeypatch):
    monkeypatch.setenv("SCANBOOK_REPORTS", str(tmp_path))
    return notebook.Session("05_fine_tuning", planted.study(bootstrap_rounds=20))


@pytest.fixture(scope="module")
def ward(tmp_path_factory):
    """A ward whose patients are in one split each, with an exam for every two images of a patient."""
    manifest = wards.ward(tmp_path_factory.mktemp("ward"), n=120)
    frame = manifest.frame.copy()
    patient = frame["group"].str.split().str[1].astype(int)
    frame["split"] = np.array(["train", "validation", "test"])[patient % 3]
    frame[EXAM] = "exam " + (frame.groupby("group").cumcount() // 2).astype(str)
    return manifest.with_frame(frame)


def network(manifest, seed=0):
    """A network whose logits know the findings that are labelled, with noise."""
    random = np.random.default_rng(seed)

    def logits(split):
        values = np.nan_to_num(manifest.label_values(split))
        return (3 * values - 2 + random.normal(size=values.shape)).astype(np.float32)

    kept = {split: logits(split) for split in ("validation", "test")}
    backbone, name = f"small {seed}", f"small {seed}, fine-tuned"
    return SimpleNamespace(name=name, backbone=backbone, kind="fine-tuned", label=backbone, logits=kept.__getitem__)


def models(manifest, tuned, base=None):
    """Trained models of one split: a final one, and the one from which its training started."""
    return StudyModels([split_models("", manifest, tuned, base)])


def split_models(fold, manifest, tuned, base=None):
    return SplitModels(fold, planted.study(), manifest, np.empty(0), "small", [base or tuned], [tuned], tuned)


def test_the_whole_report_of_findings(session, ward, capsys):
    tuned = network(ward)
    validation, raw, test, fitted = sections.show_calibration(session, models(ward, tuned))
    assert list(fitted["calibration"]) == ["slope", "offset", "method"] and json.dumps(fitted)
    assert np.array_equal(raw.y_true, test.y_true, equal_nan=True)
    summary, report = sections.show_test_report(session, ward, tuned.name, test)
    assert tuple(report.index) == (*NAMES, "macro average")
    other = network(ward, 1)
    differences = sections.compare_with_frozen(session, models(ward, tuned, other), raw)
    assert list(differences) == ["auroc", "auprc", "brier"]
    sections.show_confusion(session, validation, test)
    points = sections.show_operating_points(session, validation, test)
    abstention = sections.show_selective_prediction(session, validation, test)
    exams = exam_sections.show_exams(session, models(ward, tuned), test)
    sentences = answers.describe_final_model(
        ward, (tuned.name, other.name), summary, differences, abstention, report=report
    )
    assert len(sentences) == 5 and "macro AUROC" in sentences[0] and "means of 3 findings" in sentences[0]
    assert "highest AUROC" in sentences[1] and "*not sure*" in sentences[4]
    assert answers.headline("small", summary, ward).startswith("small: macro AUROC 0.")
    assert exams["rule"] in ("mean", "maximum") and set(exams["operating_points"].index) == set(NAMES)
    test_frame = ward.frame[ward.frame["split"] == "test"]
    assert exams["counts"]["exams"] == len(test_frame[["group", EXAM]].drop_duplicates()) < len(test_frame)
    printed = capsys.readouterr().out
    assert "After Holm's correction for 3 findings" in printed and "exact match" in printed
    written = {path.stem for path in (session.folder / "tables").iterdir()}
    assert written >= {"per_finding", "errors", "co_errors", "operating_points", "abstention", "exams", "comparison"}
    assert "p_holm" in pd.read_csv(session.folder / "tables" / "comparison.csv")
    assert points["margin"].notna().all()
    session.result("exams", exams)
    session.finish()


def test_folds_are_pooled_each_with_its_own_calibration_thresholds_and_rule(session, ward, capsys):
    frame = ward.frame
    turned = frame["split"].map({"train": "test", "validation": "validation", "test": "train"})
    splits = [ward, ward.with_frame(frame.assign(split=turned))]
    parts = [
        split_models(f"fold {n}", each, network(each, n), network(each, n + 9)) for n, each in enumerate(splits, 1)
    ]
    both = StudyModels(parts)
    assert both.name == "best backbone of each fold, fine-tuned"
    assert both.base_name == f"{both.name}, before fine-tuning", "the networks differ, and not their names"
    validation, raw, test, fitted = sections.show_calibration(session, both)
    alone = [sections.show_calibration(session, models(part.manifest, part.final)) for part in parts]
    assert list(fitted["calibration"]) == ["fold 1", "fold 2"]
    assert [fitted["calibration"][f"fold {n}"] for n in (1, 2)] == [each[3]["calibration"] for each in alone]
    np.testing.assert_array_equal(test.probabilities, np.concatenate([each[2].probabilities for each in alone]))
    assert len(test) == len(both.manifest.rows("test")) == (frame["split"] != "validation").sum()
    points = sections.show_operating_points(session, validation, test)
    for n, (own_validation, _, own_test, _) in enumerate(alone, 1):
        expected = evaluation.finding_points(own_validation, own_test, rounds=2)
        assert (points[f"threshold, fold {n}"] == expected["threshold"]).all()
    by_fold = training_sections.show_folds(session, both, test)
    assert by_fold.loc["auroc", "mean"] == pytest.approx(evaluation.METRICS["auroc"].point(test))
    table = pd.read_csv(session.folder / "tables" / "folds.csv")
    assert table["test groups"].tolist() == [
        part.manifest.frame["group"].iloc[part.manifest.rows("test")].nunique() for part in parts
    ]
    summary, report = sections.show_test_report(session, both.manifest, both.name, test)
    differences = sections.compare_with_frozen(session, both, raw)
    sections.show_confusion(session, validation, test)
    abstention = sections.show_selective_prediction(session, validation, test)
    exams = exam_sections.show_exams(session, both, test)
    assert list(exams["rule"]) == list(exams["calibration"]) == ["fold 1", "fold 2"]
    names = (both.name, both.base_name)
    sentences = answers.describe_final_model(both.manifest, names, summary, differences, abstention, report=report)
    assert f"On {len(test):,} test images best backbone of each fold" in sentences[0]
    printed = capsys.readouterr().out
    assert "Cross-validation with 2 folds" in printed and "another training would give other networks" in printed
    assert "Fold 1: Rule, chosen on validation" in printed
    of_all = ward.with_frame(frame.assign(split=frame["split"].replace("test", "train")))
    exported = ExportedModel(session.study, of_all, np.empty(0), [(network(of_all), Calibration.identity(3))], both)
    exam = export_answers.describe_exams_of_folds(session.study, exported)
    assert exam["rule"] in ("mean", "maximum") and exam["metrics"]["exams"] == exams["counts"]["exams"]
    sensitivity = exams["operating_points"]["sensitivity"]
    assert [point["sensitivity"]["value"] for point in exam["operating_points"].values()] == pytest.approx(sensitivity)
    assert session._test_evaluations >= Counter(
        f"{network.label}, {part.fold}" for part in parts for network in (part.final, part.starts[0])
    )


def test_what_the_splits_of_single_folds_lack_is_said_of_these_folds(ward):
    parts = []
    for number, notes in ((1, ("rare", "both")), (2, ("both",))):
        noted = replace(ward, facts={"split_notes": (f"test is fold {number}", *notes)})
        parts.append(split_models(f"fold {number} of 2", noted, network(noted)))
    first, *others = StudyModels(parts).manifest.facts["split_notes"]
    assert first.startswith("Cross-validation with 2 folds") and others == ["In fold 1 of 2: rare", "both"]


def test_test_images_choose_nothing(session, ward):
    """Neither calibration, nor thresholds, nor the rule for exams change with the labels of the test images."""
    frame = ward.frame.copy()
    of_test = frame["split"] == "test"
    for name in NAMES:
        frame.loc[of_test, finding_column(name)] = 1 - frame.loc[of_test, finding_column(name)].clip(0)
    tuned = network(ward)
    results = []
    for manifest in (ward, ward.with_frame(frame)):
        validation, _, test, fitted = sections.show_calibration(session, models(manifest, tuned))
        points = sections.show_operating_points(session, validation, test)
        exams = exam_sections.show_exams(session, models(manifest, tuned), test)
        chosen = exams["operating_points"][["threshold", "margin"]].to_numpy().tolist()
        results.append((fitted, points[["threshold", "margin"]].to_numpy().tolist(), exams["rule"], chosen))
        results[-1] += (exams["calibration"],)
    assert results[0] == results[1]


def test_what_cannot_be_measured_is_said(session, ward, capsys):
    frame = ward.frame.copy()
    column = finding_column(NAMES[0])
    frame.loc[(frame["split"] != "train") & (frame[column] != 0), column] = np.nan
    manifest = ward.with_frame(frame)
    tuned = network(manifest)
    validation, _, test, _ = sections.show_calibration(session, models(manifest, tuned))
    summary, report = sections.show_test_report(session, manifest, tuned.name, test)
    sections.show_operating_points(session, validation, test)
    abstention = sections.show_selective_prediction(session, validation, test)
    printed = capsys.readouterr().out
    assert f"Never present, or never absent, on labelled test images: {NAMES[0]}." in printed
    assert f"No threshold is defined for {NAMES[0]}" in printed
    sentences = answers.describe_final_model(manifest, (tuned.name, tuned.name), summary, {}, abstention, report=report)
    assert f"the means of 2 findings; {NAMES[0]} cannot be measured there" in sentences[0]
    assert NAMES[0] not in sentences[1]
    lone = report.assign(auroc_low=report["auroc_low"].where(report.index != NAMES[1]))
    sentences = answers.describe_final_model(manifest, (tuned.name, tuned.name), summary, {}, abstention, report=lone)
    assert not any("highest AUROC" in sentence for sentence in sentences), "chance, of one patient"


def test_a_subgroup_of_few_images_and_an_example_are_explained(session, ward, capsys, monkeypatch):
    session.study = planted.study(bootstrap_rounds=5, evaluation={"subgroups": ["site"]})
    manifest = ward.with_frame(ward.frame.assign(site=np.where(np.arange(len(ward.frame)) < 12, "small", "large")))
    _, _, test, _ = sections.show_calibration(session, models(manifest, network(manifest)))
    sections.show_subgroups(session, manifest, test, evaluation.summary(test, rounds=5))
    assert "A subgroup of fewer than 10 images has no metric" in capsys.readouterr().out
    shown = test.single(test.image_id[0])
    assert re.fullmatch(r"(\S+ (present|absent|not labelled), predicted 0\.\d\d(; |$))+", shown), (
        "label, then prediction"
    )


@pytest.mark.parametrize("named", [True, False])
def test_few_images_are_no_patients_where_the_source_names_none(session, ward, capsys, named):
    frame = ward.frame.copy()
    column = finding_column(NAMES[0])
    frame.loc[frame.index[frame[column] == 1][6:], column] = 0  # few have it
    if not named:
        frame["group"] = frame["image_id"]
    manifest = replace(ward.with_frame(frame), facts={**ward.facts, "grouped": named, "names_groups": named})
    _, _, test, _ = sections.show_calibration(session, models(manifest, network(manifest)))
    sections.show_test_report(session, manifest, "small", test)
    assert (
        f"Fewer than 10 {'patients' if named else 'images'} have these findings: {NAMES[0]} ("
        in capsys.readouterr().out
    )


def test_exams_of_classes_are_compared_with_images(session, capsys):
    manifest = planted.manifest()
    frame = manifest.frame.assign(**{EXAM: [f"lesion {i // 4}" for i in range(len(manifest.frame))]})
    frame["group"] = frame[EXAM]
    labelled = manifest.with_frame(frame)
    random = np.random.default_rng(0)
    kept = {
        split: 2 * labelled.label_values(split) + random.normal(size=labelled.label_values(split).shape)
        for split in ("validation", "test")
    }
    tuned = SimpleNamespace(name="small", backbone="small", kind="frozen", label="small", logits=kept.__getitem__)
    test = labelled.predictions("test", tuned.logits("test"))
    exams = exam_sections.show_exams(session, models(labelled, tuned), test)
    assert isinstance(exams["temperature"], float) and "accuracy" in exams["summary"].index
    assert set(exams["operating_points"].index) == set(planted.CLASSES)
    assert "test images belong to" in capsys.readouterr().out
    assert exam_sections.show_exams(session, models(manifest, tuned), test) == {}
    assert "names no exams" in capsys.readouterr().out
    mixed = manifest.with_frame(manifest.frame.assign(group="one patient", **{EXAM: "one exam"}))
    assert exam_sections.show_exams(session, models(mixed, tuned), test) == {}
    assert "has one class" in capsys.readouterr().out


def test_a_stated_prevalence_of_a_finding_that_the_dataset_lacks_ends_no_report(session, ward):
    """A dataset that is partly unpacked lacks some findings of its study; images and exams do without them."""
    session.study = planted.study(bootstrap_rounds=20, evaluation={"prevalence": {NAMES[0]: 0.1, "Hernia": 0.01}})
    tuned = network(ward)
    validation, _, test, _ = sections.show_calibration(session, models(ward, tuned))
    of_images = sections.show_operating_points(session, validation, test)
    of_exams = exam_sections.show_exams(session, models(ward, tuned), test)["operating_points"]
    assert of_images.at[NAMES[0], "prevalence"] == of_exams.at[NAMES[0], "prevalence"] == 0.1


def test_a_difference_that_survives_holm_is_named(session, capsys):
    a, b = findings(n=600, seed=0, skill=3), findings(n=600, seed=1, skill=0.1)
    finding_sections.show_differences(session, evaluation.comparison(a, b, ("auroc",), 10), ("a", "b"), a)
    printed = capsys.readouterr().out
    assert "After Holm's correction for 3 findings, the AUROC of finding 0, finding 1, finding 2 differs" in printed
    one = [replace(model, group=["one patient"] * len(model)) for model in (a, b)]
    finding_sections.show_differences(session, evaluation.comparison(*one, ("auroc",), 10), ("a", "b"), one[0])
    assert "No finding can be tested" in capsys.readouterr().out
    gap = Difference("auroc", 0.1, 0.05, 0.15, 0.01)
    assert gap.sentence("a", "b") == "a is better than b by 0.100 macro AUROC (95 % interval 0.050 to 0.150)"


def test_an_image_of_several_findings_is_checked_once(session, ward, monkeypatch):
    from scanbook.inspection import grad_cam

    validation, test = (ward.predictions(split, network(ward).logits(split)) for split in ("validation", "test"))
    checked, correlation = [], pd.DataFrame({"correlation": [0.5]})
    maps = SimpleNamespace(predict=lambda shown: (None, np.zeros((len(shown), 4, 4, len(NAMES)), np.float32)))
    monkeypatch.setattr(grad_cam, "add_heat_maps", lambda model, calibration: model)
    monkeypatch.setattr(finding_sections.engines, "KerasEngine", lambda model: maps)
    monkeypatch.setattr(
        grad_cam, "randomisation_check", lambda model, shown, seed: checked.append(shown) or correlation
    )
    images = np.arange(len(ward.frame), dtype=np.uint8)[:, None, None, None] * np.ones((1, 8, 8, 3), np.uint8)
    points = evaluation.finding_points(validation, test, rounds=2)
    finding_sections.show_explanations(session, ward, images, None, test, points=points)
    (shown,) = checked
    assert 3 < len(shown) == len(np.unique(shown[:, 0, 0, 0])) < 15
