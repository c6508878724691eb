"""Engines: one answer whatever the engine, the batch, the thread and the place, from Keras to HTTP."""

import logging
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from helpers import planted
from scanbook import runtime
from scanbook.benchmark import client
from scanbook.data import images
from scanbook.errors import ModelError, RunError
from scanbook.inspection import grad_cam
from scanbook.models import backbones, engines
from scanbook.models.engines import KerasEngine, LiteRtEngine, OnnxEngine, OpenVinoEngine, SavedModelEngine

TEMPERATURE = 1.7
FLOAT32 = 2e-4
"""Largest difference that float32 explains in a deep network; bfloat16 moves its logits by more than 1e-2."""


@pytest.fixture(scope="module")
def photos():
    return planted.pixels()[::-1][:32]


@pytest.fixture(scope="module")
def model():
    return planted.network()


@pytest.fixture(scope="module")
def converted(model):
    return engines.to_openvino(model)


@pytest.fixture(scope="module")
def logits(model, photos):
    outputs = KerasEngine(model).predict(photos)[0]
    assert outputs.std(axis=0).min() > 1e-2 * np.abs(outputs).max()  # the answers differ from image to image
    return outputs


@pytest.fixture(scope="module")
def exported(model, tmp_path_factory):
    return planted.export(tmp_path_factory.mktemp("export") / "bundle", model, TEMPERATURE)


def from_probabilities(probabilities):
    return TEMPERATURE * engines.centred_log(probabilities)


# parity: each place answers RGB images as the Keras model does, and would be caught if it took them for BGR


@pytest.fixture(scope="module")
def saved(model, converted, tmp_path_factory):
    """The network in every format, by suffix."""
    folder = tmp_path_factory.mktemp("saved")
    model.save(folder / "model.keras")
    engines.save_openvino(converted, folder / "model.xml")
    engines.to_onnx(model, folder / "model.onnx")
    engines.to_saved_model(model, folder / "model")
    engines.to_litert(model, folder / "model.tflite")
    names = {"model.keras", "model.xml", "model.bin", "model.onnx", "model", "model.tflite"}
    assert {path.name for path in folder.iterdir()} == names
    return {path.suffix: path for path in folder.iterdir()}


ENGINES = (
    *("Keras", "OpenVINO latency", "OpenVINO throughput", "ONNX latency", "ONNX throughput", "SavedModel"),
    *("LiteRT latency", "LiteRT throughput"),
)


@pytest.fixture(scope="module")
def every(model, converted, saved):
    """Every engine in every mode, with the network itself or what was made of it."""
    return {
        "Keras": KerasEngine(model),
        "OpenVINO latency": OpenVinoEngine(converted, "latency"),
        "OpenVINO throughput": OpenVinoEngine(converted, "throughput"),
        "ONNX latency": OnnxEngine(saved[".onnx"], "latency"),
        "ONNX throughput": OnnxEngine(saved[".onnx"], "throughput"),
        "SavedModel": SavedModelEngine(saved[""]),
        "LiteRT latency": LiteRtEngine(saved[".tflite"], "latency"),
        "LiteRT throughput": LiteRtEngine(saved[".tflite"], "throughput"),
    }


@pytest.fixture(scope="module")
def places(every, saved, exported):
    """Places that answer: each a function from uint8 images to logits, up to a constant an image."""
    ends = every | {"Keras, saved": engines.open_saved(saved[".keras"])}
    served = {
        "bundle": OpenVinoEngine(exported.model_path()),
        "bundle, Keras": KerasEngine(exported.folder / exported.models["keras"]),
    }
    answers = {name: (lambda x, engine=engine: engine.predict(x, 8)[0]) for name, engine in ends.items()}
    for name, engine in served.items():
        answers[name] = lambda x, engine=engine: from_probabilities(engine.predict(x, 8)[0])
    return answers


PLACES = (*ENGINES, "Keras, saved", "bundle", "bundle, Keras")


def centred(values):
    return values - values.mean(axis=1, keepdims=True)


@pytest.mark.parametrize("place", PLACES)
def test_place_agrees_with_the_trained_model(places, logits, photos, place):
    assert engines.parity(centred(logits), centred(places[place](photos))) <= engines.PARITY


@pytest.mark.parametrize("place", PLACES)
def test_swapped_channels_are_caught_at_every_place(places, logits, photos, place):
    swapped = np.ascontiguousarray(photos[..., ::-1])
    assert engines.parity(centred(logits), centred(places[place](swapped))) > 100 * engines.PARITY


@pytest.mark.slow
def test_depthwise_convolutions_keep_their_logits_in_both_modes(tmp_path, photos):
    """As a SavedModel too in notebook 07, whose parity is that of MobileNetV2."""
    model = planted.network("mobilenet_v2_0.35")
    logits = np.asarray(model(photos))
    assert logits.std(axis=0).min() > 1e-2 * np.abs(logits).max()
    engines.save_openvino(engines.to_openvino(model), tmp_path / "model.xml")
    engines.to_onnx(model, tmp_path / "model.onnx")
    engines.to_litert(model, tmp_path / "model.tflite")
    for name in ("model.xml", "model.onnx", "model.tflite"):
        for mode in ("latency", "throughput"):
            engine = engines.open_saved(tmp_path / name, mode)
            assert engines.parity(logits, engine.predict(photos)[0]) < FLOAT32
            swapped = engine.predict(np.ascontiguousarray(photos[..., ::-1]))[0]
            assert engines.parity(logits, swapped) > 100 * engines.PARITY


def test_parity_holds_over_http_and_fails_for_swapped_channels(exported, logits, tmp_path):
    paths = [Path(path) for path in planted.manifest().frame["path"]][::-1][:32]
    assert images.read(paths[0]).shape[:2] != planted.SIZE  # files are of another size than the model's input
    swapped = []
    for path in paths[:8]:
        swapped.append(tmp_path / path.name)
        swapped[-1].write_bytes(images.encode_png(images.read(path)[..., ::-1].copy()))
    with client.run_service(exported.folder) as address:
        answers = client.classify(address, [*paths, *swapped])
        with pytest.raises(RunError, match=r"refused image 1 of 1 with status 400") as refused:
            empty = tmp_path / "nothing.png"
            empty.write_bytes(b"no image")
            client.classify(address, [empty])
    assert "\n" not in str(refused.value)
    assert all(list(answer["probabilities"]) == list(planted.CLASSES) for answer in answers)
    assert all(answer["class"] == max(answer["probabilities"], key=answer["probabilities"].get) for answer in answers)
    outputs = from_probabilities(np.array([list(answer["probabilities"].values()) for answer in answers]))
    assert engines.parity(centred(logits), outputs[:32]) <= engines.PARITY
    assert engines.parity(centred(logits)[:8], outputs[32:]) > 100 * engines.PARITY


def test_answers_over_http_keep_every_digit(exported, photos):
    from scanbook.serving.app import create_app

    service = create_app(exported.folder).test_client()
    answer = service.post("/predict", data=images.encode_png(photos[0]), content_type="image/png").get_json()
    [prediction] = answer["predictions"]
    expected = OpenVinoEngine(exported.model_path()).predict(photos[:1])[0][0]
    np.testing.assert_array_equal(np.float32(list(prediction["probabilities"].values())), expected)
    assert prediction["confidence"] == expected.max()


def test_service_that_cannot_start_says_why_and_is_gone(tmp_path):
    with pytest.raises(RunError, match=r"stopped: .*not a bundle") as failed, client.run_service(tmp_path / "nowhere"):
        pass
    assert "\n" not in str(failed.value)
    with pytest.raises(RunError, match="no service answers"):
        client.classify("http://127.0.0.1:9", [Path(planted.manifest().frame["path"][0])])


# engines


@pytest.mark.parametrize("which", ENGINES)
def test_sixteen_threads_get_their_own_answers(every, which):
    engine = every[which]
    photos = planted.pixels()
    shares = [photos[start : start + 1 + start % 4] for start in range(0, 48, 3)]
    alone = [engine.predict(share)[0] for share in shares]
    with ThreadPoolExecutor(16) as pool:
        together = list(pool.map(lambda share: engine.predict(share, 2)[0], shares * 3))
    assert len(shares) == 16
    for result, expected in zip(together, alone * 3, strict=True):
        np.testing.assert_allclose(result, expected, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("which", ENGINES)
@pytest.mark.parametrize("batch_size", [1, 31, 100])
def test_batch_size_changes_nothing(every, logits, photos, which, batch_size):
    outputs = every[which].predict(photos, batch_size)
    assert len(outputs) == 1 and outputs[0].dtype == np.float32
    assert engines.parity(logits, outputs[0]) < FLOAT32


@pytest.mark.parametrize("mode", ["latency", "throughput"])
def test_openvino_computes_in_float32(converted, logits, photos, mode):
    engine = OpenVinoEngine(converted, mode, threads=1)
    assert engine._compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name() == "f32"
    assert engine._compiled.get_property("INFERENCE_NUM_THREADS") == 1
    assert engines.parity(logits, engine.predict(photos)[0]) < FLOAT32


@pytest.mark.parametrize("mode", ["latency", "throughput"])
@pytest.mark.parametrize("suffix", [".keras", ".xml", ".onnx", ".tflite", ""])
def test_saved_model_is_opened_by_its_suffix_and_keeps_float32(saved, logits, photos, suffix, mode):
    engine = engines.open_saved(saved[suffix], mode, threads=1)
    expected = {".keras": "Keras", ".xml": "OpenVINO", ".onnx": "ONNX Runtime", ".tflite": "LiteRT", "": "SavedModel"}
    assert (engine.name, engine.precision) == (expected[suffix], "fp32") and engine.requests >= 1
    assert engines.parity(logits, engine.predict(photos)[0]) < FLOAT32


def test_size_on_disk_counts_weights_that_lie_apart(saved):
    assert engines.size_on_disk(saved[".xml"]) == saved[".xml"].stat().st_size + saved[".bin"].stat().st_size
    assert engines.size_on_disk(saved[".onnx"]) == saved[".onnx"].stat().st_size
    files = [path for path in saved[""].rglob("*") if path.is_file()]
    assert engines.size_on_disk(saved[""]) == sum(path.stat().st_size for path in files)
    weights = 4 * planted.network().count_params()
    for suffix in (".keras", ".xml", ".onnx", ".tflite", ""):
        assert 0.9 * weights < engines.size_on_disk(saved[suffix]) < 1.6 * weights


@pytest.mark.parametrize(
    "name",
    [
        *("model.h5", "missing.keras", "missing.xml", "missing.onnx", "broken.onnx", "missing", "broken"),
        *("missing.tflite", "broken.tflite", "empty.tflite"),
    ],
)
def test_what_is_no_saved_model_is_refused_in_a_line(tmp_path, name):
    (tmp_path / "broken.onnx").write_bytes(b"no model")
    (tmp_path / "broken.tflite").write_bytes(b"no model")
    (tmp_path / "empty.tflite").touch()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "saved_model.pb").write_bytes(b"no model")
    with pytest.raises(ModelError, match=name) as refused:
        engines.open_saved(tmp_path / name)
    assert "\n" not in str(refused.value)


def test_onnx_without_its_packages_says_what_to_install(monkeypatch, saved, tmp_path):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ModelError, match=r'pip install "scanbook\[onnx\]"'):
        engines.open_saved(saved[".onnx"])
    monkeypatch.setitem(sys.modules, "tf2onnx", None)
    with pytest.raises(ModelError, match=r'pip install "scanbook\[onnx\]"'):
        engines.to_onnx(planted.network(), tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


def test_an_activation_with_a_gradient_of_its_own_is_no_output(photos):
    keras = runtime.keras()
    entry = keras.Input(photos.shape[1:], dtype="uint8")
    x = keras.layers.Conv2D(4, 3, activation="swish")(keras.layers.Rescaling(1 / 255)(entry))
    outputs = [keras.layers.GlobalAveragePooling2D()(x), keras.layers.Conv2D(2, 1, activation="swish")(x)]
    network = keras.Model(entry, outputs)
    engine = OpenVinoEngine(engines.to_openvino(network))
    assert engine.outputs == 2
    for output, expected in zip(engine.predict(photos), network(photos), strict=True):
        np.testing.assert_allclose(output, np.asarray(expected), atol=1e-5)


@pytest.mark.parametrize(
    ("write", "name"),
    [(engines.to_onnx, "model.onnx"), (engines.to_saved_model, "model"), (engines.to_litert, "model.tflite")],
)
def test_the_order_of_two_outputs_is_kept_and_nothing_is_said(photos, tmp_path, capfd, write, name):
    exported = grad_cam.add_heat_maps(planted.network("small_cnn"), TEMPERATURE)
    capfd.readouterr()
    write(exported, tmp_path / name)
    engine = engines.open_saved(tmp_path / name)
    assert capfd.readouterr() == ("", "")
    assert [path.name for path in tmp_path.iterdir()] == [name]
    if isinstance(engine, SavedModelEngine):
        assert list(engine._loaded.signatures) == ["serving_default"], "what TensorFlow Serving looks for"
    outputs = engine.predict(photos, 5)
    for ours, theirs in zip(outputs, KerasEngine(exported).predict(photos), strict=True):
        assert ours.shape == theirs.shape and engines.parity(theirs, ours) < FLOAT32


def test_outputs_come_as_probabilities_then_heat_maps(model, exported, logits, photos):
    bias = model.get_layer("logits").get_weights()[1]
    for mode in ("latency", "throughput"):
        probabilities, maps = OpenVinoEngine(exported.model_path(), mode).predict(photos, 5)
        np.testing.assert_allclose(probabilities, softmax(logits / TEMPERATURE, axis=1), atol=1e-5)
        assert maps.shape == (32, 4, 4, 3)
        assert engines.parity(logits, maps.mean((1, 2)) + bias) < FLOAT32


@pytest.mark.parametrize("which", ENGINES)
def test_views_and_read_only_arrays_are_taken_as_they_look(every, which):
    engine = every[which]
    view = planted.pixels()[:8, ::-1, :, ::-1]
    assert not view.flags.c_contiguous and not view.flags.writeable
    np.testing.assert_array_equal(engine.predict(view)[0], engine.predict(np.ascontiguousarray(view))[0])


def test_rows_of_a_file_are_read_a_few_hundred_at_a_time():
    seen = []

    class Sums:
        def predict(self, images):
            seen.append(len(images))
            return images.sum((1, 2, 3)), images[:, 0, 0]

    pictures = np.random.default_rng(0).integers(0, 9, (1300, 2, 2, 3))
    rows = np.random.default_rng(1).permutation(1300)[:1100]
    sums, corners = engines.predict_rows(Sums(), pictures, rows)
    assert np.array_equal(sums, pictures[rows].sum((1, 2, 3))) and np.array_equal(corners, pictures[rows, 0, 0])
    assert seen == [512, 512, 76]


@given(arrays(np.float64, (5, 3), elements=st.floats(-30, 30)))
def test_centred_log_undoes_softmax(logits):
    centred_logs = engines.centred_log(softmax(logits, axis=1))
    np.testing.assert_allclose(centred_logs, logits - logits.mean(1, keepdims=True), atol=1e-6)


def test_centred_log_of_a_zero_is_finite():
    assert np.isfinite(engines.centred_log(np.array([[1.0, 0.0]], np.float32))).all()


def test_parity_is_a_share_of_the_spread():
    reference = np.random.default_rng(0).normal(size=(32, 3))
    assert engines.parity(reference, reference) == 0
    shifted = reference.copy()
    shifted[4, 1] += 0.01 * reference.std()
    assert engines.parity(reference, shifted) == pytest.approx(0.01)
    assert engines.parity(10 * reference, 10 * shifted) == pytest.approx(0.01)


# int8


COUNT = 360
"""Images of the planted colours to learn from, and as many to be tested on."""


@cache
def draw(seed):
    """Images of planted colours, which differ from image to image so much that the best answer is at times wrong."""
    draws = np.random.default_rng(seed)
    y = np.arange(COUNT) % len(planted.CLASSES)
    colours = planted.COLOURS[y] + draws.normal(0, 40, (COUNT, 3))
    texture = draws.normal(0, 25, (COUNT, 8, 8, 3)).repeat(8, 1).repeat(8, 2)
    return np.clip(colours[:, None, None] + texture, 0, 255).astype(np.uint8), y


def learned(name):
    """A network whose head was fitted to synthetic images, and its features left as they came."""
    x, y = draw(0)
    network = backbones.networks.keras.models.clone_model(planted.network(name))
    network.set_weights(planted.network(name).get_weights())
    features = KerasEngine(backbones.pooled(network)).predict(x)[0]
    head = make_pipeline(StandardScaler(), LogisticRegression(C=0.1)).fit(features, y)
    scaler, line = head[0], head[1]
    kernel = (line.coef_ / scaler.scale_).T
    network.get_layer(backbones.LOGITS).set_weights([kernel, line.intercept_ - scaler.mean_ @ kernel])
    return network


@pytest.fixture(scope="module")
def trained():
    """As it is exported, with heat maps, and its answers to test images."""
    exported = grad_cam.add_heat_maps(learned("baseline_cnn"), 1.0)
    x, y = draw(1)
    logits = engines.centred_log(KerasEngine(exported).predict(x)[0])
    assert 0.8 < (logits.argmax(1) == y).mean() < 0.99
    return exported, engines.to_openvino(exported), logits


@pytest.fixture(scope="module")
def quantised(trained):
    return engines.quantise(trained[1], draw(0)[0][:48])


def kinds(model):
    return [node.get_type_name() for node in model.get_ops()]


def test_int8_is_as_often_right_and_computes_in_integers(trained, quantised):
    _, converted, logits = trained
    x, y = draw(1)
    engine = OpenVinoEngine(quantised, "throughput")
    assert engine.precision == "int8" and OpenVinoEngine(converted).precision == "fp32"
    probabilities, maps = engine.predict(x)
    assert probabilities.shape == (COUNT, 3) and maps.shape == (COUNT, 4, 4, 3)
    int8_logits = engines.centred_log(probabilities)
    assert engines.parity(logits, int8_logits) > 10 * engines.PARITY  # another arithmetic
    assert engines.rejection_reason("int8", logits, int8_logits, y) == ""
    layers = [node.get_rt_info() for node in engine._compiled.get_runtime_model().get_ops()]
    used = [layer["runtimePrecision"] for layer in layers if layer["layerType"] == "Convolution"]
    assert len(used) >= 4 and set(used) <= {"u8", "i8"}


def test_same_images_give_the_same_int8_in_silence_and_leave_the_model_alone(trained, quantised, capfd, monkeypatch):
    monkeypatch.setenv("SCANBOOK_HEADLESS", "1")
    x, _ = draw(1)
    capfd.readouterr()
    again = engines.quantise(trained[1], draw(0)[0][:48])
    assert capfd.readouterr() == ("", "")
    for ours, theirs in zip(OpenVinoEngine(quantised).predict(x), OpenVinoEngine(again).predict(x), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert "FakeQuantize" in kinds(again) and "FakeQuantize" not in kinds(trained[1])
    assert sys.modules["openvino_telemetry"] is None  # nothing is reported to anybody


def test_int8_calibrated_on_grey_images_is_refused_with_the_figures(trained):
    _, converted, logits = trained
    x, y = draw(1)
    grey = engines.quantise(converted, np.full_like(x[:4], 127))
    int8_logits = engines.centred_log(OpenVinoEngine(grey).predict(x)[0])
    reason = engines.rejection_reason("int8", logits, int8_logits, y)
    right, expected = int((int8_logits.argmax(1) == y).sum()), int((logits.argmax(1) == y).sum())
    assert f"{right} of {COUNT}" in reason and f"{right / COUNT:.1%}" in reason and str(expected) in reason
    assert "\n" not in reason


def test_int8_is_written_and_read_again_smaller(trained, quantised, tmp_path):
    x, _ = draw(1)
    for name, network in {"fp32": trained[1], "int8": quantised}.items():
        engines.save_openvino(network, tmp_path / f"{name}.xml")
    fp32, int8 = (tmp_path / f"{name}.xml" for name in ("fp32", "int8"))
    assert engines.size_on_disk(int8) < 0.5 * engines.size_on_disk(fp32)
    assert int8.with_suffix(".bin").stat().st_size < 0.3 * fp32.with_suffix(".bin").stat().st_size
    reopened = engines.open_saved(int8)
    assert reopened.precision == "int8"
    np.testing.assert_array_equal(reopened.predict(x)[0], OpenVinoEngine(quantised).predict(x)[0])


# refusals


def logits_of(right, n):
    """Logits of two classes that are right on the first images, where the true class is 0 throughout."""
    logits = np.tile([[0.0, 1.0]], (n, 1))
    logits[:right] = [1.0, 0.0]
    return logits


@pytest.mark.parametrize(
    ("n", "reference", "other", "allowed"),
    [
        (50, 45, 45, True),
        (50, 45, 44, False),
        (100, 90, 89, True),
        (100, 90, 88, False),
        (700, 600, 593, True),
        (700, 600, 592, False),
        (50, 45, 48, True),
    ],
)
def test_int8_may_lose_one_point_and_no_more(n, reference, other, allowed):
    reason = engines.rejection_reason("int8", logits_of(reference, n), logits_of(other, n), np.zeros(n, int))
    assert (reason == "") == allowed
    assert allowed or (f"{other} of {n} images" in reason and f"{other / n:.1%}" in reason and "1 %" in reason)


def test_int8_of_findings_may_lose_neither_labels_nor_their_order():
    draw = np.random.default_rng(6)
    y = (draw.random((400, 2)) < (0.03, 0.5)).astype(float)
    y[draw.random(y.shape) < 0.3] = np.nan
    reference = 3 * (np.nan_to_num(y) - 0.5) * (1, 2) - (3, 0) + draw.normal(size=y.shape)
    assert engines.rejection_reason("int8", reference, reference + draw.normal(0, 0.01, y.shape), y) == ""
    unranked = reference.copy()
    unranked[:, 0] = draw.permutation(unranked[:, 0])  # of the rare finding: nearly all is as absent as it was
    assert "int8: macro AUROC 0." in engines.rejection_reason("int8", reference, unranked, y)
    moved = reference + np.array([0, 2])  # in the same order
    labelled = int((~np.isnan(y)).sum())
    assert f"of {labelled} labels" in engines.rejection_reason("int8", reference, moved, y)
    assert engines.rejection_reason("fp32", reference, reference, y) == ""


def test_fp32_is_refused_beyond_parity_however_often_it_is_right(logits, photos):
    y_true = logits.argmax(1)
    for share, allowed in ((0.5, True), (1.5, False)):
        other = logits.copy()
        other[5, 1] += share * engines.PARITY * logits.std()
        reason = engines.rejection_reason("fp32", logits, other, y_true)
        assert (reason == "") == allowed and (allowed or ("0.0015" in reason and "32 images" in reason))


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_logits_that_are_no_numbers_are_refused(precision):
    broken = logits_of(20, 50)
    broken[7] = np.nan
    assert "1 of 50 images" in engines.rejection_reason(precision, logits_of(20, 50), broken, np.zeros(50, int))


def test_several_networks_are_not_taken_for_one_that_is_traced_again(caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("tensorflow"), "propagate", True)
    caplog.set_level(logging.WARNING, "tensorflow")
    # TensorFlow warns only twice about one function, and other tests may have used that up
    functions = sys.modules["tensorflow.python.eager.polymorphic_function.polymorphic_function"]
    monkeypatch.setattr(functions, "FREQUENT_TRACING_WARNING_MAX_WARNING_PER_DETECTOR", 1000, raising=False)
    keras = runtime.keras()
    pixel = keras.Input((1, 1, 3), dtype="uint8")
    for _ in range(12):
        outputs = keras.layers.Dense(2)(keras.layers.Flatten()(keras.layers.Rescaling(1.0)(pixel)))
        KerasEngine(keras.Model(pixel, outputs)).predict(np.zeros((2, 1, 1, 3), np.uint8))
    assert "retracing" not in caplog.text


@pytest.fixture(scope="module")
def attending():
    """A network with an exact GELU, a grouped convolution and attention between the pixels."""
    layers = backbones.networks.layers
    images = backbones.networks.keras.Input((8, 8, 3), dtype="uint8")
    x = layers.Conv2D(8, 3, use_bias=False)(layers.Rescaling(1 / 255)(images))
    x = layers.Conv2D(8, 3, groups=4)(x)
    x = layers.Activation(lambda values: backbones.networks.keras.ops.gelu(values, approximate=False))(x)
    tokens = layers.Reshape((16, 8))(x)
    tokens = layers.MultiHeadAttention(2, 4)(tokens, tokens)
    logits = layers.Dense(3)(layers.GlobalAveragePooling1D()(tokens))
    return backbones.networks.keras.Model(images, logits)


def test_onnx_has_exact_gelu_and_grouped_convolutions(attending, tmp_path):
    photos = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3), np.uint8)
    engines.to_onnx(attending, tmp_path / "model.onnx")
    expected = np.asarray(attending(photos))
    assert engines.parity(expected, OnnxEngine(tmp_path / "model.onnx").predict(photos)[0]) < engines.PARITY


def test_attention_is_told_from_a_softmax_over_classes(attending, converted):
    assert engines.quantising._has_attention(engines.to_openvino(attending).get_ordered_ops())
    assert not engines.quantising._has_attention(converted.get_ordered_ops())
