"""Training: it learns what was planted, repeats to the digit, keeps the best epoch, and stops in time."""

from concurrent.futures import ThreadPoolExecutor

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
from scanbook.models.backbones import RANDOM
from scanbook.training import arms, fitting, head, networks
from scanbook.training.batches import class_weights

keras = fitting.keras
HISTORY = ["epoch", "loss", "accuracy", "validation_loss", "validation_accuracy", "seconds"]


@pytest.fixture(scope="module")
def shared_store(tmp_path_factory):
    return tmp_path_factory.mktemp("store")


@pytest.fixture(autouse=True)
def _own_store(shared_store, monkeypatch):
    monkeypatch.setenv("SCANBOOK_STORE", str(shared_store))
    monkeypatch.setenv("SCANBOOK_HEADLESS", "1")


def use_fresh_store(monkeypatch, tmp_path, name):
    monkeypatch.setenv("SCANBOOK_STORE", str(tmp_path / name))


def scratch(**changes):
    return training.scratch(planted.study(**changes), planted.manifest(), planted.pixels(), "baseline_cnn")


def transfer(weights=None, policy=None, **changes):
    arguments = planted.study(**changes), planted.manifest(), planted.pixels(), "baseline_cnn"
    return training.transfer(*arguments, weights or planted.weights(), policy=policy)


def fine_tune(**changes):
    return training.fine_tune(
        planted.study(**changes), planted.manifest(), planted.pixels(), "baseline_cnn", planted.weights()
    )


def truth(split):
    return planted.manifest().y[planted.manifest().rows(split)]


def accuracy(trained, split):
    return (trained.logits(split).argmax(1) == truth(split)).mean()


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
    assert list(history[HISTORY]) == HISTORY and set(history) - set(HISTORY) <= {"l2", "stage"}
    assert history["epoch"].tolist() == list(range(1, epochs + 1))
    assert (np.diff(history["seconds"]) > 0).all() and history.notna().all(axis=None)
    if arm != "fine_tune":  # which starts from what the frozen arm learnt
        assert history["loss"].iloc[-1] < history["loss"].iloc[0]


@pytest.mark.parametrize("arm", ARMS)
def test_logits_are_those_of_the_saved_model(arm):
    trained = ARMS[arm]()
    model = trained.model()
    for split in (VALIDATION, TEST):
        found = engines.KerasEngine(model).predict(planted.pixels()[planted.manifest().rows(split)])[0]
        assert trained.logits(split).dtype == np.float32 and trained.logits(split).shape == (len(truth(split)), 3)
        assert engines.parity(trained.logits(split), found) < 1e-4


def cross_entropy(logits, y):
    logs = logits - np.log(np.exp(logits.astype(np.float64)).sum(1, keepdims=True))
    return -logs[np.arange(len(y)), y].mean()


@pytest.mark.parametrize("mislabelled", [False, True])
def test_kept_epoch_is_the_one_with_the_lowest_validation_loss(mislabelled):
    manifest = planted.manifest()
    if mislabelled:  # the better the training images are learnt, the worse these are predicted
        held = manifest.frame["split"] == VALIDATION
        wrong = dict(zip(planted.CLASSES, np.roll(planted.CLASSES, 1), strict=True))
        manifest = manifest.with_frame(
            manifest.frame.assign(label=manifest.frame["label"].mask(held, lambda y: y.map(wrong)))
        )
    study = planted.study(scratch={"epochs": 5, "learning_rate": 1e-2, "batch_size": 8})
    trained = training.scratch(study, manifest, planted.pixels(), "baseline_cnn")
    losses, y = trained.history["validation_loss"], manifest.y[manifest.rows(VALIDATION)]
    assert cross_entropy(trained.logits(VALIDATION), y) == pytest.approx(losses.min(), rel=1e-3)
    if mislabelled:
        assert losses.idxmin() < 4, "planted to get worse, so that the last epoch is not the best"


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

    for module in (head, networks):
        monkeypatch.setattr(module, "fit", refuse)
    for name, arm in ARMS.items():
        assert arm().folder == first[name].folder
    with pytest.raises(AssertionError, match="trained again"):
        scratch(seed=9)
    with pytest.raises(AssertionError, match="trained again"):
        fine_tune(fine_tuning={"epochs": 3})
    assert transfer(scratch={"epochs": 99}).folder == first["transfer"].folder  # not an input of that arm


def test_a_head_may_ask_for_augmented_views_itself():
    asked = transfer(head={"epochs": 2, "batch_size": 16, "l2": [0.01], "views": 1, "augmentation": "photometric"})
    assert asked.policy == "photometric" and transfer().policy == "none"


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
        arms, "transfer", lambda s, m, x, name, weights, **more: original(s, m, x, "baseline_cnn", weights, **more)
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
    monkeypatch.setattr(Augmenter, "__call__", spy_on(called := [], Augmenter.__call__))
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
    batches = training.Batches(images, rows, manifest.y[rows], 16, Augmenter("none", len(rows), 0))
    orders = []
    for _ in range(2):
        with ThreadPoolExecutor(4) as pool:
            splits = list(pool.map(batches.__getitem__, range(batches.num_batches)))
        found = np.concatenate([x[:, 0, 0, 0] for x, _ in splits])
        np.testing.assert_array_equal(np.concatenate([y for _, y in splits]), manifest.y[found])
        np.testing.assert_array_equal(np.sort(found), rows)
        orders.append(found)
        batches.on_epoch_end()
    assert not np.array_equal(*orders)


def test_cross_entropy_is_of_smoothed_and_of_mixed_labels():
    draw = np.random.default_rng(0)
    logits, y = draw.normal(size=(8, 3)).astype(np.float32), np.array([0, 1, 2, 0, 1, 2, 0, 1])
    logs = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    for target in (np.eye(3)[y], draw.dirichlet(np.ones(3), 8)):
        found = float(fitting.CrossEntropy(0.1)(target.astype(np.float32), logits))
        assert found == pytest.approx(-((target * 0.9 + 0.1 / 3) * logs).sum(1).mean(), rel=1e-5)
    assert float(fitting.CrossEntropy()(np.eye(3)[y], logits)) == pytest.approx(cross_entropy(logits, y), rel=1e-5)


def rare(counts):
    """Batches of as many images of each class; an image is its place, in every pixel."""
    y = np.eye(len(counts), dtype=np.float32)[np.repeat(np.arange(len(counts)), counts)]
    images = np.broadcast_to(np.arange(len(y), dtype=np.uint8)[:, None, None, None], (len(y), 8, 8, 3))

    def batches(policy="none", **options):
        return training.Batches(images, np.arange(len(y)), y, 16, Augmenter(policy, len(y), 3), **options)

    return batches, y


def test_balanced_sampling_draws_every_class_alike():
    batches, y = rare((90, 9, 3))
    found = batches(sampling=True)
    counts = np.bincount(y[found.order].argmax(1))
    assert counts.sum() == len(y) and np.ptp(counts) <= 1
    repeated = np.bincount(found.order, minlength=len(y))
    assert repeated[y[:, 2] == 1].min() >= 11 and repeated[y[:, 0] == 1].max() == 1
    kept = found.order.copy()
    found.on_epoch_end()
    assert not np.array_equal(kept, found.order)
    found.begin(0)
    np.testing.assert_array_equal(kept, found.order)


def test_an_image_drawn_twice_is_augmented_twice():
    draw = np.random.default_rng(5)
    y = np.eye(2, dtype=np.float32)[[0] * 30 + [1]]
    images = draw.integers(0, 256, (31, 16, 16, 3), np.uint8)
    found = training.Batches(images, np.arange(31), y, 31, Augmenter("dermoscopy", 31, 0), sampling=True)[0]
    rare_ones = found[0][found[1][:, 1] == 1]
    assert len(rare_ones) >= 15 and len(np.unique(rare_ones.reshape(len(rare_ones), -1), axis=0)) == len(rare_ones)


def test_class_weights_give_every_class_the_same_say():
    _, y = rare((90, 9, 3))
    weights = class_weights(y)
    np.testing.assert_allclose(y.sum(0) * weights, np.full(3, len(y) / 3), rtol=1e-5)
    logits = np.random.default_rng(4).normal(size=y.shape).astype(np.float32)
    by_class = [cross_entropy(logits[y[:, label] == 1], np.full(int(y[:, label].sum()), label)) for label in range(3)]
    assert float(fitting.CrossEntropy(weights=weights)(y, logits)) == pytest.approx(np.mean(by_class), rel=1e-5)


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
        training.let_learn(model, which, 0.5)
        assert [layer.trainable for layer in convolutions] == [False] * (4 - learning) + [True] * learning
        assert dense.trainable and not any(layer.trainable for layer in norms(model))


def test_fine_tuning_in_stages_moves_the_layers_of_each():
    stages = {"epochs": 1, "head_epochs": 2, "top_epochs": 1, "top": 0.5, "learning_rate": 1e-3, "batch_size": 16}
    trained = fine_tune(fine_tuning=stages)
    assert trained.history["stage"].tolist() == ["head", "head", "top", "all"] and trained.steps == [
        "head",
        "top",
        "all",
    ]
    assert trained.history["epoch"].tolist() == [1, 2, 3, 4] and (np.diff(trained.history["seconds"]) > 0).all()
    losses = [training.validation_loss(planted.manifest(), trained.logits(step)) for step in trained.steps]
    assert losses == sorted(losses, reverse=True), "a stage that does not help is taken back"
    np.testing.assert_allclose(trained.logits(VALIDATION), trained.logits("all"), atol=1e-4)


def test_first_layers_learn_at_their_share_of_the_rate():
    model = backbones.build("baseline_cnn", (32, 32), 3)
    shares = fitting.depth_shares(model, 0.01)
    first, *_, last = [layer for layer in model.layers if layer.weights]
    assert shares[first.kernel.path] == pytest.approx(0.01) and shares[last.kernel.path] == 1
    assert sorted(shares.values()) == list(shares.values())
    before = {variable.path: np.array(variable) for variable in (first.kernel, last.kernel)}
    model.compile(fitting.optimizer(Training(epochs=1, rate_schedule="constant"), 1, shares), fitting.CrossEntropy())
    model.train_on_batch(planted.pixels()[:8, :32, :32], np.eye(3, dtype=np.float32)[[0, 1, 2, 0, 1, 2, 0, 1]])
    # Adam's first step is the rate itself, for every weight whose gradient is not tiny
    moved = [np.quantile(np.abs(np.array(v) - before[v.path]), 0.9) for v in (first.kernel, last.kernel)]
    assert moved[0] == pytest.approx(3e-6, rel=0.1) and moved[1] == pytest.approx(3e-4, rel=0.1)


def test_training_stops_when_validation_gets_no_better():
    trained = scratch(scratch={"epochs": 30, "learning_rate": 0.3, "batch_size": 8, "patience": 2})
    losses = trained.history["validation_loss"]
    assert len(losses) == losses.idxmin() + 3 < 30


def test_plateau_halves_the_rate(capsys):
    plan = {"epochs": 6, "learning_rate": 0.3, "batch_size": 8, "rate_schedule": "plateau", "plateau_patience": 1}
    trained = scratch(scratch=plan)
    assert len(trained.history) == 6
    rates = [float(line.split("learning rate ")[1].split(",")[0]) for line in capsys.readouterr().out.splitlines()[1:]]
    assert rates and rates[-1] < 0.3 and all(0.3 / rate in (1, 2, 4, 8, 16, 32) for rate in rates)


def test_one_class_is_one_line(monkeypatch, tmp_path):
    use_fresh_store(monkeypatch, tmp_path, "store")
    frame = planted.manifest().frame
    frame = frame.assign(split=frame["split"].where((frame["split"] != TRAIN) | (frame["label"] == "leaf"), ""))
    lone = planted.Manifest("planted", frame, planted.CLASSES)
    with pytest.raises(ModelError, match="training images are all of class 'leaf'; expected at least two classes"):
        training.scratch(planted.study(), lone, planted.pixels(), "baseline_cnn")


@pytest.mark.slow
def test_mixed_precision_ends_in_single_precision(monkeypatch, tmp_path):
    use_fresh_store(monkeypatch, tmp_path, "store")
    monkeypatch.setattr(runtime, "training_precision", lambda: "mixed_float16")
    trained = fine_tune()
    model = trained.model()
    assert model.dtype_policy.name == "float32" and keras.config.dtype_policy().name == "float32"
    assert accuracy(trained, TEST) > 0.9
    found = engines.KerasEngine(model).predict(planted.pixels()[planted.manifest().rows(TEST)])[0]
    assert engines.parity(trained.logits(TEST), found) < 1e-4


# seeds and averages


@pytest.mark.slow
def test_seeds_repeat_the_study_and_averages_are_of_them(monkeypatch):
    monkeypatch.setattr(backbones, "resolve", lambda study: ({"baseline_cnn": planted.weights()}, {}))
    study = planted.study(seeds=2, evaluation={"ensemble": True}, augmentation="photometric")
    networks = training.repeats(study, planted.manifest(), planted.pixels())
    assert [each.seed for each in networks] == [0, 1] and networks[0].folder != networks[1].folder
    assert networks[0].folder == training.final(study, planted.manifest(), planted.pixels()).folder
    both = training.averaged(study, planted.manifest(), planted.pixels(), networks)
    shares = [np.exp(each.logits(TEST)) / np.exp(each.logits(TEST)).sum(1, keepdims=True) for each in networks]
    np.testing.assert_allclose(np.exp(both.logits(TEST)), np.mean(shares, axis=0), rtol=1e-3, atol=1e-6)
    assert "2 seeds averaged" in both.name
    viewed = planted.study(evaluation={"test_time_views": 2}, augmentation="photometric")
    views = training.averaged(viewed, planted.manifest(), planted.pixels(), networks[:1])
    assert "3 views averaged" in views.name and engines.parity(networks[0].logits(TEST), views.logits(TEST)) > 0
    plain = training.averaged(planted.study(seeds=2), planted.manifest(), planted.pixels(), networks)
    assert plain is networks[0]


# resuming


PLANS = {
    "cosine": {"epochs": 5},
    "plateau, early stopping": {
        "epochs": 12,
        "learning_rate": 0.3,
        "rate_schedule": "plateau",
        "plateau_patience": 1,
        "patience": 4,
    },
}


class Killed(BaseException):
    """Stands in for the end of the process: no handler of the library's catches it."""


@pytest.mark.parametrize(
    ("plan", "after"), [pytest.param("cosine", 1, marks=pytest.mark.slow), ("plateau, early stopping", 3)]
)
def test_a_killed_training_goes_on_to_the_same_end(monkeypatch, tmp_path, capsys, plan, after):
    options = {"scratch": {"batch_size": 16, **PLANS[plan]}, "augmentation": "dermoscopy+mixup"}
    use_fresh_store(monkeypatch, tmp_path, "whole")
    whole = scratch(**options)
    use_fresh_store(monkeypatch, tmp_path, "killed")
    original = fitting.Checkpoint.on_epoch_end

    def kill(self, epoch, logs=None):
        original(self, epoch, logs)
        if epoch + 1 == after:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(fitting.Checkpoint, "on_epoch_end", kill)
        with pytest.raises(Killed):
            scratch(**options)
    keras.random.normal((3,))
    resumed = scratch(**options)
    assert f"continues after epoch {after}, from its checkpoint" in capsys.readouterr().out
    pd.testing.assert_frame_equal(resumed.history.drop(columns="seconds"), whole.history.drop(columns="seconds"))
    np.testing.assert_array_equal(resumed.logits(TEST), whole.logits(TEST))
    assert (np.diff(resumed.history["seconds"]) > 0).all()
    assert not list((tmp_path / "killed" / "scratch").glob(".*checkpoint")), "the checkpoint outlived its training"


@pytest.mark.slow
def test_a_stage_that_was_finished_is_not_trained_again(monkeypatch, tmp_path):
    stages = {"epochs": 2, "head_epochs": 2, "batch_size": 16}
    use_fresh_store(monkeypatch, tmp_path, "whole")
    whole = fine_tune(fine_tuning=stages)
    use_fresh_store(monkeypatch, tmp_path, "killed")
    original, epochs = fitting.Checkpoint.on_epoch_end, []

    def kill_in_the_last_stage(self, epoch, logs=None):
        original(self, epoch, logs)
        epochs.extend([self.path.stem] if self.path else [])
        if epochs == ["head", "head", "all"]:
            raise Killed

    monkeypatch.setattr(fitting.Checkpoint, "on_epoch_end", kill_in_the_last_stage)
    with pytest.raises(Killed):
        fine_tune(fine_tuning=stages)
    resumed = fine_tune(fine_tuning=stages)
    assert epochs == ["head", "head", "all", "all"]
    np.testing.assert_array_equal(resumed.logits(TEST), whole.logits(TEST))
    for step in whole.steps:
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

    monkeypatch.setattr(backbones, "build", normalising)
    trained = fine_tune()
    found = engines.KerasEngine(trained.model()).predict(planted.pixels()[planted.manifest().rows(TEST)])[0]
    assert engines.parity(trained.logits(TEST), found) < 1e-4
    kept = next(layer for layer in trained.model().layers if isinstance(layer, keras.layers.Normalization))
    np.testing.assert_allclose(np.ravel(kept.mean), [0.4, 0.5, 0.6], rtol=1e-6)


def test_a_transformer_s_top_is_its_last_blocks(tmp_path):
    vit = pytest.importorskip("keras_hub").models.ViTBackbone(
        image_shape=(32, 32, 3), patch_size=16, num_layers=6, num_heads=2, hidden_dim=8, mlp_dim=16
    )
    entry = keras.Input((32, 32, 3))
    tokens = vit.call(entry)
    model = keras.Model(entry, heads.attach(keras.layers.Lambda(lambda x: x[:, 0])(tokens), 3))
    blocks = [layer for layer in fitting.weighted_layers(model) if "block" in layer.name or "encoder" in layer.name]
    assert len(blocks) >= 6
    training.let_learn(model, "top", 0.3)
    learning = [layer.trainable for layer in blocks]
    assert learning == sorted(learning) and 0 < sum(learning) < len(blocks)
    assert len(set(fitting.depth_shares(model, 0.01).values())) > 6


def test_the_recorded_loss_is_without_penalty_and_smoothing():
    penalised = transfer(head={"epochs": 4, "learning_rate": 0.1, "batch_size": 16, "l2": [0.3]})
    kept = training.validation_loss(planted.manifest(), penalised.logits(VALIDATION))
    assert penalised.history["validation_loss"].min() == pytest.approx(kept, rel=1e-3)
    smoothed = scratch(scratch={"epochs": 3, "batch_size": 16, "learning_rate": 3e-3, "label_smoothing": 0.3})
    kept = training.validation_loss(planted.manifest(), smoothed.logits(VALIDATION))
    assert smoothed.history["validation_loss"].min() == pytest.approx(kept, rel=1e-3)
