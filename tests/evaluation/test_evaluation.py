from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import log_softmax, softmax
from sklearn import metrics as reference

from scanbook import evaluation as ev
from scanbook.errors import DataError
from scanbook.evaluation.metrics import class_auprc, class_auroc, class_rates, confusions


def reference_auroc(y, p, w):
    areas = [
        reference.roc_auc_score(y == c, p[:, c], sample_weight=w)
        for c in range(p.shape[1])
        if 0 < w[y == c].sum() < w.sum()
    ]
    return np.mean(areas) if areas else np.nan


def reference_auprc(y, p, w):
    areas = [
        reference.average_precision_score(y == c, p[:, c], sample_weight=w)
        for c in range(p.shape[1])
        if w[y == c].sum() > 0
    ]
    return np.mean(areas)


def reference_ece(y, p, w):
    confidence, right, total = p.max(1), p.argmax(1) == y, 0.0
    for b in range(15):
        inside = (confidence > b / 15) & (confidence <= (b + 1) / 15)
        if w[inside].sum() > 0:
            gap = np.average(right[inside], weights=w[inside]) - np.average(confidence[inside], weights=w[inside])
            total += abs(gap) * w[inside].sum() / w.sum()
    return total


def present(y, w):
    return w > 0, np.unique(y[w > 0])


def precision_and_f1(y, p, w, average):
    """scikit-learn's defaults on the images that the weighting leaves: never predicted counts as 0."""
    left = w > 0
    found = reference.precision_recall_fscore_support(
        y[left], p.argmax(1)[left], average=average, sample_weight=w[left], zero_division=0
    )
    return found[0], found[2]


REFERENCE = {
    "accuracy": lambda y, p, w: reference.accuracy_score(y, p.argmax(1), sample_weight=w),
    "balanced_accuracy": lambda y, p, w: reference.recall_score(
        y, p.argmax(1), labels=present(y, w)[1], average="macro", sample_weight=w
    ),
    "macro_precision": lambda y, p, w: precision_and_f1(y, p, w, "macro")[0],
    "weighted_precision": lambda y, p, w: precision_and_f1(y, p, w, "weighted")[0],
    "weighted_f1": lambda y, p, w: precision_and_f1(y, p, w, "weighted")[1],
    "macro_f1": lambda y, p, w: reference.f1_score(
        y, p.argmax(1), labels=range(p.shape[1]), average="macro", sample_weight=w, zero_division=np.nan
    ),
    "auroc": reference_auroc,
    "auprc": reference_auprc,
    "brier": lambda y, p, w: np.average(((p - np.eye(p.shape[1])[y]) ** 2).sum(1), weights=w),
    "ece": reference_ece,
    "kappa": lambda y, p, w: reference.cohen_kappa_score(
        y, p.argmax(1), labels=range(p.shape[1]), weights="quadratic", sample_weight=w
    ),
}


@st.composite
def weighted_cases(draw):
    """Labels, probabilities on a coarse grid (so that scores tie) and weights, many of them zero."""
    k, n = draw(st.integers(2, 5)), draw(st.integers(12, 60))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    grid = draw(st.sampled_from([2, 5, 1000]))
    p = random.integers(0, grid + 1, (n, k)) + 0.01
    p /= p.sum(1, keepdims=True)
    w = random.integers(0, 4, (3, n)) * (random.uniform(0.2, 2, (3, n)) if draw(st.booleans()) else 1.0)
    w[:, :2] = 1.0
    y = random.integers(0, k, n)
    y[:2] = 0, 1
    return y, p, w


def test_references_cover_every_metric():
    assert set(REFERENCE) == set(ev.METRICS)
    assert all(metric.name == name for name, metric in ev.METRICS.items())


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::RuntimeWarning")
@pytest.mark.parametrize("name", REFERENCE)
@settings(max_examples=15, deadline=None, derandomize=True)
@given(case=weighted_cases())
def test_metric_equals_scikit_learn_with_sample_weight(name, case):
    y, p, weights = case
    found = ev.METRICS[name].compute(y, p, weights)
    wanted = [REFERENCE[name](y, p, w) for w in weights]
    np.testing.assert_allclose(found, wanted, rtol=1e-9, atol=1e-12)
    assert np.isfinite(found).any() or name == "kappa"
    ones = np.ones(len(y))
    np.testing.assert_allclose(ev.METRICS[name].point(y, p), REFERENCE[name](y, p, ones), rtol=1e-9, atol=1e-12)


def test_brier_equals_scikit_learn_multiclass():
    y, p, w = random_case(0, 80, 4)
    wanted = reference.brier_score_loss(y, p, labels=range(4), sample_weight=w, scale_by_half=False)
    np.testing.assert_allclose(ev.METRICS["brier"].compute(y, p, w[None])[0], wanted)


def test_macro_auroc_equals_scikit_learn_ovr():
    y, p, _ = random_case(1, 80, 4)
    wanted = reference.roc_auc_score(y, p, multi_class="ovr")
    np.testing.assert_allclose(ev.METRICS["auroc"].point(y, p), wanted)


def random_case(seed, n, k):
    random = np.random.default_rng(seed)
    p = random.dirichlet(np.ones(k), n)
    return random.integers(0, k, n), p, random.uniform(0, 2, n)


def test_weight_two_is_the_image_twice():
    y, p, _ = random_case(2, 50, 3)
    w = np.random.default_rng(2).integers(0, 3, 50)
    again = np.repeat(np.arange(50), w)
    for metric in ev.METRICS.values():
        np.testing.assert_allclose(metric.compute(y, p, w[None])[0], metric.point(y[again], p[again]), rtol=1e-9)


def test_absent_class_leaves_the_macro_mean():
    y, p, _ = random_case(3, 60, 3)
    w = (y != 2).astype(float)[None]
    assert np.isnan(class_auroc(y, p, w)[0, 2])
    assert np.isnan(class_auprc(y, p, w)[0, 2])
    rates = class_rates(confusions(y, p.argmax(1), 3, w))["sensitivity"][0]
    assert np.isnan(rates[2])
    assert ev.METRICS["balanced_accuracy"].compute(y, p, w)[0] == pytest.approx(rates[:2].mean())
    assert ev.METRICS["auroc"].compute(y, p, w)[0] == pytest.approx(class_auroc(y, p, w)[0, :2].mean())
    assert all(np.isnan(metric.compute(y, p, 0 * w)[0]) for metric in ev.METRICS.values())


# Bootstrap


def make(n=300, k=3, seed=0, skill=1.0, per_group=1, noise=0.0):
    """Predictions of known skill; `noise` is shared by the images of a group."""
    random = np.random.default_rng(seed)
    y = random.integers(0, k, n)
    logits = random.normal(size=(n, k))
    logits[np.arange(n), y] += skill + noise * np.repeat(random.normal(size=-(-n // per_group)), per_group)[:n]
    group = np.arange(n) // per_group
    classes = tuple(f"class {c}" for c in range(k))
    return ev.Predictions([f"i{i}" for i in range(n)], group.astype(str), y, softmax(logits, axis=1), classes)


def test_group_weights_move_groups_as_one():
    group = np.array(["b", "a", "b", "c", "a", "d"])
    weights = ev.group_weights(group, 500, seed=1)
    assert weights.shape == (500, 6)
    np.testing.assert_array_equal(weights[:, 0], weights[:, 2])
    np.testing.assert_array_equal(weights[:, 1], weights[:, 4])
    per_group = weights[:, [0, 1, 3, 5]]
    np.testing.assert_array_equal(per_group.sum(1), 4)
    np.testing.assert_allclose(per_group.mean(0), 1, atol=0.15)
    np.testing.assert_allclose(per_group.var(0), 0.75, atol=0.15)
    assert (ev.group_weights(group, 500, seed=1) == weights).all()
    assert (ev.group_weights(group, 500, seed=2) != weights).any()


def test_resamples_do_not_depend_on_the_chunk(monkeypatch):
    group = np.arange(37) // 2
    whole = ev.group_weights(group, 50, seed=4)
    monkeypatch.setattr("scanbook.evaluation.bootstrap._CHUNK", 37 * 3)
    np.testing.assert_array_equal(ev.group_weights(group, 50, seed=4), whole)
    np.testing.assert_array_equal(ev.resample(lambda w: w.sum(axis=1), group, 50, 4), whole.sum(1))


def test_interval_covers_the_truth():
    random = np.random.default_rng(0)
    covered = 0
    for trial in range(200):
        right = random.random(120) < 0.8
        low, high = ev.interval(ev.resample(lambda w, r=right: w @ r / w.sum(1), np.arange(120), 200, trial))
        covered += low <= 0.8 <= high
    assert 0.88 <= covered / 200 <= 0.99


def test_interval_leaves_undefined_rounds_out():
    values = np.column_stack([np.r_[np.nan, np.arange(101.0)], np.full(102, np.nan)])
    low, high = ev.interval(values)
    np.testing.assert_allclose([low[0], high[0]], [2.5, 97.5])
    assert np.isnan([low[1], high[1]]).all()


def test_clustered_patients_widen_the_interval():
    clustered = make(n=400, per_group=20, noise=3.0)
    independent = replace(clustered, group=clustered.image_id)
    wide, narrow = (ev.summary(p, ("accuracy",), 400).loc["accuracy"] for p in (clustered, independent))
    assert wide["value"] == narrow["value"]
    assert wide["high"] - wide["low"] > 1.5 * (narrow["high"] - narrow["low"])


def test_empty_resample_is_one_line():
    for group, rounds in (([], 10), (["a"], 0)):
        with pytest.raises(DataError, match="expected at least one"):
            ev.group_weights(group, rounds, 0)


# Tables


def test_summary_holds_every_metric_within_its_interval():
    predictions = make()
    table = ev.summary(predictions, tuple(ev.METRICS), rounds=200)
    assert list(table.index) == list(ev.METRICS)
    assert list(table.columns) == ["value", "low", "high"]
    assert (table["low"] < table["high"]).all()
    inside = table.drop(index="ece")  # resampling adds noise to the bins, so that ECE is biased upwards
    assert ((inside["low"] <= inside["value"]) & (inside["value"] <= inside["high"])).all()
    accuracy = (predictions.y_pred == predictions.y_true).mean()
    assert table.loc["accuracy", "value"] == pytest.approx(accuracy)
    pd.testing.assert_frame_equal(table, ev.summary(predictions, tuple(ev.METRICS), rounds=200))
    with pytest.raises(DataError, match="'dice' is unknown"):
        ev.summary(predictions, ("dice",))


def test_per_class_equals_scikit_learn():
    predictions = make(seed=5)
    table = ev.per_class(predictions, rounds=100)
    wanted = reference.precision_recall_fscore_support(predictions.y_true, predictions.y_pred)
    for column, values in zip(("precision", "sensitivity", "f1", "support"), wanted, strict=True):
        np.testing.assert_allclose(table[column], values)
    assert tuple(table.index) == predictions.classes
    negatives = [reference.recall_score(predictions.y_true != c, predictions.y_pred != c) for c in range(3)]
    np.testing.assert_allclose(table["specificity"], negatives)
    one_vs_rest = [
        reference.average_precision_score(predictions.y_true == c, predictions.probabilities[:, c]) for c in range(3)
    ]
    np.testing.assert_allclose(table["auprc"], one_vs_rest)
    for name in ("sensitivity", "specificity", "precision", "f1", "auroc", "auprc"):
        assert ((table[f"{name}_low"] < table[name]) & (table[name] < table[f"{name}_high"])).all()


@pytest.mark.filterwarnings("ignore::UserWarning")
@settings(max_examples=30, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**31), k=st.integers(2, 6), skill=st.floats(0, 2))
def test_class_report_equals_scikit_learn(seed, k, skill):
    """Also where a class is never predicted: its own precision is not defined, in the means it counts as 0."""
    random = np.random.default_rng(seed)
    classes = tuple(str(c) for c in random.permutation(12)[:k])  # not in alphabetical order
    y = np.r_[np.arange(k), random.integers(0, k, 20)]
    logits = random.normal(size=(len(y), k)) + skill * np.eye(k)[y] + random.normal(0, 1, k)
    predictions = ev.Predictions(*2 * [[f"i{i}" for i in range(len(y))]], y, softmax(logits, axis=1), classes)
    table = ev.class_report(predictions, rounds=2)
    assert tuple(table.index) == (*classes, "macro average", "weighted average")
    wanted = reference.classification_report(
        y, predictions.y_pred, labels=range(k), target_names=classes, output_dict=True, zero_division=0
    )
    columns = {"precision": "precision", "sensitivity": "recall", "f1": "f1-score", "support": "support"}
    for ours, theirs in columns.items():
        rows = [wanted[name][theirs] for name in (*classes, "macro avg", "weighted avg")]
        np.testing.assert_allclose(table[ours].fillna(0), rows, rtol=1e-12)
    points = {name: metric.point(y, predictions.probabilities) for name, metric in ev.METRICS.items()}
    assert table.loc["macro average", "sensitivity"] == pytest.approx(points["balanced_accuracy"])
    assert table.loc["weighted average", "sensitivity"] == pytest.approx(points["accuracy"])
    for mean in ("macro average", "weighted average"):
        for column in ("precision", "f1"):
            assert table.loc[mean, column] == pytest.approx(points[f"{mean.split()[0]}_{column}"])
    for column in ("auroc", "auprc"):
        assert table.loc["macro average", column] == pytest.approx(points[column])
    weighted = reference.roc_auc_score(np.eye(k)[y], predictions.probabilities, average="weighted")
    assert table.loc["weighted average", "auroc"] == pytest.approx(weighted)


def test_class_report_and_summary_share_their_intervals():
    predictions = make(n=200, per_group=2)
    report = ev.class_report(predictions, 100, seed=3)
    table = ev.summary(predictions, ev.metrics_for(ordered=True), 100, seed=3)
    for metric, (row, column) in {
        "balanced_accuracy": ("macro average", "sensitivity"),
        "accuracy": ("weighted average", "sensitivity"),
        "weighted_precision": ("weighted average", "precision"),
        "macro_f1": ("macro average", "f1"),
        "auprc": ("macro average", "auprc"),
    }.items():
        found = report.loc[row, [column, f"{column}_low", f"{column}_high"]]
        np.testing.assert_allclose(found.astype(float), table.loc[metric])
    pd.testing.assert_frame_equal(ev.per_class(predictions, 100, seed=3), report.iloc[:3])


def test_kappa_is_shown_of_ordered_classes_only():
    assert ev.metrics_for(ordered=True) == tuple(ev.METRICS)
    assert set(ev.METRICS) - set(ev.metrics_for(ordered=False)) == {"kappa"}


def test_per_class_of_an_absent_class_is_not_defined():
    seen = make(k=3)
    table = ev.per_class(seen.subset(seen.y_true != 1), rounds=50)
    assert table.loc["class 1", "support"] == 0
    assert table.loc["class 1", ["sensitivity", "sensitivity_low", "auroc", "auroc_high"]].isna().all()
    assert table.drop(index="class 1").notna().all(axis=None)


def test_confusion_keeps_class_order():
    classes = ("z", "a", "m")
    y = np.array([0, 0, 1, 2, 2])
    p = np.eye(3)[[0, 1, 1, 2, 0]]
    table = ev.confusion(ev.Predictions(list("12345"), list("12345"), y, p, classes))
    assert tuple(table.index) == tuple(table.columns) == classes
    assert table.to_numpy().tolist() == [[1, 1, 0], [0, 1, 0], [1, 0, 1]]
    assert (table.index.name, table.columns.name) == ("true", "predicted")


# Paired comparison


def test_planted_difference_is_found_and_named():
    better, worse = make(skill=2.5), make(skill=0.5)
    for metric in ("accuracy", "auroc", "brier"):
        found = ev.paired_difference(better, worse, metric, rounds=300)
        assert found.clear
        assert found.low <= found.value <= found.high
        assert found.p_value < 0.05
        sentence = found.sentence("fine-tuned", "frozen")
        assert sentence.startswith("fine-tuned is better than frozen by 0.")
        assert "−" not in sentence
        swapped = ev.paired_difference(worse, better, metric, rounds=300)
        assert swapped.value == pytest.approx(-found.value)
        assert swapped.sentence("frozen", "fine-tuned") == sentence
    assert ev.mcnemar(better, worse) < 0.001


def test_identical_models_are_within_noise():
    a = make()
    found = ev.paired_difference(a, a, rounds=50)
    assert (found.value, found.low, found.high, found.p_value) == (0, 0, 0, 1)
    assert "within noise (95 % interval 0.000 to 0.000)" in found.sentence("one", "other")
    assert ev.mcnemar(a, a) == 1.0


def test_undefined_metric_is_not_called_noise():
    a = make()
    one_class = a.subset(a.y_true == 0)
    found = ev.paired_difference(one_class, one_class, "auroc", rounds=20)
    assert np.isnan(found.value)
    assert (
        found.sentence("one", "other") == "one and other cannot be compared: macro AUROC is not defined on these images"
    )


def test_equally_good_models_are_rarely_told_apart():
    random = np.random.default_rng(0)
    y, ids = np.zeros(150, int), [f"{i}" for i in range(150)]
    clear = 0
    for trial in range(100):
        a, b = (
            ev.Predictions(ids, ids, y, np.eye(2)[(random.random(150) < 0.2).astype(int)], ("no", "yes"))
            for _ in range(2)
        )
        clear += ev.paired_difference(a, b, rounds=200, seed=trial).clear
    assert clear <= 12


def test_pairing_narrows_the_interval():
    a = make(n=400)
    probabilities = a.probabilities.copy()
    probabilities[:8] = 1 / 3
    paired = ev.paired_difference(a, replace(a, probabilities=probabilities), rounds=300)
    alone = ev.summary(a, ("accuracy",), 300).loc["accuracy"]
    assert paired.high - paired.low < 0.5 * (alone["high"] - alone["low"])


@pytest.mark.parametrize("field", ["image_id", "y_true", "group", "classes", "length"])
def test_different_images_are_refused(field):
    a = make(n=30)
    other = {
        "image_id": lambda: replace(a, image_id=np.r_[["other"], a.image_id[1:]]),
        "group": lambda: replace(a, group=np.r_[["other"], a.group[1:]]),
        "y_true": lambda: replace(a, y_true=(a.y_true + 1) % 3),
        "classes": lambda: replace(a, classes=a.classes[::-1]),
        "length": lambda: a.subset(np.arange(29)),
    }[field]()
    for compare in (ev.paired_difference, ev.mcnemar):
        with pytest.raises(DataError) as caught:
            compare(a, other)
        assert "\n" not in str(caught.value)


def test_mcnemar_is_the_exact_binomial():
    y, ids = np.zeros(20, int), [str(i) for i in range(20)]
    right = np.eye(2)[np.r_[np.zeros(18, int), 1, 1]]
    half = np.eye(2)[np.r_[np.zeros(10, int), np.ones(8, int), 0, 1]]
    a, b = (ev.Predictions(ids, ids, y, p, ("no", "yes")) for p in (right, half))
    # 8 images only a has right, 1 only b: 2 * (C(9,0) + C(9,1)) / 2^9
    assert ev.mcnemar(a, b) == pytest.approx(2 * 10 / 512)


# Calibration


@pytest.mark.parametrize("planted", [0.3, 1.0, 2.5, 400.0])
def test_temperature_recovers_the_planted_one(planted):
    random = np.random.default_rng(0)
    logits = random.normal(size=(20_000, 4)) * 1.5
    y = (random.random(20_000)[:, None] > softmax(logits, axis=1).cumsum(1)).sum(1)
    assert ev.fit_temperature(logits * planted, y) == pytest.approx(planted, rel=0.05)


def test_temperature_lowers_the_loss_and_keeps_predictions():
    random = np.random.default_rng(1)
    logits = random.normal(size=(300, 3)) * 6
    y = np.where(random.random(300) < 0.7, logits.argmax(1), random.integers(0, 3, 300))
    t = ev.fit_temperature(logits, y)
    rows = np.arange(300)
    loss = [-log_softmax(logits / s, axis=1)[rows, y].mean() for s in (t, t * 0.9, t * 1.1, 1.0)]
    assert loss[0] == min(loss)
    calibrated = ev.apply_temperature(logits, t)
    np.testing.assert_allclose(calibrated.sum(1), 1)
    np.testing.assert_array_equal(calibrated.argmax(1), logits.argmax(1))


def test_temperature_of_degenerate_cases():
    logits = np.eye(3)[[0, 1, 2, 0]] * 5
    assert ev.fit_temperature(logits, [0, 1, 2, 0]) == 1.0
    assert ev.fit_temperature(np.zeros((4, 3)), [0, 1, 2, 0]) == 1.0
    wrong = ev.apply_temperature(logits, ev.fit_temperature(logits, [1, 2, 0, 1]))
    np.testing.assert_allclose(wrong, 1 / 3, atol=0.02)
    for bad in (np.zeros(3), np.zeros((0, 3)), np.full((3, 3), np.nan)):
        with pytest.raises(DataError, match="expected"):
            ev.fit_temperature(bad, np.zeros(len(bad), int))
    with pytest.raises(DataError, match="labels run from 0 to 3"):
        ev.fit_temperature(logits, [0, 1, 2, 3])
    for t in (0, -1, np.nan):
        with pytest.raises(DataError, match="temperature"):
            ev.apply_temperature(logits, t)


def test_reliability_counts_every_image_once():
    predictions = make(n=500)
    table = ev.reliability(predictions)
    assert len(table) == 10
    assert table["count"].sum() == 500
    full = table[table["count"] > 0]
    assert np.average(full["accuracy"], weights=full["count"]) == pytest.approx(predictions.correct.mean())
    assert ((full["low"] <= full["accuracy"]) & (full["accuracy"] <= full["high"])).all()
    assert table.loc[table["count"] == 0, ["confidence", "accuracy", "low"]].isna().all(axis=None)
    assert table["bin"].iloc[9] == "0.9–1"
    fine = ev.reliability(predictions, 15).dropna()
    error = np.average((fine["accuracy"] - fine["confidence"]).abs(), weights=fine["count"])
    assert error == pytest.approx(ev.METRICS["ece"].point(predictions.y_true, predictions.probabilities))
    assert error > 0


def test_reliability_interval_is_wilson():
    y = np.zeros(10, int)
    p = np.tile([0.75, 0.25], (10, 1))
    p[:2] = [0.25, 0.75]
    row = ev.reliability(ev.Predictions([*"0123456789"], [*"0123456789"], y, p, ("a", "b"))).iloc[7]
    assert row["accuracy"] == pytest.approx(0.8)
    assert (row["low"], row["high"]) == pytest.approx((0.4902, 0.9433), abs=1e-4)  # Wilson, 8 of 10


# Operating points


@given(seed=st.integers(0, 10_000), wanted=st.sampled_from([0.0, 0.5, 0.8, 0.9, 1.0]))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_threshold_is_the_most_sensitive_one_allowed(seed, wanted):
    random = np.random.default_rng(seed)
    y = np.r_[True, False, random.random(40) < 0.4]
    score = np.round(random.normal(size=42) + y, 1)
    threshold = ev.choose_threshold(y, score, wanted)
    called = score >= threshold
    assert (~called[~y]).mean() >= wanted - 1e-9
    better = [(score >= s)[y].mean() for s in score if (score < s)[~y].mean() >= wanted - 1e-9]
    assert called[y].mean() == pytest.approx(max(better, default=0.0))


def test_threshold_keeps_clear_of_scores():
    y, score = np.array([0, 0, 1, 1]), np.array([0.1, 0.2, 0.6, 0.9])
    assert ev.choose_threshold(y, score, 1.0) == pytest.approx(0.4)
    above = ev.choose_threshold([1, 0], [0.2, 0.9], 0.9)
    assert 0.9 < above < 0.9001
    with pytest.raises(DataError, match="needs positives and negatives"):
        ev.choose_threshold([1, 1], [0.1, 0.2])
    with pytest.raises(DataError, match="one of each per image"):
        ev.choose_threshold([1, 0], [0.1])


def test_operating_point_with_groups():
    random = np.random.default_rng(0)
    y = np.repeat(random.random(60) < 0.5, 5)
    score = y + np.repeat(random.normal(size=60), 5)
    table = ev.operating_point(y, score, 0.5, np.arange(300) // 5, rounds=300)
    assert table.loc["sensitivity", "value"] == pytest.approx((score >= 0.5)[y].mean())
    assert table.loc["specificity", "value"] == pytest.approx((score < 0.5)[~y].mean())
    assert ((table["low"] < table["value"]) & (table["value"] < table["high"])).all()
    single = ev.operating_point(y, score, 0.5, np.arange(300), rounds=300)
    assert ((table["high"] - table["low"]) > 1.4 * (single["high"] - single["low"])).all()
    assert ev.operating_point(np.zeros(4), np.ones(4), 0.5, np.arange(4), rounds=20).loc["sensitivity"].isna().all()
    with pytest.raises(DataError, match="2 groups for 300 images"):
        ev.operating_point(y, score, 0.5, ["a", "b"])


# Predictions


@settings(max_examples=25, deadline=None, derandomize=True)
@given(seed=st.integers(0, 1000), names=st.lists(st.text("ab0NA1e ,\"';é-", min_size=1), min_size=2, max_size=6))
def test_round_trip_is_exact(tmp_path_factory, seed, names):
    random = np.random.default_rng(seed)
    n = len(names)
    classes = ("NA", "a,b", "007")
    ids = [f"{name}{i}" for i, name in enumerate(names)]
    original = ev.Predictions(ids, names, random.integers(0, 3, n), random.dirichlet(np.ones(3), n), classes)
    path = tmp_path_factory.mktemp("predictions") / "test.csv"
    original.save(path)
    again = ev.Predictions.load(path)
    assert again.classes == classes
    for field in ("image_id", "group", "y_true", "probabilities"):
        np.testing.assert_array_equal(getattr(again, field), getattr(original, field))
    assert again.to_frame()["predicted"].tolist() == [classes[c] for c in original.y_pred]


BROKEN = {
    "negative": ({"probabilities": [[1.2, -0.2], [0.5, 0.5]]}, "between 0 and 1"),
    "not a number": ({"probabilities": [[np.nan, 1.0], [0.5, 0.5]]}, "between 0 and 1"),
    "logits": ({"probabilities": [[0.2, 0.2], [0.5, 0.5]]}, "sum to 0.4"),
    "columns": ({"probabilities": [[0.2, 0.2, 0.6], [0.5, 0.5, 0.0]]}, r"expected \(2, 2\)"),
    "label": ({"y_true": [0, 2]}, "y_true holds 2"),
    "float label": ({"y_true": [0.0, 1.0]}, "expected integers"),
    "length": ({"y_true": [0]}, r"y_true has shape \(1,\)"),
    "group": ({"group": ["p", None]}, "group of row 1 is empty"),
    "blank group": ({"group": ["p", ""]}, "group of row 1 is empty"),
    "twice": ({"image_id": ["i", "i"]}, "'i' occurs twice"),
    "one class": ({"classes": ("a",)}, "two or more different names"),
    "same class": ({"classes": ("a", "a")}, "two or more different names"),
    "empty": ({"image_id": [], "group": [], "y_true": [], "probabilities": np.zeros((0, 2))}, "hold no image"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_predictions_are_refused_in_one_line(case):
    good = {
        "image_id": ["i", "j"],
        "group": ["p", "q"],
        "y_true": [0, 1],
        "probabilities": [[0.3, 0.7], [0.5, 0.5]],
        "classes": ("a", "b"),
    }
    assert ev.Predictions(**good).y_pred.tolist() == [1, 0]
    changes, words = BROKEN[case]
    with pytest.raises(DataError, match=words) as caught:
        ev.Predictions(**(good | changes))
    assert "\n" not in str(caught.value)


def test_unreadable_tables_are_refused_in_one_line(tmp_path):
    predictions = make(n=5)
    frame = predictions.to_frame()
    with pytest.raises(DataError, match="lack the column 'group'"):
        ev.Predictions.from_frame(frame.drop(columns="group"))
    with pytest.raises(DataError, match="has no column p_class"):
        ev.Predictions.from_frame(frame.drop(columns=f"p_{frame['true'].iloc[0]}"))
    (tmp_path / "empty.csv").write_text("")
    (tmp_path / "words.csv").write_text("image_id,group,true,p_a,p_b\ni,g,a,much,little\n")
    for name in ("missing.csv", "empty.csv", "words.csv"):
        with pytest.raises(DataError, match="cannot read predictions") as caught:
            ev.Predictions.load(tmp_path / name)
        assert "\n" not in str(caught.value)


def test_images_of_one_group_have_no_interval():
    y = np.array([0, 1, 1, 0])
    a, b = (
        ev.Predictions(list("wxyz"), ["p"] * 4, y, np.eye(2)[np.where(right, y, 1 - y)], ("no", "yes"))
        for right in (np.ones(4, bool), np.array([True, False, False, True]))
    )
    assert ev.summary(a, ("accuracy",)).loc["accuracy"].isna().tolist() == [False, True, True]
    difference = ev.paired_difference(a, b)
    assert difference.value == 0.5 and np.isnan(difference.low) and not difference.clear
    assert "all images are of one group" in difference.sentence("a", "b")
