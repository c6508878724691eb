"""A bundle of findings says what was trained: notebook, bundle and service agree, on images and on exams."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit, logit

from helpers import findings as wards
from helpers import planted
from scanbook import bundle, export
from scanbook.benchmark import client
from scanbook.bundle.answering import find_thresholds
from scanbook.data import images
from scanbook.data.manifest import EXAM, TEST, TRAIN, VALIDATION
from scanbook.evaluation import Calibration
from scanbook.evaluation.exams import Exams, fit_exam_rule
from scanbook.export import answers, formats
from scanbook.models import backbones
from scanbook.serving.app import create_app

SIZE = planted.SIZE
CALIBRATION = Calibration(np.array([0.7, 1.0, 1.4]), np.array([-0.5, 0.0, 0.3]), ("Platt", "none", "Platt"))


@pytest.fixture(scope="module")
def ward(tmp_path_factory):
    """A manifest whose patients are one exam each, its pixels, and a network that answers each image otherwise."""
    made = wards.ward(tmp_path_factory.mktemp("ward"), 72)
    number = made.frame["group"].str.extract(r"(\d+)")[0].astype(int) % 5
    frame = made.frame.assign(split=number.map({0: VALIDATION, 1: TEST}).fillna(TRAIN), exam=made.frame["group"])
    manifest = made.with_frame(frame)
    pixels = np.stack([images.load(Path(path), SIZE) for path in frame["path"]])
    backbones.networks.keras.utils.set_random_seed(3)
    model = planted.use_data_statistics(backbones.build("small_cnn", SIZE, len(manifest.findings)), pixels)
    return manifest, pixels, model


def logits_of(ward, split):
    manifest, pixels, model = ward
    return np.asarray(model(pixels[manifest.rows(split)]))


@pytest.fixture(scope="module")
def written(ward, tmp_path_factory):
    manifest, pixels, model = ward
    study = planted.study(bootstrap_rounds=20)
    validation, test = (logits_of(ward, split) for split in (VALIDATION, TEST))
    described = answers.describe_answers(
        study, *(manifest.predictions(s, z, CALIBRATION) for s, z in ((VALIDATION, validation), (TEST, test)))
    )
    return export.write_bundle(
        tmp_path_factory.mktemp("findings") / "bundle",
        study,
        manifest,
        model,
        temperature=CALIBRATION,
        metrics=pd.DataFrame({"value": [0.5], "low": [0.4], "high": [0.6]}, index=["auroc"]),
        about={"backbone": "small_cnn"},
        images=pixels,
        exam=answers.describe_exams(study, manifest, validation, test),
        **described,
    )


def test_the_bundle_describes_what_was_trained(written, ward) -> None:
    again = bundle.load(written.folder)
    assert again == written and again.findings == ward[0].findings == wards.FINDINGS and again.classes == ()
    assert again.calibration["Device"] == {"slope": 1.4, "offset": 0.3, "method": "Platt"}
    assert list(again.operating_points) == list(wards.FINDINGS)
    point = again.operating_points["Effusion"]
    assert 0 <= point["threshold"] <= 1 and point["margin"] > 0 and point["sensitivity"]["value"] is not None
    assert again.exam["rule"] in ("mean", "maximum") and again.exam["metrics"]["exams"] > 1
    assert tuple(again.losses) == bundle.INT8
    assert all(set(loss) >= {"auroc", "right", "images"} for loss in again.losses.values())
    assert "LiteRT int8 has a macro AUROC" in export.summarise_formats(again)
    card = (written.folder / "MODEL_CARD.md").read_text()
    assert "## Findings" in card and "## Exams" in card and "Nodule" in card
    assert "answers each finding" in export.summarise_answers(again, 0.9)
    assert export.points_table(again).index.name == "finding"


def test_every_format_answers_as_the_trained_network(written) -> None:
    exact = [bundle.FORMAT_NAMES[style] for style in ("keras", "openvino", "saved_model", "litert")]
    assert all(written.parity[place]["agrees"] for place in exact)
    assert {row["same answers"].rsplit(" ", 1)[1] for row in written.parity.values()} == {str(3 * fixed(written))}


def fixed(written) -> int:
    return int(next(iter(written.parity.values()))["same answers"].rsplit(" ", 1)[1]) // 3


def test_notebook_bundle_and_service_agree(written, ward) -> None:
    """The service's answers to the files are the calibrated probabilities of the stored logits, image by image."""
    manifest, _, _ = ward
    rows = manifest.rows(TEST)
    expected = manifest.predictions(TEST, logits_of(ward, TEST), CALIBRATION).probabilities
    service = create_app(written.folder).test_client()
    files = [Path(path).read_bytes() for path in manifest.frame["path"].iloc[rows]]
    replies = []
    for file in files:
        replies += service.post("/predict", data=file, content_type="image/png").get_json()["predictions"]
    over_http = client.probabilities(replies)
    table = formats.parity_table(expected, {"HTTP": over_http}, find_thresholds(written.operating_points))
    assert table["agrees"].all() and table["same answers"].iloc[0] == f"{3 * len(rows)} of {3 * len(rows)}"
    assert np.abs(over_http - expected).max() < 1e-5
    points = written.operating_points
    for reply in replies:
        for name, finding in reply["findings"].items():
            distance = abs(logit(finding["probability"]) - logit(points[name]["threshold"]))
            sure = "present" if finding["probability"] >= points[name]["threshold"] else "absent"
            assert finding["answer"] == ("not sure" if distance < points[name]["margin"] else sure)
    assert client.in_words(replies[0])


def test_exams_of_evaluation_and_service_agree(written, ward) -> None:
    manifest, _, _ = ward
    parts = {}
    for split in (VALIDATION, TEST):
        rows = manifest.rows(split)
        frame = manifest.frame.iloc[rows]
        parts[split] = manifest.labels.rows(rows), logits_of(ward, split), Exams.of(frame[EXAM], frame["group"])
    fitted = fit_exam_rule(*parts[VALIDATION])
    expected, _ = fitted.predictions(*parts[TEST])
    service = create_app(written.folder).test_client()
    frame = manifest.frame.iloc[manifest.rows(TEST)]
    several = 0
    for name, p in zip(expected.image_id, expected.probabilities, strict=True):
        files = [io.BytesIO(Path(path).read_bytes()) for path in frame.loc[frame[EXAM] == name, "path"]]
        several += len(files) > 1
        answer = service.post("/predict?exam=1", data={"image": [(file, "a.png") for file in files]}).get_json()
        assert answer["exam"]["images"] == len(files)
        over_http = [finding["probability"] for finding in answer["exam"]["findings"].values()]
        assert over_http == pytest.approx(p, abs=1e-4)
    assert several > 1


@pytest.mark.parametrize(("shift", "reason"), [(0.0, ""), (-3.0, "int8: right on")])
def test_int8_that_moves_the_probabilities_is_excluded(ward, shift, reason) -> None:
    """The order of the images, and so AUROC, stays; the answers do not."""
    manifest, pixels, _ = ward
    values = manifest.labels.values[manifest.rows(VALIDATION)]
    z = np.where(np.nan_to_num(values) == 1, 1.0, -1.0)
    expected = manifest.predictions(VALIDATION, z)

    class Shifted:
        def predict(self, images):
            return (expit(z + shift).astype(np.float32),)

    study = planted.study(bootstrap_rounds=20)
    figures, why = formats._measure_int8_findings(
        study, manifest, pixels, expected, engine=Shifted(), thresholds=np.full(3, 0.5)
    )
    assert why.startswith(reason) and bool(why) == bool(reason)
    assert figures["auroc"] == figures["reference"] == 1 and figures["right_reference"] == 1


def test_int8_that_loses_the_order_is_excluded(ward) -> None:
    manifest, pixels, _ = ward
    values = manifest.labels.values[manifest.rows(VALIDATION)]
    z = np.where(np.nan_to_num(values) == 1, 1.0, -1.0)

    class Constant:
        def predict(self, images):
            return (np.full(z.shape, 0.4, np.float32),)

    _, why = formats._measure_int8_findings(
        planted.study(bootstrap_rounds=20), manifest, pixels, manifest.predictions(VALIDATION, z),
        engine=Constant(), thresholds=np.full(3, 0.5),
    )  # fmt: skip
    assert "macro AUROC 0.500" in why and "may lose 0.01" in why


def test_on_the_fixed_images_int8_may_lose_one_label_in_a_hundred_rounded_up() -> None:
    labels = np.tile([1.0, 0.0, np.nan, 1.0], (32, 1))  # no threshold decides the last, so 64 labels count
    cuts, reference = np.array([0.5, 0.2, 0.5, np.nan]), np.tile([0.9, 0.1, 0.9, 0.9], (32, 1))
    outputs = reference.copy()
    outputs[:1, 0], outputs[:, 3] = 0.4, 0.0
    assert formats._check_int8(reference, outputs, labels, cuts) == ""
    outputs[:2, 0] = 0.4
    assert "right on 62 of 64 labels" in formats._check_int8(reference, outputs, labels, cuts)


def test_parity_of_findings_is_on_their_logits() -> None:
    p = expit(np.random.default_rng(0).normal(0, 3, (32, 4)))
    thresholds = np.array([0.5, 0.2, 0.8, np.nan])
    moved = expit(logit(p) + 2e-3 * logit(p).std())
    table = formats.parity_table(p, {"same": p.astype(np.float32), "moved": moved}, thresholds)
    assert table["agrees"].tolist() == [True, False]
    assert table.loc["same", "same answers"] == "128 of 128"
    # float32 has no logit of 20: what is above the largest resolved probability counts as that
    sure = expit(np.array([[-20.0, 20.0, 1.0, -1.0]]))
    assert formats.parity_table(sure, {"float32": sure.astype(np.float32)}, thresholds)["agrees"].all()


def test_words_of_a_reply_name_the_present_findings() -> None:
    point = {"probability": 0.9, "threshold": 0.5, "answer": "present"}
    found = {name: point for name in "abcde"} | {"f": {"probability": 0.4, "threshold": 0.5, "answer": "not sure"}}
    assert (
        client.in_words({"findings": found, "present": list("abcde")})
        == "a 0.90, b 0.90, c 0.90 and 2 more (1 not sure)"
    )
    assert client.in_words({"findings": {}, "present": []}) == "none present"
    assert client.in_words({"class": "nevus", "confidence": 0.874}) == "nevus 0.87"
