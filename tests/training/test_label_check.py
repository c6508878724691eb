"""Labels that look wrong: planted ones come first, no patient confirms its own, and the rule sees training alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from helpers import planted
from scanbook.data import quality
from scanbook.data.manifest import TEST, TRAIN, VALIDATION, Manifest, finding_column
from scanbook.data.splits import SplitDataset
from scanbook.errors import DataError, StudyError
from scanbook.models.backbones import RANDOM
from scanbook.training import label_check, out_of_fold
from scanbook.training.label_check import LabelCheck

CLASSES = ("a", "b", "c")


@pytest.fixture(autouse=True)
def own_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCANBOOK_STORE", str(tmp_path / "store"))


def one_hot(y: np.ndarray, k: int = 3) -> np.ndarray:
    return np.eye(k, dtype=np.float32)[y]


def listed(y: np.ndarray, group: np.ndarray) -> Manifest:
    frame = pd.DataFrame({"image_id": [f"i{n:04}" for n in range(len(y))], "path": "", "mask_path": ""})
    frame = frame.assign(label=np.array(CLASSES, object)[y], group=[f"p{g}" for g in group], split=TRAIN)
    return Manifest("planted", frame, CLASSES)


@pytest.mark.parametrize("seed", range(3))
def test_planted_wrong_labels_come_first(seed: int) -> None:
    draw, n = np.random.default_rng(seed), 600
    truth, group = draw.integers(0, 3, n // 3).repeat(3), np.arange(n) // 3
    x = draw.normal(size=(n, 12)) + 4 * one_hot(truth) @ np.eye(3, 12)
    wrong = draw.choice(n, n // 20, replace=False)
    given = truth.copy()
    given[wrong] = (truth[wrong] + draw.integers(1, 3, len(wrong))) % 3
    manifest = listed(given, group)
    probabilities = out_of_fold.predict_classes(x, one_hot(given), group, seed)
    assert np.allclose(probabilities.sum(axis=1), 1)
    table = label_check._table(manifest, np.arange(n), probabilities)
    names = manifest.frame["image_id"].to_numpy()
    found = np.isin(names[wrong], table["image_id"].head(len(wrong))).mean()
    assert found > 0.6, "by chance it is 0.05"
    suggested = table.set_index("image_id").loc[names[wrong]]
    assert (suggested["suggested"] == np.array(CLASSES, object)[truth[wrong]]).mean() > 0.8
    conflict = table.loc[table["conflict"], "image_id"]
    assert len(conflict) > 5 and np.isin(conflict, names[wrong]).mean() > 0.8
    assert table["probability"].is_monotonic_increasing and set(table["image_id"]) == set(names)


def test_a_patient_does_not_confirm_its_own_wrong_label() -> None:
    """Every patient has a pattern of its own, by which a head that saw it knows the label that its images have."""
    draw, patients, each = np.random.default_rng(0), 90, 6
    group = np.arange(patients).repeat(each)
    truth = np.arange(patients) % 3
    given = truth.copy()
    given[:6] = (truth[:6] + 1) % 3
    pattern = 4 * draw.normal(size=(patients, 60))
    x = np.concatenate([5 * one_hot(truth), pattern], axis=1)[group] + 0.3 * draw.normal(size=(patients * each, 63))
    labels = one_hot(given)[group]
    wrong = group < 6

    def given_probability(unit: np.ndarray) -> float:
        return float((out_of_fold.predict_classes(x, labels, unit, 0) * labels).sum(axis=1)[wrong].mean())

    assert given_probability(group) < 0.35 < 0.65 < given_probability(np.arange(len(group)))


def test_no_unit_is_in_its_own_training_fold(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    class Remembering:
        """A model that predicts a class for certain where it learned from an image of the same unit."""

        def __init__(self, **_: object) -> None:
            pass

        def fit(self, x: np.ndarray, y: np.ndarray) -> Remembering:
            self.units, self.classes_ = set(x[:, 0]), np.unique(y)
            return self

        def predict_proba(self, x: np.ndarray) -> np.ndarray:
            seen.append(bool(self.units & set(x[:, 0])))
            return np.full((len(x), len(self.classes_)), 1 / len(self.classes_))

    monkeypatch.setattr(out_of_fold, "LogisticRegression", Remembering)
    draw = np.random.default_rng(2)
    unit = draw.integers(0, 40, 200)
    out_of_fold.predict_classes(unit[:, None].astype(float), one_hot(draw.integers(0, 3, 200)), unit, 0)
    assert len(seen) >= out_of_fold.FOLDS and not any(seen)


def test_a_class_of_few_patients_is_not_checked_and_named() -> None:
    draw, n = np.random.default_rng(1), 200
    y, group = draw.integers(0, 2, n), np.arange(n)
    y[:12], group[:12] = 2, np.arange(12) // 3  # twelve images of four patients
    x = draw.normal(size=(n, 4)) + one_hot(y) @ draw.normal(size=(3, 4))
    probabilities = out_of_fold.predict_classes(x, one_hot(y), group, 0)
    assert np.isnan(probabilities[:12]).all() and np.isnan(probabilities[:, 2]).all()
    table = label_check._table(listed(y, group), np.arange(n), probabilities)
    assert len(table) == n - 12 and "c" not in set(table["given"]) | set(table["suggested"])
    alone = out_of_fold.predict_classes(x[:12], one_hot(y[:12]), group[:12], 0)
    assert np.isnan(alone).all() and label_check._table(listed(y[:12], group[:12]), np.arange(12), alone).empty


def ward(n: int = 500) -> tuple[Manifest, np.ndarray, np.ndarray]:
    """Findings: one frequent and easy, of which a third is not labelled; one rare that x says nothing about."""
    draw = np.random.default_rng(4)
    truth = np.stack([draw.random(n) < 0.4, draw.random(n) < 0.06], axis=1).astype(float)
    x = draw.normal(size=(n, 6))
    x[:, 0] += 4 * truth[:, 0]
    given = truth.copy()
    given[:15, 0] = 1 - truth[:15, 0]
    given[draw.random(n) < 0.3, 0] = np.nan
    given[:15, 0] = 1 - truth[:15, 0]
    frame = pd.DataFrame({"image_id": [f"i{k:03}" for k in range(n)], "path": "", "mask_path": "", "split": TRAIN})
    frame = frame.assign(group=[f"p{k // 2}" for k in range(n)])
    frame = frame.assign(**{finding_column(name): given[:, k] for k, name in enumerate(("easy", "rare"))})
    return Manifest.of_findings("ward", frame, ("easy", "rare")), x, np.arange(n) // 2


def test_each_finding_is_checked_by_itself_where_it_is_labelled() -> None:
    manifest, x, unit = ward()
    values = manifest.labels.values
    probabilities = out_of_fold.predict_findings(x, values, unit, 0)
    assert (np.isnan(probabilities) == np.isnan(values)).all(), "not labelled is not negative, and not judged"
    table = label_check._table(manifest, np.arange(len(x)), probabilities)
    assert len(table) == (~np.isnan(values)).sum()
    easy, rare = (table[table["finding"] == name] for name in ("easy", "rare"))
    first = easy.head(15)
    assert np.isin(first["image_id"], [f"i{k:03}" for k in range(15)]).mean() > 0.8
    assert set(first["given"]) == {"present", "absent"} and (first["given"] != first["suggested"]).all()
    present = rare["given"] == "present"
    assert present.sum() > 20 and rare[present]["conflict"].sum() == 0, "rare is not wrong"


def test_shares_have_the_intervals_of_their_patients() -> None:
    table = pd.DataFrame({"image_id": [f"i{k}" for k in range(200)], "group": [f"p{k // 2}" for k in range(200)]})
    confidence = np.linspace(0.5, 1, 200)
    table = table.assign(split=TRAIN, given="a", suggested="a", confidence=confidence, probability=confidence)
    table = table.assign(suspected=False, conflict=False)
    shares = LabelCheck(table).shares(rounds=50, seed=0)
    assert shares["labels"].tolist() == [200, 20] and (shares["value"] == 0).all() and (shares["low"] == 0).all()
    # Clopper and Pearson: none of 100 patients, and none of the 10 of whom the head is surest
    assert shares["high"].tolist() == pytest.approx([1 - 0.025 ** (1 / 100), 1 - 0.025 ** (1 / 10)])
    half = LabelCheck(table.assign(suspected=np.arange(200) % 4 < 2, suggested="b"))
    shares = half.shares(rounds=500, seed=0)
    assert shares.at["suspected", "value"] == 0.5 and shares.at["most confident", "value"] == 1
    width = shares.at["suspected", "high"] - shares.at["suspected", "low"]
    assert width == pytest.approx(2 * 1.96 * np.sqrt(0.25 / 100), abs=0.03), "both images of a patient count as one"
    assert half.shares_by_label(50, 0).loc["a", "count"] == 100
    worst = half.worst(30)
    assert len(worst) == 30 and worst["group"].is_unique
    assert (worst[["labels", "suspected"]] == 2).all(axis=None)


# --- the rule


def dataset(findings: bool = False) -> SplitDataset:
    manifest = planted.observed() if findings else planted.manifest()
    excluded = pd.DataFrame(columns=["image_id", "split", "reason"])
    return SplitDataset(manifest, quality.scan(manifest), excluded, pd.DataFrame())


def use_probabilities(monkeypatch: pytest.MonkeyPatch, doubtful: list[str]) -> list[set[str]]:
    """Let a head be sure of the labels of all images but those named, of which it is sure that they are another's."""
    used: list[set[str]] = []

    def predict(manifest: Manifest, images: np.ndarray, _: object, *, rows: np.ndarray, **__: object) -> np.ndarray:
        used.append(set(manifest.frame["split"].iloc[rows]))
        values = manifest.labels.values[rows].astype(float)
        own = manifest.frame["image_id"].iloc[rows].isin(doubtful).to_numpy()
        if manifest.classes:
            values[own] = np.roll(values[own], 1, axis=1)
            return 0.999 * values + 0.001 / 3
        values[own, 0] = 1 - values[own, 0]
        return 0.998 * values + 0.001

    monkeypatch.setattr(label_check, "_backbone", lambda study: ("small", RANDOM, ""))
    monkeypatch.setattr(out_of_fold, "predict", predict)
    return used


def test_the_rule_excludes_training_images_alone_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    study, before = planted.study(quality={"drop": ["label_conflict"]}), dataset()
    frame = before.manifest.frame
    doubtful = [frame.loc[frame["split"] == split, "image_id"].iloc[4] for split in (TRAIN, VALIDATION, TEST)]
    used = use_probabilities(monkeypatch, doubtful)
    after = label_check.exclude(study, before)
    assert used == [{TRAIN}], "labels of validation and test are not seen"
    (row,) = after.excluded.itertuples()
    assert (row.image_id, row.split) == (doubtful[0], TRAIN)
    assert row.reason == "label_conflict: labelled sky; leaf has a probability of 0.99"
    changed = after.manifest.frame["split"] != frame["split"]
    assert frame.loc[changed, "image_id"].tolist() == doubtful[:1]
    assert (after.manifest.frame.loc[changed, "split"] == "").all()
    assert label_check.exclude(planted.study(), before) is before
    every = label_check.check_labels(study, before)
    assert used[1] == {TRAIN, VALIDATION, TEST} and set(every.suspected["image_id"]) == set(doubtful)


def test_the_rule_names_the_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    study, before = planted.study(quality={"drop": ["label_conflict"]}), dataset(findings=True)
    manifest = before.manifest
    known = (manifest.frame["split"] == TRAIN) & ~np.isnan(manifest.labels.values[:, 0])
    image = manifest.frame.loc[known, "image_id"].iloc[0]
    use_probabilities(monkeypatch, [image])
    (row,) = label_check.exclude(study, before).excluded.itertuples()
    assert row.image_id == image and row.reason.startswith("label_conflict: labelled cool present; absent has")


def test_a_rule_that_cannot_act_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    study = planted.study(quality={"drop": ["label_conflict"]})
    before = dataset()
    assert label_check.check_labels(study, before).reason == "no backbone of the study has pretrained weights"
    with pytest.raises(StudyError, match="label_conflict, and no backbone of the study has pretrained weights; remove"):
        label_check.exclude(study, before)
    sky = before.manifest.frame["label"] == "sky"
    few = before.manifest.frame["split"].where(~sky | (before.manifest.frame["split"] != TRAIN), "")
    few[before.manifest.frame.index[sky & (before.manifest.frame["split"] == TRAIN)][:6]] = TRAIN
    small = replace(before, manifest=before.manifest.with_frame(before.manifest.frame.assign(split=few)))
    own = small.manifest.frame
    doubtful = own.loc[(own["split"] == TRAIN) & (own["label"] == "sky"), "image_id"].tolist()

    def conflict(*_: object) -> LabelCheck:
        table = pd.DataFrame({"image_id": doubtful, "given": "sky", "suggested": "leaf", "confidence": 0.99})
        return LabelCheck(table.assign(conflict=True), backbone="small")

    monkeypatch.setattr(label_check, "check_labels", conflict)
    with pytest.raises(DataError, match=r"no training image of class 'sky'.*excluded \(label conflict\).*shorten"):
        label_check.exclude(study, small)
