"""The section on how many images: one figure, one sentence, and a sentence where nothing can be said."""

import json

import numpy as np
import pandas as pd
import pytest

from helpers import planted
from scanbook.data.manifest import TEST, TRAIN
from scanbook.reporting import learning_curve, notebook
from scanbook.training import SizedTraining

SIZES = np.array([6, 9, 14, 22, 36])


@pytest.fixture
def session(tmp_path, monkeypatch):
    monkeypatch.setenv("SCANBOOK_REPORTS", str(tmp_path))
    return notebook.Session("04_transfer_learning", planted.study(bootstrap_rounds=50))


def sized(manifest, sizes=SIZES, skills=(0.2, 0.4, 0.8, 1.2, 1.6), repeats=3, name="small, frozen"):
    """Networks that know more of the test images with more patients."""
    y, draw = np.nan_to_num(manifest.label_values(TEST)), np.random.default_rng(0)
    logits = draw.normal(size=(repeats, len(sizes), *y.shape)) + 3 * np.array(skills)[:, None, None] * y
    logits[:, -1] = logits[0, -1]
    images = np.tile(sizes, (repeats, 1))
    return SizedTraining(name, np.asarray(sizes), images, logits.astype(np.float32))


def show(session, manifest, *trainings):
    learning_curve.show_learning_curve(session, manifest, *trainings)
    session.finish()
    text = (session.folder / "results.json").read_text()
    assert "NaN" not in text
    for path in (session.folder / "tables").glob("*.csv"):
        assert pd.read_csv(path).notna().all(axis=None)
    return json.loads(text).get("learning_curve", {})


@pytest.mark.parametrize("manifest", [planted.manifest(), planted.observed()], ids=["classes", "findings"])
def test_the_section(session, manifest, capsys):
    networks = sized(manifest), sized(manifest, name="small, fine-tuned")
    results = show(session, manifest, *networks)
    printed = capsys.readouterr().out
    metric = "macro AUROC" if manifest.findings else "accuracy"
    assert f"the curve predicts {metric}" in printed and "twice the images (72)" in printed
    assert set(results) == {"small, frozen", "small, fine-tuned", "test_set"}
    assert (session.folder / "figures" / "by_patients.svg").exists()
    table = pd.read_csv(session.folder / "tables" / "by_patients.csv")
    assert len(table) == len(networks) * (1 if manifest.findings else 2)
    assert (table["gain_low"] <= table["gain"]).all() and (table["gain"] <= table["gain_high"]).all()


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [(0.01, 0.05, "would help."), (-0.01, 0.004, "would hardly help"), (-0.02, 0.05, "cannot be told")],
)
def test_the_sentence_says_what_can_be_said(low, high, verdict):
    result = {"now": 0.7, "twice": {"value": 0.72, "low": 0.7 + low, "high": 0.7 + high}}
    result["gain"] = {"value": 0.02, "low": low, "high": high}
    assert verdict in learning_curve._describe_gain("small", "accuracy", result, 72, "patients")


def test_patients_who_are_too_few(session, capsys):
    manifest = planted.manifest()
    results = show(session, manifest, sized(manifest, [2, 3], (0.5, 1.0)))
    assert "the training split has 3 images; a curve takes 20 or more" in capsys.readouterr().out
    assert "reason" in results["small, frozen"]["accuracy"] and "test_set" in results


def test_fewer_numbers_of_patients_than_a_curve_takes(session, capsys):
    manifest = planted.manifest()
    show(session, manifest, sized(manifest, [33, 34, 36], (0.5, 0.7, 1.0)))
    assert "draws of 33 or more show what is to be learnt" in capsys.readouterr().out


def test_scores_that_fall(session, capsys):
    manifest = planted.manifest()
    show(session, manifest, sized(manifest, skills=(6, 3, 1, 0, -6), repeats=5))
    assert "no rising curve fits them" in capsys.readouterr().out


def test_a_test_split_that_lacks_a_class(session, capsys):
    frame = planted.manifest().frame
    lacking = (frame["split"] == TEST) & (frame["label"] == "sky")
    manifest = planted.manifest().with_frame(frame.assign(split=frame["split"].mask(lacking, TRAIN)))
    results = show(session, manifest, sized(manifest))
    assert "the test split has no image of class 'sky'" in results["reason"]
    assert "Nothing can be said on the number of images" in capsys.readouterr().out


def test_a_test_set_whose_answers_are_all_right(session, capsys):
    manifest = planted.manifest()
    results = show(session, manifest, sized(manifest, skills=(20,) * 5))
    assert "The size of a test set cannot be told" in capsys.readouterr().out
    assert "reason" in results["test_set"]


def test_without_pretrained_weights(session, capsys):
    assert show(session, planted.manifest(), None) == {}
    assert "no curve of a frozen backbone" in capsys.readouterr().out
