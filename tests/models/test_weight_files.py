"""Weights of a user's files for the listed backbones: every layout, and what is refused."""

import re
from dataclasses import replace

import h5py
import numpy as np
import pytest

from helpers import planted
from scanbook.config import Pretraining
from scanbook.errors import ModelError
from scanbook.models import backbones
from scanbook.models.backbones import files, imagenet, matching, networks, weight_files
from scanbook.models.backbones.weights import attribute
from scanbook.registry import BACKBONES, SCALINGS

keras = networks.keras
layers = keras.layers
LAYOUTS = ("whole.h5", "whole.keras", "alone.weights.h5", "arrays.npz", "part.h5", "part.keras")


def donor(name, *, top=False, side=96, **changes):
    """A network as its builder makes it, with weights that all differ."""
    spec = BACKBONES[name]
    shape = (side, side, 3) if top else (None, None, 3)
    network = attribute(spec.builder)(include_top=top, weights=None, input_shape=shape, **spec.arguments | changes)
    return fill(network)


def fill(network):
    draw = np.random.default_rng(0)
    network.set_weights([draw.normal(0, 0.1, weight.shape).astype(np.float32) ** 2 for weight in network.weights])
    return network


def save(network, folder, layout):
    path = folder / layout
    if layout.startswith("part"):  # as a layer of a larger network
        images = keras.Input((96, 96, 3))
        pooled = layers.Flatten()(network(images))
        keras.Model(images, layers.Dense(3)(layers.Dropout(0.1)(pooled))).save(path)
    elif layout.startswith("alone"):
        network.save_weights(path)
    elif layout.startswith("arrays"):
        np.savez(path, *network.get_weights())
    else:
        network.save(path)
    return path


def assert_same(values, expected):
    assert len(values) == len(expected)
    for value, wanted in zip(values, expected, strict=True):
        np.testing.assert_array_equal(value, wanted)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_is_read(layout, tmp_path):
    network = donor("mobilenet_0.25")
    values = matching.read(BACKBONES["mobilenet_0.25"], save(network, tmp_path, layout))
    assert_same(values, network.get_weights())


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_head_is_not_read(layout, tmp_path):
    network = donor("mobilenet_0.25", top=True)
    values = matching.read(BACKBONES["mobilenet_0.25"], save(network, tmp_path, layout))
    assert_same(values, network.get_weights()[: len(values)])
    assert len(values) == len(network.weights) - 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "layout"),
    [
        ("inception_v3", "part.h5"),
        ("efficientnet_b0", "part.h5"),
        ("convnext_tiny", "part.keras"),
    ],
)
def test_numbered_and_nested_layers_are_found(name, layout, tmp_path):
    layers.Conv2D(1, 1)  # names are numbered on from here
    changes = {"include_preprocessing": True} if name == "convnext_tiny" else {}
    network = donor(name, **changes)
    assert_same(matching.read(BACKBONES[name], save(network, tmp_path, layout)), network.get_weights())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "layout"), [("resnet18", "whole.h5"), ("vit_b16", "whole.h5"), ("vit_b16", "whole.keras")]
)
def test_networks_of_kerashub_are_found(name, layout, tmp_path):
    spec = BACKBONES[name]
    if name == "vit_b16":
        small = {"num_layers": 2, "num_heads": 2, "hidden_dim": 16, "mlp_dim": 32}
        spec = replace(spec, arguments=spec.arguments | {"config": spec.arguments["config"] | small})
    network = fill(networks._from_config(spec, (64, 64)))
    assert_same(matching.read(spec, save(network, tmp_path, layout)), network.get_weights())


def test_numbers_of_names_count_by_rank(tmp_path):
    """A network built second has higher numbers, and may be saved in another order."""
    path = tmp_path / "weights.npz"
    first = donor("mobilenet_0.25").get_weights()
    np.savez(path, **{f"arr_{place}": value for place, value in enumerate(first)})
    assert_same(matching.read(BACKBONES["mobilenet_0.25"], path), first)
    with weight_files.opened(path) as file:
        assert [stored.path for stored in file.arrays][:2] == ["arr_0", "arr_1"]
    assert weight_files.numbered("conv2d_12") == ("conv2d", 12) and weight_files.numbered("conv2d") == ("conv2d", 0)


RADIMAGENET = ("resnet50", "densenet121", "inception_v3", "inception_resnet_v2")


@pytest.mark.slow
@pytest.mark.parametrize("name", RADIMAGENET)
def test_files_as_radimagenet_gives_them_have_the_donor_s_features(name, tmp_path):
    keras.utils.set_random_seed(0)
    spec = BACKBONES[name]
    network = attribute(spec.builder)(include_top=False, weights=None, input_shape=(75, 75, 3), pooling="avg")
    photos = np.random.default_rng(0).integers(0, 256, (2, 75, 75, 3), np.uint8)
    path = tmp_path / f"RadImageNet-{name}_notop.h5"
    network.save(path)
    study = planted.study(backbones=[name], weights={name: str(path)}, pretraining={name: {"scaling": "0..1"}})
    weights, missing = backbones.resolve(study)
    assert not missing and weights[name].source == "file" and len(weights[name].digest) == 64
    features = np.asarray(backbones.pooled(backbones.build(name, (75, 75), 2, weights[name]))(photos))
    expected = np.asarray(network(photos / np.float32(255)))
    assert expected.std() > 0
    np.testing.assert_allclose(features, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())


def refusal(name, path):
    with pytest.raises(ModelError) as refused:
        matching.read(BACKBONES[name], path)
    assert "\n" not in str(refused.value)
    return str(refused.value)


@pytest.mark.parametrize("layout", ["whole.h5", "whole.keras", "alone.weights.h5", "arrays.npz"])
def test_a_file_of_another_backbone_is_named(layout, tmp_path):
    path = save(donor("mobilenet_0.25"), tmp_path, layout)
    text = refusal("mobilenet_0.5", path)
    assert re.search(r"its \S+ is \(3, 3, 3, 8\), expected .*\(3, 3, 3, 16\); it fits mobilenet_0\.25$", text)


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["whole.keras"])
def test_a_deeper_network_with_the_same_names_is_refused(layout, tmp_path):
    text = refusal("vgg16", save(donor("vgg19"), tmp_path, layout))
    assert ("block3_conv4" in text or "arr_14" in text) and text.endswith("it fits vgg19")


def test_a_network_that_is_not_listed_fits_none(tmp_path):
    images = keras.Input((None, None, 3))
    path = tmp_path / "own.keras"
    keras.Model(images, layers.Conv2D(7, 5)(images)).save(path)
    text = refusal("mobilenet_0.25", path)
    assert text.endswith("it fits none of the listed backbones; use file: for a network of your own")


def _broken(kind, folder):
    network = donor("mobilenet_0.25")
    path = folder / ("weights.npz" if kind.startswith("archive") else "weights.h5")
    if kind == "missing layer":
        keras.Model(network.input, network.layers[-3].output).save(path)
    elif kind == "not finite":
        values = network.get_weights()
        values[3][2] = np.nan
        network.set_weights(values)
        network.save(path)
    elif kind == "truncated":
        network.save(path)
        path.write_bytes(path.read_bytes()[:100_000])
    elif kind == "no HDF5":
        path.write_bytes(b"nothing")
    elif kind == "other content":
        with h5py.File(path, "w") as file:
            file["images"] = np.zeros(3)
    elif kind == "refers elsewhere":
        network.save(path)
        with h5py.File(path, "a") as file:
            del file["model_weights/conv1/conv1/kernel"]
            file["model_weights/conv1/conv1/kernel"] = h5py.ExternalLink("/etc/hostname", "/x")
    elif kind == "refers to itself":
        path = folder / "own.weights.h5"
        network.save_weights(path)
        with h5py.File(path, "a") as file:
            file["layers/conv2d/again"] = file["layers"]
    elif kind == "without weights":
        images = keras.Input((8, 8, 3))
        keras.Model(images, layers.ReLU()(images)).save(path)
    elif kind == "archive of objects":
        np.savez(path, np.array([{"a": 1}], object))
    elif kind == "archive of one":
        with path.open("wb") as file:
            np.save(file, np.zeros(3))
    elif kind == "archive of integers":
        np.savez(path, *[value.astype(np.int8) for value in network.get_weights()])
    return path


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("missing layer", "it has no conv_pw_13/kernel|conv_pw_13_bn"),
        ("not finite", r"1 of 8 weights of conv1_bn/moving_mean are not numbers"),
        ("truncated", r"cannot be read \(.*truncated file"),
        ("no HDF5", r"cannot be read \(.*signature not found"),
        ("other content", r"no weights of a Keras network \(it holds images\)"),
        ("refers elsewhere", "refers to something else in conv1/kernel"),
        ("refers to itself", "refers to itself in layers"),
        ("without weights", "has no weights; expected those of mobilenet_0.25"),
        ("archive of objects", "objects in arr_0"),
        ("archive of one", "is no archive; expected one by np.savez"),
        ("archive of integers", "int8, expected floating point"),
    ],
)
def test_what_is_wrong_with_a_file_is_one_line(kind, words, tmp_path):
    assert re.search(words, refusal("mobilenet_0.25", _broken(kind, tmp_path)))


@pytest.mark.parametrize("layout", ["whole.h5", "whole.keras", "alone.weights.h5", "arrays.npz"])
def test_a_file_that_was_cut_off_is_one_line(layout, tmp_path):
    path = save(planted.network("small_cnn"), tmp_path, layout)
    content = path.read_bytes()
    for share in (0, 0.1, 0.5, 0.9, 0.999):
        path.write_bytes(content[: int(share * len(content))])
        assert re.search("cannot be read|is no archive", refusal("small_cnn", path))


def test_other_suffixes_and_missing_files_are_one_line(tmp_path):
    (tmp_path / "weights.pt").write_bytes(b"")
    assert "is .pt; expected .h5, .weights.h5, .keras or .npz" in refusal("vgg16", tmp_path / "weights.pt")
    with pytest.raises(ModelError, match=r"backbone vgg16 \(weights\): there is no file .*none\.h5"):
        files.read_weights("vgg16", str(tmp_path / "none.h5"), Pretraining())


def test_a_network_without_imagenet_weights_takes_a_file(tmp_path):
    model = planted.network("baseline_cnn")
    model.save(tmp_path / "trained.keras")
    study = planted.study(
        backbones=["baseline_cnn", "small_cnn"], weights={"baseline_cnn": str(tmp_path / "trained.keras")}
    )
    assert study.pretrained_backbones == ["baseline_cnn"]
    weights, missing = backbones.resolve(study)
    assert list(weights) == ["baseline_cnn"] and not missing
    again = backbones.build("baseline_cnn", planted.SIZE, 3, weights["baseline_cnn"])
    assert_same(backbones.body_weights(again), backbones.body_weights(model))
    row = backbones.tabulate_origins(weights).loc["baseline_cnn"]
    assert row["source"] == "file trained.keras" and row["pretrained_on"] == row["licence"] == "not stated"
    assert "The study states no scaling for baseline_cnn" in backbones.describe(weights, missing)


def test_half_precision_is_read_as_float32(tmp_path):
    images = keras.Input((None, None, 3))
    network = fill(keras.Model(images, layers.Conv2D(4, 3, dtype="bfloat16")(images)))
    network.save_weights(tmp_path / "half.weights.h5")
    with weight_files.opened(tmp_path / "half.weights.h5") as file:
        kernel = file.read(max(file.arrays, key=lambda stored: len(stored.shape)))
    assert kernel.dtype == np.float32
    np.testing.assert_array_equal(kernel, network.get_weights()[0].astype(np.float32))


def test_weights_beyond_memory_are_refused_before_they_are_read(monkeypatch, tmp_path):
    path = save(donor("mobilenet_0.25"), tmp_path, "whole.h5")
    monkeypatch.setattr(matching, "_COPIES", 2**40)
    assert "name a smaller one, or use a machine with more memory" in refusal("mobilenet_0.25", path)


def test_the_second_division_of_efficientnet_is_part_of_its_variance(tmp_path):
    """Networks with ImageNet weights divide once more; `imagenet` does the same to those that are downloaded."""
    keras.applications.EfficientNetB0(include_top=False, weights=None)  # layers of the next have numbers
    network = keras.applications.EfficientNetB0(include_top=False, weights=None, input_shape=(None, None, 3))
    deviation = np.array([0.229, 0.224, 0.225], np.float32)
    values = network.get_weights()
    values[0][:], values[1][:] = (0.485, 0.456, 0.406), deviation
    network.set_weights(values)
    np.savez(tmp_path / "weights.npz", *values)
    read = matching.read(BACKBONES["efficientnet_b0"], tmp_path / "weights.npz")
    np.testing.assert_allclose(read[1], deviation**2, rtol=1e-5)


def test_a_stated_scaling_replaces_the_backbone_s_own(tmp_path):
    path = save(donor("mobilenet_0.25"), tmp_path, "whole.h5")
    stated = {"mean": [103.939, 116.779, 123.68], "deviation": 255, "bgr": True}
    for pretraining, scaling in (({}, SCALINGS["-1..1"]), ({"mobilenet_0.25": {"scaling": stated}}, None)):
        study = planted.study(
            backbones=["mobilenet_0.25"], weights={"mobilenet_0.25": str(path)}, pretraining=pretraining
        )
        [weights] = backbones.resolve(study)[0].values()
        found = backbones.weights.spec_of("mobilenet_0.25", weights).scaling
        if scaling:
            assert found == scaling
        else:
            assert found.bgr and found.scale == pytest.approx([1 / 255] * 3)
            assert found.offset == pytest.approx([-103.939 / 255, -116.779 / 255, -123.68 / 255])


def test_what_keras_states_of_its_weights_is_shown():
    origins = {name: imagenet._origin(BACKBONES[name]) for name in BACKBONES if BACKBONES[name].pretrained}
    assert {known.corpus for known in origins.values()} == {"ImageNet-1k"}
    licences = {"resnet50": "MIT", "resnet50_v2": "BSD", "vgg19": "CC BY 4.0", "mobilenet_v2_0.35": "Apache-2.0"}
    licences |= {"densenet121": "BSD-3-Clause", "xception": "MIT", "inception_resnet_v2": "Apache-2.0"}
    licences |= dict.fromkeys(("efficientnet_b0", "convnext_tiny", "resnet18", "vit_b16"), "")
    assert {name: origins[name].licence for name in licences} == licences
    assert origins["resnet18"].source == "KerasHub, preset resnet_18_imagenet"
    assert origins["resnet50"].source == "keras.applications.ResNet50"


def test_convolutions_are_those_of_the_networks():
    """The large ones are compared in `test_backbones`, where all are built."""
    assert set(matching.CONVOLUTIONS) <= set(BACKBONES)
    for name in ("baseline_cnn", "small_cnn", "mobilenet_0.25", "mobilenet_v2_0.35"):
        network = backbones.build(name, (64, 64), 2)
        sizes = [int(np.prod(weight.shape)) for weight in network.weights if len(weight.shape) == 4]
        assert matching.CONVOLUTIONS[name] == (len(sizes), sum(sizes))
