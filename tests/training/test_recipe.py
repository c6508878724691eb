"""The pieces of the recipe: average of the weights, adjusted logits, growing images, and the choice on validation."""

import math
from types import SimpleNamespace

import numpy as np
import pytest

from helpers import planted
from scanbook import training
from scanbook.augmentation import Augmenter
from scanbook.config import Head
from scanbook.data.manifest import TRAIN, VALIDATION
from scanbook.errors import ModelError, StudyError
from scanbook.models import backbones, engines, heads
from scanbook.training import comparisons, end_to_end, final_models, fitting, objectives
from scanbook.training.batches import Batches

keras = fitting.keras
NETWORK = "small_cnn"
PIXELS = planted.pixels()[:, ::2, ::2].copy()

pytestmark = pytest.mark.usefixtures("own_store")


def study(**changes):
    values = {"backbones": [NETWORK], "head": {"epochs": 8, "learning_rate": 0.1, "batch_size": 16, "l2": [0.1]}}
    values["fine_tuning"] = {"epochs": 2, "learning_rate": 1e-3, "batch_size": 16} | changes.pop("fine_tuning", {})
    return planted.study(**values | changes)


def fine_tuning(manifest=None, **changes):
    arguments = study(**changes), manifest or planted.manifest(), PIXELS, NETWORK, planted.weights(NETWORK)
    return training.end_to_end_training(*arguments)


# moving average


def test_the_average_of_the_weights_is_measured_and_kept():
    """Of a linear model with one weight, all averages are known."""
    x = np.ones((8, 1), np.float32)
    inputs = keras.Input((1,))
    model = keras.Model(inputs, keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros")(inputs))
    seen = []

    class Record(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            seen.append(float(np.asarray(model.weights[0])[0, 0]))

    keras.utils.set_random_seed(0)
    half = 0.5 / math.log(2)  # epochs of two steps, each of which keeps a half
    values = SimpleNamespace(epochs=3, learning_rate=0.1, moving_average=half, rate_schedule="constant", batch_size=4)
    metrics = [keras.metrics.MeanSquaredError(name=objectives.MONITORED), keras.metrics.MeanSquaredError("accuracy")]
    model.compile(fitting.optimizer(values, 2), "mse", weighted_metrics=metrics, run_eagerly=True)
    original = model.fit
    model.fit = lambda *arguments, callbacks, **options: original(
        *arguments, callbacks=[*callbacks, Record()], **options
    )
    history = fitting.fit("line", model, (x, x), (x, x), values)
    averages, average = [], None
    for weight in seen:
        average = weight if average is None else 0.5 * average + 0.5 * weight
        averages.append(average)
    of_epochs = np.array(averages[1::2])
    np.testing.assert_allclose(history["validation_loss"], (1 - of_epochs) ** 2, rtol=1e-4)
    assert float(np.asarray(model.weights[0])[0, 0]) == pytest.approx(of_epochs[-1], rel=1e-4)
    assert seen[-1] > 1.05 * of_epochs[-1], "planted to lag, so that the weights themselves are not the average"


# adjusted logits


def test_adjusted_logits_are_those_of_equally_frequent_classes():
    """Where an image tells nothing, the network learns the frequencies; adjusted, that all are alike."""
    y = np.eye(3, dtype=np.float32)[[0] * 6 + [1] * 3 + [2]]
    objective = objectives.ClassObjective(("a", "b", "c"))
    shift = objective.shift(y)
    np.testing.assert_allclose(np.exp(shift), [0.6, 0.3, 0.1], rtol=1e-6)
    zeros = np.zeros_like(y)
    plain, adjusted = objective.loss()(y, zeros), objective.loss(shift=shift)(y, zeros)
    entropy = -(np.array([0.6, 0.3, 0.1]) * shift).sum()
    assert float(plain) == pytest.approx(np.log(3), rel=1e-5) and float(adjusted) == pytest.approx(entropy, rel=1e-5)
    [metric, _] = objective.metrics(shift)
    metric.update_state(y, zeros)
    assert float(metric.result()) == pytest.approx(entropy, rel=1e-5)


@pytest.mark.parametrize(("output", "classes"), [("softmax", 3), ("sigmoid", 2)])
def test_logits_are_added_by_the_bias(output, classes):
    inputs = keras.Input((4,))
    model = keras.Model(inputs, heads.attach(inputs, classes, Head(output=output)))
    x, added = np.random.default_rng(0).normal(size=(5, 4)), np.linspace(-1, 2, classes)
    before = np.asarray(model(x))
    heads.add_to_logits(model, added)
    change = np.asarray(model(x)) - before - added
    np.testing.assert_allclose(change - change.mean(1, keepdims=True), 0, atol=1e-6)
    ordinal = keras.Model(inputs, heads.attach(inputs, 3, Head(output="ordinal")))
    with pytest.raises(ModelError, match="an ordinal head has no logit of its own"):
        heads.add_to_logits(ordinal, np.zeros(3))


def test_a_network_that_learns_nothing_more_keeps_its_start():
    """Validation images are labelled wrongly: the better the training images are learnt, the worse these are told."""
    manifest = planted.manifest()
    wrong = dict(zip(planted.CLASSES, np.roll(planted.CLASSES, 1), strict=True))
    labels = manifest.frame["label"].mask(manifest.frame["split"] == VALIDATION, lambda y: y.map(wrong))
    manifest = manifest.with_frame(manifest.frame.assign(label=labels))
    tuned = fine_tuning(manifest, fine_tuning={"learning_rate": 0.1, "epochs": 1})
    np.testing.assert_allclose(tuned.run().logits(VALIDATION), tuned.frozen.logits(VALIDATION), rtol=1e-4, atol=1e-5)
    adjusted = fine_tuning(manifest, fine_tuning={"learning_rate": 0.1, "epochs": 1, "logit_adjustment": 0.5})
    shift = 0.5 * objectives.of(manifest.labels).shift(manifest.label_values(TRAIN))
    expected = adjusted.frozen.logits(VALIDATION) - shift
    np.testing.assert_allclose(adjusted.run().logits(VALIDATION), expected, rtol=1e-4, atol=1e-5)


# sizes


def test_images_grow_during_training():
    run = fine_tuning(fine_tuning={"epochs": 3, "image_sizes": [0.5, 1.0]}).run()
    assert run.history["stage"].tolist() == ["all, 50%", "all", "all"] and run.stages == ["all, 50%", "all"]
    assert (run.logits(VALIDATION).argmax(1) == planted.manifest().y[planted.manifest().rows(VALIDATION)]).mean() > 0.9
    steps = end_to_end.steps_of(study(fine_tuning={"epochs": 3, "image_sizes": [0.5, 1.0]}).fine_tuning)
    assert [(step.values.epochs, step.share, step.span) for step in steps] == [(1, 0.5, (0, 3)), (2, 1.0, (1, 3))]


def test_one_schedule_spans_the_sizes():
    values = study(fine_tuning={"epochs": 4}).fine_tuning
    optimizer = fitting.optimizer(values, 5)
    rates = [float(optimizer._learning_rate(step)) for step in range(20)]
    parts = []
    for start in (0, 2):
        part = fitting.optimizer(values.model_copy(update={"epochs": 2}), 5, span=(start, 4))
        parts += [float(part._learning_rate(step)) for step in range(10)]
    np.testing.assert_allclose(parts, rates, rtol=1e-5)
    assert rates[0] == 0 and max(rates) == pytest.approx(1e-3, rel=1e-3)


def test_batches_resize_images_before_they_are_augmented():
    rows = np.arange(6)
    batches = Batches(PIXELS, rows, np.eye(6), 6, Augmenter("none", 6, 0), shuffle=False, size=(8, 12))
    images, _ = batches[0]
    assert images.shape == (6, 8, 12, 3) and images.dtype == np.uint8
    np.testing.assert_allclose(images.mean((1, 2)), PIXELS[:6].mean((1, 2)), atol=4)


def test_weights_that_depend_on_the_size_are_refused(monkeypatch):
    tuned = fine_tuning()
    other = backbones.build(NETWORK, (32, 32), 4)
    with pytest.raises(
        ModelError, match=r"cannot be trained at another size; set fine_tuning\.image_sizes to \[1\.0\]"
    ):
        tuned._resized(other, 0.5)


# choice


def planted_network(name, logits, folder):
    return SimpleNamespace(name=name, folder=folder, logits=lambda _: np.asarray(logits), seed=0)


def test_fine_tuned_or_frozen_is_chosen_by_the_study_s_metric():
    manifest = planted.manifest()
    truth = np.eye(3)[manifest.y[manifest.rows(VALIDATION)]]
    good, better = truth.copy(), 3 * truth
    good[0] = np.roll(good[0], 1)
    start, tuned = planted_network("x, frozen", good, "a"), planted_network("x, fine-tuned", better, "b")
    for networks, expected in (((start, tuned), "b"), ((tuned, start), "b")):
        first, second = ([network] for network in networks)
        assert final_models._best(study(), manifest, first, second)[0].folder == expected
    unsure = planted_network("x, fine-tuned", 0.1 * truth, "c")  # as right as the other, and less sure
    sure = planted_network("x, frozen", 3 * truth, "d")
    assert final_models._best(study(), manifest, [sure], [unsure])[0] is sure


def chosen_networks(monkeypatch):
    """Training gives planted networks: of the first seed the frozen one is better, of all three the fine-tuned ones."""
    manifest = planted.manifest()
    truth = np.eye(3)[manifest.y[manifest.rows(VALIDATION)]]
    logits = {"frozen": [truth, truth[::-1], truth[::-1]], "fine-tuned": [np.roll(truth, 1, axis=1), truth, truth]}

    def network(kind, seed):
        return planted_network(f"x, {kind}", logits[kind][seed], f"{kind} {seed}")

    def training_of(seeded, *_):
        tuned = network("fine-tuned", seeded.seed)
        return SimpleNamespace(run=lambda: tuned, frozen=network("frozen", seeded.seed))

    monkeypatch.setattr(final_models.model_selection, "rank_base_models", lambda *_: [(None, "x", None)])
    monkeypatch.setattr(final_models.model_selection, "end_to_end_training", training_of)
    return manifest


def test_the_exported_network_is_the_first_of_those_reported(monkeypatch):
    manifest, plan = chosen_networks(monkeypatch), study(seeds=3)
    reported = training.train_final_models(plan, manifest, PIXELS)
    assert [network.folder for network in reported.selected.networks] == [
        "fine-tuned 0",
        "fine-tuned 1",
        "fine-tuned 2",
    ]
    assert training.train_final_model(plan, manifest, PIXELS).folder == "fine-tuned 0"
    assert training.train_final_model(study(), manifest, PIXELS).folder == "frozen 0", "as its only seed chooses"


def test_a_metric_that_the_labels_do_not_have_is_refused_before_training(monkeypatch):
    monkeypatch.setattr(final_models.model_selection, "rank_base_models", lambda *_: pytest.fail("it is training"))
    for metric in ("accuracy", "balanced_accuracy", "kappa"):
        plan = study(evaluation={"metric": metric})
        message = f"evaluation.metric is {metric}, which findings do not have; expected auroc or auprc"
        with pytest.raises(StudyError, match=message):
            training.train_final_models(plan, planted.observed(), PIXELS)


def test_steps_of_folds_that_choose_differently_have_the_final_model_in_a_row_of_its_own():
    manifest = planted.manifest()
    truth = np.eye(3)[manifest.y[manifest.rows(VALIDATION)]]
    splits, share = [], {}
    for fold, wrong in (("fold 1", {"start": 4, "tuned": 1}), ("fold 2", {"start": 2, "tuned": 6})):
        networks = {}
        for kind, count in wrong.items():
            logits = truth.copy()
            logits[:count] = np.roll(logits[:count], 1, axis=1)
            name = "x, frozen" if kind == "start" else "x, fine-tuned"
            networks[kind] = planted_network(name, logits, f"{fold} {kind}")
            networks[kind].stages, networks[kind].backbone = ["all"], "x"
        share[fold] = {kind: 1 - count / len(truth) for kind, count in wrong.items()}
        final = min(wrong, key=wrong.__getitem__)
        start, tuned = networks["start"], networks["tuned"]
        splits.append(
            training.SplitModels(
                fold, study(), manifest, PIXELS, "x", [start], [networks[final]], networks[final], tuned=[tuned]
            )
        )
    models = training.StudyModels(splits)
    table = comparisons.validation_by_stage(models)
    assert list(table.index) == ["x, frozen", "and all layers", "best network of each fold"]
    means = [np.mean([share[fold][kind] for fold in share]) for kind in ("start", "tuned")]
    final = np.mean([share["fold 1"]["tuned"], share["fold 2"]["start"]])
    np.testing.assert_allclose(table["accuracy"], [*means, final])
    same = comparisons.validation_by_stage(training.StudyModels(splits[:1] * 2))
    assert list(same.index) == ["x, frozen", "and all layers"], "what is there already is no row again"


def test_the_number_of_backbones_trains_none_of_them_again():
    keys = [fine_tuning(fine_tuning={"backbones": count})._inputs() for count in (1, 2)]
    assert keys[0] == keys[1]


def test_views_of_a_frozen_network_are_of_the_study_s_policy():
    plan = study(augmentation="photometric")
    frozen = training.train_head(plan, planted.manifest(), PIXELS, NETWORK, planted.weights(NETWORK))
    assert frozen.policy == "none"
    views = training.average(plan, planted.manifest(), PIXELS, [frozen], 2)
    assert "3 views averaged" in views.name
    assert engines.parity(frozen.logits(VALIDATION), views.logits(VALIDATION)) > 1e-3


def test_the_metric_is_that_of_the_labels_or_the_study_s_own():
    manifest = planted.manifest()
    assert final_models.metric_of(study(), manifest) == "accuracy"
    assert final_models.metric_of(study(evaluation={"ordered": True}), manifest) == "kappa"
    assert final_models.metric_of(study(evaluation={"metric": "balanced_accuracy"}), manifest) == "balanced_accuracy"
    assert final_models.metric_of(planted.study(), planted.observed()) == "auroc"


def test_what_choices_gave_is_said():
    manifest = planted.manifest()
    truth = np.eye(3)[manifest.y[manifest.rows(VALIDATION)]]
    worse = truth.copy()
    worse[:2] = np.roll(worse[:2], 1, axis=1)
    start, tuned = planted_network("x, frozen", worse, "a"), planted_network("x, fine-tuned", truth, "b")
    views = planted_network("x, fine-tuned, 3 views averaged", worse, "c")
    split = training.SplitModels(
        "", study(), manifest, PIXELS, "x", [start], [tuned], tuned, tuned=[tuned], averages={"1": tuned, "2": views}
    )
    table = comparisons.gains_on_validation(training.StudyModels([split]))
    assert list(table.index) == ["fine-tuning", "3 views averaged"] and table["chosen"].tolist() == [1, 0]
    assert table.loc["fine-tuning", "change"] == pytest.approx(2 / len(truth))
    assert table.loc["3 views averaged", "change"] == pytest.approx(-2 / len(truth))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fine_tuning": {"logit_adjustment": 0.5, "balance": "sampling"}}, "both correct for rare labels"),
        ({"fine_tuning": {"logit_adjustment": 0.5}, "head": {"output": "ordinal"}}, "an ordinal head has no logit"),
        ({"augmentation": "trivialaugment", "evaluation": {"test_time_views": 2}}, "moves, mirrors or colours images"),
        *(
            (
                {"fine_tuning": {"image_sizes": sizes}},
                "expected shares that rise by one per cent or more and end in 1.0",
            )
            for sizes in ([0.7], [1.0, 0.7], [0.5, 0.5, 1.0], [0.698, 0.701, 1.0])
        ),
    ],
)
def test_what_does_not_fit_together_is_one_line(changes, message):
    with pytest.raises((ValueError, StudyError), match=message):
        study(**changes)
