"""A study of vectors trains what the frozen backbone that computed them trains, on classes and on findings."""

import numpy as np
import pytest

from helpers import planted
from scanbook.data import embeddings, inputs
from scanbook.data.manifest import TEST, VALIDATION
from scanbook.errors import ModelError, StudyError
from scanbook.models import backbones, engines, features
from scanbook.registry import EMBEDDINGS
from scanbook.training import (
    end_to_end_training,
    learning_curve,
    model_selection,
    out_of_fold,
    scratch_backbones,
    seeded_studies,
    train_exported_model,
    train_final_models,
    train_head,
    trained_model,
)

NETWORK = "small_cnn"
pytestmark = pytest.mark.usefixtures("own_store")


@pytest.fixture(params=["classes", "findings"])
def manifest(request):
    return planted.manifest() if request.param == "classes" else planted.observed()


@pytest.fixture
def vectors(manifest, tmp_path):
    """A study of the features of a network, as another program would have written them."""
    values, _ = features.extract(manifest, planted.pixels(), NETWORK, planted.weights(NETWORK))
    path = tmp_path / "vectors.npz"
    rows = np.random.default_rng(0).permutation(len(values))
    np.savez(path, image_id=manifest.frame["image_id"].to_numpy(str)[rows], vector=values[rows])
    return planted.study(
        dataset={"adapter": "folder", "embeddings": str(path)},
        backbones=[EMBEDDINGS],
        seeds=2,
        learning_curve={"sizes": 5, "repeats": 2},
    )


def same(first, second):
    """Whether logits agree as those of two engines do."""
    assert engines.parity(first, second) < engines.base.PARITY


def test_the_head_is_that_of_the_frozen_backbone(manifest, vectors):
    of_pixels = train_head(vectors, manifest, planted.pixels(), NETWORK, planted.weights(NETWORK))
    best, name, _ = model_selection.select_base_model(vectors, manifest, inputs.load(vectors, manifest))
    assert (name, best.name) == (EMBEDDINGS, "embeddings, head")
    for split in (VALIDATION, TEST):
        same(of_pixels.logits(split), best.logits(split))
    assert of_pixels.history["l2"].tolist() == best.history["l2"].tolist()
    model = best.load_model()
    assert model.input_shape == (None, 16) and model.get_layer("features").output.shape == (None, 16)


def test_the_models_are_heads_of_each_seed_and_their_average(manifest, vectors):
    images = inputs.load(vectors, manifest)
    options = vectors.evaluation.model_copy(update={"ensemble": True})
    models = train_final_models(vectors.model_copy(update={"evaluation": options}), manifest, images)
    heads, averaged = models.selected.networks, models.final
    assert [head.seed for head in heads] == [study.seed for study in seeded_studies(vectors)]
    assert not heads[0].stages, "nothing was fine-tuned"
    assert averaged.name == "embeddings, head, 2 seeds averaged"
    assert np.isfinite(averaged.logits(TEST)).all()
    assert scratch_backbones(vectors) == [], "there is no network"


def test_learning_curve_and_label_check_are_those_of_the_frozen_backbone(manifest, vectors, monkeypatch):
    images = inputs.load(vectors, manifest)
    of_vectors = learning_curve.train_sized_heads(vectors, manifest, images)
    rows = np.flatnonzero((manifest.frame["split"] != "").to_numpy())
    options = {"rows": rows, "unit": np.arange(len(rows)), "seed": 0}
    weights = backbones.resolve(vectors)[0][EMBEDDINGS]
    found = out_of_fold.predict(manifest, images, (EMBEDDINGS, weights), **options)
    of_network = NETWORK, planted.weights(NETWORK)
    np.testing.assert_allclose(
        found, out_of_fold.predict(manifest, planted.pixels(), of_network, **options), atol=1e-4, equal_nan=True
    )
    monkeypatch.setattr(model_selection.backbones, "resolve", lambda study: (dict([of_network]), {}))
    of_pixels = learning_curve.train_sized_heads(vectors, manifest, planted.pixels())
    np.testing.assert_array_equal(of_vectors.images, of_pixels.images)
    same(of_pixels.logits, of_vectors.logits)


def test_a_head_on_vectors_depends_on_the_content_of_their_file(vectors):
    manifest = planted.manifest()
    first = model_selection.select_base_model(vectors, manifest, inputs.load(vectors, manifest))[0]
    ids, values = manifest.frame["image_id"].tolist(), np.array(inputs.load(vectors, manifest))
    values[manifest.rows(TEST)[0]] += 1  # of one image, which changes no other
    embeddings.write(vectors.embeddings, ids, [values], values.shape)
    second = model_selection.select_base_model(vectors, manifest, inputs.load(vectors, manifest))[0]
    assert first.folder != second.folder
    assert np.any(first.logits(TEST)[0] != second.logits(TEST)[0])


def test_what_needs_the_network_says_so(vectors):
    manifest = planted.manifest()
    images, weights = inputs.load(vectors, manifest), backbones.resolve(vectors)[0][EMBEDDINGS]
    with pytest.raises(StudyError, match=r"the models take vectors, .*; a bundle needs it: name it in backbones"):
        train_exported_model(vectors, lambda _: manifest)
    with pytest.raises(ModelError, match=r"the models take vectors; there is no network to fine-tune"):
        end_to_end_training(vectors, manifest, images, EMBEDDINGS, weights)
    available, missing = backbones.resolve_for_images(vectors)
    assert not available and "in place of images" in missing[EMBEDDINGS]
    assert backbones.describe(*backbones.resolve(vectors)).startswith("The models take vectors (embeddings) in place")


def test_the_study_tells_where_vectors_come_from(vectors):
    stated = vectors.model_copy(update={"pretraining": {EMBEDDINGS: {"corpus": "CheXpert", "licence": "CC BY 4.0"}}})
    stated = type(vectors).model_validate(stated.model_dump() | {"data": ""})
    weights = backbones.resolve(stated)[0][EMBEDDINGS]
    assert "Corpus: CheXpert. Licence: CC BY 4.0." in backbones.describe({EMBEDDINGS: weights}, {})
    assert weights.in_words == "CheXpert" and len(weights.digest) == 64


def test_saved_logits_are_those_of_the_saved_model(manifest, vectors):
    images = inputs.load(vectors, manifest)
    best = model_selection.select_base_model(vectors, manifest, images)[0]
    engine = engines.KerasEngine(best.folder / trained_model.MODEL)
    same(best.logits(TEST), engines.predict_rows(engine, images, manifest.rows(TEST))[0])
