"""Heat maps: the exact decomposition of a logit, and where the evidence lies."""

import random
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.special import expit, softmax
from scipy.stats import spearmanr

from helpers import planted
from scanbook import training
from scanbook.config import Head, Training
from scanbook.data.manifest import COLUMNS, TRAIN, VALIDATION, Manifest
from scanbook.evaluation import Calibration
from scanbook.inspection import grad_cam
from scanbook.models import backbones, engines, heads
from scanbook.models.backbones import networks
from scanbook.registry import BACKBONES

PIXELS = planted.pixels()[:, ::2, ::2].copy()


def outputs(model, images, temperature=1.0):
    """Probabilities and heat maps, called as they are: to trace a graph would take longer than the images do."""
    return [np.asarray(output) for output in grad_cam.add_heat_maps(model, temperature)(images)]


def test_maps_average_to_the_logits():
    model, images = planted.network(), planted.pixels()
    bias = np.array([0.3, -0.2, 0.1], np.float32)
    head = model.get_layer(backbones.LOGITS)
    kernel, zeros = head.get_weights()
    head.set_weights([kernel, bias])
    try:
        logits = np.asarray(model(images))
        probabilities, maps = outputs(model, images, 2.5)
    finally:
        head.set_weights([kernel, zeros])
    assert maps.shape[0] == 60 and maps.shape[-1] == 3 and maps.shape[1] == maps.shape[2] > 1
    assert engines.parity(logits, maps.mean((1, 2)) + bias) < 1e-5
    np.testing.assert_allclose(probabilities, softmax(logits / 2.5, axis=1), atol=1e-5)


@pytest.mark.parametrize(("units", "count"), [([], 1), ([], 4), ([9], 4)])
def test_findings_end_in_a_calibrated_sigmoid_each(units, count, tmp_path):
    """p = sigmoid(slope × z + offset), and the map of a finding is that of its own logit, whatever the calibration."""
    networks.keras.utils.set_random_seed(5)
    model = backbones.build("small_cnn", PIXELS.shape[1:3], count, planted.weights("small_cnn"), Head(units=units))
    images, logits = PIXELS[::10], np.asarray(model(PIXELS[::10]))
    slope, offset = np.linspace(0.4, 1.9, count), np.linspace(-1.5, 0.5, count)
    calibration = Calibration(slope, offset, ("Platt",) * count)
    exported = grad_cam.add_heat_maps(model, calibration)
    probabilities, maps = map(np.asarray, exported(images))
    np.testing.assert_allclose(probabilities, expit(logits * slope + offset), atol=1e-6)
    gradient, _ = slopes(model, images, backbones.FEATURES)
    feature_map = np.asarray(networks.keras.Model(model.input, model.get_layer(backbones.FEATURE_MAP).output)(images))
    expected = np.einsum("nhwc,nkc->nhwk", feature_map, gradient)
    np.testing.assert_allclose(maps, expected, atol=1e-5 * np.abs(expected).max())
    exported.save(tmp_path / "model.keras")
    np.testing.assert_array_equal(np.asarray(backbones.load(tmp_path / "model.keras")(images)[0]), probabilities)
    converted = engines.OpenVinoEngine(engines.to_openvino(exported)).predict(images)
    np.testing.assert_allclose(converted[0], probabilities, atol=1e-5)


def test_the_trained_model_stays_as_it_was():
    model, images = planted.network(), planted.pixels()[::6]
    before = np.asarray(model(images))
    grad_cam.add_heat_maps(model, 3.0)
    np.testing.assert_array_equal(np.asarray(model(images)), before)
    assert len(model.outputs) == 1


HEADS = [(output, units) for output in ("softmax", "sigmoid", "ordinal") for units in ([], [9], [9, 6])]


def network_with(output, units, name="small_cnn"):
    """A network of a head with random biases too; two classes for "sigmoid", else four."""
    networks.keras.utils.set_random_seed(5)
    head = Head(units=units, output=output)
    model = backbones.build(name, PIXELS.shape[1:3], 2 if output == "sigmoid" else 4, planted.weights(name), head)
    draw = np.random.default_rng(2)
    for layer in heads.head_layers(model):
        kernel, bias = layer.get_weights()
        layer.set_weights([3 * kernel, draw.normal(0, 0.5, bias.shape)])
    return model


@pytest.mark.parametrize("output", ["softmax", "ordinal"])
def test_a_network_of_another_process_is_given_heat_maps(output, tmp_path):
    """Keras counts the names that it gives in one process: those of a network that was saved by another are taken."""
    networks.keras.backend.clear_session()
    model = network_with(output, [9])
    model.save(tmp_path / "model.keras")
    expected = outputs(model, PIXELS[:4])
    networks.keras.backend.clear_session()
    loaded = outputs(backbones.load(tmp_path / "model.keras"), PIXELS[:4])
    for values, reference in zip(loaded, expected, strict=True):
        np.testing.assert_allclose(values, reference, atol=1e-5)


def slopes(model, images, of):
    """Gradient of every logit by the output of a layer, by automatic differentiation: `(n, k, ...)`."""
    target = model.get_layer(of).output
    import tensorflow as tf  # not before scanbook, which sets what it prints

    value = tf.convert_to_tensor(networks.keras.Model(model.input, target)(images))
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(value)
        # no logit depends on another image, so that a sum over the images has the gradient of each
        sums = tf.unstack(tf.reduce_sum(networks.keras.Model(target, model.output)(value), 0))
    return np.stack([tape.gradient(total, value) for total in sums], 1), np.asarray(value)


@pytest.mark.parametrize(("output", "units"), HEADS)
def test_maps_are_the_gradient_s_for_every_head(output, units):
    model, images = network_with(output, units), PIXELS[::10]
    gradient, _ = slopes(model, images, backbones.FEATURES)
    feature_map = np.asarray(networks.keras.Model(model.input, model.get_layer(backbones.FEATURE_MAP).output)(images))
    expected = np.einsum("nhwc,nkc->nhwk", feature_map, gradient)
    exported = grad_cam.add_heat_maps(model, 1.7)
    probabilities, maps = map(np.asarray, exported(images))
    np.testing.assert_allclose(maps, expected, atol=1e-5 * np.abs(expected).max())
    np.testing.assert_allclose(probabilities, softmax(np.asarray(model(images)) / 1.7, axis=1), atol=1e-5)
    linear = not units and output != "ordinal"
    assert (
        any(isinstance(layer, networks.layers.Conv2D) and layer.name == "heat_maps" for layer in exported.layers)
        == linear
    )


@pytest.mark.parametrize("name", ["baseline_cnn", "small_cnn"])
def test_weights_are_grad_cam_s_for_mean_and_maximum_pooling(name):
    """Grad-CAM's own definition: the gradient by the feature map, averaged over the positions."""
    model, images = network_with("ordinal", [9], name), PIXELS[::10]
    by_map, feature_map = slopes(model, images, backbones.FEATURE_MAP)
    positions = feature_map.shape[1] * feature_map.shape[2]
    expected = np.einsum("nhwc,nkc->nhwk", feature_map, by_map.mean((2, 3)))
    maps = np.asarray(grad_cam.add_heat_maps(model, 1.0)(images)[1])
    np.testing.assert_allclose(maps / positions, expected, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize(("output", "units"), [("sigmoid", []), ("softmax", [9]), ("ordinal", [9, 6])])
def test_maps_are_exported(output, units, tmp_path):
    model, images = network_with(output, units), PIXELS[::4]
    exported = grad_cam.add_heat_maps(model, 1.7)
    reference = [np.asarray(output) for output in exported(images)]
    exported.save(tmp_path / "model.keras")
    saved = [np.asarray(output) for output in backbones.load(tmp_path / "model.keras")(images)]
    converted = engines.OpenVinoEngine(engines.to_openvino(exported)).predict(images)
    for values, loaded, other in zip(reference, saved, converted, strict=True):
        np.testing.assert_array_equal(values, loaded)
        assert engines.parity(values, other) < 1e-3


@settings(max_examples=30, deadline=None)
@given(arrays(np.float32, (4, 3, 5, 2), elements=st.floats(-100, 100, width=32)))
def test_grad_cam_is_a_share_at_the_size_requested(maps):
    classes = np.array([0, 1, 1, 0])
    heat = grad_cam.grad_cam(maps, classes, (12, 30))
    assert heat.shape == (4, 12, 30) and heat.dtype == np.float32
    assert heat.min() >= 0 and heat.max() <= 1 + 1e-6
    for index, label in enumerate(classes):
        assert heat[index].any() == bool((maps[index, ..., label] > 0).any())


def test_grad_cam_shows_the_class_requested_where_it_is():
    maps = np.zeros((2, 4, 4, 2), np.float32)
    maps[0, 0, 3, 1], maps[1, 2, 1, 0], maps[1, 0, 0, 1] = 5, 2, 9
    heat = grad_cam.grad_cam(maps, np.array([1, 0]), (40, 40))
    assert np.unravel_index(heat[0].argmax(), (40, 40))[0] < 10 <= 30 <= heat[0].argmax() % 40
    assert heat[1, 20:30, 10:20].max() == heat[1].max() > 0.8 and not heat[1, :10, :10].any()


@pytest.fixture(scope="module")
def patches():
    """A network that learned to find a bright patch; images, their classes and the patches' corners."""
    draw = np.random.default_rng(0)
    images = draw.integers(60, 120, (96, 64, 64, 3), np.uint8)
    y = np.arange(96) % 2
    corners = draw.integers(0, 4, (96, 2)) * 16
    for index in np.flatnonzero(y):
        top, left = corners[index]
        images[index, top : top + 16, left : left + 16] = 250
    rows = [(f"i{i}", "", ("none", "patch")[y[i]], f"g{i}", "", TRAIN if i < 72 else VALIDATION) for i in range(96)]
    manifest = Manifest("patches", pd.DataFrame(rows, columns=COLUMNS), ("none", "patch"))
    networks.keras.utils.set_random_seed(0)
    model = backbones.build("baseline_cnn", (64, 64), 2)
    plan = training.Plan("patch", Training(epochs=8, learning_rate=3e-3, batch_size=16), "none", 0)
    history = training.train_network(plan, model, images, manifest)
    assert history["validation_accuracy"].max() == 1
    return model, images, y, corners


def test_the_patch_that_decides_gets_the_heat(patches):
    model, images, y, corners = patches
    shown = np.flatnonzero(y)[-12:]
    heat = grad_cam.grad_cam(outputs(model, images[shown])[1], np.ones(12, int), (64, 64))
    for index, heat_map in zip(shown, heat, strict=True):
        top, left = corners[index]
        inside = heat_map[top : top + 16, left : left + 16].mean()
        outside = (heat_map.sum() - inside * 256) / (64 * 64 - 256)
        assert inside > 2 * outside


# the randomisation check


def test_maps_change_as_what_was_learned_goes(patches):
    model, images, *_ = patches
    before = model.get_weights()
    table = grad_cam.randomisation_check(model, images[72:], 0)
    assert list(table.columns) == ["randomised", "correlation", "low", "high", "images"]
    assert list(table["randomised"]) == list(grad_cam.STEPS) and (table["images"] == grad_cam.MAX_IMAGES).all()
    assert (table["low"] <= table["correlation"]).all() and (table["correlation"] <= table["high"]).all()
    assert (table["correlation"].iloc[1:].abs() < 0.6).all()  # a random head may be the learned one, or its negative
    for weights, now in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(weights, now)
    pd.testing.assert_frame_equal(grad_cam.randomisation_check(model, images[72:], 0), table)
    assert not grad_cam.randomisation_check(model, images[72:], 1)["correlation"].equals(table["correlation"])


def test_new_weights_leave_other_random_numbers_alone():
    model, state = planted.network(), random.getstate()
    first, again, other = (grad_cam._reinitialised(model, seed).get_weights()[0] for seed in (0, 0, 1))
    assert random.getstate() == state
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_layers_are_randomised_from_the_top_down(patches, monkeypatch):
    model, images, *_ = patches
    seen, outputs = [], grad_cam._outputs
    monkeypatch.setattr(
        grad_cam, "_outputs", lambda network, images: seen.append(network.get_weights()) or outputs(network, images)
    )
    grad_cam.randomisation_check(model, images[:2], 0)
    trained, *steps = seen
    kernels = [i for i, weights in enumerate(trained) if weights.ndim > 1]  # others may be as they were from the start
    unchanged = [[np.array_equal(trained[i], step[i]) for i in kernels] for step in steps]
    assert unchanged == [  # four convolutions and the head, from all random up
        [False, False, False, False, False],
        [True, False, False, False, False],
        [True, True, False, False, False],
        [True, True, True, False, False],
        [True, True, True, True, False],
    ]


def test_a_network_that_is_not_randomised_keeps_its_maps(patches, monkeypatch):
    model, images, *_ = patches
    copy = grad_cam._reinitialised(model, 0)
    copy.set_weights(model.get_weights())
    monkeypatch.setattr(grad_cam, "_reinitialised", lambda *_: copy)
    np.testing.assert_allclose(grad_cam.randomisation_check(model, images[:4], 0)["correlation"], 1)


@settings(max_examples=40, deadline=None)
@given(arrays(np.float32, (2, 3, 4, 5), elements=st.integers(-3, 3).map(float)))
def test_rank_correlation_is_spearman_s(maps):
    correlations = grad_cam._rank_correlation(*maps)
    for correlation, a, b in zip(correlations, *maps, strict=True):
        constant = np.ptp(a) == 0 or np.ptp(b) == 0
        assert correlation == pytest.approx(0 if constant else spearmanr(a.ravel(), b.ravel()).statistic, abs=1e-9)


def test_maps_of_one_position_have_no_ranks():
    assert np.isnan(grad_cam._rank_correlation(np.ones((2, 1, 1)), np.ones((2, 1, 1)))).all()


@pytest.mark.parametrize("output", ["sigmoid", "ordinal"])
def test_every_head_is_checked(output):
    table = grad_cam.randomisation_check(network_with(output, [6]), PIXELS[:3], 0)
    assert len(table) == 5 and (table["images"] == 3).all() and table["correlation"].between(-1, 1).all()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vit_b16", "efficientnet_b0", "convnext_tiny"])
def test_networks_with_layers_of_their_own_are_checked(name, monkeypatch):
    tiny = {"patch_size": 16, "num_layers": 2, "num_heads": 2, "hidden_dim": 16, "mlp_dim": 32}
    spec = BACKBONES["vit_b16"]
    config = spec.arguments["config"] | tiny
    monkeypatch.setitem(BACKBONES, "vit_b16", replace(spec, arguments=spec.arguments | {"config": config}))
    networks.keras.utils.set_random_seed(0)
    model = backbones.build(name, planted.SIZE, 3)
    table = grad_cam.randomisation_check(model, planted.pixels()[::20], 0)
    assert len(table) == 5 and table["correlation"].between(-1, 1).all()
