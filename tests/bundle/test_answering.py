"""The rules of answers: present, absent or not sure, of an image and of an exam; and bundles of findings."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.special import expit, log_softmax, logit, softmax

from helpers import bundles, finding_bundles
from scanbook import bundle
from scanbook.bundle import answering, checking
from scanbook.bundle.answering import ABSENT, NOT_SURE, PRESENT
from scanbook.errors import BundleError
from scanbook.models.engines import OpenVinoEngine

THREE = finding_bundles.names(3)


@pytest.fixture(scope="module")
def findings(tmp_path_factory: pytest.TempPathFactory) -> bundle.Bundle:
    return finding_bundles.write(tmp_path_factory.mktemp("findings") / "bundle", 14)


def answers(p: list, threshold: float | None = 0.5, margin: float = 1.0) -> list:
    return answering.find_answers({"a": {"threshold": threshold, "margin": margin}}, np.array([p]).T)[:, 0].tolist()


def test_an_answer_is_sure_where_the_log_odds_are_far_from_the_threshold() -> None:
    edge = expit(1.0)  # one unit of log odds above a threshold of 0.5
    shown = [0.0, 1 - edge - 1e-3, 1 - edge + 1e-3, 0.5, edge - 1e-3, edge + 1e-3, 1.0]
    assert answers(shown) == [ABSENT, ABSENT, NOT_SURE, NOT_SURE, NOT_SURE, PRESENT, PRESENT]
    assert answers([0.1, 0.5, 0.9], margin=0.0) == [ABSENT, PRESENT, PRESENT]  # at the threshold it is present
    assert answers([0.0, 0.5, 1.0], None) == [NOT_SURE] * 3
    assert answers([0.0, 0.5], 0.0, 0.0) == [PRESENT] * 2 and answers([0.5, 0.99], 1.0) == [ABSENT] * 2
    assert answering.unsure_range({"threshold": 0.5, "margin": 1.0}) == pytest.approx((1 - edge, edge))


@settings(max_examples=50, deadline=None)
@given(arrays(np.float64, (4, 3), elements=st.floats(-12, 12)), st.sampled_from(["mean", "maximum"]))
def test_an_exam_combines_the_logits_before_calibration(logits: np.ndarray, rule: str) -> None:
    """p = sigmoid(slope × z + offset) of the image; the exam combines z and has a calibration of its own."""
    image = {name: {"slope": s, "offset": o} for name, s, o in zip(THREE, (0.5, 1, 2), (-1, 0, 1), strict=True)}
    exam = {"rule": rule, "calibration": finding_bundles.calibration(THREE, 0.7, -0.2)}
    made = bundle.Bundle(Path(), "a", (), (8, 8), findings=THREE, calibration=image, exam=exam)
    slope, offset = np.array([0.5, 1, 2]), np.array([-1, 0, 1])
    combined = logits.mean(0) if rule == "mean" else logits.max(0)
    p = expit(logits * slope + offset)
    expected = combined if p.max() < 1 - 1e-6 else None
    if expected is not None:
        assert answering.combine(made, p) == pytest.approx(expit(0.7 * expected - 0.2), abs=1e-6)


@settings(max_examples=50, deadline=None)
@given(
    arrays(np.float64, (4, 3), elements=st.floats(-9, 9)),
    st.sampled_from(["mean", "maximum"]),
    st.floats(-5, 5),
)
def test_an_exam_of_classes_does_not_depend_on_what_is_added_to_an_image(
    logits: np.ndarray, rule: str, added: float
) -> None:
    exam = {"rule": rule, "calibration": 0.8, "abstain_below": 0.5}
    made = bundle.Bundle(Path(), "a", ("x", "y", "z"), (8, 8), temperature=1.5, exam=exam)
    normal = log_softmax(logits, axis=1)
    combined = normal.mean(0) if rule == "mean" else normal.max(0)
    logits[0] += added
    assert answering.combine(made, softmax(logits / 1.5, axis=1)) == pytest.approx(softmax(combined / 0.8), abs=1e-6)


def test_an_exam_of_one_image_is_the_image_by_the_exams_calibration() -> None:
    block = finding_bundles.exam(THREE)
    made = bundle.Bundle(
        Path(), "a", (), (8, 8), findings=THREE, calibration=finding_bundles.calibration(THREE, 2, 1), exam=block
    )
    p = np.array([[0.2, 0.5, 0.9]])
    assert answering.combine(made, p) == pytest.approx(expit((logit(p[0]) - 1) / 2))


def test_a_bundle_of_findings_is_read_as_it_was_written(findings: bundle.Bundle) -> None:
    again = bundle.load(findings.folder)
    assert again == findings and again.findings == finding_bundles.FINDINGS == again.labels
    assert again.classes == () and again.exam == {} and again.label(2, "ko") == "Effusion"
    values = json.loads((findings.folder / "bundle.json").read_text())
    assert values["classes"] == [] and values["operating_points"]["Hernia"]["threshold"] == 0.5


@pytest.mark.parametrize(
    ("changes", "about"),
    [
        ({"classes": ("a", "b")}, "classes is ('a', 'b'), expected none beside findings"),
        ({"findings": (), "classes": ()}, "classes is (), expected two or more names"),
        ({"findings": ("Effusion", "Effusion", "Mass")}, "findings is"),
        ({"calibration": {}}, "calibration is [], expected the findings in their order, Atelectasis, Cardiomegaly"),
        ({"operating_points": finding_bundles.points(THREE[::-1])}, "operating_points is ['Effusion'"),
        ({"operating_points": finding_bundles.points(THREE, 1.5)}, "threshold is 1.5, expected a probability"),
        ({"operating_points": finding_bundles.points(THREE, 0.5, -1.0)}, "a threshold and a margin of 0 or more"),
        ({"operating_points": finding_bundles.points(THREE, 0.5, float("nan"))}, "a threshold and a margin"),
        ({"operating_points": dict.fromkeys(THREE, 0.5)}, "operating_points.Atelectasis is 0.5"),
        ({"calibration": finding_bundles.calibration(THREE, 0.0)}, "expected a slope above 0 and an offset"),
        ({"exam": {"rule": "median"}}, "exam.rule is 'median', expected one of mean, maximum"),
        ({"exam": finding_bundles.exam(THREE, calibration=1.3)}, "exam.calibration is 1.3"),
        ({"names": {"ko": ("무기폐",)}}, "a name for each of the 3 findings"),
        ({"findings": ("Mass",), "calibration": finding_bundles.calibration(("Mass",)),
          "operating_points": finding_bundles.points(("Mass",))},
         "probabilities of 3 findings, bundle.json names 1"),
    ],
)  # fmt: skip
def test_findings_that_contradict_themselves_are_refused(tmp_path: Path, changes: dict, about: str) -> None:
    with pytest.raises(BundleError) as caught:
        finding_bundles.write(tmp_path / "bundle", **changes)
    assert about in str(caught.value) and "\n" not in str(caught.value)
    assert not (tmp_path / "bundle").exists()


@pytest.mark.parametrize(
    ("exam", "about"),
    [
        ({"rule": "mean"}, "exam.calibration is None, expected a temperature"),
        ({"rule": "mean", "calibration": 1.0, "abstain_below": 2}, "exam.abstain_below is 2"),
        ({"rule": "mean", "calibration": True, "abstain_below": 0.5}, "exam.calibration is True"),
    ],
)
def test_exams_of_classes_that_contradict_themselves_are_refused(tmp_path: Path, exam: dict, about: str) -> None:
    with pytest.raises(BundleError) as caught:
        bundles.write(tmp_path / "bundle", exam=exam)
    assert about in str(caught.value)
    with pytest.raises(BundleError, match="none without findings"):
        bundles.write(tmp_path / "bundle", calibration=finding_bundles.calibration(THREE))


@pytest.mark.parametrize("count", [1, 3, 40])
def test_the_check_compares_every_finding(tmp_path: Path, count: int) -> None:
    made = finding_bundles.write(tmp_path / "bundle", count)
    assert "8 test pictures get the answers of the export, and logits" in checking.check(made.folder)
    table = checking.read_table(made)
    assert table.decided and table.answers["fp32"].shape == (8, count)
    p = OpenVinoEngine(made.model_path()).predict(table.pixels)[0]
    assert checking.compare(made, "fp32", table, p) < 1e-6
    other = p.copy()
    row = int(np.abs(logit(other[:, -1])).argmax())  # the model is sure of it
    other[row, -1] = 1 - other[row, -1]
    with pytest.raises(BundleError, match="and 1 findings get another answer"):
        checking.compare(made, "fp32", table, other)
    bundles.exchange_model(made.folder, finding_bundles.graph(tmp_path / "other.xml", count, gain=5.9))
    with pytest.raises(BundleError, match="fp32 model does not answer as at the export"):
        checking.check(made.folder)


def test_an_answer_near_its_threshold_is_not_compared(tmp_path: Path) -> None:
    """The last digit of a float32 may move it to the other side, on another processor."""
    made = finding_bundles.write(tmp_path / "bundle")
    table = checking.read_table(made)
    stored = table.answers["fp32"].copy()
    stored[0] = expit(1 - 1e-5), expit(-1 - 1e-5), 0.5
    near = checking.Table(table.pixels, {"fp32": stored})
    moved = stored.copy()
    moved[0] = expit(1 + 1e-5), expit(-1 + 1e-5), 0.5
    assert checking.compare(made, "fp32", near, moved) < 1e-3


def test_a_card_of_findings_says_what_the_service_does(tmp_path: Path) -> None:
    points = finding_bundles.points(THREE) | {"Effusion": {"threshold": float("nan"), "margin": 0.0}}
    parity = {"OpenVINO": {"difference": 2.4e-6, "same answers": "95 of 96", "agrees": True}}
    int8 = {"images": 200, "auroc": 0.805, "reference": 0.81, "change": -0.005, "low": -0.02, "high": 0.01}
    made = finding_bundles.write(
        tmp_path / "bundle",
        names=finding_bundles.NAMES,
        operating_points=points,
        calibration=finding_bundles.calibration(THREE) | {THREE[2]: {"slope": 1.0, "offset": 0.0, "method": "none"}},
        parity=parity,
        int8=int8 | {"right": 0.93, "right_reference": 0.935},
        exam=finding_bundles.exam(THREE, "maximum", operating_points=points),
    )
    text = (made.folder / "MODEL_CARD.md").read_text()
    assert "means over the findings" in text and "0.5 on, not from its threshold" in text
    assert text.count("also on those that the service answers with “not sure”") == 2  # of images, and of exams
    assert "a probability for each of 3 findings, each of which is present or absent" in text
    assert "| Finding | Portuguese | Korean | Calibration |" in text
    assert "| Cardiomegaly | Cardiomegalia | 심비대 | Platt: 1 × logit +0 |" in text
    assert "none: too few labels, or no gain on validation |" in text, "the bundle does not know which"
    assert "| Cardiomegaly | 0.500 | 0.269 and 0.731 | 0.800 (0.700 to 0.900) |" in text
    assert "| Effusion | no threshold | always | not defined | not defined |" in text
    assert "| Format | Difference | Same answers | Agrees |" in text and "| 2.4e-06 | 95 of 96 | yes |" in text
    assert "int8 has a macro AUROC of 0.805 on 200 validation images" in text and "may lose 0.01 of" in text
    assert "combined by their maximum, finding by finding" in text and "## Operating points of exams" in text
    assert "multi-label-image-classification" in text and "temperature" not in text
