"""Export: the bundle says what it holds, and tells a wrong answer from a right one."""

import numpy as np
import pytest

import planted
from scanbook import bundle, engines, export, runtime
from scanbook.engines import OpenVinoEngine
from scanbook.errors import BundleError


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    return planted.export(tmp_path_factory.mktemp("export") / "bundle", planted.network(), 1.7)


def test_parity_table_tells_same_from_swapped(exported):
    engine, photos = OpenVinoEngine(exported.model), planted.pixels()
    reference = engine.predict(photos)[0]
    swapped = engine.predict(np.ascontiguousarray(photos[..., ::-1]))[0]
    table = export.parity_table(reference, {"same": reference, "swapped": swapped})
    assert table.loc["same"].tolist() == [0, "60 of 60", True]
    assert not table.loc["swapped", "agrees"] and table.loc["swapped", "difference"] > engines.PARITY
    same = int((reference.argmax(1) == swapped.argmax(1)).sum())
    assert table.loc["swapped", "same class"] == f"{same} of 60"


def test_a_constant_answer_agrees_with_nothing():
    constant = np.full((32, 3), 1 / 3)
    with np.errstate(invalid="ignore"):
        assert not export.parity_table(constant, {"itself": constant})["agrees"].any()


def test_bundle_describes_what_was_trained(exported):
    again = bundle.load(exported.folder)
    assert again == exported
    assert again.classes == planted.CLASSES and again.image_size == planted.SIZE
    assert (again.temperature, again.abstain_below) == (1.7, 0.4)
    assert again.metrics == {"accuracy": {"value": 0.5, "low": 0.4, "high": 0.6}}
    expected = {
        "title": "Planted colours",
        "question": "Is it blue?",
        "data": "real images (drawn for a test): 60 images, 60 groups",
        "licence": "CC0",
        "profile": "quick",
        "input": "Send images as the camera took them.",
        "backbone": "tiny",
    }
    assert again.about == expected


def test_keras_model_of_the_bundle_answers_as_its_openvino_model(exported):
    keras_model = runtime.keras().models.load_model(exported.folder / exported.models["keras"], compile=False)
    photos = planted.pixels()
    for ours, theirs in zip(
        OpenVinoEngine(exported.model).predict(photos), engines.KerasEngine(keras_model).predict(photos), strict=True
    ):
        assert engines.parity(theirs, ours) <= 1e-4


def test_model_of_another_size_is_refused_and_the_older_bundle_stays(exported):
    from scanbook import backbones

    before = bundle.load(exported.folder)
    with pytest.raises(BundleError, match=r"expected u8 \(64, 64, 3\)"):
        planted.export(exported.folder, backbones.build("baseline_cnn", (48, 48), 3), 1.0)
    assert bundle.load(exported.folder) == before


def test_a_model_of_cut_outs_says_that_it_wants_them():
    assert "already cut out by a mask" in export.asks_for(planted.study(input="cutout"))
    assert "already cropped to the box" in export.asks_for(planted.study(input="crop"))
