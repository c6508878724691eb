"""Studies: every shipped one is valid in each profile, and every mistake is one line that says what is allowed."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from helpers.projects import shipped
from scanbook import config, runtime
from scanbook.errors import StudyError
from scanbook.registry import BACKBONES, POLICIES

SHIPPED = shipped()

MINIMAL = """
study: mine
title: Mine
question: Any?
modality: images
dataset: {adapter: folder}
backbones: [baseline_cnn]
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The study file of another project; rewrite it to change the study."""
    folder = tmp_path / "notebooks" / "studies"
    folder.mkdir(parents=True)
    monkeypatch.setenv("SCANBOOK_HOME", str(tmp_path))
    (folder / "mine.yaml").write_text(MINIMAL)
    return folder / "mine.yaml"


def refusal(name: str = "mine", profile: str = "", overrides: str = "") -> str:
    """Return the line of the error, after checking that it is one line."""
    with pytest.raises(StudyError) as caught:
        config.load(name, profile, "", overrides)
    message = str(caught.value)
    assert message and "\n" not in message and "pydantic" not in message and "  " not in message
    return message


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_study_is_valid_in_each_profile_and_small_in_smoke(name: str) -> None:
    profiles = [config.load(name, profile) for profile in config.PROFILES]
    for profile, study in zip(config.PROFILES, profiles, strict=True):
        assert (study.study, study.profile) == (name, profile)
        assert study.title and study.question.endswith("?") and study.dataset.source and study.dataset.licence
        assert set(study.backbones) <= set(BACKBONES)
        assert set(study.augmentation.split("+")) <= set(POLICIES)
    sizes = [study.resolved()["image_size"] for study in profiles]
    assert sizes == sorted(sizes) and len(set(sizes)) == 3
    smoke = profiles[0]
    images = smoke.stand_in if smoke.on_stand_in else smoke.dataset
    assert 32 <= (config.load(name, "smoke", data="somewhere").limit or images.images) <= 128
    assert not smoke.on_stand_in or images.images <= 300
    assert smoke.image_size <= 64 and len(smoke.backbones) <= 2
    assert smoke.scratch.epochs == smoke.fine_tuning.epochs == 1


def test_the_first_studies_are_shipped() -> None:
    assert sorted(SHIPPED) == SHIPPED and "synthetic" in SHIPPED and "ham10000" in SHIPPED


def test_the_profile_comes_from_the_argument_then_the_variable_then_quick(monkeypatch: pytest.MonkeyPatch) -> None:
    assert config.load("synthetic").profile == "quick"
    monkeypatch.setenv("SCANBOOK_PROFILE", "smoke")
    assert config.load("synthetic").profile == "smoke"
    assert config.load("synthetic", "full").profile == "full"
    monkeypatch.setenv("SCANBOOK_PROFILE", "tiny")
    assert "unknown profile 'tiny'; expected one of smoke, quick, full" in refusal("synthetic")


def test_overrides_reach_into_blocks_and_leave_the_rest() -> None:
    plain = config.load("synthetic")
    changed = config.load(
        "synthetic", overrides="fine_tuning.epochs=3 dataset.images=100 backbones=[baseline_cnn] seed=7"
    )
    assert changed.fine_tuning.epochs == 3 and changed.fine_tuning.batch_size == plain.fine_tuning.batch_size
    assert changed.dataset.images == 100 and changed.dataset.size == plain.dataset.size
    assert changed.backbones == ["baseline_cnn"] and changed.seed == 7
    assert config.load("synthetic", overrides="head.learning_rate=1e-3").head.learning_rate == 1e-3
    assert config.load("synthetic", overrides="head.l2=[1e-2,0.5]").head.l2 == [0.01, 0.5]


def test_quotes_hold_a_value_with_spaces_together() -> None:
    overrides = "segmentation.use='k-means RGB' 'segmentation.methods=[Otsu, k-means RGB]'"
    segmentation = config.load("synthetic", overrides=overrides).segmentation
    assert segmentation.use == "k-means RGB" and segmentation.methods == ["Otsu", "k-means RGB"]
    assert "a quote that is not closed" in refusal("synthetic", "", "segmentation.use='k-means")


def test_an_override_wins_over_the_profile(own: Path) -> None:
    own.write_text(MINIMAL + "image_size: 96\nprofiles: {smoke: {image_size: 64, head: {epochs: 2}}}\n")
    assert config.load("mine", "smoke").image_size == 64
    assert config.load("mine", "quick").image_size == 96
    overridden = config.load("mine", "smoke", overrides="image_size=48")
    assert overridden.image_size == 48 and overridden.head.epochs == 2


def test_a_resolved_study_is_frozen_and_its_fingerprint_does_not_depend_on_the_folder(tmp_path: Path) -> None:
    first, second = (config.load("ham10000", data=str(tmp_path / name)) for name in ("a", "b"))
    assert first.location == tmp_path / "a" != second.location
    assert first.resolved() == second.resolved() and "data" not in first.resolved()
    with pytest.raises(ValidationError, match="frozen"):
        first.seed = 3


def test_data_lie_where_named_else_in_the_data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCANBOOK_DATA", str(tmp_path))
    assert config.load("ham10000").location == tmp_path / "ham10000"
    monkeypatch.chdir(tmp_path)
    assert config.load("ham10000", data="images").location == tmp_path / "images"
    monkeypatch.setenv("HOME", str(tmp_path))
    assert config.load("ham10000", data="~/x").location == tmp_path / "x"


def test_pretrained_backbones_are_those_with_weights() -> None:
    study = config.load("synthetic", overrides="backbones=[baseline_cnn,resnet50,mobilenet_v2_0.35]")
    assert study.pretrained_backbones == ["resnet50", "mobilenet_v2_0.35"]


MISTAKES = [
    # overrides, what the line must name: key, value, what is allowed
    ("foo=1", ("unknown key 'foo'", "image_size", "backbones")),
    ("fine_tuning.epoch=3", ("unknown key 'fine_tuning.epoch'", "epochs", "batch_size")),
    ("dataset.pixels=3", ("unknown key 'dataset.pixels'", "images", "size", "seed")),
    ("table=3", ("unknown key 'table'", "image_size")),
    ("splits.parts=3", ("unknown key 'splits.parts'", "test_folds")),
    ("image_size=16", ("image_size", "16", "32")),
    ("image_size=big", ("image_size", "'big'", "integer")),
    ("fine_tuning.epochs=0", ("fine_tuning.epochs", "0", "greater than 0")),
    ("fine_tuning.epochs=2.5", ("fine_tuning.epochs", "2.5", "integer")),
    ("fine_tuning.learning_rate=-1", ("fine_tuning.learning_rate", "-1", "greater than 0")),
    ("head.learning_rate=.nan", ("head.learning_rate", "nan")),
    ("head.l2=[]", ("head.l2", "at least 1")),
    ("head.l2=[-1]", ("head.l2.0", "-1", "greater than or equal to 0")),
    ("segmentation.unet.depth=3", ("unknown key 'segmentation.unet.depth'", "epochs", "batch_size")),
    ("segmentation.methods=[SAM]", ("segmentation.methods", "unknown method 'SAM'", "Otsu", "U-Net")),
    ("segmentation.use=SAM", ("segmentation", "use is 'SAM'", "auto", "Otsu")),
    ("quality.drop=[ugly]", ("quality.drop.0", "'ugly'", "near_duplicates")),
    ("input=mask", ("input", "'mask'", "cutout", "crop")),
    ("on_stand_in=true", ("on_stand_in",)),
    ("fine_tuning.label_smoothing=2", ("fine_tuning.label_smoothing", "2", "less than or equal to 1")),
    ("seed=-1", ("seed", "-1", "greater than or equal to 0")),
    ("splits.test_folds=1", ("splits.test_folds", "1", "2")),
    ("head=3", ("head", "3", "dictionary")),
    ("seed.x=3", ("seed", "{'x': 3}", "integer")),
    ("backbones=[]", ("backbones", "at least 1")),
    ("backbones=[resnet51]", ("unknown backbone 'resnet51'", "resnet50", "baseline_cnn")),
    ("backbones=resnet50", ("backbones", "'resnet50'", "list")),
    ("augmentation=strong", ("unknown policy 'strong'", "dermoscopy", "none")),
    ("weights=jft", ("weights", "'jft'", "'auto'", "'imagenet'", "'scanbook'", "'none'")),
    ("dataset.adapter=dicom", ("dataset.adapter", "'dicom'", "synthetic", "folder", "table", "medmnist")),
    ("study=other", ("'other'", "'synthetic'")),
    ("profile=full", ("profile", "'full'", "PROFILE=full")),
    ("data=x", ("data", "'x'", "DATA=x")),
    ("augmentation=none evaluation.test_time_views=4", ("evaluation.test_time_views", "policy")),
    ("epochs", ("'epochs'", "'='", "key=value")),
    ("dataset.uncertain.Lung Opacity=positive", ("'dataset.uncertain.Lung'", "quotes round a key with spaces")),
    ("=3", ("'=3'", "key=value")),
    ("backbones=[a", ("backbones", "'[a'", "YAML")),
    ("backbones=[vgg16, vgg19]", ("backbones", "'[vgg16,'", "quotes", "backbones='…'")),
    ("title=2020-13-45", ("title", "'2020-13-45'", "YAML")),
]


@pytest.mark.parametrize(("overrides", "named"), MISTAKES, ids=[overrides for overrides, _ in MISTAKES])
def test_a_wrong_override_is_one_line(overrides: str, named: tuple[str, ...]) -> None:
    message = refusal("synthetic", "smoke", overrides)
    assert all(part in message for part in named), message


def test_an_unknown_study_names_those_there_are() -> None:
    message = refusal("melanom")
    assert "'melanom'" in message and all(name in message for name in SHIPPED)


BROKEN = [
    ("a: [", ("mine.yaml", "not valid YAML", "line")),
    ("", ("'study' is missing",)),
    ("- a\n- b", ("mine.yaml is ['a', 'b']", "keys and values")),
    (MINIMAL.replace("title:", "titel:"), ("unknown key 'titel'", "title")),
    (MINIMAL.replace("title: Mine\n", ""), ("'title' is missing",)),
    (MINIMAL.replace("{adapter: folder}", "{}"), ("'dataset.adapter' is missing", "synthetic", "table")),
    (MINIMAL.replace("{adapter: folder}", "{adapter: table, csv: a.csv}"), ("'dataset.image_column' is missing",)),
    (MINIMAL.replace("{adapter: folder}", "{adapter: table, cvs: a.csv}"), ("dataset.",)),
    (MINIMAL.replace("{adapter: folder}", "{adapter: folder, claimed: {a: x}}"), ("dataset.claimed.a", "'x'")),
    (MINIMAL.replace("study: mine", "study: yours"), ("'yours'", "'mine'")),
    (MINIMAL + "profiles: {tiny: {seed: 1}}", ("unknown profile 'tiny'", "smoke, quick, full")),
    (MINIMAL + "profiles: smoke", ("profiles is 'smoke'", "smoke, quick, full")),
    (MINIMAL + "profiles: [smoke]", ("profiles is ['smoke']",)),
    (MINIMAL + "profiles: {full: 3}", ("profiles.full is 3",)),
    (MINIMAL + "profiles: {quick: {sed: 1}}", ("unknown key 'sed'",)),
    (MINIMAL + "1: 2", ("1", "string")),
    (MINIMAL + "profile: full", ("profile", "PROFILE=full")),
    (MINIMAL + "benchmark: {backbone: 'file:a/net.keras'}", ("unknown listed backbone 'file:a/net.keras'",)),
    (
        MINIMAL.replace("[baseline_cnn]", "['file:a/net.keras', 'file:b/net.keras']"),
        ("file:a/net.keras and file:b/net.keras", "would both be file:net.keras", "rename"),
    ),
]


@pytest.mark.parametrize(("text", "named"), BROKEN, ids=range(len(BROKEN)))
def test_a_wrong_study_file_is_one_line(text: str, named: tuple[str, ...], own: Path) -> None:
    own.write_text(text)
    message = refusal()
    assert "mine" in message and all(part in message for part in named), message


def test_a_file_that_is_not_text_is_one_line(own: Path) -> None:
    own.write_bytes(b"study: \xff\xfe\x00")
    assert "not valid YAML" in refusal()


def test_empty_blocks_change_nothing(own: Path) -> None:
    own.write_text(MINIMAL + "profiles:\n  smoke:\n  full: {}\n")
    assert config.load("mine", "full").image_size == config.load("mine", "quick").image_size
    assert config.load("mine", "smoke").image_size == config.loading.SMOKE["image_size"]
    assert config.studies() == ["mine"]
    assert config.studies_dir() == own.parent == runtime.project_root() / "notebooks/studies"
