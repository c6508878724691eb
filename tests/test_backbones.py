"""Networks: flat, preprocessed as their weights expect, and loaded array by array."""

import importlib

import numpy as np
import pytest

import planted
from scanbook import backbones, engines, explain
from scanbook.backbones import RANDOM, Weights
from scanbook.catalogue import BACKBONES
from scanbook.errors import ModelError

keras = backbones.keras
layers = keras.layers
SMALL = ["baseline_cnn", "mobilenet_v2_0.35", "mobilenet_0.25"]
SHIPPED = backbones.SHIPPED / BACKBONES["mobilenet_v2_0.35"].shipped
PREPROCESSING = {
    "mobilenet_v2_0.35": "mobilenet_v2",
    "mobilenet_v2_1.0": "mobilenet_v2",
    "mobilenet_0.25": "mobilenet",
    "mobilenet_1.0": "mobilenet",
    "efficientnet_b0": "efficientnet",
    "densenet121": "densenet",
    "resnet50": "resnet",
    "resnet50_v2": "resnet_v2",
    "vgg16": "vgg16",
    # KerasHub's ResNet18 came from timm, which normalises as densenet's "torch" mode does
    "resnet18": "densenet",
}
PARAMETERS = {  # of keras.applications without top, and of KerasHub's ResNet18
    "mobilenet_v2_0.35": 410_208,
    "mobilenet_0.25": 218_544,
    "mobilenet_1.0": 3_228_864,
    "efficientnet_b0": 4_049_571,
    "densenet121": 7_037_504,
    "resnet50": 23_587_712,
    "resnet50_v2": 23_564_800,
    "vgg16": 14_714_688,
    "resnet18": 11_187_651 - 3 * 513,
}
HEAVY = {"efficientnet_b0", "densenet121", "resnet50", "resnet50_v2", "vgg16", "resnet18"}


def marked(names):
    return [pytest.param(name, marks=pytest.mark.slow) if name in HEAVY else name for name in names]


def own_preprocessing(name, images):
    module = importlib.import_module(f"keras.applications.{PREPROCESSING[name]}")
    return np.asarray(module.preprocess_input(images.astype(np.float32)))


@pytest.fixture(autouse=True)
def _release_memory(request):
    yield
    if request.node.get_closest_marker("slow"):
        keras.utils.clear_session()


# shape


@pytest.mark.parametrize("name", SMALL)
def test_network_is_flat_and_takes_bytes(name):
    model = backbones.build(name, (48, 64), 5)
    assert not any(isinstance(layer, keras.Model) for layer in model.layers)
    assert model.inputs[0].dtype == "uint8" and model.input_shape == (None, 48, 64, 3)
    assert model.output_shape == (None, 5)
    feature_map, features, logits = (
        model.get_layer(name).output for name in (backbones.FEATURE_MAP, backbones.FEATURES, backbones.LOGITS)
    )
    assert feature_map.ndim == 4 and features.shape == (None, feature_map.shape[-1]) and logits.shape == (None, 5)
    momenta = {layer.momentum for layer in model.layers if isinstance(layer, layers.BatchNormalization)}
    assert momenta == {0.9}


def test_pretrained_network_keeps_its_momentum():
    model = backbones.build("mobilenet_v2_0.35", planted.SIZE, 3, planted.weights("mobilenet_v2_0.35"))
    momenta = {layer.momentum for layer in model.layers if isinstance(layer, layers.BatchNormalization)}
    assert momenta == {0.999}


@pytest.mark.parametrize("name", marked(PARAMETERS))
def test_parameters_are_the_published_ones(name):
    model = backbones.build(name, (64, 64), 3)
    channels = model.get_layer(backbones.FEATURES).output.shape[-1]
    counted = backbones.summary(model)
    assert counted["parameters"] - 3 * (channels + 1) == PARAMETERS[name]
    assert 0 < counted["trainable"] <= counted["parameters"]
    assert counted["size (MiB)"] == pytest.approx(counted["parameters"] * 4 / 2**20, abs=0.01)


@pytest.mark.parametrize("name", PREPROCESSING)
def test_preprocessing_is_that_of_the_weights(name):
    images = keras.Input((64, 64, 3), dtype="uint8")
    model = keras.Model(images, backbones._preprocess(images, BACKBONES[name]))
    photos = planted.pixels()[:4]
    np.testing.assert_allclose(np.asarray(model(photos)), own_preprocessing(name, photos), rtol=1e-5, atol=1e-4)


def test_every_pretrained_backbone_is_held_against_its_own_preprocessing():
    assert set(PREPROCESSING) == {spec.name for spec in BACKBONES.values() if spec.pretrained}


def stand_in(donor, name):
    """Stands in for downloaded weights, with batch-norm statistics from data, or no image would differ from another."""
    for layer in donor.layers:
        if isinstance(layer, layers.Normalization):  # as in EfficientNet's ImageNet weights
            layer.set_weights([np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225]), np.array(0)])
            layer.finalize_state()
    return planted.use_data_statistics(donor, own_preprocessing(name, planted.pixels()[::3]))


@pytest.mark.parametrize("name", marked(PREPROCESSING))
def test_network_with_imagenet_weights_gives_the_donor_s_features(name, monkeypatch, tmp_path):
    """From the builder's own network with "ImageNet" weights, through the file, to scanbook's: the same feature map."""
    photos, expected = planted.pixels()[::3], []
    keras.utils.set_random_seed(0)

    def fill(donor, *_, **__):
        stand_in(donor, name)
        expected.append(np.asarray(donor(own_preprocessing(name, photos))))

    monkeypatch.setattr("keras.src.utils.file_utils.get_file", lambda *_, **__: "weights")
    monkeypatch.setattr(keras.Model, "load_weights", fill)
    if name == "resnet18":
        import keras_hub

        backbone = keras_hub.models.ResNetBackbone(
            [64], [7], [64, 128, 256, 512], [2, 2, 2, 2], [1, 2, 2, 2], "basic_block", image_shape=(None, None, 3)
        )
        fill(backbone)
        monkeypatch.setattr(keras_hub.models.ResNetBackbone, "from_preset", lambda *_, **__: backbone)
    backbones._fetch_imagenet(BACKBONES[name], tmp_path)
    built = backbones.build(name, planted.SIZE, 3, Weights("imagenet", tmp_path / "weights.npz"))
    found = np.asarray(keras.Model(built.input, built.get_layer(backbones.FEATURE_MAP).output)(photos))
    assert expected[0].std(axis=0).max() > 0.05 * expected[0].std()
    assert engines.parity(expected[0], found) < 1e-3


# weights


def test_weights_come_back_as_they_were_saved(tmp_path):
    model = planted.network()
    again = backbones.build("baseline_cnn", planted.SIZE, 3, planted.weights())
    for kept, loaded in zip(backbones.body_weights(model), backbones.body_weights(again), strict=True):
        np.testing.assert_array_equal(kept, loaded)
    found = engines.KerasEngine(backbones.pooled(again)).predict(planted.pixels())[0]
    np.testing.assert_array_equal(found, engines.KerasEngine(backbones.pooled(model)).predict(planted.pixels())[0])


def broken(kind, path):
    good = backbones.body_weights(planted.network())
    if kind == "too few":
        np.savez(path, *good[:-1])
    elif kind == "too many":
        np.savez(path, *good, good[0])
    elif kind == "another shape":
        np.savez(path, good[0][..., :-1], *good[1:])
    elif kind == "no archive":
        path.write_bytes(b"no archive")
    elif kind == "a single array":
        with path.open("wb") as file:
            np.save(file, good[0])
    elif kind == "truncated":
        np.savez(path, *good)
        path.write_bytes(path.read_bytes()[:2000])
    elif kind == "altered":
        np.savez_compressed(path, *good)
        content = bytearray(path.read_bytes())
        content[len(content) // 2 : len(content) // 2 + 64] = bytes(64)
        path.write_bytes(bytes(content))
    return Weights("scanbook", path, "digest")


KINDS = ["too few", "too many", "another shape", "no archive", "a single array", "truncated", "altered", "missing"]


@pytest.mark.parametrize("kind", KINDS)
def test_weights_that_do_not_fit_are_one_line(tmp_path, kind):
    path = tmp_path / "weights.npz"
    with pytest.raises(ModelError, match=r"weights\.npz") as refused:
        backbones.build("baseline_cnn", planted.SIZE, 3, broken(kind, path))
    assert "\n" not in str(refused.value)


def test_unknown_names_are_one_line():
    with pytest.raises(ModelError, match="unknown policy of weights 'imagenette'; expected one of auto, imagenet"):
        backbones.pretrained("mobilenet_v2_0.35", "imagenette")
    for call in (lambda: backbones.pretrained("lenet", "auto"), lambda: backbones.build("lenet", (64, 64), 2)):
        with pytest.raises(ModelError, match="unknown backbone 'lenet'; expected one of baseline_cnn, mobilenet"):
            call()


@pytest.fixture
def offline(monkeypatch):
    """A machine without the files: every download fails."""

    def refuse(*_, **__):
        raise OSError("no route to host\nand a second line")

    monkeypatch.setattr("keras.src.utils.file_utils.get_file", refuse)


@pytest.fixture
def shipped(monkeypatch, tmp_path):
    """Weights in the place of the shipped ones."""
    path = tmp_path / BACKBONES["mobilenet_v2_0.35"].shipped
    path.write_bytes(planted.weights("mobilenet_v2_0.35").path.read_bytes())
    monkeypatch.setattr(backbones, "SHIPPED", tmp_path)
    return path


NAMES = ["mobilenet_v2_0.35", "baseline_cnn", "mobilenet_0.25"]


def test_auto_falls_back_to_shipped_weights_and_gives_reasons(offline, shipped, monkeypatch, tmp_path):
    monkeypatch.setenv("SCANBOOK_STORE", str(tmp_path / "store"))
    found, missing = backbones.resolve(planted.study(backbones=NAMES))
    assert list(found) == ["mobilenet_v2_0.35"] and found["mobilenet_v2_0.35"].source == "scanbook"
    assert found["mobilenet_v2_0.35"].path == shipped and len(found["mobilenet_v2_0.35"].digest) == 64
    assert list(missing) == ["mobilenet_0.25"]
    assert "no ImageNet weights for mobilenet_0.25" in missing["mobilenet_0.25"]
    assert "no route to host" in missing["mobilenet_0.25"] and "\n" not in missing["mobilenet_0.25"]
    assert not list((tmp_path / "store" / "imagenet").glob("*/")), "a failed download left a stage behind"
    said = backbones.describe(found, missing)
    assert "drawn images (shipped with scanbook)" in said and "Not run: no ImageNet weights for mobilenet_0.25" in said


def test_imagenet_means_imagenet(offline, shipped, monkeypatch, tmp_path):
    monkeypatch.setenv("SCANBOOK_STORE", str(tmp_path / "store"))
    found, missing = backbones.resolve(planted.study(backbones=NAMES, weights="imagenet"))
    assert not found and list(missing) == ["mobilenet_v2_0.35", "mobilenet_0.25"]


def test_scanbook_means_the_shipped_ones(shipped):
    found, missing = backbones.resolve(planted.study(backbones=NAMES, weights="scanbook"))
    assert list(found) == ["mobilenet_v2_0.35"] and "ships no weights for mobilenet_0.25" in missing["mobilenet_0.25"]
    shipped.unlink()
    found, missing = backbones.resolve(planted.study(backbones=NAMES, weights="scanbook"))
    assert not found and "are missing; run make pretrain" in missing["mobilenet_v2_0.35"]


def test_none_means_none_with_a_reason():
    found, missing = backbones.resolve(planted.study(backbones=NAMES, weights="none"))
    assert not found and list(missing) == ["mobilenet_v2_0.35", "mobilenet_0.25"]
    assert all("sets weights to none" in reason for reason in missing.values())
    assert backbones.pretrained("mobilenet_0.25", "none") == RANDOM
    with pytest.raises(ModelError, match="baseline_cnn has no pretrained weights"):
        backbones.pretrained("baseline_cnn", "auto")


@pytest.mark.skipif(not SHIPPED.is_file(), reason="the shipped weights are not trained yet: run make pretrain")
def test_shipped_weights_tell_images_apart():
    assert SHIPPED.stat().st_size < 2**20
    weights = backbones.pretrained("mobilenet_v2_0.35", "scanbook")
    model = backbones.pooled(backbones.build("mobilenet_v2_0.35", planted.SIZE, 3, weights))
    found = engines.KerasEngine(model).predict(planted.pixels())[0]
    assert np.isfinite(found).all()
    between = np.linalg.norm(found - found.mean(0), axis=1).mean() / np.linalg.norm(found.mean(0))
    assert between > 0.05


@pytest.mark.slow
@pytest.mark.parametrize("name", BACKBONES)
def test_backbone_does_all_that_is_asked_of_one(name, tmp_path):
    """Builds, trains a step, is saved and reloaded, runs in OpenVINO, and shows where it looks."""
    photos = planted.pixels()[::-1]
    keras.utils.set_random_seed(0)
    model = backbones.build(name, planted.SIZE, 3)
    assert not any(isinstance(layer, keras.Model) for layer in model.layers)
    before = model.get_layer(backbones.LOGITS).get_weights()[0]
    model.compile(keras.optimizers.Adam(1e-4), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    loss = model.fit(photos[::7][:8], planted.manifest().y[::-1][::7][:8], batch_size=8, verbose=0).history["loss"][0]
    assert np.isfinite(loss) and not np.array_equal(before, model.get_layer(backbones.LOGITS).get_weights()[0])
    planted.use_data_statistics(model, photos[:32])
    logits = engines.KerasEngine(model).predict(photos[:32])[0]
    assert logits.std(axis=0).min() > 1e-3 * np.abs(logits).max()
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras", compile=False)
    assert engines.parity(logits, engines.KerasEngine(again).predict(photos[:32])[0]) < 1e-5
    exported = explain.with_heat_maps(again, 1.3)
    probabilities, maps = engines.OpenVinoEngine(engines.to_openvino(exported)).predict(photos[:32])
    spread = logits - logits.mean(1, keepdims=True)
    assert engines.parity(spread, 1.3 * engines.centred_log(probabilities)) <= 1e-3
    swapped = engines.OpenVinoEngine(engines.to_openvino(again)).predict(photos[:32, ..., ::-1])[0]
    assert engines.parity(logits, swapped) > 1e-3
    bias = model.get_layer(backbones.LOGITS).get_weights()[1]
    assert engines.parity(logits, maps.mean((1, 2)) + bias) <= 1e-3
    heat = explain.grad_cam(maps, logits.argmax(1), planted.SIZE)
    assert heat.shape == (32, 64, 64) and heat.min() >= 0 and heat.max() <= 1
