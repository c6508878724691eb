"""Presets of KerasHub: loaded, trained, saved, converted and shown as other backbones are, or refused in one line."""

import json
import shutil
from types import SimpleNamespace

import h5py
import numpy as np
import psutil
import pytest

from helpers import planted, presets
from scanbook import training
from scanbook.config import Pretraining
from scanbook.errors import ModelError, UnavailableError
from scanbook.inspection import grad_cam
from scanbook.models import backbones, engines, features
from scanbook.models.backbones import families, networks, origins
from scanbook.models.backbones import presets as reading
from scanbook.models.backbones.kerashub import import_kerashub
from scanbook.registry import SCALINGS, BackboneSpec, Scaling
from scanbook.training import fitting

keras = networks.keras


@pytest.fixture(scope="module")
def vit(tmp_path_factory):
    folder = tmp_path_factory.mktemp("presets") / "vit"
    presets.save("vit", folder)
    return folder


def read(folder, **stated):
    return reading.read(f"hub:{folder}", Pretraining(**stated))


def refused(folder, **stated):
    with pytest.raises(ModelError) as error:
        read(folder, **stated)
    assert "\n" not in str(error.value)
    return str(error.value)


def donor_map(backbone, scaling, photos, prefix):
    """The last map or patch tokens that KerasHub's own network computes."""
    values = photos * np.asarray(scaling["scale"], np.float32) + np.asarray(scaling["offset"], np.float32)
    entry = {key: values for key in backbone.input} if isinstance(backbone.input, dict) else values
    output = np.asarray(backbone(entry))
    return output[:, prefix:] if output.ndim == 3 else output


@pytest.mark.slow
@pytest.mark.parametrize("name", presets.SETTINGS)
def test_a_preset_does_all_that_is_asked_of_a_backbone(name, tmp_path):
    side = presets.SETTINGS[name][2].get("image_shape", (64,))[0]
    photos = planted.pixels()[::-10, :side, :side]
    donor = presets.save(name, tmp_path / name)
    weights = read(tmp_path / name)
    spec = weights.spec
    model = backbones.build(spec.name, (side, side), 3, weights)
    assert not any(isinstance(layer, keras.Model) for layer in model.layers)
    found = np.asarray(keras.Model(model.input, model.get_layer(backbones.FEATURE_MAP).output)(photos))
    expected = donor_map(donor, presets.SETTINGS[name][1], photos, spec.prefix)
    assert engines.parity(expected.reshape(found.shape), found) < 1e-5

    norms = [layer for layer in model._flatten_layers() if isinstance(layer, keras.layers.BatchNormalization)]
    assert len(norms) == (13 if name == "mobilenet" else 0)
    training.set_trainable(model, "top", 0.3)
    top = len(model.trainable_weights)
    training.set_trainable(model)
    assert 2 < top < len(model.trainable_weights) and len(fitting.weighted_layers(model)) >= 5
    averages = [np.asarray(norm.moving_mean) for norm in norms]
    before = [np.asarray(weight) for weight in model.trainable_weights]
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(1e-3), loss, run_eagerly=True)
    assert np.isfinite(model.train_on_batch(photos, planted.manifest().y[::-10]))
    assert not any(np.array_equal(old, new) for old, new in zip(before, model.trainable_weights, strict=True))
    assert all(np.array_equal(old, norm.moving_mean) for old, norm in zip(averages, norms, strict=True))

    head = model.get_layer(backbones.LOGITS)
    logits = np.asarray(model(photos))
    head.set_weights([values / logits.std() for values in head.get_weights()])
    logits = np.asarray(model(photos))
    model.save(tmp_path / "model.keras")
    again = backbones.load(tmp_path / "model.keras")
    assert engines.parity(logits, np.asarray(again(photos))) < 1e-5
    exported = grad_cam.add_heat_maps(again, 1.0)
    expected_maps = np.asarray(exported(photos)[1])
    engines.to_onnx(exported, tmp_path / "model.onnx")
    for engine in (
        engines.OpenVinoEngine(engines.to_openvino(exported)),
        engines.OnnxEngine(tmp_path / "model.onnx"),
    ):
        probabilities, maps = engine.predict(photos)
        assert engines.parity(logits - logits.mean(1, keepdims=True), engines.centred_log(probabilities)) <= 1e-3
        assert engines.parity(expected_maps, maps) <= 1e-3
    if spec.pooling != "class token":  # then Grad-CAM is exact
        assert engines.parity(logits, expected_maps.mean((1, 2)) + np.asarray(head.bias)) <= 1e-3
    heat = grad_cam.grad_cam(expected_maps, logits.argmax(1), (side, side))
    assert 0.9 < heat.max() <= 1 and heat.std(axis=(1, 2)).max() > 0
    other = side * 2
    assert backbones.build(spec.name, (other, other), 3, weights)(np.tile(photos[:1], (1, 2, 2, 1))).shape == (1, 3)


@pytest.mark.slow
def test_timm_s_resnet18_loads_offline(tmp_path):
    pytest.importorskip("safetensors")
    arrays = presets.save_timm_resnet18(tmp_path / "timm")
    weights = read(tmp_path / "timm")
    assert weights.spec.scaling.scale == pytest.approx(SCALINGS["imagenet"].scale)
    assert weights.spec.scaling.offset == pytest.approx(SCALINGS["imagenet"].offset)
    assert weights.pretraining == Pretraining(corpus="ImageNet", licence="apache-2.0")
    model = backbones.build(weights.spec.name, (32, 32), 3, weights)
    assert backbones.summary(model)["parameters"] == 11_187_651
    kernel = model.get_layer("conv1_conv").get_weights()[0]
    np.testing.assert_array_equal(kernel, arrays["conv1.weight"].transpose(2, 3, 1, 0))
    assert model.get_layer(backbones.FEATURES).output.shape == (None, 512)
    config = json.loads((tmp_path / "timm" / "config.json").read_text())
    (tmp_path / "timm" / "config.json").write_text(json.dumps(config | {"architecture": "resnet34"}))
    assert "cannot be loaded" in refused(tmp_path / "timm")


def test_a_changed_folder_is_read_again_and_its_scaling_may_be_stated(vit, tmp_path):
    folder = shutil.copytree(vit, tmp_path / "vit")
    first = read(folder)
    assert first.source == "preset" and first.spec.scaling == Scaling(1 / 127.5, -1.0) and first.spec.patch == 16
    assert first.spec.pooling_in_words == "class token" and first.in_words == "a corpus that is not stated"
    with h5py.File(folder / "model.weights.h5", "r+") as file:
        places = []
        file.visititems(lambda _, item: places.append(item) if isinstance(item, h5py.Dataset) else None)
        places[0][...] = places[0][...] + 1
    assert read(folder).digest != first.digest
    (folder / "image_converter.json").unlink()
    assert "scaling to one of -1..1" in refused(folder)
    assert read(folder, scaling="0..1").spec.scaling == SCALINGS["0..1"]
    with h5py.File(folder / "model.weights.h5", "r+") as file:
        places = []
        file.visititems(lambda _, item: places.append(item) if isinstance(item, h5py.Dataset) else None)
        places[0][...] = np.nan
    assert "are not numbers" in refused(folder, scaling="0..1")


def test_what_is_no_image_network_is_one_line(tmp_path, monkeypatch):
    presets.save_configuration("BertBackbone", tmp_path / "text")
    assert "is a BertBackbone; expected a network for images" in refused(tmp_path / "text")
    assert "is a WhisperBackbone; expected a network for images" in refused("whisper_tiny_en")
    assert "points to the files of efficientnet_b1" in refused("efficientnet_em_ra2_imagenet")
    assert "expected such as hub:dinov2_small" in refused("dinov2_smal")
    assert "there is no folder" in refused(tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    assert "config.json` doesn't exist" in refused(tmp_path / "empty")
    presets.save_configuration("FutureBackbone", tmp_path / "future")
    assert "no class registered with Keras for keras_hub>FutureBackbone" in refused(tmp_path / "future")
    presets.save_configuration("SwinTransformerBackbone", tmp_path / "swin")
    monkeypatch.delattr(import_kerashub().models, "SwinTransformerBackbone")
    for name in (tmp_path / "swin", "swin_of_a_later_version"):
        assert "is a Swin, which KerasHub has from version 0.29 on, with Keras 3.13 or newer;" in refused(name)


def test_more_weights_than_memory_are_one_line(vit, monkeypatch):
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=1000))
    assert "GiB of weights" in refused(vit)
    assert "has 25.0 GiB of weights" in refused("dinov3_vit_7b_lvd1689m")


def test_what_cannot_be_downloaded_is_asked_for_once(monkeypatch):
    asked = []

    def gated(preset, *_):
        asked.append(preset)
        raise FileNotFoundError("`config.json` is not accessible. If this model is gated, accept its terms")

    monkeypatch.setattr(import_kerashub().src.utils.preset_utils, "load_json", gated)
    monkeypatch.setattr(reading, "_unavailable", {})
    study = planted.study(backbones=["hub:dinov2_small", "baseline_cnn"])
    for _ in range(2):
        available, missing = backbones.resolve(study)
        assert not available and "cannot be downloaded (`config.json` is not accessible" in missing["hub:dinov2_small"]
    assert asked == ["dinov2_small"] and list(backbones.architectures(study)) == ["baseline_cnn"]
    with pytest.raises(UnavailableError):
        read("dinov2_small")


def test_sizes_are_checked_before_anything_runs():
    spec = BackboneSpec("hub:dino", "", SCALINGS["0..1"], smallest=28, patch=14, square=True)
    networks.check_size(spec, (56, 56))
    for size, message in (
        ((56, 28), "not square"),
        ((60, 60), "the nearest sizes that do are 56×56 and 70×70: set image_size to one of them"),
        ((14, 14), "its smallest side is 28"),
        ((29, 29), "the nearest sizes that do are 28×28 and 42×42"),
    ):
        with pytest.raises(ModelError, match=message):
            networks.check_size(spec, size)
    swin = {"patch_size": 4, "depths": (2, 2, 6, 2), "window_size": 7}
    assert families.FAMILIES["SwinTransformerBackbone"].sizes(swin) == families.Sizes(32, 224)
    mit = {"layerwise_strides": [4, 2, 2, 2]}
    assert families.FAMILIES["MiTBackbone"].sizes(mit) == families.Sizes(32, 32, square=True)


@pytest.mark.parametrize("prefix", [0, 1, 2])
def test_positions_are_interpolated_after_those_of_other_tokens(prefix):
    rows = np.arange((prefix + 16) * 2, dtype=np.float32).reshape(-1, 2)
    grown = networks._interpolated(rows, (8, 8), prefix)
    assert grown.shape == (prefix + 64, 2)
    np.testing.assert_array_equal(grown[:prefix], rows[:prefix])
    np.testing.assert_allclose(grown[prefix:].mean(0), rows[prefix:].mean(0), rtol=1e-5)


def test_features_by_openvino_that_are_not_keras_s_are_refused(vit, monkeypatch):
    weights = read(vit)
    images = np.zeros((len(planted.manifest().frame), 32, 32, 3), np.uint8)
    original = engines.OpenVinoEngine.predict
    # as they differ in KerasHub's CSPResNeXt
    monkeypatch.setattr(
        engines.OpenVinoEngine,
        "predict",
        lambda *arguments, **options: tuple(1.05 * output for output in original(*arguments, **options)),
    )
    with pytest.raises(ModelError, match=r"differ from Keras's by 0\.\d+ of their spread"):
        features.extract(planted.manifest(), images, weights.spec.name, weights)


@pytest.mark.parametrize(
    ("text", "corpus", "licence"),
    [
        ("efficientnet_b5_sw_ft_imagenet", "ImageNet-12k, then ImageNet", ""),
        ("vit_base_patch16_224_imagenet21k", "ImageNet-21k", "Apache-2.0"),
        ("dinov3_vit_small_lvd1689m", "LVD-1689M", "DINOv3 License"),
        ("medsiglip_900m_448", "medical images with texts", "Health AI Developer Foundations terms"),
        ("clip_vit_b_32_laion2b_s34b_b79k", "LAION-2B", ""),
        ("mobilenetv5_300m_enc_gemma3n", "", ""),
    ],
)
def test_the_origin_is_what_the_preset_tells(text, corpus, licence):
    stated = origins.of_preset(text, f"kaggle://keras/x/keras/{text}/1", {})
    assert (stated.corpus, stated.licence) == (corpus, licence) and stated.source.startswith("kaggle://")


@pytest.mark.parametrize(
    ("architecture", "tag", "corpus"),
    [
        ("vit_base_patch16_clip_224", "laion2b_ft_in12k_in1k", "LAION-2B, then ImageNet-12k, then ImageNet"),
        ("vit_base_patch16_clip_224", "openai_ft_in1k", "400 million images with texts of the web, then ImageNet"),
        ("resnet18", "fb_swsl_ig1b_ft_in1k", "Instagram, 1 billion images, then ImageNet"),
        ("resnet50", "fb_ssl_yfcc100m_ft_in1k", "YFCC100M, then ImageNet"),
        ("tf_efficientnet_b0", "ns_jft_in1k", "ImageNet, with images of JFT-300M without labels"),
        ("convnext_tiny", "fb_in22k_ft_in1k", "ImageNet-21k, then ImageNet"),
        ("resnet18", "a1_in1k", "ImageNet"),
    ],
)
def test_the_origin_is_what_a_tag_of_timm_tells(architecture, tag, corpus):
    config = {"architecture": architecture, "pretrained_cfg": {"tag": tag}}
    assert origins.of_preset("a/folder", "", config).corpus == corpus
