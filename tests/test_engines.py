"""Engines: one answer whatever the engine, the batch, the thread and the place, from Keras to HTTP."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.special import softmax

import planted
from scanbook import engines, export, images, runtime
from scanbook.engines import KerasEngine, OpenVinoEngine
from scanbook.errors import RunError
from scanbook.serving import client

TEMPERATURE = 1.7
FLOAT32 = 2e-4
"""Largest difference that float32 explains in a deep network; bfloat16 moves its logits by more than 1e-2."""


@pytest.fixture(scope="module")
def photos():
    return planted.pixels()[::-1][:32]


@pytest.fixture(scope="module")
def model():
    return planted.network("mobilenet_v2_0.35")


@pytest.fixture(scope="module")
def converted(model):
    return engines.to_openvino(model)


@pytest.fixture(scope="module")
def logits(model, photos):
    found = KerasEngine(model).predict(photos)[0]
    assert found.std(axis=0).min() > 1e-2 * np.abs(found).max()  # the answers differ from image to image
    return found


@pytest.fixture(scope="module")
def exported(model, tmp_path_factory):
    return planted.export(tmp_path_factory.mktemp("export") / "bundle", model, TEMPERATURE)


def from_probabilities(probabilities):
    return TEMPERATURE * engines.centred_log(probabilities)


# parity: each place answers RGB images as the Keras model does, and would be caught if it took them for BGR


@pytest.fixture(scope="module")
def places(model, converted, exported, tmp_path_factory):
    """Places that answer: each a function from uint8 images to logits, up to a constant an image."""
    saved = tmp_path_factory.mktemp("saved") / "model.keras"
    model.save(saved)
    ends = {
        "keras": KerasEngine(model),
        "reloaded": KerasEngine(runtime.keras().models.load_model(saved, compile=False)),
        "latency": OpenVinoEngine(converted, "latency"),
        "throughput": OpenVinoEngine(converted, "throughput"),
    }
    served = {
        "bundle": OpenVinoEngine(exported.model),
        "bundle, Keras": KerasEngine(
            runtime.keras().models.load_model(exported.folder / exported.models["keras"], compile=False)
        ),
    }
    found = {name: (lambda x, engine=engine: engine.predict(x, 8)[0]) for name, engine in ends.items()}
    for name, engine in served.items():
        found[name] = lambda x, engine=engine: from_probabilities(engine.predict(x, 8)[0])
    return found


PLACES = ("reloaded", "latency", "throughput", "bundle", "bundle, Keras")


def centred(values):
    return values - values.mean(axis=1, keepdims=True)


@pytest.mark.parametrize("place", PLACES)
def test_place_agrees_with_the_trained_model(places, logits, photos, place):
    assert engines.parity(centred(logits), centred(places[place](photos))) <= export.PARITY


@pytest.mark.parametrize("place", ("keras", *PLACES))
def test_swapped_channels_are_caught_at_every_place(places, logits, photos, place):
    swapped = np.ascontiguousarray(photos[..., ::-1])
    assert engines.parity(centred(logits), centred(places[place](swapped))) > 100 * export.PARITY


def test_parity_holds_over_http_and_fails_for_swapped_channels(exported, logits, tmp_path):
    paths = [Path(path) for path in planted.manifest().frame["path"]][::-1][:32]
    assert images.read(paths[0]).shape[:2] != planted.SIZE  # files are of another size than the model's input
    swapped = []
    for path in paths[:8]:
        swapped.append(tmp_path / path.name)
        swapped[-1].write_bytes(images.encode_png(images.read(path)[..., ::-1].copy()))
    with client.running(exported.folder) as address:
        answers = client.ask(address, [*paths, *swapped])
        with pytest.raises(RunError, match=r"refused image 1 of 1 with status 400") as refused:
            empty = tmp_path / "nothing.png"
            empty.write_bytes(b"no image")
            client.ask(address, [empty])
    assert "\n" not in str(refused.value)
    assert all(list(answer["probabilities"]) == list(planted.CLASSES) for answer in answers)
    assert all(answer["class"] == max(answer["probabilities"], key=answer["probabilities"].get) for answer in answers)
    found = from_probabilities(np.array([list(answer["probabilities"].values()) for answer in answers]))
    assert engines.parity(centred(logits), found[:32]) <= export.PARITY
    assert engines.parity(centred(logits)[:8], found[32:]) > 100 * export.PARITY


def test_answers_over_http_keep_every_digit(exported, photos):
    from scanbook.serving import create_app

    service = create_app(exported.folder).test_client()
    answer = service.post("/predict", data=images.encode_png(photos[0]), content_type="image/png").get_json()
    [prediction] = answer["predictions"]
    expected = OpenVinoEngine(exported.model).predict(photos[:1])[0][0]
    np.testing.assert_array_equal(np.float32(list(prediction["probabilities"].values())), expected)
    assert prediction["confidence"] == expected.max()


def test_service_that_cannot_start_says_why_and_is_gone(tmp_path):
    with pytest.raises(RunError, match=r"stopped: .*no bundle") as failed, client.running(tmp_path / "nowhere"):
        pass
    assert "\n" not in str(failed.value)
    with pytest.raises(RunError, match="no service answers"):
        client.ask("http://127.0.0.1:9", [Path(planted.manifest().frame["path"][0])])


# engines


@pytest.fixture(scope="module")
def three(model, converted):
    return [OpenVinoEngine(converted, "latency"), OpenVinoEngine(converted, "throughput"), KerasEngine(model)]


@pytest.mark.parametrize("which", range(3), ids=["latency", "throughput", "keras"])
def test_sixteen_threads_get_their_own_answers(three, which):
    engine = three[which]
    photos = planted.pixels()
    shares = [photos[start : start + 1 + start % 4] for start in range(0, 48, 3)]
    alone = [engine.predict(share)[0] for share in shares]
    with ThreadPoolExecutor(16) as pool:
        together = list(pool.map(lambda share: engine.predict(share, 2)[0], shares * 3))
    assert len(shares) == 16
    for found, expected in zip(together, alone * 3, strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("which", range(3), ids=["latency", "throughput", "keras"])
@pytest.mark.parametrize("batch_size", [1, 7, 31, 32, 100])
def test_batch_size_changes_nothing(three, logits, photos, which, batch_size):
    found = three[which].predict(photos, batch_size)
    assert len(found) == 1 and found[0].dtype == np.float32
    assert engines.parity(logits, found[0]) < FLOAT32


@pytest.mark.parametrize("mode", ["latency", "throughput"])
def test_openvino_computes_in_float32(converted, logits, photos, mode):
    engine = OpenVinoEngine(converted, mode, threads=1)
    assert engine._compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name() == "f32"
    assert engine._compiled.get_property("INFERENCE_NUM_THREADS") == 1
    assert engines.parity(logits, engine.predict(photos)[0]) < FLOAT32


def test_saved_model_keeps_float32(converted, logits, photos, tmp_path):
    engines.save_openvino(converted, tmp_path / "model.xml")
    assert engines.parity(logits, OpenVinoEngine(tmp_path / "model.xml").predict(photos)[0]) < FLOAT32


def test_outputs_come_as_probabilities_then_heat_maps(model, exported, logits, photos):
    bias = model.get_layer("logits").get_weights()[1]
    for mode in ("latency", "throughput"):
        probabilities, maps = OpenVinoEngine(exported.model, mode).predict(photos, 5)
        np.testing.assert_allclose(probabilities, softmax(logits / TEMPERATURE, axis=1), atol=1e-5)
        assert maps.shape == (32, 2, 2, 3)
        assert engines.parity(logits, maps.mean((1, 2)) + bias) < FLOAT32


@pytest.mark.parametrize("which", range(3), ids=["latency", "throughput", "keras"])
def test_views_and_read_only_arrays_are_taken_as_they_look(three, which):
    engine = three[which]
    view = planted.pixels()[:8, ::-1, :, ::-1]
    assert not view.flags.c_contiguous and not view.flags.writeable
    np.testing.assert_array_equal(engine.predict(view)[0], engine.predict(np.ascontiguousarray(view))[0])


@given(arrays(np.float64, (5, 3), elements=st.floats(-30, 30)))
def test_centred_log_undoes_softmax(logits):
    found = engines.centred_log(softmax(logits, axis=1))
    np.testing.assert_allclose(found, logits - logits.mean(1, keepdims=True), atol=1e-6)


def test_centred_log_of_a_zero_is_finite():
    assert np.isfinite(engines.centred_log(np.array([[1.0, 0.0]], np.float32))).all()


def test_parity_is_a_share_of_the_spread():
    reference = np.random.default_rng(0).normal(size=(32, 3))
    assert engines.parity(reference, reference) == 0
    shifted = reference.copy()
    shifted[4, 1] += 0.01 * reference.std()
    assert engines.parity(reference, shifted) == pytest.approx(0.01)
    assert engines.parity(10 * reference, 10 * shifted) == pytest.approx(0.01)
