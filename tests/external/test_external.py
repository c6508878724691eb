"""A bundle on images of another source: names, copies, what the service answers, and what a reader is told."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from helpers import bundles, findings
from scanbook import bundle, config, external
from scanbook.data import images
from scanbook.data.manifest import COLUMNS, TEST, Manifest, finding_column
from scanbook.errors import DataError, RunError, StudyError
from scanbook.serving.predictor import Predictor

COLOURS = {"red": (220, 60, 50), "green": (60, 210, 70), "blue": (50, 70, 215), "grey": (120, 120, 120)}


def write_colours(folder: Path, counts: dict[str, int], seed: int = 0, side: int = 40) -> Path:
    """Write PNG files of patches of noisy colour, in a folder for each class."""
    draw = np.random.default_rng(seed)
    for name, count in counts.items():
        (folder / name).mkdir(parents=True)
        for number in range(count):
            pixels = np.array(COLOURS[name]) + draw.normal(0, 25, (side, side, 3)) + draw.normal(0, 15, 3)
            file = images.encode_png(np.clip(pixels, 0, 255).astype(np.uint8))
            (folder / name / f"{name}-{seed}-{number}.png").write_bytes(file)
    return folder


def study_of(folder: Path, **changes: Any) -> config.Study:
    values = {
        **{"study": "elsewhere", "title": "Elsewhere", "question": "Which colour?", "profile": "smoke"},
        **{"dataset": {"adapter": "folder"}, "backbones": ["baseline_cnn"], "data": str(folder)},
        "bootstrap_rounds": 50,
    }
    return config.Study.model_validate(values | changes)


@pytest.fixture(scope="module")
def colours(tmp_path_factory: pytest.TempPathFactory) -> bundle.Bundle:
    folder = tmp_path_factory.mktemp("colours")
    rates = {name: {"value": 0.9, "low": 0.8, "high": 1.0} for name in ("sensitivity", "specificity")}
    points = {
        "warm": {"classes": ["red"], "threshold": 0.5, **rates},
        "cold": {"classes": ["green", "blue"], "threshold": 0.4, **rates},
    }
    bundles.write(folder / "bundle", operating_points=points)
    return bundle.load(folder / "bundle")


def test_the_answers_are_those_of_the_service(colours: bundle.Bundle, tmp_path: Path) -> None:
    folder = write_colours(tmp_path / "images", {"red": 6, "green": 5, "blue": 4})
    found = external.validate(study_of(folder), str(colours.folder))
    assert len(found.external) == 15 and found.external.classes == bundles.CLASSES
    paths = dict(zip(found.source.frame["image_id"], found.source.frame["path"], strict=True))
    predictor = Predictor(colours)
    for row in (0, 7, 14):
        [answer] = predictor.predict([Path(paths[found.external.image_id[row]]).read_bytes()])
        assert np.allclose(answer.probabilities, found.external.probabilities[row], atol=1e-6)
        assert answer.label == found.external.classes[found.external.y_pred[row]]
    assert found.external.correct.mean() > 0.9
    assert found.points["warm"].names == ("red",) and found.points["cold"].names == ("green", "blue")
    assert isinstance(found.own, str) and "unknown study 'colours'" in found.own and found.internal is None


def test_several_names_may_be_one_class_and_others_are_counted(colours: bundle.Bundle, tmp_path: Path) -> None:
    folder = write_colours(tmp_path / "images", {"red": 3, "green": 4, "blue": 5, "grey": 6})
    mapping = {"red": "red", "green": "green", "blue": "green"}
    found = external.validate(study_of(folder, external={"classes": mapping}), str(colours.folder))
    assert np.bincount(found.external.y_true, minlength=3).tolist() == [3, 9, 0]
    assert found.excluded["images"].to_dict() == {"grey": 6}
    assert set(found.names["green"]) == {"green", "blue"} and found.names["red"] == ("red",)
    assert found.compared == ("red", "green")


def test_a_target_of_all_compared_classes_has_no_threshold(colours: bundle.Bundle, tmp_path: Path) -> None:
    """All images are its positives, so that it has no specificity."""
    study = study_of(write_colours(tmp_path / "images", {"green": 6, "blue": 6}))
    assert external.validate(study, str(colours.folder)).points == {}


def test_images_of_a_single_class_are_validated(colours: bundle.Bundle, tmp_path: Path) -> None:
    found = external.validate(study_of(write_colours(tmp_path / "images", {"red": 8})), str(colours.folder))
    assert found.single and found.compared == ("red",) and len(found.external) == 8
    assert set(found.points) == {"warm"}, "whose sensitivity is all that is known of a single class"


@pytest.mark.parametrize(
    ("counts", "mapping", "says"),
    [
        (
            {"red": 2, "grey": 2},
            {},
            "study elsewhere has 'grey', which is none of the classes of bundle 'colours' (red, green, blue); name "
            "what each is, study elsewhere: external.classes: {grey: red}, and leave out the others",
        ),
        (
            {"red": 2, "green": 2},
            {"violet": "red"},
            "study elsewhere: external.classes names 'violet', which the images do not have; expected green, red",
        ),
        (
            {"red": 2, "green": 2},
            {"red": "violet"},
            "study elsewhere: external.classes.red is 'violet'; expected one of the bundle's classes, red, green, blue",
        ),
    ],
)
def test_a_wrong_map_is_one_line(
    counts: dict[str, int], mapping: dict[str, str], says: str, colours: bundle.Bundle, tmp_path: Path
) -> None:
    study = study_of(write_colours(tmp_path / "images", counts), external={"classes": mapping})
    with pytest.raises(StudyError) as caught:
        external.validate(study, str(colours.folder))
    assert str(caught.value) == says


@pytest.mark.parametrize("form", ["original", "crop", "cutout"])
def test_no_rule_of_training_excludes_external_images(form: str, colours: bundle.Bundle, tmp_path: Path) -> None:
    """Copies, flagged and surplus images are as readable as others, whatever form the study's images have."""
    folder = write_colours(tmp_path / "images", {"red": 12, "green": 12, "blue": 12})
    content = (folder / "red" / "red-0-0.png").read_bytes()
    (folder / "green" / "copy.png").write_bytes(content)  # of another class
    (folder / "red" / "copy.png").write_bytes(content)
    (folder / "blue" / "broken.png").write_bytes(b"broken")
    rules = {"quality": {"drop": ["near_duplicates"]}, "max_per_class": 2}
    study = study_of(folder, input=form, **rules)
    found = external.validate(study, str(colours.folder))
    assert len(found.external) == 38 and found.unreadable == 1
    if form != "original":
        assert found.source.facts["input"] == form
        assert all(Path(path).is_file() and folder not in Path(path).parents for path in found.source.frame["path"])


def test_few_images_of_one_class_are_cropped_too(colours: bundle.Bundle, tmp_path: Path) -> None:
    study = study_of(write_colours(tmp_path / "images", {"red": 3}), input="crop")
    assert len(external.validate(study, str(colours.folder)).external) == 3


def test_a_study_or_a_bundle_names_the_source(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=r"names no other source; add external: \{study: name\} to its file"):
        external.validate(study_of(tmp_path))
    with pytest.raises(RunError, match=r"no bundle at .*gone; name the folder of an exported model with BUNDLE"):
        external.validate(study_of(tmp_path), str(tmp_path / "gone"))


def test_findings_are_joined_and_what_nobody_names_is_not_labelled(tmp_path: Path) -> None:
    frame = pd.DataFrame({name: ["x", "y", "z"] for name in COLUMNS}).assign(split="")
    values = {"Nodule": [1, 0, np.nan], "Mass": [0, 0, 0], "Fluid": [np.nan, 1, 0], "Cough": [1, 1, 1]}
    frame = frame.assign(**{finding_column(name): column for name, column in values.items()})
    manifest = Manifest.of_findings("other", frame, tuple(values))
    exported = bundle.Bundle(tmp_path, "chest", (), (8, 8), findings=("lesion", "effusion", "device"))
    mapping = {"Nodule": "lesion", "Mass": "lesion", "Fluid": "effusion"}
    mapped, names, excluded = external.map_labels(manifest, exported, mapping, "other")
    assert mapped.findings == exported.findings
    expected = [[1, np.nan, np.nan], [0, 1, np.nan], [np.nan, 0, np.nan]]
    assert np.array_equal(mapped.labels.values, expected, equal_nan=True)
    assert names == {"lesion": ("Nodule", "Mass"), "effusion": ("Fluid",)}
    assert excluded["images"].to_dict() == {"Cough": 3}
    with pytest.raises(StudyError, match="study other has findings, and bundle 'x' classes; expected classes of both"):
        external.map_labels(manifest, bundle.Bundle(tmp_path, "x", ("a", "b"), (8, 8)), {}, "other")


def sources(folder: Path, copy: Callable[[Path], bytes]) -> tuple[Manifest, Manifest]:
    """Two wards of different images, the first three of the second being made of the first's."""
    first, second = (findings.ward(folder / name, 40, seed) for seed, name in enumerate(("first", "second")))
    for place in range(3):
        Path(second.frame["path"][place]).write_bytes(copy(Path(first.frame["path"][10 * place])))
    return tuple(
        manifest.with_frame(manifest.frame.assign(split=split))
        for manifest, split in ((first, "train"), (second, TEST))
    )


def test_exact_copies_of_training_images_are_found(tmp_path: Path) -> None:
    first, second = sources(tmp_path, Path.read_bytes)
    shared = external.find_shared(first, second)
    assert shared["image"].tolist() == second.frame["image_id"].tolist()[:3]
    assert shared["copy_of"].tolist() == [first.frame["image_id"][10 * place] for place in range(3)]
    assert set(shared["split"]) == {"train"} and set(shared["kind"]) == {"exact copy"}
    with pytest.raises(DataError, match="40 of 40 images of ward are byte-identical to images of ward, from which"):
        external.find_shared(first, first)


def half_labelled(folder: Path, share: float, unknown: str = "", seeds: tuple[int, int] = (0, 1)) -> list[Manifest]:
    """Two wards that are alike; of the second, a share of the images has no label of a frequent finding."""
    wards = [findings.ward(folder / str(seed), 90, seed, missing=0) for seed in seeds]
    frame = wards[1].frame.assign(split=TEST)
    column = finding_column(unknown or "Effusion")
    without = np.arange(len(frame)) < share * len(frame)
    return [
        wards[0].with_frame(wards[0].frame.assign(split="train")),
        wards[1].with_frame(frame.assign(**{column: frame[column].mask(without)})),
    ]


def test_what_the_other_source_never_labels_is_no_shift_of_prevalence(tmp_path: Path) -> None:
    first, second = half_labelled(tmp_path, 1)
    shifts = external.find_shifts(first, second, first, compared=("Nodule", "Device"), rounds=100)
    assert shifts.loc["prevalence", "low"] < 0.5 and shifts.loc["prevalence", "images"] == 180


def test_partly_labelled_images_are_no_negatives_of_the_prevalence(tmp_path: Path) -> None:
    first, second = half_labelled(tmp_path, 0.5)
    shifts = external.find_shifts(first, second, first, rounds=100)
    assert shifts["low"].max() < 0.5 and set(shifts["images"]) == {135}, shifts
    assert external.fully_labelled(first, second, first.findings)[1].frame["image_id"].tolist() == [
        f"{number:05d}" for number in range(45, 90)
    ]
    first, second = half_labelled(tmp_path, 1)
    assert external.fully_labelled(first, second, first.findings) is None
    shifts = external.find_shifts(first, second, first, rounds=100)
    assert "prevalence" not in shifts.index and set(shifts["images"]) == {180}


def test_mirrored_copies_of_real_looking_images_are_found(tmp_path: Path) -> None:
    study = config.load("synthetic", "smoke", overrides="dataset.images=30")
    manifest, _ = external.load_external(study)
    other, _ = external.load_external(config.load("synthetic_hospital", "smoke", overrides="dataset.images=20"))
    assert external.find_shared(manifest, other).empty
    mirrored = tmp_path / "mirrored.png"
    mirrored.write_bytes(images.encode_png(images.read(Path(manifest.frame["path"][4]))[:, ::-1]))
    frame = other.frame.copy()
    frame.loc[2, "path"] = str(mirrored)
    [row] = external.find_shared(manifest, other.with_frame(frame)).to_dict("records")
    assert (row["image"], row["copy_of"]) == (frame["image_id"][2], manifest.frame["image_id"][4])
    assert row["kind"] == "near-duplicate, mirrored"


def test_a_hospital_is_another_one_by_its_keys_alone() -> None:
    plain = config.load("synthetic", "smoke", overrides="dataset.images=30")
    tinted = config.load("synthetic", "smoke", overrides="dataset.images=30 dataset.hospital.tint=20")
    first, second = (external.load_external(study)[0] for study in (plain, tinted))
    assert first.frame["image_id"].tolist() == second.frame["image_id"].tolist()
    means = [images.read(Path(manifest.frame["path"][3])).mean(axis=(0, 1)) for manifest in (first, second)]
    assert np.allclose(means[1] - means[0], [20, 0, -20], atol=2.5)
    with pytest.raises(StudyError, match=r"dataset\.hospital\.frequencies names the class 'wart'; expected some of"):
        external.load_external(config.load("synthetic", "smoke", overrides="dataset.hospital.frequencies.wart=2"))


def test_the_default_study_names_another_hospital() -> None:
    study = config.load("synthetic", "quick")
    other = config.load(study.external.study, "quick")
    assert other.dataset.adapter == "synthetic" and other.dataset.seed != study.dataset.seed
    assert json.dumps(study.resolved()["external"]) == '{"study": "synthetic_hospital", "classes": {}}'
