"""Training: it learns what was planted, repeats to the digit, keeps the best epoch, and stops in time."""

from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from helpers import planted
from scanbook import runtime, store, training
from scanbook.augmentation import Augmenter
from scanbook.config import Training
from scanbook.data.manifest import TEST, TRAIN, VALIDATION
from scanbook.errors import ModelError
from scanbook.models import backbones, engines, features, heads
from scanbook.models.backbones import RANDOM, Weights
from scanbook.training import comparisons, end_to_end, fitting, head, model_selection
from scanbook.training.objectives import ClassObjective, CrossEntropy

keras = fitting.keras
HISTORY = ["epoch", "loss", "accuracy", "validation_loss", "validation_accuracy", "seconds", "device"]
NETWORK = "small_cnn"
PIXELS = planted.pixels()[:, ::2, ::2].copy()
"""Half the side of the planted images: what is trained here is known by its colour."""
STAGES = {"epochs": 2, "head_epochs": 1, "top_epochs": 1, "top": 0.5, "learning_rate": 1e-3, "batch_size": 16}

pytestmark = pytest.mark.usefixtures("own_store")


def use_fresh_store(monkeypatch, tmp_path, name):
    monkeypatch.setenv("SCANBOOK_STORE", str(tmp_path / name))


@pytest.fixture
def eager():
    """Steps are run as they are: to trace a graph takes longer than a few of them."""
    import tensorflow as tf  # not before scanbook, which sets what it prints

    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


def study(**changes):
    values = {"backbones": [NETWORK], "fine_tuning": STAGES, "scratch": {"epochs": 4, "learning_rate": 0.02}}
    values["scratch"]["batch_size"] = 16
    values["head"] = {"epochs": 8, "learning_rate": 0.1, "batch_size": 16, "l2": [300.0, 0.1]}
    return planted.study(**values | changes)


def scratch(manifest=None, **changes):
    return training.train_from_scratch(study(**changes), manifest or planted.manifest(), PIXELS, NETWORK)


def transfer(weights=None, policy=None, **changes):
    arguments = study(**changes), planted.manifest(), PIXELS, NETWORK
    return training.train_head(*arguments, weights or planted.weights(NETWORK), policy=policy)


def fine_tune(**changes):
    arguments = study(**changes), planted.manifest(), PIXELS, NETWORK, planted.weights(NETWORK)
    return training.end_to_end_training(*arguments).run()


def split_pixels(split):
    return PIXELS[planted.manifest().rows(split)]


def truth(split):
    return planted.manifest().y[planted.manifest().rows(split)]


def accuracy(trained, split):
    return (trained.logits(split).argmax(1) == truth(split)).mean()


ARMS = {"scratch": scratch, "transfer": transfer, "fine_tune": fine_tune}


@pytest.mark.parametrize("arm", ARMS)
def test_arm_learns_the_planted_colours(arm):
    trained = ARMS[arm]()
    assert accuracy(trained, TEST) > 0.9 and accuracy(trained, VALIDATION) > 0.9
    assert trained.names == planted.CLASSES and trained.seconds > 0


@pytest.mark.parametrize("arm", ARMS)
def test_history_has_one_row_per_epoch(arm):
    epochs = {"scratch": study().scratch.epochs, "transfer": study().head.epochs, "fine_tune": 1 + 1 + 2}[arm]
    history = ARMS[arm]().history
    assert list(history[HISTORY]) == HISTORY and set(history) - set(HISTORY) <= {"l2", "stage"}
    assert history["epoch"].tolist() == list(range(1, epochs + 1)) and set(history["device"]) == {"CPU"}
    assert (np.diff(history["seconds"]) > 0).all() and history.notna().all(axis=None)
    if arm != "fine_tune":  # which starts from what the frozen backbone's head has learnt
        assert history["loss"].iloc[-1] < history["loss"].iloc[0]


@pytest.mark.parametrize("arm", ARMS)
def test_logits_are_those_of_the_saved_model(arm):
    trained = ARMS[arm]()
    model = trained.load_model()
    for split in (VALIDATION, TEST):
        assert trained.logits(split).dtype == np.float32 and trained.logits(split).shape == (len(truth(split)), 3)
        assert engines.parity(trained.logits(split), np.asarray(model(split_pixels(split)))) < 1e-4


def cross_entropy(logits, y):
    logs = logits - np.log(np.exp(logits.astype(np.float64)).sum(1, keepdims=True))
    return -logs[np.arange(len(y)), y].mean()


@pytest.mark.parametrize("mislabelled", [False, True])
def test_kept_epoch_has_the_lowest_validation_loss_without_smoothing(mislabelled):
    manifest, changes = planted.manifest(), {}
    if mislabelled:  # the better the training images are learnt, the worse these are predicted
        validation = manifest.frame["split"] == VALIDATION
        wrong = dict(zip(planted.CLASSES, np.roll(planted.CLASSES, 1), strict=True))
        labels = manifest.frame["label"].mask(validation, lambda y: y.map(wrong))
        manifest = manifest.with_frame(manifest.frame.assign(label=labels))
        changes = {"scratch": {"epochs": 5, "learning_rate": 1e-2, "batch_size": 8, "label_smoothing": 0.3}}
    trained = scratch(manifest, **changes)
    losses, y = trained.history["validation_loss"], manifest.y[manifest.rows(VALIDATION)]
    assert cross_entropy(trained.logits(VALIDATION), y) == pytest.approx(losses.min(), rel=1e-3)
    assert training.validation_loss(manifest, trained.logits(VALIDATION)) == pytest.approx(losses.min(), rel=1e-3)
    if mislabelled:
        assert losses.idxmin() < 4, "planted to get worse, so that the last epoch is not the best"


def test_frozen_network_is_its_features_times_the_head():
    trained = transfer()
    model = trained.load_model()
    kernel, bias = model.get_layer(backbones.LOGITS).get_weights()
    vectors, _ = features.extract(planted.manifest(), PIXELS, NETWORK, planted.weights(NETWORK))
    rows = planted.manifest().rows(TEST)
    assembled = np.asarray(model(PIXELS[rows]))
    assert np.abs(kernel).max() > 0.01 and np.abs(bias).max() > 0
    assert engines.parity(assembled, vectors[rows] @ kernel + bias) <= 1e-3
    assert engines.parity(assembled, vectors[rows[::-1]] @ kernel + bias) > 1e-3
    pairs = zip(backbones.body_weights(planted.network(NETWORK)), backbones.body_weights(model), strict=True)
    assert all(np.array_equal(expected, loaded) for expected, loaded in pairs)


@pytest.mark.slow
def test_a_frozen_backbone_repeats_whether_its_features_are_stored_or_not(monkeypatch, tmp_path):
    options = {"epochs": 3, "batch_size": 16, "l2": [0.01], "views": 1, "augmentation": "photometric"}
    use_fresh_store(monkeypatch, tmp_path, "first")
    cold = transfer(head=options)
    logits = cold.logits(TEST)
    cold.folder.rename(tmp_path / "aside")
    keras.random.normal((3,))  # what ran before in this process must not matter
    warm = transfer(head=options)
    assert warm.folder == cold.folder
    np.testing.assert_array_equal(warm.logits(TEST), logits)
    assert warm.policy == "photometric" and transfer().policy == "none", "the head's own policy holds"


def test_trained_arm_is_not_trained_again(monkeypatch):
    first = {name: arm() for name, arm in ARMS.items()}

    def refuse(*_, **__):
        raise AssertionError("trained again")

    for module in (head, end_to_end):
        monkeypatch.setattr(module, "fit", refuse)
    for name, arm in ARMS.items():
        assert arm().folder == first[name].folder
    stages = set((runtime.store_dir() / "scratch").glob("*/"))
    with pytest.raises(AssertionError, match="trained again"):
        scratch(seed=9)
    assert set((runtime.store_dir() / "scratch").glob("*/")) == stages, "a failed training left a stage behind"
    with pytest.raises(AssertionError, match="trained again"):
        fine_tune(fine_tuning=STAGES | {"epochs": 3})
    assert transfer(scratch={"epochs": 99}).folder == first["transfer"].folder  # not an input of that arm


def test_frozen_arm_refuses_random_weights():
    with pytest.raises(ModelError, match="small_cnn has random weights; a frozen backbone must be pretrained"):
        transfer(RANDOM)


@pytest.mark.parametrize(("key", "name"), [("loss", "loss"), ("val_loss", "validation loss")])
def test_lost_loss_stops_training_with_one_line(key, name):
    clock = fitting.Clock("from scratch", lines=False)
    clock.on_train_begin()
    clock.on_epoch_end(0, {"loss": 1.0, "val_loss": 2.0})
    with pytest.raises(ModelError) as stopped:
        clock.on_epoch_end(1, {"loss": 1.0, "val_loss": 2.0} | {key: np.nan})
    assert f"from scratch: the {name} in epoch 2 is not a number; lower learning_rate" in str(stopped.value)
    assert "\n" not in str(stopped.value)


def norms(model):
    return [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]


def test_fine_tuning_leaves_batch_normalisation_as_it_came():
    before, tuned = transfer().load_model(), fine_tune().load_model()
    assert len(norms(tuned)) == 2
    for layer, pretrained in zip(norms(tuned), norms(planted.network(NETWORK)), strict=True):
        for values, expected in zip(layer.get_weights(), pretrained.get_weights(), strict=True):
            np.testing.assert_array_equal(values, expected)
    differences = [
        np.abs(layer.get_weights()[0] - other.get_weights()[0]).max()
        for layer, other in zip(tuned.layers, before.layers, strict=True)
        if isinstance(layer, (keras.layers.Conv2D, keras.layers.Dense))
    ]
    assert len(differences) == 3 and min(differences) > 0


def test_scratch_learns_batch_normalisation_too():
    for layer in norms(scratch().load_model()):
        assert layer.trainable and np.abs(layer.moving_mean).max() > 0 and np.ptp(layer.gamma) > 0


def test_penalty_is_chosen_on_validation_and_is_no_part_of_the_recorded_loss():
    trained = transfer()
    assert set(trained.history["l2"]) == {0.1}
    loss = training.validation_loss(planted.manifest(), trained.logits(VALIDATION))
    assert trained.history["validation_loss"].min() == pytest.approx(loss, rel=1e-3)


def test_without_pretrained_weights_the_model_is_the_one_from_scratch():
    trained, name, weights = training.select_base_model(study(), planted.manifest(), PIXELS)
    assert (name, weights) == (NETWORK, RANDOM)
    assert trained.folder == scratch().folder == training.train_final_model(study(), planted.manifest(), PIXELS).folder


def test_start_is_the_frozen_backbone_with_the_lowest_validation_loss(monkeypatch):
    right = 4 * np.eye(3)
    logits = {
        "worse": {VALIDATION: right[truth(VALIDATION)] / 2, TEST: right[truth(TEST)]},
        "best": {VALIDATION: right[truth(VALIDATION)], TEST: -right[truth(TEST)]},
        "wrong": {VALIDATION: -right[truth(VALIDATION)], TEST: right[truth(TEST)]},
    }
    weights = {name: Weights("scanbook", digest=name) for name in logits}
    trained = {name: SimpleNamespace(logits=splits.get) for name, splits in logits.items()}
    monkeypatch.setattr(backbones, "resolve", lambda study: (weights, {}))
    monkeypatch.setattr(
        model_selection, "train_head", lambda s, m, x, name, w: trained[name] if w == weights[name] else None
    )
    assert training.select_base_model(study(), planted.manifest(), PIXELS) == (trained["best"], "best", weights["best"])


# batches


# of 36 training images: a partial last batch, whole ones alone, a single partial one
@pytest.mark.parametrize(("batch_size", "policy"), [(16, "dihedral"), (12, "none"), (50, "none")])
def test_every_training_image_is_seen_once_per_epoch(monkeypatch, eager, policy, batch_size):
    manifest = planted.manifest()
    rows = manifest.rows(TRAIN)
    images = np.zeros((60, 8, 8, 3), np.uint8)
    images[...] = np.arange(60)[:, None, None, None]  # an image is its row number, in every pixel, however it is turned
    batches = []

    class Spy(keras.layers.Layer):
        """Notes the images that training really gets, in the order in which it gets them."""

        def call(self, x, training=False):
            if training:
                batches.append(np.asarray(x)[:, 4, 4, 0])
            return x

    entry = keras.Input((8, 8, 3), dtype="uint8")
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Rescaling(1 / 255)(Spy(dtype="uint8")(entry)))
    model = keras.Model(entry, keras.layers.Dense(3)(x))
    monkeypatch.setattr(Augmenter, "__call__", spy_on(calls := [], Augmenter.__call__))
    values = Training(epochs=3, learning_rate=1e-3, batch_size=batch_size)
    training.train_network(training.Plan("spy", values, policy, 0), model, images, manifest)
    epochs = np.array_split(np.concatenate(batches), 3)
    for epoch in epochs:
        np.testing.assert_array_equal(np.sort(epoch), rows)
    assert not np.array_equal(epochs[0], epochs[1]), "every epoch has an order of its own"
    assert max(len(batch) for batch in batches) == min(batch_size, 36)
    # Keras looks at the first batches before it trains, so images are counted by epoch and not by call
    seen = {epoch: {place for e, places in calls if e == epoch for place in places} for epoch, _ in calls}
    assert sum(places == set(range(36)) for places in seen.values()) >= 3


def spy_on(calls, original):
    def call(self, images, positions, epoch):
        calls.append((epoch, tuple(positions)))
        return original(self, images, positions, epoch)

    return call


def test_labels_stay_with_their_images():
    manifest = planted.manifest()
    rows = manifest.rows(TRAIN)
    images = np.broadcast_to(np.arange(60, dtype=np.uint8)[:, None, None, None], (60, 8, 8, 3))
    batches = training.Batches(images, rows, manifest.y[rows], 16, Augmenter("none", len(rows), 0))
    orders = []
    for _ in range(2):
        with ThreadPoolExecutor(4) as pool:
            splits = list(pool.map(batches.__getitem__, range(batches.num_batches)))
        rows_taken = np.concatenate([x[:, 0, 0, 0] for x, _ in splits])
        np.testing.assert_array_equal(np.concatenate([y for _, y in splits]), manifest.y[rows_taken])
        np.testing.assert_array_equal(np.sort(rows_taken), rows)
        orders.append(rows_taken)
        batches.on_epoch_end()
    assert not np.array_equal(*orders)


def test_cross_entropy_is_of_smoothed_and_of_mixed_labels():
    draw = np.random.default_rng(0)
    logits, y = draw.normal(size=(8, 3)).astype(np.float32), np.array([0, 1, 2, 0, 1, 2, 0, 1])
    logs = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    for target in (np.eye(3)[y], draw.dirichlet(np.ones(3), 8)):
        value = float(CrossEntropy(0.1)(target.astype(np.float32), logits))
        assert value == pytest.approx(-((target * 0.9 + 0.1 / 3) * logs).sum(1).mean(), rel=1e-5)
    assert float(CrossEntropy()(np.eye(3)[y], logits)) == pytest.approx(cross_entropy(logits, y), rel=1e-5)


def rare(counts):
    """Batches of as many images of each class; an image is its place, in every pixel."""
    y = np.eye(len(counts), dtype=np.float32)[np.repeat(np.arange(len(counts)), counts)]
    images = np.broadcast_to(np.arange(len(y), dtype=np.uint8)[:, None, None, None], (len(y), 8, 8, 3))

    def batches(policy="none", **options):
        return training.Batches(images, np.arange(len(y)), y, 16, Augmenter(policy, len(y), 3), **options)

    return batches, y


def test_balanced_sampling_draws_every_class_alike():
    batches, y = rare((90, 9, 3))
    sampled = batches(strata=y.argmax(1))
    counts = np.bincount(y[sampled.order].argmax(1))
    assert counts.sum() == len(y) and np.ptp(counts) <= 1
    repeated = np.bincount(sampled.order, minlength=len(y))
    assert repeated[y[:, 2] == 1].min() >= 11 and repeated[y[:, 0] == 1].max() == 1
    order = sampled.order.copy()
    sampled.on_epoch_end()
    assert not np.array_equal(order, sampled.order)
    sampled.begin(0)
    np.testing.assert_array_equal(order, sampled.order)


def test_an_image_sampled_twice_is_augmented_twice():
    draw = np.random.default_rng(5)
    y = np.eye(2, dtype=np.float32)[[0] * 30 + [1]]
    images = draw.integers(0, 256, (31, 16, 16, 3), np.uint8)
    batch = training.Batches(images, np.arange(31), y, 31, Augmenter("dermoscopy", 31, 0), strata=y[:, 1])[0]
    rare_ones = batch[0][batch[1][:, 1] == 1]
    assert len(rare_ones) >= 15 and len(np.unique(rare_ones.reshape(len(rare_ones), -1), axis=0)) == len(rare_ones)


def test_class_weights_give_every_class_the_same_say():
    _, y = rare((90, 9, 3))
    weights = ClassObjective(("a", "b", "c")).weights(y)
    np.testing.assert_allclose(y.sum(0) * weights, np.full(3, len(y) / 3), rtol=1e-5)
    logits = np.random.default_rng(4).normal(size=y.shape).astype(np.float32)
    by_class = [cross_entropy(logits[y[:, label] == 1], np.full(int(y[:, label].sum()), label)) for label in range(3)]
    assert float(CrossEntropy(weights=weights)(y, logits)) == pytest.approx(np.mean(by_class), rel=1e-5)


def test_mixed_batches_have_mixed_labels():
    batches, _ = rare((20, 20))
    images, labels = batches("mixup")[0]
    assert images.dtype == np.uint8 and ((labels > 0) & (labels < 1)).any()
    np.testing.assert_allclose(labels.sum(1), 1, rtol=1e-6)


# stages


def test_stages_let_learn_what_they_name():
    model = backbones.build("baseline_cnn", (32, 32), 3)
    convolutions = [layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D)]
    (dense,) = heads.head_layers(model)
    for which, learning in {"head": 0, "top": 2, "all": 4}.items():
        training.set_trainable(model, which, 0.5)
        assert [layer.trainable for layer in convolutions] == [False] * (4 - learning) + [True] * learning
        assert dense.trainable and not any(layer.trainable for layer in norms(model))


def test_fine_tuning_records_its_stages():
    trained = fine_tune()
    assert trained.history["stage"].tolist() == ["head", "top", "all", "all"]
    assert trained.stages == ["head", "top", "all"]
    losses = [training.validation_loss(planted.manifest(), trained.logits(step)) for step in trained.stages]
    assert losses == sorted(losses, reverse=True), "a stage that does not help is taken back"
    np.testing.assert_allclose(trained.logits(VALIDATION), trained.logits("all"), atol=1e-4)


def test_first_layers_learn_at_their_share_of_the_rate():
    model = backbones.build("baseline_cnn", (32, 32), 3)
    shares = fitting.depth_shares(model, 0.01)
    first, *_, last = [layer for layer in model.layers if layer.weights]
    assert shares[first.kernel.path] == pytest.approx(0.01) and shares[last.kernel.path] == 1
    assert sorted(shares.values()) == list(shares.values())
    before = {variable.path: np.array(variable) for variable in (first.kernel, last.kernel)}
    rate = fitting.optimizer(Training(epochs=1, rate_schedule="constant"), 1, shares)
    model.compile(rate, CrossEntropy(), run_eagerly=True)
    model.train_on_batch(planted.pixels()[:8, :32, :32], np.eye(3, dtype=np.float32)[[0, 1, 2, 0, 1, 2, 0, 1]])
    # Adam's first step is the rate itself, for every weight whose gradient is not tiny
    moved = [np.quantile(np.abs(np.array(v) - before[v.path]), 0.9) for v in (first.kernel, last.kernel)]
    assert moved[0] == pytest.approx(3e-6, rel=0.1) and moved[1] == pytest.approx(3e-4, rel=0.1)


def test_one_class_is_one_line(monkeypatch, tmp_path):
    use_fresh_store(monkeypatch, tmp_path, "store")
    frame = planted.manifest().frame
    frame = frame.assign(split=frame["split"].where((frame["split"] != TRAIN) | (frame["label"] == "leaf"), ""))
    lone = planted.Manifest("planted", frame, planted.CLASSES)
    with pytest.raises(ModelError, match="training images are all of class 'leaf'; expected at least two classes"):
        scratch(lone)


@pytest.mark.slow
def test_mixed_precision_ends_in_single_precision(monkeypatch, tmp_path):
    use_fresh_store(monkeypatch, tmp_path, "store")
    monkeypatch.setattr(runtime, "training_precision", lambda: "mixed_float16")
    trained = fine_tune()
    model = trained.load_model()
    assert model.dtype_policy.name == "float32" and keras.config.dtype_policy().name == "float32"
    assert accuracy(trained, TEST) > 0.9
    assert engines.parity(trained.logits(TEST), np.asarray(model(split_pixels(TEST)))) < 1e-4


# seeds and averages


@pytest.mark.slow
def test_seeds_repeat_the_study_and_averages_and_steps_are_of_them(monkeypatch):
    weights = planted.weights(NETWORK)
    monkeypatch.setattr(backbones, "resolve", lambda study: ({NETWORK: weights}, {}))
    options = {"seeds": 2, "augmentation": "photometric", "fine_tuning": {"epochs": 1, "head_epochs": 1}}
    plan = study(evaluation={"ensemble": True, "ordered": True}, **options)
    models = training.train_final_models(plan, planted.manifest(), PIXELS)
    networks = models.selected.tuned
    assert [network.seed for network in networks] == [0, 1] and networks[0].folder != networks[1].folder
    assert models.selected.networks[0].folder == training.train_final_model(plan, planted.manifest(), PIXELS).folder
    average = training.average(plan, planted.manifest(), PIXELS, networks, 0)
    shares = [np.exp(network.logits(TEST)) / np.exp(network.logits(TEST)).sum(1, keepdims=True) for network in networks]
    np.testing.assert_allclose(np.exp(average.logits(TEST)), np.mean(shares, axis=0), rtol=1e-3, atol=1e-6)
    assert "2 seeds averaged" in average.name
    views = training.average(plan, planted.manifest(), PIXELS, networks[:1], 2)
    assert "3 views averaged" in views.name and engines.parity(networks[0].logits(TEST), views.logits(TEST)) > 0
    assert training.average(plan, planted.manifest(), PIXELS, networks[:1], 0) is networks[0]

    starts = models.selected.starts
    split = training.SplitModels("", plan, planted.manifest(), PIXELS, NETWORK, starts, networks, average)
    table = comparisons.validation_by_stage(training.StudyModels([split]))
    assert list(table.columns) == ["accuracy", "auroc", "kappa", "log loss", "gain"]
    assert list(table.index) == [starts[0].name, "head on augmented images", "and all layers", average.name]
    losses = [training.validation_loss(planted.manifest(), network.logits(VALIDATION)) for network in networks]
    assert table.loc["and all layers", "log loss"] == pytest.approx(np.mean(losses), rel=1e-3)
    np.testing.assert_allclose(table["gain"].iloc[1:], np.diff(table["auroc"]))


# resuming


class Killed(BaseException):
    """Stands in for the end of the process: no handler of the library's catches it."""


def kill_when(monkeypatch, condition):
    """Ends training after the epoch whose checkpoint meets a condition."""
    original = fitting.Checkpoint.on_epoch_end

    def on_epoch_end(self, epoch, logs=None):
        original(self, epoch, logs)
        if condition(self, epoch + 1):
            raise Killed

    monkeypatch.setattr(fitting.Checkpoint, "on_epoch_end", on_epoch_end)


PLATEAU = {"epochs": 30, "learning_rate": 0.3, "batch_size": 8, "patience": 3}
PLATEAU |= {"rate_schedule": "plateau", "plateau_patience": 1}


@pytest.mark.slow
def test_a_training_repeats_to_the_last_digit_and_goes_on_where_it_was_killed(monkeypatch, tmp_path, capsys):
    """Of two seeds; with a rate that is halved, and an end, where validation gets no better."""
    options = {"scratch": PLATEAU, "augmentation": "dermoscopy+mixup"}
    use_fresh_store(monkeypatch, tmp_path, "whole")
    whole = scratch(**options)
    losses = whole.history["validation_loss"]
    assert 3 < len(losses) == losses.idxmin() + 4 < 30, "it stops when validation gets no better"
    rates = [float(line.split("learning rate ")[1].split(",")[0]) for line in capsys.readouterr().out.splitlines()[1:]]
    assert (
        rates
        and rates[-1] < 0.3
        and all(np.log2(0.3 / rate) == pytest.approx(round(np.log2(0.3 / rate)), abs=1e-3) for rate in rates)
    )

    use_fresh_store(monkeypatch, tmp_path, "killed")
    with monkeypatch.context() as patch, pytest.raises(Killed):
        kill_when(patch, lambda checkpoint, epoch: epoch == 3)
        scratch(**options)
    keras.random.normal((3,))  # what ran before in this process must not matter
    resumed = scratch(**options)
    assert "continues after epoch 3, from its checkpoint" in capsys.readouterr().out
    pd.testing.assert_frame_equal(resumed.history.drop(columns="seconds"), whole.history.drop(columns="seconds"))
    np.testing.assert_array_equal(resumed.logits(TEST), whole.logits(TEST))
    assert (np.diff(resumed.history["seconds"]) > 0).all()
    assert not list((tmp_path / "killed" / "scratch").glob(".*checkpoint")), "the checkpoint outlived its training"

    other = scratch(seed=1, scratch=PLATEAU | {"epochs": 1}, augmentation="dermoscopy+mixup")
    assert abs(other.history["validation_loss"][0] / losses[0] - 1) > 0.01, "another seed trains another network"


@pytest.mark.slow
def test_fine_tuning_goes_on_in_the_stage_where_it_was_killed(monkeypatch, tmp_path):
    """On a cosine: stages that were finished are not trained again."""
    use_fresh_store(monkeypatch, tmp_path, "whole")
    plan = {"epochs": 3, "head_epochs": 1, "batch_size": 16, "moving_average": 2}
    whole = fine_tune(fine_tuning=plan)
    use_fresh_store(monkeypatch, tmp_path, "killed")
    epochs = []
    kill_when(
        monkeypatch,
        lambda checkpoint, _: (
            epochs.append(checkpoint.path.stem) or epochs == ["head", "all"] if checkpoint.path else False
        ),
    )
    with pytest.raises(Killed):
        fine_tune(fine_tuning=plan)
    resumed = fine_tune(fine_tuning=plan)
    assert epochs == ["head", "all", "all", "all"]
    pd.testing.assert_frame_equal(resumed.history.drop(columns="seconds"), whole.history.drop(columns="seconds"))
    np.testing.assert_array_equal(resumed.logits(TEST), whole.logits(TEST))
    for step in whole.stages:
        np.testing.assert_array_equal(resumed.logits(step), whole.logits(step))


def test_an_unreadable_checkpoint_is_as_none(tmp_path):
    path = store.checkpoint(tmp_path / ".0123456789abcdef.x") / "all.npz"
    path.parent.mkdir()
    path.write_bytes(b"PK\x03\x04 half a file")
    assert fitting.Checkpoint(path, fitting.Clock("it", lines=False), []).epoch == 0


def test_fine_tuning_keeps_the_normalisation_of_its_weights(monkeypatch, tmp_path):
    """EfficientNet normalises with constants that Keras makes of its weights only when asked."""
    use_fresh_store(monkeypatch, tmp_path, "store")

    def normalising(name, size, classes, weights=RANDOM, head=heads.SOFTMAX):
        entry = keras.Input((*size, 3), dtype="uint8")
        x = keras.layers.Normalization(mean=None)
        x.build((None, *size, 3))
        map_ = keras.layers.Conv2D(8, 5, strides=4, activation="relu")(x(keras.layers.Rescaling(1 / 255)(entry)))
        map_ = keras.layers.Activation("linear", name=backbones.FEATURE_MAP)(map_)
        pooled = keras.layers.GlobalAveragePooling2D(name=backbones.FEATURES)(map_)
        model = keras.Model(entry, heads.attach(pooled, classes, head))
        if weights != RANDOM:
            values = model.get_weights()
            values[0], values[1] = np.array([0.4, 0.5, 0.6]), np.array([0.01, 0.02, 0.03])
            backbones.set_weights(model, values)
        return model

    def train_nothing(name, model, *_, **__):
        return pd.DataFrame([dict.fromkeys(HISTORY, 1.0)])

    monkeypatch.setattr(backbones, "build", normalising)
    monkeypatch.setattr(head, "fit", train_nothing)
    monkeypatch.setattr(end_to_end, "fit", train_nothing)
    trained = fine_tune(fine_tuning={"epochs": 1}, head={"units": [4], "epochs": 1})
    model = trained.load_model()
    assert np.ptp(trained.logits(TEST)) > 0
    assert engines.parity(trained.logits(TEST), np.asarray(model(split_pixels(TEST)))) < 1e-4
    (layer,) = (layer for layer in model.layers if isinstance(layer, keras.layers.Normalization))
    np.testing.assert_allclose(np.ravel(layer.mean), [0.4, 0.5, 0.6], rtol=1e-6)


class Encoder(keras.layers.Layer):
    """A layer of six blocks, as a vision transformer's encoder is one."""

    def __init__(self):
        super().__init__()
        self.blocks = [keras.layers.Dense(8, name=f"block_{place}") for place in range(6)]

    def build(self, shape):
        for block in self.blocks:
            block.build(shape)

    def call(self, x):
        for block in self.blocks:
            x = block(x)
        return x


class Block(keras.layers.Layer):
    """A layer with batch normalisation in a layer of its own, as MobileNetV3's blocks have it."""

    def __init__(self, depth=1):
        super().__init__()
        self.dense = keras.layers.Dense(8)
        self.inner = Block(depth - 1) if depth else keras.layers.BatchNormalization()

    def build(self, shape):
        self.dense.build(shape)
        self.inner.build(shape)

    def call(self, x, training=None):
        return self.inner(self.dense(x), training=training)


def test_batch_normalisation_inside_blocks_stays_frozen():
    entry = keras.Input((8,))
    block = Block()
    model = keras.Model(entry, heads.attach(block(entry), 3))
    norm = block.inner.inner
    for which in ("head", "top", "all"):
        training.set_trainable(model, which, 0.5)
        assert not norm.trainable and not norm.trainable_weights
    assert block.dense.trainable and block.inner.dense.trainable
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True), run_eagerly=True)
    model.train_on_batch(np.full((4, 8), 3.0, np.float32), np.arange(4) % 3)
    assert not np.asarray(norm.moving_mean).any()


def test_a_transformer_s_top_is_its_last_blocks():
    entry = keras.Input((8,))
    encoder = Encoder()
    model = keras.Model(entry, heads.attach(encoder(entry), 3))
    assert fitting.weighted_layers(model)[:6] == encoder.blocks
    training.set_trainable(model, "top", 0.3)
    assert [block.trainable for block in encoder.blocks] == [False] * 4 + [True] * 2
    assert len(set(fitting.depth_shares(model, 0.01).values())) == 7
