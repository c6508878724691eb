"""Training on findings: what is not labelled changes nothing, and what is labelled is learnt."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, log_expit
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from helpers import planted
from scanbook import augmentation, runtime, training
from scanbook.augmentation import Augmenter
from scanbook.config import Head
from scanbook.data.manifest import TEST, VALIDATION, Manifest
from scanbook.errors import ModelError
from scanbook.evaluation import Labels
from scanbook.models import engines, heads
from scanbook.registry import Policy
from scanbook.training import comparisons, fitting, head
from scanbook.training.objectives import FindingCrossEntropy, FindingObjective

keras = fitting.keras
FINDINGS = planted.FINDINGS
NAN = np.nan
PIXELS = planted.pixels()[:, ::2, ::2].copy()
NETWORK = "small_cnn"

pytestmark = pytest.mark.usefixtures("own_store")


def study(**changes):
    values = {"scratch": {"epochs": 4, "learning_rate": 0.02, "batch_size": 16}, "backbones": [NETWORK]}
    return planted.study(**values | changes)


def truth(split):
    return planted.observed(0.0).label_values(split)


# the loss


def summed(y, z, weights=None, smoothing=0.0, images=None):
    """The sum over labelled entries, written out."""
    images = np.ones(len(y)) if images is None else images
    total = 0.0
    for row, column in np.argwhere(~np.isnan(y)):
        label, logit = float(y[row, column]), float(z[row, column])
        weight = 1.0 if weights is None else label * weights[1, column] + (1 - label) * weights[0, column]
        smooth = label * (1 - smoothing) + smoothing / 2
        total += images[row] * weight * -(smooth * log_expit(logit) + (1 - smooth) * log_expit(-logit))
    return total / (images.sum() * y.shape[1])


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 9), st.integers(1, 5), st.integers(0, 2**32 - 1), st.booleans(), st.sampled_from((0.0, 0.2)))
def test_the_loss_of_a_batch_is_the_sum_over_labelled_entries(n, k, seed, weighted, smoothing):
    draw = np.random.default_rng(seed)
    y = draw.choice([0, 1, NAN, 0.25], (n, k)).astype(np.float32)
    z = draw.normal(0, 8, (n, k)).astype(np.float32)
    weights = draw.uniform(0.1, 5, (2, k)) if weighted else None
    images = np.r_[1, draw.integers(0, 2, n - 1)].astype(np.float32)
    loss = FindingCrossEntropy(smoothing, weights)
    assert float(loss(y, z)) == pytest.approx(summed(y, z, weights, smoothing), rel=1e-5, abs=1e-7)
    filled = float(loss(y, z, sample_weight=images))
    assert filled == pytest.approx(summed(y, z, weights, smoothing, images), rel=1e-5, abs=1e-7)


def gradients(function, *variables):
    import tensorflow as tf

    tensors = [tf.Variable(value) for value in variables]
    with tf.GradientTape() as tape:
        value = function(*tensors)
    return [np.asarray(gradient) for gradient in tape.gradient(value, tensors)]


@pytest.mark.parametrize("scale", [1.0, 1e3])
def test_the_gradient_of_a_missing_label_is_exactly_zero(scale):
    draw = np.random.default_rng(0)
    y = draw.choice([0, 1, NAN], (40, 5), p=(0.4, 0.2, 0.4)).astype(np.float32)
    z = (scale * draw.normal(size=y.shape)).astype(np.float32)
    z[0], z[1] = 0, scale
    (slope,) = gradients(lambda logits: FindingCrossEntropy(0.0, np.full((2, 5), 3.0))(y, logits), z)
    assert (slope[np.isnan(y)] == 0).all()
    np.testing.assert_allclose(slope, np.nan_to_num(3 * (expit(z) - y)) / y.size, rtol=1e-4, atol=1e-9)


def test_a_finding_that_is_not_labelled_at_all_leaves_its_weights():
    draw = np.random.default_rng(1)
    x, y = draw.normal(size=(30, 6)).astype(np.float32), draw.integers(0, 2, (30, 3)).astype(np.float32)
    y[:, 1] = NAN
    kernel, bias = draw.normal(size=(6, 3)).astype(np.float32), np.zeros(3, np.float32)
    slopes = gradients(lambda w, b: FindingCrossEntropy()(y, x @ w + b), kernel, bias)
    assert (slopes[0][:, 1] == 0).all() and slopes[1][1] == 0
    assert np.abs(slopes[0][:, [0, 2]]).min() > 0


def test_metrics_are_means_over_labelled_entries_of_images_that_count():
    draw, (cross_entropy, accuracy) = np.random.default_rng(2), FindingObjective(FINDINGS).metrics()
    y = draw.choice([0, 1, NAN], (24, 2), p=(0.4, 0.2, 0.4)).astype(np.float32)
    z = draw.normal(0, 2, y.shape).astype(np.float32)
    for rows in np.split(np.arange(24), 3):  # each batch is filled up with an image that has a weight of 0
        filled = np.r_[rows, 0]
        weights = np.repeat(np.float32([1, 0]), (len(rows), 1))
        for metric in (cross_entropy, accuracy):
            metric.update_state(y[filled], z[filled], sample_weight=weights)
    labelled = ~np.isnan(y)
    expected = -np.where(y == 1, log_expit(z), log_expit(-z))[labelled].mean()
    assert float(cross_entropy.result()) == pytest.approx(expected, rel=1e-5)
    assert float(accuracy.result()) == pytest.approx(((z > 0) == (y == 1))[labelled].mean(), rel=1e-5)
    objective = FindingObjective(FINDINGS)
    assert objective.validation_loss(y, z) == pytest.approx(expected, rel=1e-6)
    assert objective.accuracy(y, z) == pytest.approx(float(accuracy.result()), rel=1e-5)


# weights, strata, mixing


def test_weights_give_present_and_absent_the_same_say():
    draw = np.random.default_rng(3)
    y = np.where(draw.random((400, 3)) < (0.02, 0.3, 0.8), 1.0, 0.0)
    y[draw.random(y.shape) < 0.5] = NAN
    weights = FindingObjective(("a", "b", "c")).weights(y)
    counts = np.stack([(y == 0).sum(0), (y == 1).sum(0)])
    np.testing.assert_allclose(weights[0] * counts[0], weights[1] * counts[1])
    np.testing.assert_allclose((weights * counts).sum(0) / counts.sum(0), 1, err_msg="their mean over the labels is 1")
    one_sided = FindingObjective(("a", "b")).weights(np.array([[1, NAN], [1, NAN]]))
    np.testing.assert_array_equal(one_sided, [[0, 0], [1, 0]])


def test_an_image_counts_for_its_rarest_finding():
    y = np.array([[1, 0, 0]] * 50 + [[1, 1, 0]] * 8 + [[1, NAN, 1]] * 2 + [[0, 0, NAN]] * 40, np.float32)
    strata = FindingObjective(("a", "b", "c")).strata(y)
    np.testing.assert_array_equal(strata, np.repeat([0, 1, 2, 3], (50, 8, 2, 40)))
    images = np.zeros((100, 8, 8, 3), np.uint8)
    batches = training.Batches(images, np.arange(100), y, 100, Augmenter("none", 100, 0), strata=strata)
    np.testing.assert_array_equal(np.bincount(strata[batches.order]), [25] * 4)


@pytest.mark.parametrize("policy", ["mixup", "cutmix"])
def test_a_mixed_label_is_missing_where_either_is(policy):
    draw = np.random.default_rng(4)
    images = draw.integers(0, 256, (30, 16, 16, 3), np.uint8)
    y = draw.choice([0, 1, NAN], (30, 4)).astype(np.float32)
    sampled = augmentation.mixing(Policy(**{policy: 1.0}), (16, 16), 30, seed=0, epoch=1, batch=0)
    _, mixed = augmentation.mix(images, y, sampled)
    partner, share = sampled["partner"].to_numpy(), sampled["share"].to_numpy()[:, None]
    np.testing.assert_array_equal(np.isnan(mixed), np.isnan(y) | np.isnan(y[partner]))
    np.testing.assert_allclose(mixed, share * y + (1 - share) * y[partner], rtol=1e-6)
    assert ((mixed > 0) & (mixed < 1)).any()


# what is refused


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([[1, 0], [0, 0]], "no training image has finding 'vivid' labelled as present; expected both for each finding"),
        ([[1, 0], [NAN, 1]], "no training image has finding 'cool' labelled as absent"),
        (
            [[1, NAN], [NAN, NAN]],
            "finding 'cool' labelled as absent, and present or absent is missing for 1 more; expected",
        ),
    ],
)
def test_a_finding_without_both_labels_is_one_line(values, message):
    with pytest.raises(ModelError, match=message) as refused:
        FindingObjective(FINDINGS).check(Head(), Labels(FINDINGS, np.array(values, np.float32), exclusive=False))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("output", ["sigmoid", "ordinal"])
def test_a_head_of_classes_is_refused(output):
    with pytest.raises(ModelError, match=f"head.output is {output}, which is for classes; findings have a logit each"):
        training.train_from_scratch(study(head={"output": output}), planted.observed(), PIXELS, NETWORK)


# networks


def frozen(**changes):
    return training.train_head(study(**changes), planted.observed(), PIXELS, NETWORK, planted.weights(NETWORK))


def fine_tuned(**changes):
    arguments = study(**changes), planted.observed(), PIXELS, NETWORK, planted.weights(NETWORK)
    return training.end_to_end_training(*arguments).run()


ARMS = {
    "scratch": lambda: training.train_from_scratch(study(), planted.observed(), PIXELS, NETWORK),
    "frozen": frozen,
    "mixed views": lambda: frozen(head={"epochs": 8, "l2": [0.001], "views": 2, "augmentation": "mixup"}),
    "fine-tuned": lambda: fine_tuned(fine_tuning={"epochs": 1, "head_epochs": 1, "batch_size": 16}),
}


@pytest.mark.parametrize("arm", ARMS)
def test_every_arm_learns_the_planted_findings(arm):
    trained = ARMS[arm]()
    assert trained.names == FINDINGS
    areas = [roc_auc_score(y, z) for y, z in zip(truth(TEST).T, trained.logits(TEST).T, strict=True)]
    assert min(areas) > 0.95, areas
    loss = training.validation_loss(planted.observed(), trained.logits(VALIDATION))
    assert trained.history["validation_loss"].min() == pytest.approx(loss, rel=2e-3)
    assert trained.history.notna().all(axis=None)
    assert (
        engines.parity(trained.logits(TEST), np.asarray(trained.load_model()(PIXELS[planted.observed().rows(TEST)])))
        < 1e-4
    )


@pytest.mark.parametrize("balance", ["class_weights", "sampling"])
def test_balanced_training_runs(balance):
    options = {"epochs": 1, "batch_size": 16, "balance": balance, "label_smoothing": 0.1}
    trained = training.train_from_scratch(
        study(scratch=options), planted.observed(), PIXELS, NETWORK, "dermoscopy+mixup"
    )
    assert np.isfinite(trained.logits(TEST)).all() and np.isfinite(trained.history["loss"]).all()


def test_averages_are_of_probabilities():
    networks = [fine_tuned(fine_tuning={"epochs": 1, "batch_size": 16}, seed=seed) for seed in (0, 1)]
    average = training.average(study(), planted.observed(), PIXELS, networks, 0)
    expected = np.mean([expit(network.logits(TEST)) for network in networks], axis=0)
    np.testing.assert_allclose(expit(average.logits(TEST)), expected, rtol=1e-4)
    assert np.ptp(networks[0].logits(TEST) - networks[1].logits(TEST)) > 0


@pytest.mark.slow
def test_validation_by_stage_is_by_the_metrics_of_findings():
    plan = {"fine_tuning": {"epochs": 1, "head_epochs": 1, "batch_size": 16}}
    start, tuned = frozen(), fine_tuned(**plan)
    split = training.SplitModels("", study(**plan), planted.observed(), PIXELS, NETWORK, [start], [tuned], tuned)
    table = comparisons.validation_by_stage(training.StudyModels([split]))
    assert list(table) == ["auroc", "auprc", "log loss", "gain"] and len(table) == 3
    assert table.loc["and all layers", "log loss"] == pytest.approx(tuned.history["validation_loss"].min(), rel=2e-3)


def test_a_killed_training_goes_on_where_it_was(monkeypatch, tmp_path):
    class Killed(BaseException):
        """Stands in for the end of the process."""

    options = {"scratch": {"epochs": 3, "learning_rate": 0.02, "batch_size": 16, "balance": "class_weights"}}
    arguments = study(**options, augmentation="mixup"), planted.observed(), PIXELS, NETWORK
    monkeypatch.setenv("SCANBOOK_STORE", str(tmp_path / "whole"))
    whole = training.train_from_scratch(*arguments)
    monkeypatch.setenv("SCANBOOK_STORE", str(tmp_path / "killed"))
    original = fitting.Checkpoint.on_epoch_end

    def on_epoch_end(self, epoch, logs=None):
        original(self, epoch, logs)
        if epoch == 1:
            raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(fitting.Checkpoint, "on_epoch_end", on_epoch_end)
        training.train_from_scratch(*arguments)
    resumed = training.train_from_scratch(*arguments)
    np.testing.assert_array_equal(resumed.logits(TEST), whole.logits(TEST))
    assert resumed.history.drop(columns="seconds").equals(whole.history.drop(columns="seconds"))


# heads on features


def features(count, kernel, seed, prevalence):
    """Features of images, float32 `(count, columns)`, and labels of findings that follow from them by a kernel."""
    draw = np.random.default_rng(seed)
    x = draw.normal(size=(count, len(kernel))).astype(np.float32)
    scores = x @ kernel + np.log(prevalence) - np.log1p(-np.array(prevalence))
    return x, (draw.random(scores.shape) < expit(scores)).astype(np.float32)


def kernels(columns, count):
    """Directions in which findings differ, float `(columns, count)`, of length 2 each."""
    kernel = np.random.default_rng(9).normal(size=(columns, count))
    return 2 * kernel / np.linalg.norm(kernel, axis=0)


def fit(x, y, held, plan):
    """A head trained on rows of features; the validation images are those of a manifest of these labels."""
    runtime.configure(0)
    names = tuple(f"finding {place}" for place in range(y.shape[1]))
    rows = head.Rows([(x, np.arange(len(x)))])
    manifest = _Rows(Labels(names, held[1], exclusive=False), names)
    ((kernel, bias), *_), history = head.fit_head(planted.study(head=plan), manifest, (rows, y), held[0])
    return lambda more: more @ kernel + bias, history


class _Rows(Manifest):
    """A manifest of validation images alone, without files."""

    def __init__(self, labels, names):
        self.__dict__.update(labels=labels, findings=names, classes=())

    def label_values(self, split):
        assert split == VALIDATION
        return self.labels.values


PLAN = {"epochs": 12, "learning_rate": 0.05, "batch_size": 128, "l2": [0.01]}


def test_a_head_is_a_logistic_regression_of_each_finding_on_its_labelled_images(monkeypatch):
    monkeypatch.setattr(keras.callbacks.EarlyStopping, "on_train_end", lambda *_: None)  # the last epoch, not the best
    kernel, prevalence = kernels(10, 3), (0.7, 0.5, 0.1)
    x, y = features(800, kernel, 0, prevalence)
    y[np.random.default_rng(1).random(y.shape) < (0.6, 0.0, 0.3)] = NAN
    more, held = features(400, kernel, 1, prevalence)
    predict, history = fit(x, y, (more, held), PLAN | {"epochs": 40, "batch_size": 400, "l2": [0.1]})
    scaled = (x - x.mean(0)) / (x.std(0) + 1e-3)
    for place in range(3):
        rows = ~np.isnan(y[:, place])
        strength = 1 / (2 * 0.1 * len(x))
        alone = LogisticRegression(C=strength, tol=1e-8, max_iter=1000).fit(scaled[rows], y[rows, place])
        expected = alone.decision_function((more - x.mean(0)) / (x.std(0) + 1e-3))
        np.testing.assert_allclose(predict(more)[:, place], expected, atol=0.02)
    assert history["l2"].unique() == [0.1]


def test_a_rare_finding_starts_from_its_frequency():
    y = np.array([[1, NAN]] + [[0, 1]] * 5 + [[0, 0]] * 194 + [[NAN, 0]] * 100, np.float32)
    prior = FindingObjective(FINDINGS).prior(y)
    np.testing.assert_allclose(expit(prior), [1.5 / 201, 5.5 / 300], rtol=1e-5)
    inputs = keras.Input((4,))
    model = keras.Model(inputs, heads.attach(inputs, 2))
    heads.start_from(model, prior)
    np.testing.assert_allclose(np.asarray(heads.head_layers(model)[-1].bias), prior)


def test_half_of_the_labels_cost_little_and_missing_is_not_absent():
    """Of a finding of every second image, over five draws of its labels and of those that are missing.

    Each draw has three columns: all labels, half of them, and half with those that are missing counted as absent. One
    head learns all columns, since each is learnt as if it were alone.
    """
    draws, kernel = 5, np.repeat(kernels(40, 5), 3, axis=1)
    x, y = features(1200, kernel, 2, [0.5] * 15)
    y = np.repeat(y[:, ::3], 3, axis=1)
    for draw in range(draws):
        missing = np.random.default_rng(draw).permutation(len(y))[: len(y) // 2]
        y[missing, 3 * draw + 1], y[missing, 3 * draw + 2] = NAN, 0
    (held, _), (test, truth) = (features(count, kernel, seed, [0.5] * 15) for count, seed in ((300, 3), (6000, 4)))
    predict, _ = fit(x, y, (held, features(300, kernel, 3, [0.5] * 15)[1]), PLAN)
    scores = predict(test)
    areas = np.array([roc_auc_score(truth[:, 3 * (c // 3)], scores[:, c]) for c in range(15)]).reshape(draws, 3)
    masked, absent = areas[:, 0] - areas[:, 1], areas[:, 0] - areas[:, 2]
    half = 2.776 * masked.std(ddof=1) / np.sqrt(draws)  # of Student's interval, with four degrees of freedom
    assert masked.mean() + half < 0.03 and (absent > masked).all(), (masked, absent)
