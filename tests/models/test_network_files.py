"""Networks of a user's files (`file:`): what is taken, as it is, and what is refused before it is opened."""

import json
import zipfile

import cv2
import numpy as np
import pytest

from helpers import planted
from scanbook.config import Head, Pretraining
from scanbook.errors import ModelError
from scanbook.models import backbones, heads
from scanbook.models.backbones import files, networks
from scanbook.registry import BACKBONES

keras = networks.keras
layers = keras.layers
STATED = Pretraining(scaling="0..1")


def images(side=None, channels=3):
    return keras.Input((side, side, channels))


def convolved(x):
    return layers.Conv2D(4, 3, activation="relu")(x)


def network(kind):
    x = images()
    if kind == "vector":
        return keras.Model(x, layers.GlobalAveragePooling2D()(convolved(x)))
    if kind == "sequential":
        return keras.Sequential([images(64), layers.Conv2D(4, 3), layers.GlobalAveragePooling2D()])
    if kind == "nested":
        inner = keras.Model(x, convolved(x))
        outer = images()
        return keras.Model(outer, layers.Conv2D(5, 1)(inner(layers.Rescaling(2.0, -1.0)(outer))))
    if kind == "fixed size":
        x = images(96)
    if kind == "KerasHub":
        config = BACKBONES["resnet18"].arguments["config"]
        small = {"stackwise_num_filters": [64, 64], "stackwise_num_blocks": [1, 1], "stackwise_num_strides": [1, 2]}
        return networks._from_config(_resnet(config | small), (64, 64))
    if kind == "own names":
        x = keras.Input((None, None, 3), name="images")
        y = layers.Rescaling(2.0, name="rescaling")(layers.Conv2D(4, 3, name="preprocessing")(x))
        return keras.Model(x, layers.Dense(4, name="hidden_1")(layers.Activation("relu", name="features")(y)))
    if kind == "mixed precision":
        return keras.Model(x, layers.Conv2D(4, 3, dtype="mixed_bfloat16")(x))
    if kind == "bfloat16":
        return keras.Model(x, layers.Conv2D(4, 3, dtype="bfloat16")(x))
    return keras.Model(x, convolved(x))


def _resnet(config):
    return networks.BackboneSpec("small", BACKBONES["resnet18"].builder, STATED.stated_scaling, {"config": config})


def save(model, folder):
    path = folder / "network.keras"
    model.save(path)
    return f"file:{path}"


KINDS = ["map", "vector", "sequential", "nested", "fixed size", "KerasHub", "mixed precision", "bfloat16", "own names"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_network_computes_what_it_did_before_it_was_saved(kind, tmp_path):
    keras.utils.set_random_seed(0)
    model = network(kind)
    name = save(model, tmp_path)
    built = backbones.build(name, planted.SIZE, 3, files.read_network(name, STATED))
    assert not any(isinstance(layer, keras.Model) for layer in built.layers)
    assert built.get_layer(backbones.FEATURE_MAP).output.dtype == "float32"
    photos = planted.pixels()[:4]
    inputs = photos / np.float32(255)
    if kind == "fixed size":
        inputs = np.stack([cv2.resize(photo, (96, 96)) for photo in photos]) / np.float32(255)
        built = backbones.build(name, (96, 96), 3, files.read_network(name, STATED))
        photos = (inputs * 255).round().astype(np.uint8)
    expected = np.asarray(model(inputs)).astype(np.float32)
    expected = expected.mean((1, 2)) if expected.ndim == 4 else expected
    tolerance = 2e-2 if kind in ("mixed precision", "bfloat16") else 1e-5
    np.testing.assert_allclose(np.asarray(backbones.pooled(built)(photos)), expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(("output", "last"), [("softmax", "logits"), ("sigmoid", "score")])
def test_names_of_a_network_s_layers_are_not_taken_for_those_of_the_head(output, last, tmp_path):
    name = save(network("own names"), tmp_path)
    weights = files.read_network(name, STATED)
    keras.backend.clear_session()  # as in the next process, which gives names from the first on
    built = backbones.build(name, planted.SIZE, 2, weights, Head(units=[3], output=output))
    assert [layer.name for layer in heads.head_layers(built)] == ["hidden_1", last]
    assert [layer.units for layer in heads.head_layers(built)] == [3, 2 if output == "softmax" else 1]
    assert built.get_layer(backbones.FEATURE_MAP).output.shape[-1] == 4


def test_a_network_of_fixed_size_takes_others_where_its_layers_do(tmp_path):
    name = save(network("fixed size"), tmp_path)
    model = backbones.build(name, (64, 80), 3, files.read_network(name, STATED))
    assert model.get_layer(backbones.FEATURE_MAP).output.shape == (None, 62, 78, 4)


def refusal(name, size=planted.SIZE, stated=STATED):
    with pytest.raises(ModelError) as refused:
        backbones.build(name, size, 3, files.read_network(name, stated))
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_a_size_that_does_not_fit_names_the_network_s_own(tmp_path):
    x = images(96)
    name = save(keras.Model(x, layers.Dense(3)(layers.Flatten()(convolved(x)))), tmp_path)
    assert "does not take images of 64×64 pixels" in (text := refusal(name)) and text.endswith("its own, 96×96")
    assert backbones.build(name, (96, 96), 3, files.read_network(name, STATED)).output_shape == (None, 3)


@keras.saving.register_keras_serializable("tests")
class Own(layers.Layer):
    def call(self, x):
        return x


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.layer = layers.Conv2D(4, 3)

    def call(self, x):
        return self.layer(x)

    def get_config(self):
        return {}


def unwanted(kind):
    x = images()
    if kind == "Lambda":
        return keras.Model(x, convolved(layers.Lambda(lambda t: t * 2)(x)))
    if kind == "nested Lambda":
        inner = keras.Model(x, layers.Lambda(lambda t: t * 2)(x))
        outer = images()
        return keras.Model(outer, convolved(inner(outer)))
    if kind == "own layer":
        return keras.Model(x, convolved(Own()(x)))
    if kind == "subclassed":
        model = Subclassed()
        model(np.zeros((1, 64, 64, 3), np.float32))
        return model
    if kind == "two inputs":
        other = images()
        return keras.Model([x, other], convolved(layers.Add()([x, other])))
    if kind == "two outputs":
        return keras.Model(x, [convolved(x), convolved(x)])
    if kind == "grey":
        x = images(channels=1)
        return keras.Model(x, convolved(x))
    if kind == "vector alone":
        return keras.Model(x, layers.Dense(3)(layers.GlobalAveragePooling2D()(x)))
    model = keras.Model(x, convolved(x))
    model.set_weights([np.full(weight.shape, np.nan) for weight in model.weights])
    return model


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("Lambda", "has a Lambda layer"),
        ("nested Lambda", "has a Lambda layer"),
        ("own layer", "has an object 'Own' of"),
        ("subclassed", "has an object 'Subclassed' of"),
        ("two inputs", r"takes (any, any, 3) and (any, any, 3); expected one input"),
        ("two outputs", "expected one output"),
        ("grey", "takes (any, any, 1); expected one input, images (height, width, 3)"),
        ("vector alone", "has no feature map before it"),
        ("not finite", "108 of 108 weights of"),
    ],
)
def test_networks_that_cannot_be_used_are_one_line(kind, words, tmp_path):
    assert words in refusal(save(unwanted(kind), tmp_path))


@pytest.mark.parametrize("module", ["os", "subprocess", "my_package.layers"])
def test_no_module_that_a_file_names_is_imported(module, tmp_path):
    """Keras itself imports it: the file is refused before."""
    name = save(network("map"), tmp_path)
    other = {"module": module, "class_name": "system", "registered_name": None}
    _rewrite(tmp_path / "network.keras", lambda config: config["config"]["layers"][1].update(other))
    assert f"has an object 'system' of {module}" in refusal(name)


def _rewrite(path, change):
    """Change the description of a saved network in its file."""
    with zipfile.ZipFile(path) as archive:
        members = {member: archive.read(member) for member in archive.namelist()}
    config = json.loads(members["config.json"])
    change(config)
    members["config.json"] = json.dumps(config).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for member, content in members.items():
            archive.writestr(member, content)


def _file(kind, folder):
    path = folder / ("network.h5" if kind == "older" else "network.keras")
    if kind in ("older", "renamed"):
        network("map").save(folder / "network.h5")
        if kind == "renamed":
            (folder / "network.h5").rename(path)
    elif kind == "truncated":
        network("map").save(path)
        path.write_bytes(path.read_bytes()[:2000])
    elif kind == "other archive":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("table.csv", "a,b")
    elif kind == "layer that is not there":
        network("map").save(path)
        _rewrite(path, lambda config: config["config"].update(layers=config["config"]["layers"][:1]))
    elif kind == "other JSON":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("config.json", "[1]")
    return f"file:{path}"


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("older", "is .h5; expected .keras"),
        ("renamed", "cannot be loaded (File is not a zip file)"),
        ("truncated", "cannot be loaded"),
        ("other archive", "cannot be loaded (There is no item named"),
        ("other JSON", "cannot be loaded (its config.json describes no network)"),
        ("layer that is not there", "cannot be loaded ("),
        ("missing", "there is no file"),
    ],
)
def test_files_that_are_no_networks_are_one_line(kind, words, tmp_path):
    assert words in refusal(_file(kind, tmp_path))


def test_the_scaling_must_be_stated(tmp_path):
    assert "does not state which values it expects" in refusal(save(network("map"), tmp_path), stated=Pretraining())


@pytest.mark.slow
def test_a_real_network_is_taken(real_data):
    path = real_data.parent / "keras" / "efficientnet_lite0.keras"
    if not path.is_file():
        pytest.skip(f"there is no {path}")
    weights = files.read_network(f"file:{path}", Pretraining(scaling={"mean": 127, "deviation": 128}))
    model = backbones.build(f"file:{path}", (96, 96), 3, weights)
    assert backbones.pooled(model).count_params() == 3_413_024
