"""Training with fewer patients: draws are nested and of whole patients, and the head in NumPy is the head of Keras."""

from itertools import pairwise

import numpy as np
import pytest

from helpers import planted
from scanbook import runtime, training
from scanbook.data.manifest import TEST, TRAIN
from scanbook.evaluation import Labels
from scanbook.training import learning_curve
from scanbook.training.head import Rows, fit_head
from scanbook.training.linear_head import fit_linear_head, to_logits

NETWORK = "small_cnn"
PIXELS = planted.pixels()[:, ::2, ::2].copy()
NAN = np.nan

pytestmark = pytest.mark.usefixtures("own_store")


@pytest.fixture
def use_planted_weights(monkeypatch):
    weights = {NETWORK: planted.weights(NETWORK)}
    monkeypatch.setattr("scanbook.models.backbones.resolve", lambda study: (weights, {}))


def study(**changes):
    head = {"epochs": 8, "learning_rate": 0.1, "batch_size": 16, "l2": [0.1, 0.001]}
    values = {"backbones": [NETWORK], "head": head, "learning_curve": {"sizes": 5, "repeats": 3}}
    return planted.study(**values | changes)


@pytest.mark.parametrize("form", ["softmax", "sigmoid", "ordinal", "findings"])
def test_the_head_in_numpy_is_that_of_keras(form):
    """With one batch per epoch the order of the images changes nothing, so both take the same steps."""
    draw = np.random.default_rng(0)
    n, k = 40, 2 if form in ("sigmoid", "findings") else 3
    y = np.eye(k, dtype=np.float32)[draw.integers(0, k, n)]
    x = (draw.normal(size=(n, 6)) + y @ draw.normal(size=(k, 6))).astype(np.float32)
    exclusive, output = form != "findings", "softmax" if form == "findings" else form
    if not exclusive:
        y[draw.random(y.shape) < 0.2] = NAN
    labels = Labels(planted.CLASSES[:k], y, exclusive)
    values = study(head={"epochs": 6, "learning_rate": 0.1, "batch_size": 64, "l2": [0.01, 0.3], "output": output})
    manifest = _Labelled(labels)
    runtime.configure(0)
    [(kernel, bias)], history = fit_head(values, manifest, (Rows([(x, np.arange(n))]), y), x[:20])
    expected = to_logits(x @ kernel + bias, output)
    head = fit_linear_head(values.head, labels, (Rows([(x, np.arange(n))]), y), (x[:20], y[:20]), seed=0)
    assert head.l2 == history["l2"].iloc[0]
    assert head.loss == pytest.approx(history["validation_loss"].min(), rel=1e-3)
    assert head.logits(x) == pytest.approx(expected, abs=2e-3)


class _Labelled:
    """What `fit_head` takes from a manifest: labels, of which the first twenty are validation."""

    def __init__(self, labels):
        self.labels, self.names = labels, labels.names

    def label_values(self, split):
        return self.labels.values[:20]


def grouped(per_patient=3):
    """The planted images with three images of a class for each patient, a split for each."""
    frame = planted.manifest().frame.copy()
    place = frame.groupby(["label", "split"]).cumcount() // per_patient
    return planted.manifest().with_frame(frame.assign(group=frame["label"] + frame["split"] + place.astype(str)))


def test_draws_are_whole_patients_each_within_the_next():
    manifest = grouped()
    sizes, drawn = learning_curve.draw_patients(manifest, 8, 4, seed=1)
    group, train = manifest.frame["group"].to_numpy(), manifest.rows(TRAIN)
    assert sizes[-1] == len(set(group[train])) and (np.diff(sizes) > 0).all()
    for of_repeat in drawn:
        for size, rows in zip(sizes, of_repeat, strict=True):
            chosen = set(group[rows])
            assert len(chosen) == size and len(rows) == np.isin(group[train], list(chosen)).sum()
        assert all(set(few) < set(many) for few, many in pairwise(of_repeat))
        assert manifest.labels.rows(of_repeat[0]).present.any(axis=0).sum() > 1, "two classes, which can be told apart"
    assert not np.array_equal(drawn[0][0], drawn[1][0])
    again = learning_curve.draw_patients(manifest, 8, 2, seed=1)[1]
    assert all(
        np.array_equal(a, b) for one, two in zip(drawn, again, strict=False) for a, b in zip(one, two, strict=True)
    )


def test_the_smallest_draw_shows_each_finding_present_and_absent():
    manifest = planted.observed()
    _, drawn = learning_curve.draw_patients(manifest, 8, 6, seed=0)
    assert all(manifest.labels.rows(of_repeat[0]).absent == () for of_repeat in drawn)


def test_one_patient_per_class_leaves_few_sizes():
    frame = planted.manifest().frame
    manifest = planted.manifest().with_frame(frame.assign(group=frame["label"] + frame["split"]))
    sizes, drawn = learning_curve.draw_patients(manifest, 8, 2, seed=0)
    assert list(sizes) == [2, 3] and len(drawn[0][-1]) == len(manifest.rows(TRAIN))


@pytest.mark.parametrize("kind", ["classes", "findings", "views", pytest.param("hidden", marks=pytest.mark.slow)])
def test_heads_of_fewer_patients(kind, use_planted_weights):
    manifest = planted.observed() if kind == "findings" else planted.manifest()
    head = study().head.model_dump() | {"l2": [0.01]}
    head |= {"views": {"augmentation": "dihedral", "views": 1}, "hidden": {"units": [4], "epochs": 2}}.get(kind, {})
    values = study(head=head, learning_curve={"sizes": 5, "repeats": 1 if kind == "hidden" else 2})
    sized = training.train_sized_heads(values, manifest, PIXELS)
    own, _, _ = training.select_base_model(values, manifest, PIXELS)
    assert sized.name == own.name and sized.patients[-1] == 36 == sized.images[0, -1]
    assert sized.logits.shape == (*sized.images.shape, 12, len(manifest.names)) and np.isfinite(sized.logits).all()
    assert all(np.array_equal(logits[-1], own.logits(TEST)) for logits in sized.logits), "the report's own head"
    if kind == "classes":
        right = sized.logits.argmax(-1) == manifest.y[manifest.rows(TEST)]
        assert right[:, -1].mean() > 0.8 and right[:, -2].mean() > 0.7


def test_without_pretrained_weights_there_is_no_curve(monkeypatch):
    monkeypatch.setattr("scanbook.models.backbones.resolve", lambda study: ({}, {}))
    values = study(scratch={"epochs": 1, "batch_size": 64})
    assert training.train_sized_heads(values, planted.manifest(), PIXELS) is None
    assert training.train_sized_networks(values, planted.manifest(), PIXELS) is None


@pytest.mark.slow
def test_networks_fine_tuned_with_fewer_patients(use_planted_weights):
    values = study(
        learning_curve={"sizes": 5, "repeats": 1}, fine_tuning={"epochs": 1, "batch_size": 64, "learning_rate": 1e-3}
    )
    sized = training.train_sized_networks(values, planted.manifest(), PIXELS)
    assert sized.name == f"{NETWORK}, fine-tuned" and np.isfinite(sized.logits).all()
    own = training.train_final_model(values, planted.manifest(), PIXELS)
    assert np.array_equal(sized.logits[0, -1], own.logits(TEST))
    assert not np.array_equal(sized.logits[0, 0], sized.logits[0, 1])
