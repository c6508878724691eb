"""A cross-validated study from folds to a service: what is exported answers as its folds' networks do."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy.special import softmax

from scanbook import bundle, config, evaluation, export, segmentation, training
from scanbook.data import splits
from scanbook.data.manifest import TEST, TRAIN, VALIDATION
from scanbook.errors import ModelError
from scanbook.inspection import grad_cam
from scanbook.models import backbones, engines

KEYS = "splits.folds=2 backbones=[mobilenet_v2_0.35] head.epochs=2 benchmark.calibration_images=8"


@pytest.fixture(scope="module")
def models():
    """The models of two folds of the synthetic study."""
    study = config.load("synthetic", "smoke", overrides=KEYS)
    return study, training.train_every_split(study, segmentation.prepare)


@pytest.mark.slow
def test_every_image_is_predicted_by_networks_that_did_not_learn_from_its_patient(models):
    _, every = models
    group, split = every.first.manifest.frame["group"], [each.manifest.frame["split"] for each in every.splits]
    for names in split:
        assert not set(group[names == TEST]) & set(group[names.isin([TRAIN, VALIDATION])])
    test = every.by_fold(lambda each: each.manifest.predictions(TEST, each.final.logits(TEST)))
    assert sorted(test.image_id) == sorted(every.manifest.frame["image_id"].iloc[every.manifest.rows(TEST)])
    assert set(test.fold) == {"fold 1 of 2", "fold 2 of 2"}


@pytest.mark.slow
def test_the_average_of_the_folds_is_one_graph_that_a_service_runs(models, tmp_path):
    study, every = models
    averaged = study.model_copy(update={"splits": study.splits.model_copy(update={"exported": "fold_average"})})
    exported = export.export_study(averaged, tmp_path / "bundle")
    photos = np.ascontiguousarray(every.first.images[exported.rows])
    of_folds = []
    for each in every.splits:
        logits = engines.KerasEngine(each.networks[0].load_model()).predict(photos)[0]
        temperature = training.calibrate(each.study, each.manifest, each.networks[0])
        of_folds.append(softmax(logits / temperature, axis=1))
    expected = np.mean(of_folds, axis=0)
    probabilities, maps = engines.open_saved(exported.bundle.model_path()).predict(photos)[:2]
    np.testing.assert_allclose(probabilities, expected, atol=1e-4)
    assert maps.shape[-1] == len(exported.bundle.classes) and exported.bundle.temperature == 1.0
    card = (tmp_path / "bundle" / "MODEL_CARD.md").read_text()
    assert "Cross-validated with 2 folds" in card and "average of the probabilities of the folds' networks" in card
    dataset = (tmp_path / "bundle" / "DATASET_CARD.md").read_text()
    assert "The images are divided into 2 outer folds" in dataset and "Test is fold" not in dataset
    described = json.loads((tmp_path / "bundle" / "bundle.json").read_text())
    by_fold = every.by_fold(
        lambda each: each.manifest.predictions(
            TEST, each.networks[0].logits(TEST), training.calibrate(each.study, each.manifest, each.networks[0])
        )
    )
    accuracy = evaluation.summary(by_fold, ("accuracy",), **study.resamples).loc["accuracy", "value"]
    assert described["metrics"]["accuracy"]["value"] == pytest.approx(accuracy)
    assert bundle.read(tmp_path / "bundle").classes == exported.bundle.classes


@pytest.mark.slow
def test_the_network_of_all_images_has_no_test_images_and_its_own_thresholds(models):
    study, every = models
    model = training.train_exported_model(study, segmentation.prepare)
    manifest = model.manifest
    assert len(manifest.rows(TEST)) == 0 and model.logits(TEST).shape == (0, len(manifest.classes))
    excluded = splits.split_study(model.study).excluded["reason"]
    used = len(manifest.rows(TRAIN)) + len(manifest.rows(VALIDATION))
    assert used + len(excluded) == len(manifest.frame) and not model.averaged and not model.keeps_test
    assert set(excluded) == {"unreadable", "its exact copy is in validation"}, "a copied image counts once"
    assert len(every.manifest.rows(TEST)) == len(manifest.frame) - (excluded == "unreadable").sum()
    assert "learned from the images of all folds" in model.evidence


def test_maps_of_different_sizes_have_no_average():
    networks = [grad_cam.add_heat_maps(backbones.build("small_cnn", (size, size), 2), 1.0) for size in (32, 64)]
    with pytest.raises(
        ModelError, match=r"heat maps have different sizes .*, which have no average; set splits\.exported"
    ):
        grad_cam.average(networks)
