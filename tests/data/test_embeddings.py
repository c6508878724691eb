"""Files of vectors: what is read from them, in which order, and what is refused in one line."""

import dataclasses
import hashlib
import json
import re

import numpy as np
import pytest

from helpers import planted
from scanbook import config
from scanbook.data import adapters, embeddings, inputs, pixels
from scanbook.data.manifest import Manifest
from scanbook.errors import DataError, StudyError
from scanbook.registry import EMBEDDINGS
from scanbook.runner import checking, freshness

IDS = planted.manifest().frame["image_id"].tolist()
VECTORS = np.random.default_rng(0).normal(size=(len(IDS), 7)).astype(np.float32)


@pytest.fixture(autouse=True)
def _fresh_store(monkeypatch, tmp_path):
    monkeypatch.setenv("SCANBOOK_STORE", str(tmp_path / "store"))


def study_of(path, **changes):
    dataset = {"adapter": "folder", "embeddings": str(path)}
    return planted.study(dataset=dataset, backbones=[EMBEDDINGS], **changes)


@pytest.fixture
def write(tmp_path):
    """Writes arrays as a hospital would, and returns the study that names their file."""

    def written(ids=IDS, vectors=VECTORS, **more):
        np.savez(tmp_path / "vectors.npz", image_id=np.array(ids), vector=vectors, **more)
        return study_of(tmp_path / "vectors.npz")

    return written


def test_models_take_vectors_in_the_order_of_the_manifest(write):
    order = np.random.default_rng(1).permutation(len(IDS))
    loaded = inputs.load(write(np.array(IDS)[order], VECTORS[order].astype(np.float64)), planted.manifest())
    assert loaded.dtype == np.float32
    np.testing.assert_array_equal(loaded, VECTORS)


def test_models_take_pixels_where_no_vectors_are_named():
    study, manifest = planted.study(), planted.manifest()
    np.testing.assert_array_equal(inputs.load(study, manifest), pixels.load(manifest, study.size))


def test_an_excluded_image_needs_no_vector(write):
    [excluded] = np.flatnonzero((planted.manifest().frame["split"] == "").to_numpy())
    rows = np.delete(np.arange(len(IDS)), excluded)
    loaded = embeddings.load(write(np.array(IDS)[rows], VECTORS[rows]), planted.manifest())
    np.testing.assert_array_equal(loaded[rows], VECTORS[rows])
    assert not loaded[excluded].any()


def test_a_written_file_is_read_with_its_origin(tmp_path):
    path = tmp_path / "vectors.npz"
    pieces = np.split(VECTORS, [13, 40])
    about = {"backbone": "resnet50", "image_size": [96, 80], "pretrained on": "ImageNet"}
    embeddings.write(path, IDS, iter(pieces), VECTORS.shape, dtype="float16", about=about)
    assert [file.name for file in tmp_path.iterdir() if file.is_file()] == ["vectors.npz"]
    with np.load(path, allow_pickle=False) as archive:
        assert archive["vector"].dtype == np.float16
    found = embeddings.read(study_of(path))
    np.testing.assert_array_equal(found.vectors, VECTORS.astype(np.float16).astype(np.float32))
    assert list(found.ids) == IDS and found.digest == hashlib.sha256(path.read_bytes()).hexdigest()
    assert found.in_words.startswith(f"60 vectors of 7 channels (file vectors.npz, SHA-256 {found.digest[:16]}…), com")
    assert found.in_words.endswith("computed by resnet50 at 96 × 80 pixels, pretrained on: ImageNet")


def test_a_file_of_another_program_does_not_tell_its_network(write):
    for more in ({}, {"about": np.arange(3)}, {"about": np.array("[]")}):
        assert "does not tell the network" in embeddings.read(write(**more)).in_words


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"ids": IDS[5:], "vectors": VECTORS[5:]}, "4 of 59 images have no vector in .*: i0, i1, i2 and 1 more; write"),
        ({"ids": IDS[:-1] + IDS[:1]}, "1 ids occur more than once: i0; keep one"),
        ({"vectors": np.where(np.arange(60)[:, None] == 4, np.nan, VECTORS)}, "1 of 60 vectors hold NaN .*: i4;"),
        ({"vectors": np.full((60, 7), 1e39)}, "60 of 60 vectors hold NaN or infinite values: i0, i1, i2 and 57 more"),
        ({"vectors": VECTORS[:9]}, "60 ids and 9 vectors; expected one vector for each id"),
        ({"vectors": VECTORS[:, 0]}, r"vector is float32 \(60,\); expected float \(n, channels\)"),
        ({"vectors": VECTORS[:, :0]}, r"vector is float32 \(60, 0\); expected float"),
        ({"vectors": VECTORS.astype(int)}, r"vector is int64 \(60, 7\); expected float"),
        ({"ids": VECTORS[:, 0]}, r"image_id is float32 \(60,\); expected texts"),
        ({"ids": np.array(IDS, object)}, "cannot be read: it holds pickled objects; expected an .npz file"),
    ],
)
def test_what_cannot_be_used_is_one_line(write, changes, says):
    with pytest.raises(DataError, match=says) as error:
        embeddings.load(write(**changes), planted.manifest())
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "no file of embeddings at .*; write it with scanbook embed planted --backbone NAME --to .*vectors.npz"),
        (b"image_id,vector\n", "the file is not an .npz archive, or only a part of one"),
        (b"", "the file is not an .npz archive"),
    ],
)
def test_a_file_that_is_none_is_one_line(tmp_path, content, says):
    path = tmp_path / "vectors.npz"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=says):
        embeddings.load(study_of(path), planted.manifest())


def test_a_truncated_or_altered_file_is_one_line(write, tmp_path):
    study, path = write(), tmp_path / "vectors.npz"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"not an \.npz archive, or only a part"):
        embeddings.load(study, planted.manifest())
    path.write_bytes(whole[:900] + b"\xff\xff\xff\xff" + whole[904:])
    with pytest.raises(DataError, match="cannot be read: Bad CRC-32"):
        embeddings.load(study, planted.manifest())
    np.savez(path, vector=VECTORS, names=np.array(IDS))
    with pytest.raises(DataError, match="no array image_id, the file holds vector, names"):
        embeddings.load(study, planted.manifest())


def test_numbers_as_ids_are_texts(write):
    manifest = planted.manifest()
    numbered = manifest.with_frame(manifest.frame.assign(image_id=[str(place) for place in range(len(IDS))]))
    np.testing.assert_array_equal(embeddings.load(write(np.arange(len(IDS))), numbered), VECTORS)


def test_ids_of_no_image_are_counted_and_refused_where_none_fits(write):
    foreign = [*IDS, "other_1", "other_2"]
    study = write(foreign, np.concatenate([VECTORS, VECTORS[:2]]))
    [note] = embeddings.notes(study, planted.manifest())
    assert note.startswith("2 of 62 ids of vectors.npz are of no image of this study (other_1, other_2)")
    np.testing.assert_array_equal(embeddings.load(study, planted.manifest()), VECTORS)
    assert embeddings.notes(write(), planted.manifest()) == []
    with pytest.raises(
        DataError, match=r"60 of 60 ids of vectors\.npz are of no image .* such as 'x0', .* such as 'i0'"
    ):
        embeddings.notes(write([f"x{place}" for place in range(60)]), planted.manifest())


def test_vectors_of_files_that_changed_since_are_told(write):
    manifest: Manifest = dataclasses.replace(planted.manifest(), facts={"data": "now"})
    assert embeddings.notes(write(about=np.array(json.dumps({"data": "now"}))), manifest) == []
    [note] = embeddings.notes(write(about=np.array(json.dumps({"data": "before"}))), manifest)
    assert re.search("changed since vectors.npz was computed", note)


def test_vectors_of_real_images_are_not_those_of_a_stand_in(write):
    manifest: Manifest = dataclasses.replace(planted.manifest(), facts={"data": "synthetic"})
    study = write(about=np.array(json.dumps({"data": "real"}))).model_copy(update={"on_stand_in": True})
    with pytest.raises(DataError, match="from other images: this study runs on synthetic ones, since"):
        embeddings.notes(study, manifest)
    study = write([f"x{place}" for place in range(60)]).model_copy(update={"on_stand_in": True})
    with pytest.raises(DataError, match="such as 'i0', synthetic ones, since there are none at"):
        embeddings.notes(study, manifest)


def synthetic(path="", **more):
    overrides = " ".join(f"{key}={value}" for key, value in more.items())
    return config.load("synthetic", "smoke", overrides=f"{f'dataset.embeddings={path}' if path else ''} {overrides}")


def test_a_study_of_vectors_has_one_backbone_and_changes_no_image(tmp_path):
    study = synthetic(
        tmp_path / "vectors.npz",
        **{"head.augmentation": "dihedral", "evaluation.test_time_views": 3, "learning_curve.fine_tuning": "true"},
    )
    assert study.backbones == study.pretrained_backbones == [EMBEDDINGS]
    assert (study.head.augmentation, study.evaluation.test_time_views) == ("none", 0)
    assert not study.learning_curve.fine_tuning
    assert config.Study.model_validate(study.resolved()) == study, "a report's study can be read again"
    assert synthetic().embeddings is None
    with pytest.raises(StudyError, match=r"backbones names embeddings, which are vectors .*; expected their file"):
        synthetic(backbones="[embeddings]")
    named = synthetic(tmp_path / "vectors.npz", **{"pretraining.embeddings.corpus": "CheXpert"})
    assert named.pretraining[EMBEDDINGS].corpus == "CheXpert"


def test_a_report_depends_on_the_content_of_the_file(tmp_path):
    path = tmp_path / "vectors.npz"
    study = synthetic(path)
    with pytest.raises(DataError, match="no file of embeddings at"):
        freshness.check_data(study)
    prints = []
    for content in (b"1", b"22"):
        path.write_bytes(content)
        prints.append(freshness.Batch(study).shared)
    changed = {key for key in prints[0] if prints[0][key] != prints[1][key]}
    assert changed == {"embeddings"}, "the images are the same, as a comparison of reports must know"
    assert freshness.Batch(synthetic()).shared.keys() == {"study", "data"}
    freshness.check_data(study)


def test_vectors_are_checked_before_a_notebook_starts(tmp_path):
    path = tmp_path / "vectors.npz"
    manifest = adapters.load(synthetic())
    ids = manifest.frame["image_id"].tolist()
    np.savez(path, image_id=np.array(ids[:-30]), vector=np.ones((len(ids) - 30, 3), np.float32))
    with pytest.raises(DataError, match="images have no vector in"):
        checking.check_images(synthetic(path), "synthetic/smoke")
    about = np.array(json.dumps({"data": "of another profile"}))
    np.savez(path, image_id=np.array(ids), vector=np.ones((len(ids), 3), np.float32), about=about)
    with pytest.raises(DataError, match="was computed from other images: synthetic ones of another profile"):
        checking.check_images(synthetic(path), "synthetic/smoke")
