"""Features: what the frozen network gives, once, and again when anything behind it changes."""

import numpy as np
import pytest

from helpers import planted
from scanbook import augmentation
from scanbook.data import pixels
from scanbook.data.manifest import TRAIN
from scanbook.models import backbones, engines, features

NETWORK = "small_cnn"
PIXELS = planted.pixels()[:, ::2, ::2].copy()


@pytest.fixture(autouse=True)
def _fresh_store(monkeypatch, tmp_path):
    monkeypatch.setenv("SCANBOOK_STORE", str(tmp_path / "store"))


@pytest.fixture
def builds(monkeypatch):
    """Counts how often a network is made ready."""
    calls = []
    original = features._engine
    monkeypatch.setattr(features, "_engine", lambda *arguments: calls.append(arguments) or original(*arguments))
    return calls


def extract(images=None, weights=None):
    images = PIXELS if images is None else images
    return features.extract(planted.manifest(), images, NETWORK, weights or planted.weights(NETWORK))[0]


def views(**changes):
    options = {"policy": "dermoscopy", "views": 2, "seed": 0} | changes
    return features.extract_views(planted.manifest(), PIXELS, NETWORK, planted.weights(NETWORK), **options)[:2]


def one_hot():
    manifest = planted.manifest()
    return np.eye(3, dtype=np.float32)[manifest.y[manifest.rows(TRAIN)]]


def keras_features(images):
    network = backbones.build(NETWORK, PIXELS.shape[1:3], 3, planted.weights(NETWORK))
    return np.asarray(backbones.pooled(network)(images))


def test_features_are_those_of_the_network_in_manifest_order(monkeypatch):
    monkeypatch.setattr(engines.base, "CHUNK", 17)  # several chunks, the last one partial
    extracted, expected = extract(), keras_features(PIXELS)
    assert extracted.dtype == np.float32 and extracted.shape == (60, 16)
    used = (planted.manifest().frame["split"] != "").to_numpy()
    assert used.sum() == 59 and not extracted[~used].any()
    assert expected[used].std(axis=0).max() > 0.1
    assert engines.parity(expected[used], extracted[used]) < 1e-4


def test_features_are_extracted_once_and_their_seconds_are_those_of_the_extraction(builds):
    arguments = planted.manifest(), PIXELS, NETWORK, planted.weights(NETWORK)
    (first, seconds), again = features.extract(*arguments), features.extract(*arguments)
    np.testing.assert_array_equal(again[0], first)
    assert len(builds) == 1 and again[1] == seconds > 0


def test_features_follow_pixels_and_weights(builds, tmp_path):
    first = extract()
    darker = PIXELS // 2
    assert not np.allclose(extract(darker), first)  # the same files, decoded or cut out in another way
    path = tmp_path / "other.npz"
    np.savez(path, *[array * 1.1 for array in backbones.body_weights(planted.network(NETWORK))])
    other = backbones.Weights("scanbook", path, "another digest")
    assert not np.allclose(extract(weights=other), first)
    assert len(builds) == 3


def test_views_are_features_of_augmented_training_images(monkeypatch):
    monkeypatch.setattr(engines.base, "CHUNK", 16)
    rows = planted.manifest().rows(TRAIN)
    extracted, labels = views(seed=4)
    assert np.array_equal(labels, np.tile(one_hot(), (2, 1, 1))) and labels.dtype == np.float32
    assert extracted.shape == (2, len(rows), 16)
    augment = augmentation.Augmenter("dermoscopy", len(rows), 4)
    for view in range(2):
        expected = keras_features(augment(PIXELS[rows], np.arange(len(rows)), view))
        assert engines.parity(expected, extracted[view]) < 1e-4
    assert engines.parity(extracted[0], extracted[1]) > 0.1


def test_views_follow_policy_number_and_seed(builds):
    first, _ = views()
    np.testing.assert_array_equal(views()[0], first)
    assert not np.allclose(views(seed=1)[0], first) and not np.allclose(views(policy="photometric")[0], first)
    assert [len(array) for array in views(views=3)] == [3, 3]
    assert len(builds) == 4


@pytest.mark.parametrize("policy", ["mixup", "dermoscopy+cutmix"])
def test_mixed_views_are_features_of_mixed_images(policy, monkeypatch, builds):
    monkeypatch.setattr(engines.base, "CHUNK", 16)
    images, rows = PIXELS, planted.manifest().rows(TRAIN)
    extracted, labels = views(policy=policy, seed=4)
    np.testing.assert_array_equal(views(policy=policy, seed=4)[1], labels)
    assert len(builds) == 1
    assert labels.shape == (2, len(rows), 3) and labels.dtype == np.float32
    np.testing.assert_allclose(labels.sum(2), 1, atol=1e-6)
    assert not np.array_equal(labels[0], labels[1])
    augment, mixed = augmentation.Augmenter(policy, len(rows), 4), 0
    for view in range(2):
        order = np.random.default_rng([4, 1, view]).permutation(len(rows))
        for chunk, places in enumerate(np.split(order, [16, 32])):
            copies = augment(images[rows[places]], places, view)
            copies, expected = augment.mix(copies, one_hot()[places], view, chunk)
            assert np.array_equal(labels[view, places], expected)
            assert engines.parity(keras_features(copies), extracted[view, places]) < 1e-4
            mixed += int((expected.max(1) < 0.99).sum())
    assert mixed > 10, "classes that lie one after the other are mixed, too"


def test_views_hold_nothing_of_validation_and_test():
    other = PIXELS.copy()
    other[np.setdiff1d(np.arange(len(other)), planted.manifest().rows(TRAIN))] = 255
    options = {"policy": "dermoscopy+mixup", "views": 1, "seed": 0}
    extracted = [
        features.extract_views(planted.manifest(), images, NETWORK, planted.weights(NETWORK), **options)
        for images in (PIXELS, other)
    ]
    assert np.array_equal(extracted[0][0], extracted[1][0]) and np.array_equal(extracted[0][1], extracted[1][1])


def test_sample_fingerprint_sees_every_image_of_a_small_set():
    images = PIXELS.copy()
    before = pixels.sample_fingerprint(images)
    assert pixels.sample_fingerprint(PIXELS) == before
    images[37, 5, 5, 1] ^= 1
    assert pixels.sample_fingerprint(images) != before
    assert pixels.sample_fingerprint(images[:0]) != before
