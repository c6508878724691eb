"""Training: it learns what was planted, repeats to the digit, keeps the best epoch, and stops in time."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pytest

import planted
from scanbook import backbones, engines, features, training
from scanbook.backbones import RANDOM
from scanbook.errors import ModelError
from scanbook.manifest import TEST, TRAIN, VALIDATION
from scanbook.study import Training

keras = training.keras
HISTORY = ["epoch", "loss", "accuracy", "validation_loss", "validation_accuracy", "seconds"]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return tmp_path_factory.mktemp("store")


@pytest.fixture(autouse=True)
def _own_store(store, monkeypatch):
    monkeypatch.setenv("SCANBOOK_STORE", str(store))


def use_fresh_store(monkeypatch, tmp_path, name):
    monkeypatch.setenv("SCANBOOK_STORE", str(tmp_path / name))


def scratch(**changes):
    return training.scratch(planted.study(**changes), planted.manifest(), planted.pixels(), "baseline_cnn")


def transfer(weights=None, policy="none", **changes):
    arguments = planted.study(**changes), planted.manifest(), planted.pixels(), "baseline_cnn"
    return training.transfer(*arguments, weights or planted.weights(), policy=policy)


def fine_tune(**changes):
    return training.fine_tune(
        planted.study(**changes), planted.manifest(), planted.pixels(), "baseline_cnn", planted.weights()
    )


def truth(part):
    return planted.manifest().y[planted.manifest().rows(part)]


def accuracy(trained, part):
    return (trained.logits(part).argmax(1) == truth(part)).mean()


ARMS = {"scratch": scratch, "transfer": transfer, "fine_tune": fine_tune}


@pytest.mark.parametrize("arm", ARMS)
def test_arm_learns_the_planted_colours(arm):
    trained = ARMS[arm]()
    assert accuracy(trained, TEST) > 0.9 and accuracy(trained, VALIDATION) > 0.9
    assert trained.classes == planted.CLASSES and trained.seconds > 0


@pytest.mark.parametrize("arm", ARMS)
def test_history_has_a_row_an_epoch(arm):
    study = planted.study()
    epochs = {"scratch": study.scratch, "transfer": study.head, "fine_tune": study.fine_tuning}[arm].epochs
    history = ARMS[arm]().history
    assert list(history[HISTORY]) == HISTORY and set(history) - set(HISTORY) <= {"l2"}
    assert history["epoch"].tolist() == list(range(1, epochs + 1))
    assert (np.diff(history["seconds"]) > 0).all() and history.notna().all(axis=None)
    if arm != "fine_tune":  # which starts from what the frozen arm learnt
        assert history["loss"].iloc[-1] < history["loss"].iloc[0]


@pytest.mark.parametrize("arm", ARMS)
def test_logits_are_those_of_the_saved_model(arm):
    trained = ARMS[arm]()
    model = trained.model()
    for part in (VALIDATION, TEST):
        found = engines.KerasEngine(model).predict(planted.pixels()[planted.manifest().rows(part)])[0]
        assert trained.logits(part).dtype == np.float32 and trained.logits(part).shape == (len(truth(part)), 3)
        assert engines.parity(trained.logits(part), found) < 1e-4


def cross_entropy(logits, y):
    logs = logits - np.log(np.exp(logits.astype(np.float64)).sum(1, keepdims=True))
    return -logs[np.arange(len(y)), y].mean()


@pytest.mark.parametrize("rate", [1e-3, 0.3])
def test_kept_epoch_is_the_one_with_the_lowest_validation_loss(rate):
    trained = scratch(scratch={"epochs": 5, "learning_rate": rate, "batch_size": 8})
    losses = trained.history["validation_loss"]
    assert cross_entropy(trained.logits(VALIDATION), truth(VALIDATION)) == pytest.approx(losses.min(), rel=1e-3)
    if rate > 0.1:
        assert losses.idxmin() < 4, "planted to get worse again, so that the last epoch is not the best"


def test_frozen_network_is_its_features_times_the_head():
    trained = transfer()
    model = trained.model()
    kernel, bias = model.get_layer(backbones.LOGITS).get_weights()
    found, _ = features.extract(planted.manifest(), planted.pixels(), "baseline_cnn", planted.weights())
    rows = planted.manifest().rows(TEST)
    assembled = engines.KerasEngine(model).predict(planted.pixels()[rows])[0]
    assert np.abs(kernel).max() > 0.01 and np.abs(bias).max() > 0
    assert engines.parity(assembled, found[rows] @ kernel + bias) <= 1e-3
    assert engines.parity(assembled, found[rows[::-1]] @ kernel + bias) > 1e-3
    for kept, loaded in zip(backbones.body_weights(planted.network()), backbones.body_weights(model), strict=True):
        np.testing.assert_array_equal(kept, loaded)


def test_same_seed_repeats_to_the_last_digit(monkeypatch, tmp_path):
    found = {}
    for name, seed in (("first", 0), ("again", 0), ("other", 1)):
        use_fresh_store(monkeypatch, tmp_path, name)
        keras.random.normal((3,))  # what ran before in this process must not matter
        trained = scratch(seed=seed, augmentation="dermoscopy", scratch={"epochs": 2, "batch_size": 16})
        found[name] = trained.logits(TEST), trained.history.drop(columns="seconds")
    np.testing.assert_array_equal(found["first"][0], found["again"][0])
    pd.testing.assert_frame_equal(found["first"][1], found["again"][1])
    assert engines.parity(found["first"][0], found["other"][0]) > 0.01


def test_frozen_arm_repeats_whether_its_features_are_there_or_not(monkeypatch, tmp_path):
    options = {"policy": "photometric", "head": {"epochs": 3, "batch_size": 16, "l2": [0.01], "views": 1}}
    use_fresh_store(monkeypatch, tmp_path, "first")
    cold = transfer(**options)
    logits = cold.logits(TEST)
    cold.folder.rename(tmp_path / "aside")
    warm = transfer(**options)
    assert warm.folder == cold.folder
    np.testing.assert_array_equal(warm.logits(TEST), logits)


def test_trained_arm_is_not_trained_again(monkeypatch):
    first = {name: arm() for name, arm in ARMS.items()}

    def refuse(*_, **__):
        raise AssertionError("trained again")

    monkeypatch.setattr(training, "_fit", refuse)
    for name, arm in ARMS.items():
        assert arm().folder == first[name].folder
    with pytest.raises(AssertionError, match="trained again"):
        scratch(seed=9)
    with pytest.raises(AssertionError, match="trained again"):
        fine_tune(fine_tuning={"epochs": 3})
    assert transfer(scratch={"epochs": 99}).folder == first["transfer"].folder  # not an input of that arm


def test_frozen_arm_refuses_random_weights():
    with pytest.raises(ModelError, match="baseline_cnn has random weights; a frozen backbone must be pretrained"):
        transfer(RANDOM)


def test_lost_loss_stops_training_with_one_line(monkeypatch, tmp_path):
    use_fresh_store(monkeypatch, tmp_path, "store")
    with pytest.raises(
        ModelError, match=r"from scratch: the (validation )?loss in epoch \d is not a number; lower learning_rate"
    ) as stopped:
        scratch(scratch={"epochs": 4, "learning_rate": 1e30, "batch_size": 16})
    assert "\n" not in str(stopped.value)
    assert not list((tmp_path / "store" / "scratch").glob("*/")), "a failed training left a stage behind"


def norms(model):
    return [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]


def test_fine_tuning_leaves_batch_normalisation_as_it_came():
    before, tuned = transfer().model(), fine_tune().model()
    assert len(norms(tuned)) == 4
    for ours, theirs in zip(norms(tuned), norms(planted.network()), strict=True):
        for found, kept in zip(ours.get_weights(), theirs.get_weights(), strict=True):
            np.testing.assert_array_equal(found, kept)
    moved = [
        np.abs(each.get_weights()[0] - other.get_weights()[0]).max()
        for each, other in zip(tuned.layers, before.layers, strict=True)
        if isinstance(each, (keras.layers.Conv2D, keras.layers.Dense))
    ]
    assert len(moved) == 5 and min(moved) > 0


def test_scratch_learns_batch_normalisation_too():
    for layer in norms(scratch().model()):
        assert layer.trainable and np.abs(layer.moving_mean).max() > 0 and np.ptp(layer.gamma) > 0


def test_penalty_is_chosen_on_validation(monkeypatch):
    trained = transfer(head={"epochs": 4, "learning_rate": 0.1, "batch_size": 16, "l2": [300.0, 0.001]})
    assert set(trained.history["l2"]) == {0.001}


def test_without_pretrained_weights_the_model_is_the_one_from_scratch():
    found, name, weights = training.start(planted.study(), planted.manifest(), planted.pixels())
    assert (name, weights) == ("baseline_cnn", backbones.RANDOM)
    assert (
        found.folder == scratch().folder == training.final(planted.study(), planted.manifest(), planted.pixels()).folder
    )


def test_start_is_the_frozen_backbone_with_the_lowest_validation_loss(monkeypatch, tmp_path):
    blind = tmp_path / "blind.npz"
    np.savez(blind, *[array * 1e-3 for array in backbones.body_weights(planted.network())])
    found = {"blind": backbones.Weights("scanbook", blind, "blind"), "seeing": planted.weights()}
    original = training.transfer
    monkeypatch.setattr(backbones, "resolve", lambda study: (found, {}))
    monkeypatch.setattr(
        training, "transfer", lambda s, m, x, name, weights, **more: original(s, m, x, "baseline_cnn", weights, **more)
    )
    trained, name, weights = training.start(planted.study(), planted.manifest(), planted.pixels())
    assert name == "seeing" and weights == planted.weights() and trained.folder == transfer().folder


# batches


# of 36 training images: a partial last batch, whole ones alone, a single partial one
@pytest.mark.parametrize(("batch_size", "policy"), [(16, "none"), (16, "photometric"), (12, "none"), (50, "none")])
def test_every_training_image_is_seen_once_an_epoch(monkeypatch, policy, batch_size):
    manifest = planted.manifest()
    rows = manifest.rows(TRAIN)
    images = np.zeros((60, 32, 32, 3), np.uint8)
    images[...] = np.arange(60)[:, None, None, None]  # an image is its row number, in every pixel
    seen = []

    class Spy(keras.layers.Layer):
        """Notes the images that training really gets, in the order in which it gets them."""

        def call(self, x, training=False):
            if training:
                import tensorflow as tf

                tf.py_function(lambda each: seen.append(each.numpy()), [x[:, 16, 16, 0]], [])
            return x

    entry = keras.Input((32, 32, 3), dtype="uint8")
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Rescaling(1 / 255)(Spy(dtype="uint8")(entry)))
    model = keras.Model(entry, keras.layers.Dense(3)(x))
    monkeypatch.setattr(training.Augmenter, "__call__", spy_on(called := [], training.Augmenter.__call__))
    values = Training(epochs=3, learning_rate=1e-3, batch_size=batch_size)
    training.train_all(training.Plan("spy", values, policy, 0), model, images, manifest)
    epochs = np.array_split(np.concatenate(seen), 3)
    if policy == "none":
        for epoch in epochs:
            np.testing.assert_array_equal(np.sort(epoch), rows)
        assert not np.array_equal(epochs[0], epochs[1]), "every epoch has an order of its own"
    assert sum(len(each) for each in seen) == 3 * len(rows)
    assert max(len(each) for each in seen) == min(batch_size, 36)
    # Keras looks at the first batches before it trains, so draws are counted by epoch and not by call
    drawn = {epoch: {place for e, places in called if e == epoch for place in places} for epoch, _ in called}
    assert sum(places == set(range(36)) for places in drawn.values()) >= 3


def spy_on(called, original):
    def call(self, images, positions, epoch):
        called.append((epoch, tuple(positions)))
        return original(self, images, positions, epoch)

    return call


def test_labels_stay_with_their_images():
    manifest = planted.manifest()
    rows = manifest.rows(TRAIN)
    images = np.broadcast_to(np.arange(60, dtype=np.uint8)[:, None, None, None], (60, 8, 8, 3))
    batches = training.Batches(images, rows, manifest.y[rows], 16, training.Augmenter("none", len(rows), 0))
    orders = []
    for _ in range(2):
        with ThreadPoolExecutor(4) as pool:
            parts = list(pool.map(batches.__getitem__, range(batches.num_batches)))
        found = np.concatenate([x[:, 0, 0, 0] for x, _ in parts])
        np.testing.assert_array_equal(np.concatenate([y for _, y in parts]), manifest.y[found])
        np.testing.assert_array_equal(np.sort(found), rows)
        orders.append(found)
        batches.on_epoch_end()
    assert not np.array_equal(*orders)


def test_label_smoothing_is_that_of_keras():
    draw = np.random.default_rng(0)
    logits, y = draw.normal(size=(8, 3)).astype(np.float32), np.array([0, 1, 2, 0, 1, 2, 0, 1])
    found = np.mean(training._cross_entropy(3, 0.1)(y, logits))
    one_hot = np.eye(3)[y] * 0.9 + 0.1 / 3
    logs = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    assert found == pytest.approx(-(one_hot * logs).sum(1).mean(), rel=1e-5)
    assert np.mean(training._cross_entropy(3, 0)(y, logits)) == pytest.approx(cross_entropy(logits, y), rel=1e-5)
