"""Heat maps: the exact decomposition of a logit, and where the evidence lies."""

import numpy as np
import pandas as pd
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.special import softmax

import planted
from scanbook import backbones, engines, explain, training
from scanbook.manifest import COLUMNS, TRAIN, VALIDATION, Manifest
from scanbook.study import Training


def outputs(model, images, temperature=1.0):
    return engines.KerasEngine(explain.with_heat_maps(model, temperature)).predict(images)


def test_maps_average_to_the_logits():
    model, images = planted.network(), planted.pixels()
    bias = np.array([0.3, -0.2, 0.1], np.float32)
    head = model.get_layer(backbones.LOGITS)
    kernel, zeros = head.get_weights()
    head.set_weights([kernel, bias])
    try:
        logits = engines.KerasEngine(model).predict(images)[0]
        probabilities, maps = outputs(model, images, 2.5)
    finally:
        head.set_weights([kernel, zeros])
    assert maps.shape[0] == 60 and maps.shape[-1] == 3 and maps.shape[1] == maps.shape[2] > 1
    assert engines.parity(logits, maps.mean((1, 2)) + bias) < 1e-5
    np.testing.assert_allclose(probabilities, softmax(logits / 2.5, axis=1), atol=1e-5)


def test_the_trained_model_stays_as_it_was():
    model = planted.network()
    before = engines.KerasEngine(model).predict(planted.pixels())[0]
    explain.with_heat_maps(model, 3.0)
    np.testing.assert_array_equal(engines.KerasEngine(model).predict(planted.pixels())[0], before)
    assert len(model.outputs) == 1


@given(arrays(np.float32, (4, 3, 5, 2), elements=st.floats(-100, 100, width=32)))
def test_grad_cam_is_a_share_at_the_size_asked_for(maps):
    classes = np.array([0, 1, 1, 0])
    heat = explain.grad_cam(maps, classes, (12, 30))
    assert heat.shape == (4, 12, 30) and heat.dtype == np.float32
    assert heat.min() >= 0 and heat.max() <= 1 + 1e-6
    for index, label in enumerate(classes):
        assert heat[index].any() == bool((maps[index, ..., label] > 0).any())


def test_grad_cam_shows_the_class_asked_for_where_it_is():
    maps = np.zeros((2, 4, 4, 2), np.float32)
    maps[0, 0, 3, 1], maps[1, 2, 1, 0], maps[1, 0, 0, 1] = 5, 2, 9
    heat = explain.grad_cam(maps, np.array([1, 0]), (40, 40))
    assert np.unravel_index(heat[0].argmax(), (40, 40))[0] < 10 <= 30 <= heat[0].argmax() % 40
    assert heat[1, 20:30, 10:20].max() == heat[1].max() > 0.8 and not heat[1, :10, :10].any()


def test_the_patch_that_decides_gets_the_heat():
    draw = np.random.default_rng(0)
    images = draw.integers(60, 120, (96, 64, 64, 3), np.uint8)
    y = np.arange(96) % 2
    corners = draw.integers(0, 4, (96, 2)) * 16
    for index in np.flatnonzero(y):
        top, left = corners[index]
        images[index, top : top + 16, left : left + 16] = 250
    rows = [(f"i{i}", "", ("none", "patch")[y[i]], f"g{i}", "", TRAIN if i < 72 else VALIDATION) for i in range(96)]
    manifest = Manifest("patches", pd.DataFrame(rows, columns=COLUMNS), ("none", "patch"))
    backbones.keras.utils.set_random_seed(0)
    model = backbones.build("baseline_cnn", (64, 64), 2)
    plan = training.Plan("patch", Training(epochs=5, learning_rate=3e-3, batch_size=16), "none", 0)
    history = training.train_all(plan, model, images, manifest)
    assert history["validation_accuracy"].max() == 1
    shown = np.flatnonzero(y)[-12:]
    heat = explain.grad_cam(outputs(model, images[shown])[1], np.ones(12, int), (64, 64))
    for index, each in zip(shown, heat, strict=True):
        top, left = corners[index]
        inside = each[top : top + 16, left : left + 16].mean()
        outside = (each.sum() - inside * 256) / (64 * 64 - 256)
        assert inside > 2 * outside
