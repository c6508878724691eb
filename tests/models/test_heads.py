"""Heads: three forms of output, one kind of logits."""

import zipfile
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.special import expit, log_expit, log_softmax, softmax

from benchmarks import studies
from helpers import planted
from scanbook import runtime
from scanbook.config import Head
from scanbook.errors import ModelError
from scanbook.models import backbones, engines, heads
from scanbook.training import head, projection

keras = heads.keras
OUTPUTS = ["softmax", "sigmoid", "ordinal"]


@cache
def of_scores(classes, output):
    """A head whose scores are its inputs: one score for each step from a grade to the next, or one for two classes."""
    count, head = classes - 1, Head(output=output)
    inputs = keras.Input((count,))
    model = keras.Model(inputs, heads.attach(inputs, classes, head))
    heads.head_layers(model)[-1].set_weights([np.eye(count), np.zeros(count)])
    return model


SCORES = st.floats(-60, 60, width=32)


@settings(max_examples=30, deadline=None)
@given(st.data(), st.sampled_from((2, 3, 5)))
def test_ordinal_logits_are_the_log_of_the_distribution(data, k):
    z = data.draw(arrays(np.float32, (12, k - 1), elements=SCORES))
    logits = np.asarray(of_scores(k, "ordinal")(z), np.float64)
    z = z.astype(np.float64)
    for j in range(k):  # P(y = j) = prod_{i<j} P(y > i | y >= i) · P(y = j | y >= j)
        expected = log_expit(z[:, :j]).sum(1) + (log_expit(-z[:, j]) if j < k - 1 else 0)
        np.testing.assert_allclose(logits[:, j], expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(log_softmax(logits, axis=1), logits, rtol=1e-4, atol=1e-4)
    beyond = softmax(logits, axis=1)[:, ::-1].cumsum(1)[:, ::-1]
    assert (np.diff(beyond) <= 1e-6).all(), "a higher grade is passed more often than a lower one"


@settings(max_examples=30, deadline=None)
@given(arrays(np.float32, (12, 1), elements=SCORES))
def test_sigmoid_is_the_probability_of_the_second_class(z):
    logits = np.asarray(of_scores(2, "sigmoid")(z))
    np.testing.assert_array_equal(logits[:, 0], -logits[:, 1])
    np.testing.assert_allclose(softmax(logits, axis=1)[:, 1], expit(z[:, 0]), rtol=1e-5, atol=1e-7)


def test_frequencies_are_where_cross_entropy_is_lowest():
    """The planted truth of a head without features: its distribution is that of the classes."""
    share = np.array([0.5, 0.2, 0.15, 0.1, 0.05])
    reach = share[::-1].cumsum()[::-1]
    steps = np.log(reach[1:] / share[:-1])  # odds of going beyond a grade
    logits = np.asarray(of_scores(5, "ordinal")(steps[None].astype(np.float32)))[0]
    np.testing.assert_allclose(np.exp(logits), share, rtol=1e-5)
    best = -(share * logits).sum()
    draw = np.random.default_rng(0)
    for _ in range(20):
        moved = np.asarray(of_scores(5, "ordinal")((steps + draw.normal(0, 0.2, 4))[None].astype(np.float32)))[0]
        assert -(share * moved).sum() > best


@pytest.mark.parametrize("output", OUTPUTS)
@pytest.mark.parametrize("units", [[], [7], [7, 5]])
def test_layers_of_a_head(output, units):
    classes = 2 if output == "sigmoid" else 4
    inputs = keras.Input((6,))
    model = keras.Model(inputs, heads.attach(inputs, classes, Head(units=units, output=output)))
    dense = heads.head_layers(model)
    scores = {"softmax": classes, "sigmoid": 1, "ordinal": classes - 1}[output]
    assert [layer.units for layer in dense] == [*units, scores]
    assert [layer.name for layer in dense[:-1]] == [f"hidden_{i}" for i in range(1, len(units) + 1)]
    assert model.count_params() == sum(layer.count_params() for layer in dense)
    assert heads.output_form(model) == output
    assert model.get_layer(heads.LOGITS).output is model.output
    assert model.output_shape == (None, classes) and model.output.dtype == "float32"


def test_the_plain_head_is_one_layer_with_the_name_of_the_logits():
    inputs = keras.Input((6,))
    (dense,) = heads.head_layers(keras.Model(inputs, heads.attach(inputs, 3)))
    assert dense.name == heads.LOGITS == backbones.LOGITS and dense.activation is keras.activations.linear


@pytest.mark.parametrize("output", OUTPUTS)
def test_head_on_cached_features_gives_what_the_network_gives(output):
    head, classes, photos = Head(units=[8], output=output), 2, planted.pixels()[:8, ::2, ::2]
    model = backbones.build("small_cnn", (32, 32), classes, planted.weights("small_cnn"), head)
    features = np.asarray(backbones.pooled(model)(photos))
    inputs = keras.Input(features.shape[1:])
    own = keras.Model(inputs, heads.attach(inputs, classes, head))
    for layer, target in zip(heads.head_layers(own), heads.head_layers(model), strict=True):
        target.set_weights(layer.get_weights())
    np.testing.assert_allclose(np.asarray(own(features)), np.asarray(model(photos)), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("output", OUTPUTS)
def test_saved_head_needs_none_of_scanbook_s_code(output, tmp_path):
    inputs, path = keras.Input((6,)), tmp_path / "head.keras"
    model = keras.Model(inputs, heads.attach(inputs, 2, Head(units=[4], output=output)))
    x = np.random.default_rng(0).normal(0, 3, (5, 6)).astype(np.float32)
    model.save(path)
    with zipfile.ZipFile(path) as archive:
        assert b"scanbook" not in archive.read("config.json")
    again = keras.models.load_model(path, compile=False)
    np.testing.assert_array_equal(np.asarray(again(x)), np.asarray(model(x)))
    assert heads.output_form(again) == output and len(heads.head_layers(again)) == 2


def test_ordinal_head_in_openvino_is_exact_at_the_ends():
    z = np.array([[60, -60, 0, 1], [-60, 60, -1, 30], [25, 25, 25, 25]], np.float32)
    (outputs,) = engines.OpenVinoEngine(engines.to_openvino(of_scores(5, "ordinal"))).predict(z)
    np.testing.assert_allclose(outputs, np.asarray(of_scores(5, "ordinal")(z)), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("output", "classes", "count"), [("sigmoid", 3, "two"), ("ordinal", 1, "at least two")])
def test_form_that_does_not_fit_the_classes_is_one_line(output, classes, count):
    with pytest.raises(ModelError, match=rf"head has {count} \w+, not {classes}; set head.output to") as refused:
        backbones.build("small_cnn", planted.SIZE, classes, head=Head(output=output))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("count", [30, 64, 300])
def test_axes_of_features_in_files_are_those_of_all_in_memory(count, tmp_path, monkeypatch):
    monkeypatch.setenv("SCANBOOK_STORE", str(tmp_path))
    monkeypatch.setattr(projection, "_CHUNK", 90)
    draw = np.random.default_rng(count)
    whole = (draw.gamma(2, 1, (count, 12)) @ draw.normal(size=(12, 40)) + draw.normal(50, 5, 40)).astype(np.float32)
    whole += draw.normal(0, 0.1, whole.shape).astype(np.float32)
    places = draw.permutation(count)
    np.save(tmp_path / "features.npy", whole)
    stored = np.load(tmp_path / "features.npy", mmap_mode="r")
    rows = head.Rows([(stored, places[: count // 3]), (stored, places[count // 3 :])])
    mean, axes = head.principal_axes(rows)
    turned = rows.project(mean, axes)
    assert rows.shape == (count, 40) and turned.shape == (count, min(count, 40))
    standardised = (whole[places] - whole.mean(0)) / (whole.std(0) + 1e-3)
    np.testing.assert_allclose(turned @ turned.T, standardised @ standardised.T, atol=0.05)
    spread = turned.var(0)
    assert (np.diff(spread) < 1e-3).all(), "the widest axis comes first"
    correlation = np.corrcoef(turned[:, :12].T) if count > 40 else np.eye(12)
    np.testing.assert_allclose(correlation, np.eye(12), atol=1e-3)
    assert [path.name for path in tmp_path.iterdir()] == ["features.npy"], "nothing is left in the store"


@pytest.mark.slow
def test_a_head_that_learns_from_a_file_is_that_which_learns_in_memory(tmp_path, monkeypatch):
    monkeypatch.setenv("SCANBOOK_STORE", str(tmp_path))
    draw = np.random.default_rng(0)
    labels = draw.integers(0, 3, 900)
    x = (draw.normal(0, 1, (900, 12)) + 2 * np.eye(3, 12)[labels]).astype(np.float32)
    manifest = studies.make_manifest(labels, {"train": 600, "validation": 300}, 3)
    study = studies.make_study("mobilenet_v2_0.35", 64, {"epochs": 12, "batch_size": 32})
    probabilities = []
    for most in (2**28, 0):
        monkeypatch.setattr(head, "_IN_MEMORY", most)
        runtime.configure(0)
        train = head.Rows([(x, manifest.rows("train"))]), manifest.label_values("train")
        [[kernel, bias]], history = head.fit_head(study, manifest, train, x[600:])
        assert history["epoch"].tolist() == list(range(1, len(history) + 1))
        probabilities.append(softmax(x[600:] @ kernel + bias, axis=1))
    np.testing.assert_allclose(*probabilities, atol=0.05)
    assert (probabilities[1].argmax(1) == labels[600:]).mean() > 0.8
