"""What mistakes are worth, against planted truths: a leak, a choice by chance, a wrong order, a shortcut."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from scanbook import config, evaluation
from scanbook.config import Study
from scanbook.data.manifest import COLUMNS, Manifest, finding_column
from scanbook.inspection.pitfalls import Row, choosing, heads, leakage, negative_control, serving, with_features
from scanbook.inspection.pitfalls.heads import Arm
from scanbook.inspection.pitfalls.measuring import halves, measure
from scanbook.inspection.pitfalls.subject import Subject, predictions
from scanbook.reporting import pitfalls

SPLITS = ("train", "validation", "test")


def study(**evaluated: object) -> Study:
    loaded = config.load("synthetic", "smoke")
    options = loaded.evaluation.model_copy(update={"targets": {}, **evaluated})
    return loaded.model_copy(update={"evaluation": options, "bootstrap_rounds": 400})


def table_of(labels: Sequence[str], group: Sequence[str], split: Sequence[str]) -> pd.DataFrame:
    count = len(labels)
    frame = pd.DataFrame({"image_id": [f"i{number}" for number in range(count)], "path": "", "mask_path": ""})
    return frame.assign(label=list(labels), group=list(group), split=list(split))[list(COLUMNS)]


def subject_of(manifest: Manifest, x: np.ndarray, images: np.ndarray | None = None, **evaluated: object) -> Subject:
    shown = np.zeros((len(x), 8, 8, 3), np.uint8) if images is None else images
    return with_features(study(**evaluated), manifest, x.astype(np.float32), shown)


def planted_patients(seed: int, patients: int = 360, each: int = 4, signal: float = 0.8) -> tuple[Subject, float]:
    """Patients with a label and a pattern of their own, and one feature that shows the label of any patient.

    Returns:
        The subject, and the accuracy of the best possible answer for a patient who was not seen.
    """
    rng = np.random.default_rng(seed)
    patient = np.repeat(np.arange(patients), each)
    y = rng.permuted(np.tile([0, 1], (patients // 2, 1)), axis=1).ravel()[patient]  # as many of both in each split
    pattern = np.zeros((len(patient), patients))
    pattern[np.arange(len(patient)), patient] = 1
    shown = signal * (2 * y - 1) + rng.standard_normal(len(patient))
    split = np.array(SPLITS)[np.digitize(patient / patients, (0.5, 0.65))]
    frame = table_of(np.array(["a", "b"])[y], patient.astype(str), split)
    manifest = Manifest("planted", frame, ("a", "b"), {"names_groups": True})
    subject = subject_of(manifest, np.column_stack([shown, pattern]))
    return subject, float(norm.cdf(signal))


@pytest.mark.parametrize("seed", range(2))
def test_leaked_patients_are_worth_what_was_planted(seed: int) -> None:
    """A head that has seen a patient knows the label; the honest one reaches the best that is possible."""
    subject, best = planted_patients(seed)
    row, unpenalised = leakage.patients(subject)
    assert row.published > 0.99 and unpenalised.published > 0.99
    assert abs(row.honest - best) < 3 * math.sqrt(best * (1 - best) / row.images), (row.honest, best)
    assert row.low <= 1 - best <= row.high, (row.low, 1 - best, row.high)
    assert row.clear and row.verdict == "published too high"
    assert row.images == len(subject.test) and row.groups == len(set(subject.group[subject.test]))


def test_patients_without_a_pattern_are_worth_nothing() -> None:
    subject, _ = planted_patients(3)
    subject = subject_of(subject.manifest, subject.x[:, :1])
    row, _ = leakage.patients(subject)
    assert not row.clear and abs(row.difference) < 0.02


def test_one_image_per_patient_shows_no_leak_of_patients() -> None:
    subject, _ = planted_patients(0, patients=80, each=1)
    [row] = leakage.patients(subject)
    assert not row.measured and row.reason.startswith("no two test images are of one patient")
    unnamed = subject_of(Manifest("x", subject.manifest.frame, ("a", "b")), subject.x)  # without the fact
    assert leakage.patients(unnamed)[0].verdict == "not measured: the source names no patients or lesions"


def noise(seed: int, count: int = 240, channels: int = 400, k: int = 2) -> Subject:
    """Labels that no feature shows, of patients with one image each."""
    rng = np.random.default_rng(seed)
    names = tuple("abcdef"[:k])
    split = np.array(SPLITS)[np.digitize(np.arange(count) / count, (0.5, 0.7))]
    frame = table_of(rng.choice(names, count), np.arange(count).astype(str), split)
    return subject_of(Manifest("noise", frame, names), rng.standard_normal((count, channels)))


def test_copies_of_noise_are_recognised_and_others_are_not() -> None:
    row, unpenalised = leakage.copies(noise(0))
    assert unpenalised.published == 1.0 and abs(unpenalised.honest - 0.5) < 0.15 and unpenalised.clear
    assert unpenalised.key == "copies_unpenalised" and row.images <= len(noise(0).test)


def test_mirrored_images_leak_through_pixels() -> None:
    """Thumbnails of symmetrical images are those of their mirrored copies: a copy like any other."""
    rng, base = np.random.default_rng(0), noise(1, count=200)
    half = rng.integers(0, 256, (200, 16, 8, 3), np.uint8)
    images = np.concatenate([half, half[:, :, ::-1]], axis=2)
    subject = subject_of(base.manifest, images.reshape(200, -1) / 255, images)
    _, unpenalised = leakage.mirrored(subject)
    assert unpenalised.published == 1.0 and unpenalised.difference > 0.3
    assert leakage.augmented(subject)[0].reason.startswith("no backbone has pretrained weights")


@pytest.mark.parametrize("seed", range(3))
def test_what_is_chosen_on_test_is_never_worse_there(seed: int) -> None:
    subject = noise(seed, count=300, channels=20, k=3)
    row = choosing.epoch(subject)
    assert row.difference >= 0 and row.low <= row.difference <= row.high
    assert row.more["change on the other half"] < 0, "noise has no best epoch: elsewhere the best is like any other"
    threshold = choosing.threshold(subject)
    assert threshold.difference >= 0 and threshold.more["change on the other half"] < 0
    assert "no backbone has pretrained weights" in choosing.backbone(subject).reason


def test_two_halves_of_the_test_images_differ_by_chance_alone() -> None:
    row = choosing.other_images(noise(0, count=2000, channels=3))
    p, count = 0.5, row.groups
    expected = 1.96 * 2 * math.sqrt(p * (1 - p) / count)  # of the difference of two halves
    assert row.low == pytest.approx(-expected, rel=0.15) and row.high == pytest.approx(expected, rel=0.15)
    assert row.verdict == "within noise" and row.honest == 0


def colours(grey: bool) -> Subject:
    """Red or blue images; or dark and light ones."""
    rng, count = np.random.default_rng(0), 160
    y = rng.integers(0, 2, count)
    split = np.array(SPLITS)[np.digitize(np.arange(count) / count, (0.5, 0.7))]
    frame = table_of(np.array(["red", "blue"])[y], np.arange(count).astype(str), split)
    images = rng.integers(0, 30, (count, 16, 16, 3)).astype(np.uint8)
    if grey:
        images[...] = images[..., :1] + 60 * y[:, None, None, None].astype(np.uint8)
    else:
        images[np.arange(count), :, :, 2 * y] += 150
    return subject_of(Manifest("colours", frame, ("red", "blue")), images.reshape(count, -1) / 255, images)


def test_another_order_of_colours_turns_red_into_blue() -> None:
    row = serving.bgr(colours(grey=False))
    assert (row.published, row.honest, row.difference) == (1.0, 0.0, 1.0)
    row = serving.bgr(colours(grey=True))
    assert row.difference == 0 and row.verdict == "no difference" and "grey" in row.note


def test_shifted_names_are_all_wrong() -> None:
    row = serving.names(colours(grey=False))
    assert (row.published, row.honest) == (1.0, 0.0)
    assert row.inflated and row.verdict == "published too high (resamples do not differ)"


def test_predictive_value_follows_bayes_rule() -> None:
    subject, _ = planted_patients(0)
    ppv, accuracy = serving.prevalence(subject_of(subject.manifest, subject.x[:, :1], prevalence={"b": 0.02}))
    points = evaluation.targets_table(
        *(
            predictions(
                subject.manifest,
                subject.manifest.rows(split),
                subject_of(subject.manifest, subject.x[:, :1]).head.logits(
                    subject.x[subject.manifest.rows(split)][:, :1]
                ),
            )
            for split in ("validation", "test")
        ),
        prevalence={"b": 0.02},
        rounds=10,
    ).loc["b"]
    sensitivity, specificity = points["sensitivity"], points["specificity"]
    assert ppv.honest == pytest.approx(points["ppv"])
    assert ppv.published == pytest.approx(sensitivity / (sensitivity + 1 - specificity))
    assert accuracy.published == pytest.approx((sensitivity + specificity) / 2)
    assert accuracy.honest == pytest.approx(0.02 * sensitivity + 0.98 * specificity)
    assert ppv.clear and "2.00%" in ppv.note and "98.0%" in accuracy.note


@pytest.mark.parametrize("shortcut", [False, True])
def test_the_control_recognises_a_shortcut_and_nothing_else(shortcut: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    rng, count = np.random.default_rng(1), 300
    y = rng.integers(0, 2, count)
    split = np.array(SPLITS)[np.digitize(np.arange(count) / count, (0.5, 0.7))]
    frame = table_of(np.array(["a", "b"])[y], np.arange(count).astype(str), split)
    images = rng.integers(80, 120, (count, 16, 16, 3)).astype(np.uint8)
    images[:, 5:11, 5:11] += (100 * y[:, None, None, None]).astype(np.uint8)  # the object
    if shortcut:
        images[:, :3, :3] += (100 * y[:, None, None, None]).astype(np.uint8)  # a mark in the corner
    masks = np.zeros((count, 16, 16), bool)
    masks[:, 5:11, 5:11] = True
    monkeypatch.setattr(negative_control, "_masks", lambda _: (masks, "the masks"))
    subject = subject_of(Manifest("objects", frame, ("a", "b")), images.reshape(count, -1) / 255, images)
    row = negative_control.painted_out(subject)
    assert row.more["whole images"] > 0.99 and row.honest == 0.5
    assert row.more["place and size of the box"] == 0.5, "all boxes are alike"
    if shortcut:
        assert row.published > 0.95 and row.verdict.startswith("something is still recognised")
    else:
        assert not row.low > 0 and abs(row.difference) < 0.2
    whole, painted = negative_control.examples(subject)
    assert (whole != painted).any(axis=(0, 3)).sum() <= 8 * 8, "the box with its margin, and nothing else"


# --- heads


def test_a_head_is_that_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(3, 2, (120, 5)).astype(np.float32), rng.integers(0, 3, 120)
    [head] = heads.train([Arm(x, np.eye(3, dtype=np.float32)[y], True, 0.02)])
    expected = make_pipeline(StandardScaler(), LogisticRegression(C=1 / (2 * 0.02 * 120), tol=1e-8)).fit(x, y)
    logits = head.logits(x)
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert np.abs(shares - expected.predict_proba(x)).max() < 2e-3


def test_heads_of_findings_ignore_missing_labels_and_know_absent_classes() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((80, 3)).astype(np.float32)
    y = np.column_stack([x[:, 0] > 0, np.zeros(80), np.ones(80)]).astype(np.float32)
    y[::2, 0] = np.nan
    [head] = heads.train([Arm(x, y, False, 1e-3)])
    [labelled] = heads.train([Arm(x[1::2], y[1::2], False, 1e-3)])
    logits = head.logits(x)
    assert ((logits[:, 0] > 0) == (x[:, 0] > 0)).mean() > 0.9
    assert np.corrcoef(logits[:, 0], labelled.logits(x)[:, 0])[0, 1] > 0.99
    assert (logits[:, 1] < -20).all() and (logits[:, 2] > 20).all()
    only = np.eye(4, dtype=np.float32)[np.where(x[:, 0] > 0, 1, 3)]
    [classes] = heads.train([Arm(x, only, True, 1e-3)])
    assert set(classes.logits(x).argmax(axis=1)) == {1, 3}


def test_the_last_epoch_is_near_the_optimum() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((400, 2)).astype(np.float32)
    y = np.eye(2, dtype=np.float32)[(x[:, 0] + 0.5 * rng.standard_normal(400) > 0).astype(int)]
    epochs = heads.by_epoch(Arm(x, y, True, 0), 40, 0)
    accuracies = [float((head.logits(x).argmax(1) == y.argmax(1)).mean()) for head in epochs]
    [best] = heads.train([Arm(x, y, True, 1e-6)])
    assert len(epochs) == 40
    assert accuracies[-1] == pytest.approx(float((best.logits(x).argmax(1) == y.argmax(1)).mean()), abs=0.02)


# --- rows and how they are shown


def test_halves_keep_groups_together() -> None:
    group = np.repeat(np.arange(11), 3)
    sides = halves(group, 50, 0)
    assert (sides.reshape(50, 11, 3) == sides.reshape(50, 11, 3)[..., :1]).all()
    assert set(sides.reshape(50, 11, 3)[..., 0].sum(axis=1)) == {6.0}


def test_the_same_predictions_make_no_difference() -> None:
    subject = noise(0)
    same = subject.predict(subject.head, subject.test)
    row = measure(Row("x", "a mistake", "none"), [(same, same)], 50, 0)
    assert (row.difference, row.low, row.high, row.verdict) == (0, 0, 0, "no difference")
    one = evaluation.Predictions(same.image_id, np.full(len(same), "p"), same.y_true, same.probabilities, same.classes)
    worse = evaluation.Predictions(one.image_id, one.group, one.y_true, one.probabilities[:, ::-1], one.classes)
    row = measure(Row("x", "a mistake", "none"), [(one, worse)], 50, 0)
    assert math.isnan(row.low) and row.verdict == "no interval: all images are of one group"


def findings_subject() -> Subject:
    rng, count = np.random.default_rng(0), 240
    x = rng.standard_normal((count, 12))
    stated = (x[:, :3] + 0.7 * rng.standard_normal((count, 3)) > 0.3).astype(float)
    stated[rng.random((count, 3)) < 0.1] = np.nan
    group = np.repeat(np.arange(count // 2), 2).astype(str)
    split = np.array(SPLITS)[np.digitize(np.arange(count) / count, (0.5, 0.7))]
    names = ("mass", "edema", "nodule")
    frame = table_of([""] * count, group, split).assign(
        **{finding_column(name): column for name, column in zip(names, stated.T, strict=True)}
    )
    return subject_of(Manifest.of_findings("films", frame, names, facts={"names_groups": True}), x)


def test_every_mistake_has_a_row_of_findings() -> None:
    subject = findings_subject()
    rows = [*leakage.patients(subject), *leakage.copies(subject), *choosing.rows(subject), serving.names(subject)]
    rows += serving.prevalence(subject)
    measured = [row for row in rows if row.measured]
    assert len(measured) == len(rows) - 1, "all but the backbone"
    assert {row.figure for row in rows[:4]} == {"macro AUROC"}
    table = pitfalls.table(rows)
    assert list(table.columns[:4]) == ["published", "honest", "difference (95 % interval)", "verdict"]
    assert "nan" not in table.to_csv().lower()
    assert table.loc["backbone chosen on test", "published"] == "not measured"


def test_the_answer_begins_with_the_conclusion_and_names_what_is_not_measured() -> None:
    filled = {"published": 0.9, "honest": 0.6, "difference": 0.3, "figure": "accuracy"}
    rows = [
        Row("a", "copies in training", "x", **filled, low=0.2, high=0.4),
        Row("b", "patients on both sides", "x", **filled | {"difference": 0.01}, low=-0.1, high=0.1),
        Row("c", "masks", "x").because("there are none"),
        Row(negative_control.CONTROL.key, "object painted out", "x", **filled, low=0.2, high=0.4, too_high="left"),
    ]
    first, worst, noise_sentence, control, missing = pitfalls.answer(rows)
    assert first.startswith("1 of 2 comparisons")
    assert "copies in training, accuracy 0.900 where 0.600 is honest, +0.300 (+0.200 to +0.400)" in worst
    assert noise_sentence == "Within noise on these images: patients on both sides (+0.010)."
    assert "painted out" in control and control.endswith("left.")
    assert missing == "Not measured: masks (there are none)."
    assert pitfalls.headline(rows) == "worth most: copies in training +0.300"
    assert pitfalls.sentence(rows[2]) == "**Masks**: not measured, since there are none."
    values = pitfalls.results(rows)
    assert values["c"] == {"verdict": "not measured: there are none"} and values["a"]["low"] == 0.2
