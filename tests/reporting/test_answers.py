"""The sentences with which pages open, and their tables: what was planted is said, noise is called noise."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers import planted
from scanbook import evaluation
from scanbook.data.manifest import Manifest, finding_column
from scanbook.evaluation import Difference, with_interval
from scanbook.reporting import answers, tables
from scanbook.reporting.report import NUMBER

CLEAR = Difference("accuracy", 0.1, 0.05, 0.15, 0.001)
NOISE = Difference("accuracy", 0.01, -0.05, 0.07, 0.7)


# --- tables


def test_every_kind_of_interval_is_merged_and_nothing_else() -> None:
    frame = pd.DataFrame(
        {
            "sensitivity": [0.5, np.nan],
            "sensitivity_low": [0.25, np.nan],
            "sensitivity_high": [0.75, np.nan],
            "difference": [-0.02, 0.5],
            "low": [-0.1, np.nan],
            "high": [0.06, np.nan],
            "high_water": ["a", "b"],
            "usd_per_million": [1234.5, 2.0],
        }
    )
    shown, intervals = tables.readable(frame)
    assert intervals and list(shown) == ["sensitivity", "difference", "high water", "USD per million predictions"]
    assert list(shown["sensitivity"]) == ["0.500 (0.250–0.750)", "not defined"]
    assert list(shown["difference"]) == ["−0.020 (−0.100 to +0.060)", "+0.500"]
    assert with_interval(-0.0001, -0.25, 0.25) == "0.000 (−0.250 to 0.250)"
    pd.testing.assert_frame_equal(
        tables.readable(frame[["high_water"]])[0], frame[["high_water"]].set_axis(["high water"], axis=1)
    )
    assert not tables.readable(frame[["low", "high"]])[1], "ends of nothing"
    nested = pd.json_normalize([{"threshold": 0.5, "sensitivity": {"value": 0.5, "low": 0.25, "high": 0.75}}])
    assert tables.readable(nested)[0].iloc[0].to_dict() == {"threshold": 0.5, "sensitivity": "0.500 (0.250–0.750)"}
    by_metric = pd.DataFrame({"metric": ["auroc"], "images": [3]})
    assert tables.readable(by_metric)[0].iloc[0].to_dict() == {"metric": "macro AUROC", "images": 3}


def test_tables_of_any_kind_are_shown_whole() -> None:
    texts = pd.DataFrame([["a", "b", "c", 1, 2, 3, 4]], columns=["note", "low", "high", "size", "mib", "a_b", "a b"])
    shown, intervals = tables.readable(texts)
    assert not intervals and list(shown) == ["note", "low", "high", "size (MiB)", "size (MiB)", "a b", "a b"]
    assert shown.iloc[0].tolist() == ["a", "b", "c", 1, 2, 3, 4]
    several = pd.DataFrame([[1, 2]], columns=pd.MultiIndex.from_tuples([("a", "low"), ("a", "high")]))
    assert tables.readable(several)[0] is several
    missing = pd.DataFrame({"value": pd.array([1, None], "Int64"), "low": [0.5, 1.0], "high": [2.0, 3.0]})
    assert list(tables.readable(missing)[0]["value"]) == ["1.000 (0.500–2.000)", "not defined"]
    assert with_interval(0.0001, 0.00005, 0.0002) == "0.00010 (0.00005–0.00020)"


def test_of_many_differences_the_largest_are_said_and_the_others_counted() -> None:
    gaps = {f"net{n}": Difference("accuracy", n / 100, 0.001, 0.9, 0.5) for n in range(6)}
    sentences = answers.describe_differences(gaps, "dihedral", "none")
    assert [sentence.split(":")[0] for sentence in sentences[:4]] == ["net2", "net3", "net4", "net5"]
    assert sentences[4] == "2 smaller differences are in the table."
    assert len(answers.describe_differences(dict(list(gaps.items())[:5]), "dihedral", "none")) == 5


@given(*[st.floats(-1e6, 1e6)] * 3, st.booleans())
def test_a_value_with_its_interval_is_a_number_of_the_page(value: float, low: float, high: float, signed: bool) -> None:
    text = with_interval(value, min(low, high), max(low, high), signed)
    assert NUMBER.fullmatch(text)
    first = float(text.split(" ")[0].replace("−", "-").replace(",", ""))
    assert first == pytest.approx(value, abs=0.5 if max(map(abs, (value, low, high))) >= 1000 else 0.050001)


# --- answers


def test_a_segmentation_without_masks_is_not_praised() -> None:
    empty = pd.DataFrame({"value": [], "low": [], "high": [], "images": []})
    assert answers.describe_segmentation("Otsu", {"dice": empty}, empty, "lesion alone", {}) == [
        "No test image has an expert's mask, so how well Otsu segments is not measured."
    ]
    means = pd.DataFrame({"value": [0.9], "low": [0.8], "high": [0.95], "images": [20]}, index=["Otsu"])
    gap = pd.DataFrame({"value": [0.01], "low": [-0.02], "high": [0.03]}, index=["Otsu − U-Net"])
    sentences = answers.describe_segmentation("Otsu", {"dice": means}, gap, "lesion alone", {"answers": CLEAR})
    assert sentences[0] == "Otsu, chosen on validation, reaches a mean Dice of 0.900 (0.800–0.950) on 20 test images."
    assert sentences[1].endswith("is +0.010 (−0.020 to +0.030), which is within noise.")
    assert sentences[2].startswith("lesion alone is better than whole image by 0.100 accuracy")


def test_the_final_model_is_described_with_intervals_and_noise() -> None:
    manifest = planted.manifest()
    logits = np.random.default_rng(0).normal(size=(len(manifest.rows("test")), len(manifest.classes)))
    test = manifest.predictions("test", logits)
    summary, abstention = evaluation.summary(test, rounds=50), evaluation.abstention(test, 0.5, rounds=50)
    models = ("small, fine-tuned", "small, frozen")
    sentences = answers.describe_final_model(manifest, models, summary, {"accuracy": NOISE}, abstention)
    assert 4 <= len(sentences) <= 5
    accuracy = with_interval(*summary.loc["accuracy"])
    assert f"test images small (fine-tuned) reaches: accuracy {accuracy}" in sentences[0]
    assert "within noise" in sentences[2]
    assert with_interval(*summary.loc["ece"]) in sentences[3]
    assert len(answers.describe_final_model(manifest, models, summary, {}, abstention)) == 4


def test_costs_are_of_this_machine() -> None:
    table = pd.DataFrame({"kind": ["published", "what-if", "what-if"], "usd_per_million": [9.0, 0.25, 0.5]})
    speeds, scaling = ["Fastest: a.", "Shortest: b.", "Refused: c."], ["On 2 threads.", "More."]
    expected = ["Fastest: a.", "Shortest: b.", "On 2 threads."]
    described = answers.describe_speed(speeds, scaling, table)
    assert described[:3] == expected and described[3].endswith("cost 0.25 to 0.5 USD.")
    measured = answers.describe_speed(speeds, scaling, table.assign(kind=["published", "measured", "measured"]))
    assert measured[3] == "A million predictions, one at a time, cost 0.25 USD."
    assert answers.describe_speed(speeds, scaling, table[:1]) == expected


def test_a_place_that_does_not_agree_is_named() -> None:
    parity = pd.DataFrame(
        {"difference": [2e-5, 0.3, 1e-6], "agrees": [True, False, True]}, index=["ONNX", "OpenVINO int8", "HTTP"]
    )
    written = SimpleNamespace(models=("onnx", "keras"), abstain_below=0.4321, findings=())
    first, formats, service = answers.describe_export(parity, written, 12.34)
    assert first == (
        "2 of 3 places give the same answers as the notebook: in float32, logits differ by at most 2e-05 of their "
        "spread; other answers: OpenVINO int8."
    )
    assert (
        formats == "The bundle has the model as Keras, saved, ONNX."
        and "in 12.3 ms" in service
        and "confidence of 0.43" in service
    )


def test_a_service_of_findings_is_not_sure_near_their_thresholds():
    parity = pd.DataFrame({"difference": [1e-5], "agrees": [True]}, index=["OpenVINO"])
    written = SimpleNamespace(models=("openvino",), abstain_below=0.0, findings=("Mass", "Edema"))
    assert "*not sure* near the threshold of each of 2 findings." in answers.describe_export(parity, written, 3.0)[-1]


# --- a test split that lacks a class


def lacking() -> Manifest:
    """The planted dataset without the test images of its last class."""
    manifest = planted.manifest()
    frame = manifest.frame
    gone = (frame["split"] == "test") & (frame["label"] == planted.CLASSES[-1])
    manifest = manifest.with_frame(frame.assign(split=frame["split"].mask(gone, "")))
    return replace(manifest, facts={"split_notes": ("No image in test of the class 'brick'.",)})


def test_no_answer_or_headline_gives_a_metric_of_a_class_that_test_lacks() -> None:
    manifest = lacking()
    rows = manifest.rows("test")
    right = np.eye(3)[manifest.y[rows]]
    test = manifest.predictions("test", np.log(0.9 * right + 0.1 / 3))
    summary = evaluation.summary(test, rounds=20)
    models = ("net, fine-tuned", "net, frozen")
    difference = evaluation.paired_difference(test, test, "accuracy", rounds=20)
    abstention = pd.DataFrame(
        {"value": [0.8, np.nan], "low": [0.7, np.nan], "high": [0.9, np.nan]}, index=["coverage", "accuracy"]
    )
    reason = "the test split has no image of class 'brick'"
    final = answers.describe_final_model(manifest, models, summary, {"accuracy": difference}, abstention)
    headlines = [
        answers.headline("net", summary, manifest),
        answers.headline_of_differences("dihedral minus none", {"net": difference}, manifest),
    ]
    assert reason in final[0] and all(reason in text and "accuracy" in text for text in headlines)
    for text in [*final, *headlines]:
        assert "nan" not in text and "1.000" not in text.replace("–1.000", "") and "with an accuracy" not in text
    assert answers.reference_values(manifest) == {} and np.isnan(manifest.majority_accuracy())
    shown = tables.readable(summary)[0]["value"]
    assert (shown.drop(["brier", "ece"], errors="ignore").head(5) == "not defined").all()


def test_a_threshold_that_is_not_defined_is_no_empty_cell() -> None:
    points = pd.DataFrame({"threshold": [0.5, np.nan], "positives": [3, 0]}, index=["a", "b"])
    assert tables.readable(points)[0]["threshold"].tolist() == [0.5, "not defined"]


# --- findings


def test_findings_are_told_by_their_macro_means_and_those_that_test_lacks_are_named() -> None:
    manifest = planted.observed()
    logits = (
        np.random.default_rng(0).normal(size=(len(manifest.rows("test")), 2))
        + manifest.labels.rows(manifest.rows("test")).present
    )
    test = manifest.predictions("test", logits)
    summary = evaluation.summary(test, rounds=50)
    (sentence,) = answers.describe_model("small, frozen", summary, manifest)
    assert f"small (frozen) reaches: macro AUROC {with_interval(*summary.loc['auroc'])}, macro AUPRC" in sentence
    assert sentence.endswith("the means of 2 findings.")
    assert answers.headline("small", summary, manifest).startswith(
        f"small: macro AUROC {summary.at['auroc', 'value']:.3f}"
    )
    gap = {"small": evaluation.paired_difference(test, test, rounds=20)}
    assert answers.headline_of_differences("a minus b", gap, manifest).startswith(
        "macro AUROC with a minus b: small +0"
    )
    assert answers.reference_values(manifest) == {}
    known = replace(manifest, facts={"bayes_auroc": {"cool": 0.9, "vivid": 0.8}})
    assert answers.describe_model("a", summary, known)[0].endswith("2 findings; the best possible: Bayes AUROC 0.850.")
    partly = replace(manifest, facts={"bayes_auroc": {"cool": 0.9}})
    assert "possible" not in answers.describe_model("a", summary, partly)[0], "a mean over other findings"

    column = finding_column("cool")
    frame = manifest.frame.assign(**{column: manifest.frame[column].where(manifest.frame["split"] != "test", 0)})
    lacking = manifest.with_frame(frame)
    test = lacking.predictions("test", logits)
    (sentence,) = answers.describe_model("small, frozen", evaluation.summary(test, rounds=50), lacking)
    assert sentence.endswith("the means of 1 finding; cool cannot be measured there.")
    for name in ("cool", "vivid"):
        frame = frame.assign(**{finding_column(name): np.where(frame["split"] == "test", np.nan, frame[column])})
    none = manifest.with_frame(frame)
    summary = evaluation.summary(none.predictions("test", logits), rounds=20)
    assert "no finding is both present and absent" in answers.headline("small", summary, none)
    assert "has no result as a whole (macro AUROC, macro AUPRC)" in answers.describe_model("small", summary, none)[0]
