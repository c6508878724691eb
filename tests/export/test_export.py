"""Export: the bundle says what it holds, and tells a wrong answer from a right one."""

import sys
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from helpers import planted, stored
from scanbook import bundle, cli, config, export, runtime
from scanbook.bundle.description import FORMAT
from scanbook.data.manifest import TEST, VALIDATION
from scanbook.errors import BundleError, ModelError
from scanbook.export import bundles, formats
from scanbook.inspection import grad_cam
from scanbook.models import backbones, engines
from scanbook.models.engines import OpenVinoEngine


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    return planted.export(tmp_path_factory.mktemp("export") / "bundle", planted.network(), 1.7)


def test_parity_table_tells_same_from_swapped(exported):
    engine, photos = OpenVinoEngine(exported.model_path()), planted.pixels()
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
        "data": "real images (made for a test): 60 images, 60 groups",
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
        OpenVinoEngine(exported.model_path()).predict(photos),
        engines.KerasEngine(keras_model).predict(photos),
        strict=True,
    ):
        assert engines.parity(theirs, ours) <= 1e-4


def test_model_of_another_size_is_refused_and_the_older_bundle_stays(exported):
    before = bundle.load(exported.folder)
    with pytest.raises(BundleError, match=r"expected u8 \(64, 64, 3\)"):
        planted.export(exported.folder, backbones.build("baseline_cnn", (48, 48), 3), 1.0)
    assert bundle.load(exported.folder) == before


def test_a_model_of_cut_outs_says_that_it_wants_them():
    assert "already cut out by a mask" in export.describe_input(planted.study(input="cutout"))
    assert "already cropped to the box" in export.describe_input(planted.study(input="crop"))


# every format


EXAM = {"rule": "mean", "calibration": 1.2, "abstain_below": 0.3, "metrics": {"accuracy": {"value": 0.5}}}
POINTS = {"blue": {"classes": ["sky"], "threshold": 0.5, "sensitivity": {"value": 1.0}, "specificity": {"value": 0.5}}}


def write(folder, **changes):
    metrics = pd.DataFrame({"value": [0.5], "low": [0.4], "high": [0.6]}, index=["accuracy"])
    options = {"temperature": 1.7, "abstain_below": 0.4, "metrics": metrics, "about": {"backbone": "tiny"}}
    options |= {"images": planted.pixels(), "operating_points": POINTS, "dataset_card": "# Card\n", "exam": EXAM}
    study = planted.study(class_names={"ko": {"sky": "하늘"}})
    return export.write_bundle(folder, study, planted.manifest(), planted.network(), **options | changes)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return write(tmp_path_factory.mktemp("whole") / "bundle")


def test_fixed_images_are_of_test_then_of_validation():
    manifest = planted.manifest()
    rows = export.select_fixed(manifest)
    splits = manifest.frame["split"].iloc[rows].tolist()
    assert splits == [TEST] * 12 + [VALIDATION] * 11 and len(rows) <= formats.FIXED


def test_every_format_answers_as_the_trained_network(whole):
    """As the description says, and as the files do when they are opened anew."""
    manifest, model = planted.manifest(), grad_cam.add_heat_maps(planted.network(), 1.7)
    shown = planted.pixels()[export.select_fixed(manifest)]
    reference = engines.KerasEngine(model).predict(shown)[0]
    exact = [bundle.FORMAT_NAMES[style] for style in bundle.FILES if style not in bundle.INT8]
    assert set(whole.models) >= {"keras", "openvino", "saved_model", "onnx", "litert"}
    assert all(whole.parity[place]["agrees"] for place in exact)
    answers = {
        bundle.FORMAT_NAMES[style]: engines.open_saved(whole.folder / name).predict(shown)[0]
        for style, name in whole.models.items()
    }
    table = export.parity_table(reference, answers)
    assert table.loc[exact, "agrees"].all() and table.loc[exact, "difference"].max() < 1e-4
    for place in exact:
        assert table.loc[place, "difference"] == pytest.approx(whole.parity[place]["difference"], abs=1e-5)


def test_int8_is_kept_with_its_loss_or_excluded_with_the_reason(whole):
    summary = export.summarise_formats(whole)
    for name in ("model.onnx", "model.tflite"):
        assert f"{(whole.folder / name).stat().st_size / 2**20:.3g} MiB" in summary
    assert tuple(whole.losses) == bundle.INT8
    for style, loss in whole.losses.items():
        assert loss["images"] == 11 and loss["change"] == loss["accuracy"] - loss["reference"]
        assert (style in whole.models) != (style in whole.excluded)
        if style in whole.models:
            assert engines.open_saved(whole.folder / whole.models[style]).precision == "int8"
        assert f"{bundle.FORMAT_NAMES[style]} classifies" in summary and "validation images" in summary


def test_bundle_carries_what_the_cards_and_the_page_need(whole):
    assert bundle.load(whole.folder) == whole
    assert whole.names == {"ko": ("하늘", "leaf", "brick")} and whole.operating_points == POINTS and whole.exam == EXAM
    assert whole.hub == {
        "license": "other",
        "license_name": "cc0",
        "tags": ["medical", "photograph"],
        "datasets": ["planted"],
    }
    assert (whole.folder / "DATASET_CARD.md").read_text() == "# Card\n"
    listed = export.list_files(whole)["MiB"]
    assert {"saved_model/", "scanbook/", "model.xml", "model.tflite", "Dockerfile"} <= set(listed.index)
    total = sum(path.stat().st_size for path in whole.folder.rglob("*") if path.is_file())
    assert listed.sum() == pytest.approx(total / 2**20)


def test_what_changes_the_files_or_keys_of_a_bundle_raises_its_format(whole, tmp_path):
    """If this fails: raise `FORMAT`, read the former format or refuse it, and store a bundle, as CONTRIBUTING says."""
    assert stored.layout(whole.folder) == stored.layout(stored.unpack(FORMAT, tmp_path))


def test_a_format_that_answers_otherwise_is_refused_and_the_older_bundle_stays(whole, monkeypatch):
    before = bundle.load(whole.folder)
    other = grad_cam.add_heat_maps(backbones.build("baseline_cnn", planted.SIZE, 3), 1.7)
    monkeypatch.setattr(engines, "to_saved_model", lambda _, path: other.export(path, verbose=False))
    monkeypatch.setattr(formats, "quantise", lambda study, manifest, images, converted: converted)
    monkeypatch.setattr(formats, "_write_extras", lambda *_: {})
    with pytest.raises(
        BundleError, match=r"SavedModel does not agree with the trained network: .* on 23 images"
    ) as caught:
        write(whole.folder)
    assert "\n" not in str(caught.value)
    assert bundle.load(whole.folder) == before


def test_formats_that_are_not_available_or_lose_too_much_are_excluded_with_the_reason(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tf2onnx", None)
    monkeypatch.setattr(engines, "to_litert", cannot_write)
    monkeypatch.setattr(engines, "to_saved_model", lambda *_: None)
    monkeypatch.setattr(formats, "quantise", lambda study, manifest, images, converted: converted)
    monkeypatch.setattr(engines, "rejection_reason", lambda *_: "int8: right on 1 of 11 images")
    written = write(tmp_path / "bundle")
    summary = export.summarise_formats(written)
    assert "onnx" not in written.models and not (written.folder / "model.onnx").exists()
    assert 'ONNX is not available: ONNX needs onnx, onnxruntime and tf2onnx: pip install "scanbook[onnx]".' in summary
    assert "LiteRT is not available: model.tflite cannot be written as LiteRT (it lacks Foo)." in summary
    assert {written.excluded[style] for style in bundle.INT8} == {"int8: right on 1 of 11 images"}
    assert written.precisions == ("fp32",) and set(written.models) == {"openvino", "keras"}
    assert not list(written.folder.glob("model_int8.*")) and summary.count("It was excluded.") == 2
    assert "OpenVINO int8 and LiteRT int8 are not available: int8: right on 1 of 11 images." in summary


def cannot_write(_, path):
    raise ModelError(f"{path} cannot be written as LiteRT (it lacks Foo)")


def test_without_litert_one_line_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    paths = {style: tmp_path / name for style, name in bundle.FILES.items()}
    excluded = formats._write_extras(planted.network("small_cnn"), paths, planted.pixels()[:2])
    assert set(excluded) == {"litert", "litert_int8"} and [path.name for path in tmp_path.iterdir()] == ["model.onnx"]
    lines = bundle.excluded_sentences(SimpleNamespace(excluded=excluded))
    assert lines == [
        'LiteRT and LiteRT int8 are not available: LiteRT needs ai-edge-litert: pip install "scanbook[litert]".'
    ]


@pytest.mark.parametrize(("right", "allowed"), [(30, True), (29, True), (28, False)])
def test_on_the_fixed_images_int8_may_lose_one_in_a_hundred_rounded_up(right, allowed):
    y_true = np.zeros(32, int)
    reference, other = (np.tile([[0.1, 0.9]], (32, 1)) for _ in range(2))
    reference[:30], other[:right] = [0.9, 0.1], [0.9, 0.1]
    reason = formats._check_int8(reference, other, y_true)
    assert (reason == "") == allowed and (allowed or "right on 28 of 32" in reason)
    other[0] = np.nan
    assert formats._check_int8(reference, other, y_true)


def test_a_comparison_that_cannot_tell_red_from_blue_is_refused():
    class Grey:
        def predict(self, images):
            level = images.mean((1, 2, 3)) / 255
            return (np.stack([level, 1 - level], 1),)

    photos = planted.pixels()[:8]
    reference = Grey().predict(photos)[0]
    with pytest.raises(BundleError, match="OpenVINO gives the same output for 8 images when red and blue are swapped"):
        formats._check_swapped(photos, reference, {"OpenVINO": Grey()})
    assert formats._check_swapped(photos[..., :1].repeat(3, 3), reference, {"OpenVINO": Grey()}).empty


SMALL = "dataset.images=72 bootstrap_rounds=20 backbones=[baseline_cnn] weights=none"


@pytest.mark.slow
def test_the_command_exports_a_study_and_names_the_folder(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("SCANBOOK_PROFILE", "smoke")
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "thesis.tex").write_text("text")
    command = ["export", "--study", "synthetic", "--set", SMALL, "--to", str(folder)]
    assert cli.main(command) == 1  # before anything is trained
    assert "is not a bundle" in capsys.readouterr().err
    (folder / "thesis.tex").unlink()
    assert cli.main(command) == 0
    last = capsys.readouterr().out.strip().splitlines()[-1]
    made = bundle.load(folder)
    assert last.startswith(f"synthetic/smoke: exported to {folder}. Formats: Keras, saved (")
    assert set(made.models) | set(made.excluded) == set(bundle.FILES) and made.label(0, "ko") == "멜라닌세포모반"
    assert {"nevus", "malignant"} <= set(made.operating_points) and made.metrics["accuracy"]["low"] is not None
    assert "# Dataset card for Synthetic dermoscopy" in (folder / "DATASET_CARD.md").read_text()
    assert all(row["agrees"] for place, row in made.parity.items() if "int8" not in place)

    # notebook 08 validates a bundle that is written in seconds: its answers are the same
    plain = export.export_plain(config.load("synthetic", "smoke", overrides=SMALL), tmp_path / "plain")
    photos = np.random.default_rng(0).integers(0, 256, (6, *made.image_size, 3)).astype(np.uint8)
    answers = [OpenVinoEngine(each.model_path()).predict(photos)[0] for each in (made, plain)]
    assert np.allclose(*answers, atol=1e-6) and set(plain.models) == {"openvino", "keras"}
    same = ("name", "classes", "temperature", "abstain_below", "operating_points", "metrics")
    assert all(getattr(made, name) == getattr(plain, name) for name in same)
    assert made.about == plain.about and made.about["weights"] == "none: trained from random weights"


def _members(*networks):
    return SimpleNamespace(members=[(SimpleNamespace(backbone=name, kind=kind), 1.0) for name, kind in networks])


def test_the_card_says_where_the_weights_come_from(tmp_path):
    planted.network().save(tmp_path / "own.keras")
    study = planted.study(
        backbones=["mobilenet_v2_0.35", "mobilenet_v2_0.5", "baseline_cnn"],
        weights={"baseline_cnn": str(tmp_path / "own.keras")},
        pretraining={"baseline_cnn": {"corpus": "planted colours", "licence": "CC0"}},
    )
    described = bundles._describe_weights(study, _members(("baseline_cnn", "fine-tuned")))
    assert described["weights"] == "file own.keras" and described["pretrained on"] == "planted colours"
    assert described["licence of the weights"] == "CC0" and len(described["SHA-256 of the weights"]) == 64
    shipped = bundles._describe_weights(
        study.model_copy(update={"weights": "scanbook"}), _members(("mobilenet_v2_0.35", "frozen"))
    )
    assert shipped["weights"] == "scanbook" and shipped["pretrained on"] == "synthetic images"
    assert shipped["licence of the weights"] == "Apache-2.0"
    both = bundles._describe_weights(
        study.model_copy(update={"weights": "scanbook", "backbones": ["mobilenet_v2_0.35"]}),
        _members(("mobilenet_v2_0.35", "fine-tuned"), ("baseline_cnn", "from scratch")),
    )
    assert both["weights"] == "scanbook"
    assert bundles._describe_weights(study, _members(("baseline_cnn", "from scratch"))) == {
        "weights": "none: trained from random weights"
    }
