"""Features: what the frozen network gives, once, and again when anything behind it changes."""

import numpy as np
import pytest

import planted
from scanbook import augmentation, backbones, engines, features, pixels
from scanbook.manifest import TRAIN


@pytest.fixture(autouse=True)
def _fresh_store(monkeypatch, tmp_path):
    monkeypatch.setenv("SCANBOOK_STORE", str(tmp_path / "store"))


@pytest.fixture
def builds(monkeypatch):
    """Counts how often a network is made ready."""
    calls = []
    original = features._engine
    monkeypatch.setattr(features, "_engine", lambda *each: calls.append(each) or original(*each))
    return calls


def extract(images=None, weights=None):
    images = planted.pixels() if images is None else images
    return features.extract(planted.manifest(), images, "baseline_cnn", weights or planted.weights())[0]


def views(**changes):
    options = {"policy": "dermoscopy", "views": 2, "seed": 0} | changes
    return features.extract_views(planted.manifest(), planted.pixels(), "baseline_cnn", planted.weights(), **options)


def keras_features(images):
    return engines.KerasEngine(backbones.pooled(planted.network())).predict(images)[0]


def test_features_are_those_of_the_network_in_manifest_order(monkeypatch):
    monkeypatch.setattr(features, "CHUNK", 17)  # several chunks, the last one partial
    found, expected = extract(), keras_features(planted.pixels())
    assert found.dtype == np.float32 and found.shape == (60, 128)
    used = (planted.manifest().frame["part"] != "").to_numpy()
    assert used.sum() == 59 and not found[~used].any()
    assert expected[used].std(axis=0).max() > 0.1
    assert engines.parity(expected[used], found[used]) < 1e-4


def test_features_are_extracted_once(builds):
    first = extract()
    np.testing.assert_array_equal(extract(), first)
    assert len(builds) == 1


def test_features_follow_pixels_and_weights(builds, tmp_path):
    first = extract()
    darker = planted.pixels() // 2
    assert not np.allclose(extract(darker), first)  # the same files, decoded or cut out in another way
    path = tmp_path / "other.npz"
    np.savez(path, *[array * 1.1 for array in backbones.body_weights(planted.network())])
    other = backbones.Weights("scanbook", path, "another digest")
    assert not np.allclose(extract(weights=other), first)
    assert len(builds) == 3


def test_seconds_are_those_of_the_extraction_not_of_reading_it_again():
    first, again = (
        features.extract(planted.manifest(), planted.pixels(), "baseline_cnn", planted.weights())[1] for _ in "12"
    )
    assert first == again > 0


def test_views_are_features_of_augmented_training_images(monkeypatch):
    monkeypatch.setattr(features, "CHUNK", 16)
    rows = planted.manifest().rows(TRAIN)
    found = views(seed=4)
    assert found.shape == (2, len(rows), 128)
    augment = augmentation.Augmenter("dermoscopy", len(rows), 4)
    for view in range(2):
        expected = keras_features(augment(planted.pixels()[rows], np.arange(len(rows)), view))
        assert engines.parity(expected, found[view]) < 1e-4
    assert engines.parity(found[0], found[1]) > 0.1


def test_views_follow_policy_number_and_seed(builds):
    first = views()
    np.testing.assert_array_equal(views(), first)
    assert not np.allclose(views(seed=1), first) and not np.allclose(views(policy="photometric"), first)
    assert len(views(views=3)) == 3
    assert len(builds) == 4


def test_sample_fingerprint_sees_every_image_of_a_small_set():
    images = planted.pixels().copy()
    before = pixels.sample_fingerprint(images)
    assert pixels.sample_fingerprint(planted.pixels()) == before
    images[37, 5, 5, 1] ^= 1
    assert pixels.sample_fingerprint(images) != before
    assert pixels.sample_fingerprint(images[:0]) != before
