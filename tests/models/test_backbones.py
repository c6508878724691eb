"""Networks: flat, preprocessed as their weights expect, and loaded array by array."""

import gc
import importlib
import math
import re
import zipfile
from dataclasses import replace
from functools import cache

import cv2
import numpy as np
import pytest

from helpers import planted
from scanbook import training
from scanbook.config import Head
from scanbook.errors import ModelError
from scanbook.inspection import grad_cam
from scanbook.models import backbones, engines, heads
from scanbook.models.backbones import RANDOM, Weights, imagenet, matching, networks
from scanbook.models.backbones.weights import attribute
from scanbook.registry import BACKBONES
from scanbook.training import fitting

keras = backbones.networks.keras
layers = keras.layers
SMALL = ["baseline_cnn", "small_cnn", "mobilenet_v2_0.35", "mobilenet_0.25"]
SHIPPED = backbones.SHIPPED / BACKBONES["mobilenet_v2_0.35"].shipped
FAMILIES = {  # where keras.applications keeps the preprocessing
    "mobilenet_v2_": "mobilenet_v2",
    "mobilenet_": "mobilenet",
    "efficientnet_": "efficientnet",
    "densenet": "densenet",
    "xception": "xception",
    "inception_v3": "inception_v3",
    "inception_resnet_v2": "inception_resnet_v2",
    "resnet50": "resnet",
    "resnet50_v2": "resnet_v2",
    "resnet152_v2": "resnet_v2",
    "vgg16": "vgg16",
    "vgg19": "vgg19",
    # ConvNeXt's is part of its network, and the same as densenet's
    "convnext_tiny": "densenet",
    # KerasHub's ResNet18 came from timm, which normalises as densenet's "torch" mode does
    "resnet18": "densenet",
    # KerasHub's ViT came from google/vit-base-patch16-224: mean and deviation are one half, as in Xception's
    "vit_b16": "xception",
}
PARAMETERS = {  # of the published networks without top
    "mobilenet_v2_0.35": 410_208,
    "mobilenet_v2_1.0": 2_257_984,
    "mobilenet_0.25": 218_544,
    "mobilenet_1.0": 3_228_864,
    "efficientnet_b0": 4_049_571,
    "efficientnet_b5": 28_513_527,
    "densenet121": 7_037_504,
    "densenet201": 18_321_984,
    "xception": 20_861_480,
    "inception_v3": 21_802_784,
    "inception_resnet_v2": 54_336_736,
    "resnet50": 23_587_712,
    "resnet50_v2": 23_564_800,
    "resnet152_v2": 58_331_648,
    "vgg16": 14_714_688,
    "vgg19": 20_024_384,
    "convnext_tiny": 27_820_128,
    "resnet18": 11_187_651 - 3 * 513,
    "vit_b16": 85_798_656 - (196 - 16) * 768,  # of which positions at 64 pixels
}
TINY_VIT = {"patch_size": 16, "num_layers": 2, "num_heads": 2, "hidden_dim": 16, "mlp_dim": 32}


def own_preprocessing(name, images):
    family = next(module for prefix, module in reversed(sorted(FAMILIES.items())) if name.startswith(prefix))
    module = importlib.import_module(f"keras.applications.{family}")
    return np.asarray(module.preprocess_input(images.astype(np.float32)))


def photos_for(name):
    """Six images of all classes, at the size of the others or the smallest that the backbone takes."""
    side = max(planted.SIZE[0], BACKBONES[name].smallest)
    return np.stack([cv2.resize(image, (side, side)) for image in planted.pixels()[::-10]])


@pytest.fixture(autouse=True)
def _release_memory(request):
    yield
    if request.node.get_closest_marker("slow"):
        keras.utils.clear_session()
        gc.collect()


@pytest.fixture
def tiny_vit(monkeypatch):
    spec = BACKBONES["vit_b16"]
    config = spec.arguments["config"] | TINY_VIT
    monkeypatch.setitem(BACKBONES, "vit_b16", replace(spec, arguments=spec.arguments | {"config": config}))


# shape


@cache
def small_network(name):
    """A network of five classes whose images are as low as they may be; not to be changed."""
    return backbones.build(name, (BACKBONES[name].smallest, 64), 5)


@pytest.mark.parametrize("name", SMALL)
def test_network_is_flat_and_takes_bytes_of_the_smallest_size(name):
    model, smallest = small_network(name), BACKBONES[name].smallest
    assert not any(isinstance(layer, keras.Model) for layer in model.layers)
    assert model.inputs[0].dtype == "uint8" and model.input_shape == (None, smallest, 64, 3)
    assert model.output_shape == (None, 5)
    feature_map, features, logits = (
        model.get_layer(name).output for name in (backbones.FEATURE_MAP, backbones.FEATURES, backbones.LOGITS)
    )
    assert feature_map.shape[1:3] == (1, 64 // smallest) and features.shape == (None, feature_map.shape[-1])
    assert logits.shape == (None, 5)
    momenta = {layer.momentum for layer in model.layers if isinstance(layer, layers.BatchNormalization)}
    assert momenta == {0.9}
    assert body_parameters(model) == PARAMETERS.get(name, body_parameters(model))


def test_features_are_those_of_the_map():
    photos = planted.pixels()[:6]
    for name, reduce in (("baseline_cnn", np.mean), ("small_cnn", np.max)):
        model = planted.network(name)
        parts = keras.Model(model.input, [model.get_layer(n).output for n in (backbones.FEATURE_MAP, "features")])
        feature_map, features = map(np.asarray, parts(photos))
        np.testing.assert_allclose(features, reduce(feature_map, axis=(1, 2)), rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_features_stay_float32_in_mixed_precision(tiny_vit):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        for name in ("baseline_cnn", "small_cnn", "vit_b16"):
            model = backbones.build(name, (32, 32), 2, head=Head(units=[4], output="sigmoid"))
            layer_names = (backbones.FEATURE_MAP, backbones.FEATURES, "hidden_1", "score", backbones.LOGITS)
            assert {model.get_layer(layer_name).output.dtype for layer_name in layer_names} == {"float32"}
    finally:
        keras.config.set_dtype_policy(before)


def test_too_small_images_are_one_line():
    for spec in BACKBONES.values():
        with pytest.raises(ModelError, match=rf"too small for {re.escape(spec.name)}: its smallest side is") as refused:
            backbones.build(spec.name, (spec.smallest - 1, 256), 3)
        assert f"side is {spec.smallest};" in str(refused.value) and "\n" not in str(refused.value)
    assert BACKBONES["xception"].smallest == 71 and BACKBONES["vgg16"].smallest == 32


def test_what_keras_calls_the_smallest_is():
    for name in ("xception", "vgg16"):
        smallest = BACKBONES[name].smallest
        builder = attribute(BACKBONES[name].builder)
        with pytest.raises(ValueError, match=str(smallest)):
            builder(include_top=False, weights=None, input_shape=(smallest - 1, smallest, 3))


@pytest.mark.parametrize(
    ("size", "sizes"), [((100, 100), "96×96 and 112×112"), ((64, 30), "64×16 and 64×32"), ((17, 16), "16×16 and 32×16")]
)
def test_sizes_beside_the_patches_name_the_nearest(size, sizes):
    with pytest.raises(ModelError, match=rf"16-pixel patches of vit_b16; the nearest sizes that do are {sizes}:"):
        backbones.build("vit_b16", size, 3)


# parameters

NOT_TRAINED = {  # averages of batch normalisation, and a normalisation of images
    "small_cnn": 48,
    "resnet18": 9_600,
    "vit_b16": 0,
    "efficientnet_b0": 42_023,
    "mobilenet_1.0": 21_888,
    "vgg19": 0,
}
STUDIES = [  # backbone, its parameters and channels; classes, head, parameters in all, and of the head
    ("small_cnn", 1_488, 16, 3, Head(), 1_539, 51),
    ("resnet18", PARAMETERS["resnet18"], 512, 3, Head(), 11_187_651, 1_539),
    ("vit_b16", 85_798_656, 768, 3, Head(), 85_800_963, 2_307),
    ("resnet50", PARAMETERS["resnet50"], 2048, 5, Head(units=[512]), 24_639_365, 24_639_365 - 23_587_712),
    ("resnet50", PARAMETERS["resnet50"], 2048, 10, Head(units=[512]), 24_641_930, 1_054_218),
    ("resnet50", PARAMETERS["resnet50"], 2048, 23, Head(units=[512]), 24_648_599, 24_648_599 - 23_587_712),
    ("efficientnet_b0", PARAMETERS["efficientnet_b0"], 1280, 2, Head(output="sigmoid"), 4_050_852, 1_281),
    ("mobilenet_1.0", PARAMETERS["mobilenet_1.0"], 1024, 5, Head(units=[128, 128]), 3_377_221, 3_377_221 - 3_228_864),
    ("vgg19", PARAMETERS["vgg19"], 512, 5, Head(units=[128, 128]), 20_107_205, 20_107_205 - 20_024_384),
]
CHANNELS = {name: channels for name, _, channels, *_ in STUDIES}


@pytest.mark.parametrize(("name", "body", "channels", "classes", "head", "total", "of_head"), STUDIES)
def test_parameters_are_those_of_the_studies(name, body, channels, classes, head, total, of_head):
    """Those of the body are counted where every backbone is built."""
    features = keras.Input((channels,))
    parameters = keras.Model(features, heads.attach(features, classes, head)).count_params()
    assert parameters == of_head and body + parameters == total
    if name == "small_cnn":
        model = backbones.build(name, (224, 224), classes, head=head)
        counted = backbones.summary(model)
        assert counted["parameters"] == total and counted["trainable"] == 1_491 and counted["head"] == of_head
        assert counted["size (MiB)"] == pytest.approx(total * 4 / 2**20, abs=0.01)
        assert model.get_layer(backbones.FEATURE_MAP).output.shape[1:] == (56, 56, 16)


def body_parameters(model):
    return model.count_params() - sum(layer.count_params() for layer in heads.head_layers(model))


# preprocessing


@pytest.mark.parametrize("name", [spec.name for spec in BACKBONES.values() if spec.pretrained])
def test_preprocessing_is_that_of_the_weights(name):
    images = keras.Input((64, 64, 3), dtype="uint8")
    model = keras.Model(images, networks._preprocess(images, BACKBONES[name]))
    photos = planted.pixels()[:4]
    np.testing.assert_allclose(np.asarray(model(photos)), own_preprocessing(name, photos), rtol=1e-5, atol=1e-4)


def test_convnext_is_preprocessed_as_it_would_itself():
    from keras.src.applications.convnext import ConvNeXt

    own = ConvNeXt([1] * 4, [8] * 4, name="tiny", include_top=False, input_shape=(64, 64, 3))
    normalisation = next(layer for layer in own.layers if isinstance(layer, layers.Normalization))
    photos = planted.pixels()[:4].astype(np.float32)
    np.testing.assert_allclose(normalisation(photos), own_preprocessing("convnext_tiny", photos), rtol=1e-4, atol=1e-4)


# a vision transformer's positions


def test_positions_are_interpolated_where_they_are_in_the_image():
    rows, columns = np.mgrid[:14, :14].astype(np.float32)
    patches = np.stack([rows, columns, np.ones_like(rows)], -1).reshape(-1, 3)
    embeddings = np.concatenate([[[7, 8, 9]], patches]).astype(np.float32)
    assert networks._interpolated(embeddings, (14, 14)) is embeddings
    for grid in ((28, 28), (7, 7), (7, 28)):  # the last has as many patches, elsewhere
        resized = networks._interpolated(embeddings, grid)
        np.testing.assert_array_equal(resized[0], embeddings[0])
        patch_map = resized[1:].reshape(*grid, 3)
        for axis, side in enumerate(grid):  # the middle of a patch, in patches of the old grid
            expected = (np.arange(side) + 0.5) * 14 / side - 0.5
            along = np.moveaxis(patch_map[..., axis], axis, -1)
            inside = slice(side // 4, -(side // 4) or None)  # at the edges the cubic bends
            np.testing.assert_allclose(along[:, inside], np.tile(expected[inside], (len(along), 1)), atol=0.05)
        np.testing.assert_allclose(patch_map[..., 2], 1, atol=1e-5)


@pytest.mark.slow
def test_transformer_takes_its_weights_at_another_size(tiny_vit, tmp_path):
    keras.utils.set_random_seed(0)
    square = backbones.build("vit_b16", (64, 64), 3)
    path = tmp_path / "weights.npz"
    np.savez(path, *backbones.body_weights(square))
    again = backbones.build("vit_b16", (64, 64), 3, Weights("imagenet", path))
    wide = backbones.build("vit_b16", (32, 96), 3, Weights("imagenet", path))
    photos = planted.pixels()[:4]
    features = [np.asarray(backbones.pooled(network)(photos)) for network in (square, again)]
    np.testing.assert_array_equal(*features)
    assert wide.get_layer(backbones.FEATURE_MAP).output.shape == (None, 2, 6, 16)
    differ = [a.shape != b.shape for a, b in zip(*(backbones.body_weights(e) for e in (square, wide)), strict=True)]
    assert sum(differ) == 1
    np.savez(path, *[array[:4] for array in backbones.body_weights(square)])
    with pytest.raises(ModelError, match=r"weights\.npz do not fit vit_b16"):
        backbones.build("vit_b16", (64, 64), 3, Weights("imagenet", path))


def test_transformer_s_map_and_features_are_its_tokens(tiny_vit):
    keras.utils.set_random_seed(0)
    model, photos = backbones.build("vit_b16", (32, 64), 3), planted.pixels()[:2, :32]
    encoder = model.get_layer("tokens").output
    parts = keras.Model(
        model.input, [encoder, model.get_layer("feature_map").output, model.get_layer("features").output]
    )
    tokens, feature_map, features = map(np.asarray, parts(photos))
    np.testing.assert_array_equal(features, tokens[:, 0])
    np.testing.assert_array_equal(feature_map[:, 1, 3], tokens[:, 8])


# saved and loaded


@pytest.mark.parametrize("name", ["small_cnn", "vit_b16"])
def test_saved_network_comes_back_without_its_optimizer(name, tiny_vit, tmp_path):
    keras.utils.set_random_seed(0)
    path, photos = tmp_path / "model.keras", planted.pixels()[:4]
    model = backbones.build(name, planted.SIZE, 3, head=Head(units=[4], output="ordinal"))
    model.compile("adam", "mse")
    model.save(path)
    again = backbones.load(path)
    np.testing.assert_array_equal(np.asarray(again(photos)), np.asarray(model(photos)))
    assert not again.compiled
    again.save(path)  # what was loaded can be saved again
    np.testing.assert_array_equal(np.asarray(backbones.load(path)(photos)), np.asarray(model(photos)))
    with zipfile.ZipFile(path) as archive:
        assert b"scanbook" not in archive.read("config.json")


@pytest.mark.parametrize("content", [None, b"no archive", b"PK"])
def test_what_is_no_model_is_one_line(tmp_path, content):
    path = tmp_path / "model.keras"
    if content:
        path.write_bytes(content)
    with pytest.raises(ModelError, match=r"model\.keras cannot be loaded as a \.keras model") as refused:
        backbones.load(path)
    assert "\n" not in str(refused.value)


# weights


def test_weights_come_back_as_they_were_saved(tmp_path):
    model = planted.network()
    again = backbones.build("baseline_cnn", planted.SIZE, 3, planted.weights())
    for saved, loaded in zip(backbones.body_weights(model), backbones.body_weights(again), strict=True):
        np.testing.assert_array_equal(saved, loaded)
    features = [np.asarray(backbones.pooled(network)(planted.pixels()[::5])) for network in (model, again)]
    np.testing.assert_array_equal(*features)


def broken(kind, path):
    good = backbones.body_weights(planted.network("small_cnn"))
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
        path.write_bytes(path.read_bytes()[:1000])
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
        backbones.build("small_cnn", planted.SIZE, 3, broken(kind, path))
    assert "\n" not in str(refused.value)


def test_unknown_names_are_one_line():
    with pytest.raises(ModelError, match="unknown policy of weights 'imagenette'; expected one of auto, imagenet"):
        backbones.pretrained("mobilenet_v2_0.35", "imagenette")
    for call in (lambda: backbones.pretrained("lenet", "auto"), lambda: backbones.build("lenet", (64, 64), 2)):
        with pytest.raises(ModelError, match="unknown backbone 'lenet'; expected one of baseline_cnn, small_cnn"):
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
    path.write_bytes(b"weights that are found, not read")
    monkeypatch.setattr(imagenet, "SHIPPED", tmp_path)
    return path


NAMES = ["mobilenet_v2_0.35", "baseline_cnn", "mobilenet_0.25"]


def test_auto_falls_back_to_shipped_weights_and_gives_reasons(offline, shipped, monkeypatch, tmp_path):
    monkeypatch.setenv("SCANBOOK_STORE", str(tmp_path / "store"))
    weights, missing = backbones.resolve(planted.study(backbones=NAMES))
    assert list(weights) == ["mobilenet_v2_0.35"] and weights["mobilenet_v2_0.35"].source == "scanbook"
    assert weights["mobilenet_v2_0.35"].path == shipped and len(weights["mobilenet_v2_0.35"].digest) == 64
    assert list(missing) == ["mobilenet_0.25"]
    assert "no ImageNet weights for mobilenet_0.25" in missing["mobilenet_0.25"]
    assert "no route to host" in missing["mobilenet_0.25"] and "\n" not in missing["mobilenet_0.25"]
    assert not list((tmp_path / "store" / "imagenet").glob("*/")), "a failed download left a stage behind"
    sentence = backbones.describe(weights, missing)
    assert (
        "synthetic images (shipped with scanbook)" in sentence
        and "Not run: no ImageNet weights for mobilenet_0.25" in sentence
    )


def test_imagenet_means_imagenet(offline, shipped, monkeypatch, tmp_path):
    monkeypatch.setenv("SCANBOOK_STORE", str(tmp_path / "store"))
    weights, missing = backbones.resolve(planted.study(backbones=NAMES, weights="imagenet"))
    assert not weights and list(missing) == ["mobilenet_v2_0.35", "mobilenet_0.25"]


def test_scanbook_means_the_shipped_ones(shipped):
    weights, missing = backbones.resolve(planted.study(backbones=NAMES, weights="scanbook"))
    assert list(weights) == ["mobilenet_v2_0.35"] and "ships no weights for mobilenet_0.25" in missing["mobilenet_0.25"]
    shipped.unlink()
    weights, missing = backbones.resolve(planted.study(backbones=NAMES, weights="scanbook"))
    assert not weights and "are missing; run make pretrain" in missing["mobilenet_v2_0.35"]


def test_none_means_none_with_a_reason():
    weights, missing = backbones.resolve(planted.study(backbones=NAMES, weights="none"))
    assert not weights and list(missing) == ["mobilenet_v2_0.35", "mobilenet_0.25"]
    assert all("sets weights to none" in reason for reason in missing.values())
    assert backbones.pretrained("mobilenet_0.25", "none") == RANDOM
    with pytest.raises(ModelError, match="baseline_cnn has no pretrained weights"):
        backbones.pretrained("baseline_cnn", "auto")


@pytest.mark.skipif(not SHIPPED.is_file(), reason="the shipped weights are not trained yet: run make pretrain")
def test_shipped_weights_tell_images_apart():
    assert SHIPPED.stat().st_size < 2**20
    weights = backbones.pretrained("mobilenet_v2_0.35", "scanbook")
    model = backbones.build("mobilenet_v2_0.35", planted.SIZE, 3, weights)
    momenta = {layer.momentum for layer in model.layers if isinstance(layer, layers.BatchNormalization)}
    assert momenta == {0.999}, "a pretrained network keeps its momentum"
    features = np.asarray(backbones.pooled(model)(planted.pixels()))
    assert np.isfinite(features).all()
    between = np.linalg.norm(features - features.mean(0), axis=1).mean() / np.linalg.norm(features.mean(0))
    assert between > 0.05


# everything that is asked of a backbone


DEEP = ("efficientnet", "resnet152", "inception_v3")


def use_data_statistics(name, model, batch):
    """As planted's; in deep random networks rounding then grows from layer to layer until nothing agrees.

    It grows less where most units are on and the branches of a sum are weak.
    """
    if not name.startswith(DEEP):
        return planted.use_data_statistics(model, batch)
    draw = np.random.default_rng(1)
    norms = [layer for layer in model.layers if isinstance(layer, layers.BatchNormalization)]
    for layer in norms:
        if layer.gamma is not None:  # Inception V3 has none
            layer.gamma.assign(draw.uniform(0.5, 1.0, layer.beta.shape))
        layer.beta.assign(draw.normal(2.0, 0.3, layer.beta.shape))
    for branch in branches(model):
        if isinstance(branch, layers.BatchNormalization):
            branch.gamma.assign(branch.gamma * 0.1)
            branch.beta.assign(branch.beta * 0.1)
        else:
            branch.set_weights([array * 0.1 for array in branch.get_weights()])
    momenta = [layer.momentum for layer in norms]
    for layer in norms:
        layer.momentum = 0.0
    if norms:
        model(batch, training=True)
    for layer, momentum in zip(norms, momenta, strict=True):
        layer.momentum = momentum
    return model


def branches(model):
    """The last layers with weights before every sum."""
    last_layers = {}
    for layer in model.layers:
        waiting = list(layer._inbound_nodes[0].parent_nodes) if isinstance(layer, layers.Add) else []
        while waiting:
            node = waiting.pop()
            weighted = isinstance(node.operation, (layers.BatchNormalization, layers.Conv2D))
            if weighted:
                last_layers[id(node.operation)] = node.operation
            elif len(node.parent_nodes) == 1:
                waiting += node.parent_nodes
    return list(last_layers.values())


def stand_in_weights(name, photos, monkeypatch, folder):
    """Weights as ImageNet's come, through the builder's own network, and its feature map of the photos."""
    expected = []

    def fill(donor, *_, **__):
        for layer in donor.layers:
            if isinstance(layer, layers.Normalization):  # as in EfficientNet's ImageNet weights
                layer.set_weights([np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225]), np.array(0)])
                layer.finalize_state()
        inputs = own_preprocessing(name, photos)
        # batch-norm statistics from data, or no image would differ from another
        expected.append(np.asarray(use_data_statistics(name, donor, inputs)(inputs)))

    monkeypatch.setattr("keras.src.utils.file_utils.get_file", lambda *_, **__: "weights")
    monkeypatch.setattr(keras.Model, "load_weights", fill)
    spec = BACKBONES[name]
    if spec.builder.startswith("keras_hub"):
        builder = attribute(spec.builder)
        backbone = networks._from_config(spec, photos.shape[1:3])
        fill(backbone)
        monkeypatch.setattr(builder, "from_preset", lambda *_, **__: backbone)
    imagenet._fetch_imagenet(spec, folder)
    return Weights("imagenet", folder / "weights.npz"), expected[0]


ONE_PER_FAMILY = (
    *("baseline_cnn", "small_cnn", "mobilenet_0.25", "mobilenet_v2_0.35", "efficientnet_b0", "vgg16", "densenet121"),
    *("inception_v3", "xception", "resnet50", "resnet50_v2", "convnext_tiny", "resnet18", "vit_b16"),
)
"""One backbone of each family, which is saved, reloaded and converted: the others have more of the same layers."""


@pytest.mark.slow
@pytest.mark.parametrize("name", BACKBONES)
def test_backbone_does_all_that_is_asked_of_one(name, monkeypatch, tmp_path):
    """Takes its weights and trains a step; one of each family is saved and runs in OpenVINO, and shows where it looks.

    Networks are called as they are: tracing graphs of them would take most of the time.
    """
    spec, photos = BACKBONES[name], photos_for(name)
    size = photos.shape[1:3]
    keras.utils.set_random_seed(0)
    weights, expected = RANDOM, None
    if spec.pretrained:
        weights, expected = stand_in_weights(name, photos, monkeypatch, tmp_path)
    model = backbones.build(name, size, 3, weights)
    assert not any(isinstance(layer, keras.Model) for layer in model.layers)
    assert body_parameters(model) == PARAMETERS.get(name, body_parameters(model))
    kernels = [math.prod(weight.shape) for weight in model.weights if len(weight.shape) == 4]
    convolutions = len(kernels), sum(kernels)
    assert matching.CONVOLUTIONS.get(name, convolutions) == convolutions
    counted = backbones.summary(model)
    not_trained = counted["parameters"] - counted["trainable"]
    assert not_trained == NOT_TRAINED.get(name, not_trained)
    feature_map = model.get_layer(backbones.FEATURE_MAP).output
    assert feature_map.shape[-1] == CHANNELS.get(name, feature_map.shape[-1])
    if name in CHANNELS:
        reduction = {"small_cnn": 4, "vit_b16": 16}.get(name, 32)
        assert feature_map.shape[1:3] == (size[0] // reduction, size[1] // reduction)
    if spec.pooling == "class token":
        blocks = fitting.weighted_layers(model)
        training.set_trainable(model, "top", 0.3)
        learning = [layer.trainable for layer in blocks if "block" in layer.name or "encoder" in layer.name]
        assert learning == sorted(learning) and 0 < sum(learning) < len(learning) >= 12
        training.set_trainable(model)
    if spec.pretrained:
        computed_map = np.asarray(map_and_logits(model, photos)[0])
        expected = expected[:, 1:].reshape(computed_map.shape) if spec.pooling == "class token" else expected
        assert expected.std(axis=0).max() > 0.05 * expected.std()
        assert engines.parity(expected, computed_map) < 1e-3

    before = model.get_layer(backbones.LOGITS).get_weights()[0]
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(1e-4), loss, run_eagerly=True)
    assert np.isfinite(model.train_on_batch(photos, planted.manifest().y[::-10]))
    head = model.get_layer(backbones.LOGITS)
    assert not np.array_equal(before, head.get_weights()[0])

    if name not in ONE_PER_FAMILY:
        return
    if not spec.pretrained:
        use_data_statistics(name, model, photos)
    trained_map, logits = map(np.asarray, map_and_logits(model, photos))
    assert logits.std(axis=0).min() > 1e-3 * np.abs(logits).max()
    # logits of unit spread, so that probabilities of float32 tell them apart
    head.set_weights([values / logits.std() for values in head.get_weights()])
    logits = logits / logits.std()
    model.save(tmp_path / "model.keras")
    model = backbones.load(tmp_path / "model.keras")
    assert engines.parity(logits, np.asarray(model(photos))) < 1e-5
    engine = engines.OpenVinoEngine(engines.to_openvino(grad_cam.add_heat_maps(model, 1.3)))
    probabilities, maps = engine.predict(photos)
    spread = logits - logits.mean(1, keepdims=True)
    assert engines.parity(spread, 1.3 * engines.centred_log(probabilities)) <= 1e-3
    swapped = engine.predict(photos[..., ::-1])[0]
    assert engines.parity(spread, 1.3 * engines.centred_log(swapped)) > 1e-3
    kernel, bias = head.get_weights()
    assert engines.parity(trained_map @ kernel, maps) <= 1e-3
    if spec.pooling == "mean":
        assert engines.parity(logits, maps.mean((1, 2)) + bias) <= 1e-3
    heat = grad_cam.grad_cam(maps, logits.argmax(1), size)
    assert heat.shape == (6, *size) and heat.min() >= 0 and heat.max() <= 1


def map_and_logits(model, photos):
    return keras.Model(model.input, [model.get_layer(backbones.FEATURE_MAP).output, model.output])(photos)
