"""A service of findings: its answers for images and for exams, what it refuses, its description and its page."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from bs4 import BeautifulSoup
from jsonschema import Draft202012Validator
from PIL import Image
from scipy.special import expit

from helpers import bundles, finding_bundles
from helpers.uploads import BAD, BLUE, BROWSER, GREY, RED, png, post, problem
from scanbook.data import images
from scanbook.errors import BundleError
from scanbook.serving.app import create_app
from scanbook.serving.predictor import MAPS, Predictor, overlay, overlay_of_levels
from scanbook.serving.uploads import MAX_IMAGES
from scanbook.serving.views import Finding, View

THREE = finding_bundles.names(3)
PURPLE, WHITE = png((255, 0, 255)), png((255, 255, 255))


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory):
    """Three findings, and exams whose images are combined by their maximum, without margins."""
    exam = finding_bundles.exam(THREE, "maximum", operating_points=finding_bundles.points(THREE, 0.5, 0.0))
    folder = tmp_path_factory.mktemp("findings") / "bundle"
    return create_app(finding_bundles.write(folder, exam=exam, names=finding_bundles.NAMES).folder)


@pytest.fixture
def client(app):
    return app.test_client()


@pytest.fixture(scope="module")
def fourteen(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("fourteen") / "bundle"
    return create_app(finding_bundles.write(folder, 14).folder)


@pytest.fixture(scope="module")
def colours(tmp_path_factory: pytest.TempPathFactory):
    """A model of classes whose images have exams."""
    exam = {"rule": "mean", "calibration": 1.5, "abstain_below": 0.6}
    return create_app(bundles.write(tmp_path_factory.mktemp("colours") / "bundle", exam=exam).folder)


def probability(brightness: float, finding: int = 0, count: int = 3) -> float:
    """Return the probability by closed form, of a channel's brightness from 0 to 1."""
    return expit(finding_bundles.GAIN * brightness + finding_bundles.shift(count)[finding])


# answers


def test_each_finding_has_its_answer(client) -> None:
    [answer] = post(client, PURPLE).get_json()["predictions"]
    assert list(answer) == ["findings", "present"] and list(answer["findings"]) == list(THREE)
    assert [finding["answer"] for finding in answer["findings"].values()] == ["present", "absent", "present"]
    assert answer["findings"]["Effusion"]["probability"] == pytest.approx(probability(1), abs=1e-6)
    assert {finding["threshold"] for finding in answer["findings"].values()} == {0.5}
    assert sorted(answer["present"]) == ["Atelectasis", "Effusion"]
    [grey] = post(client, png((140, 10, 128))).get_json()["predictions"]
    assert [finding["answer"] for finding in grey["findings"].values()] == ["not sure", "absent", "not sure"]
    assert grey["present"] == []


def test_present_findings_are_listed_the_most_probable_first(fourteen) -> None:
    [answer] = post(fourteen.test_client(), RED).get_json()["predictions"]
    p = [answer["findings"][name]["probability"] for name in answer["present"]]
    assert p == sorted(p, reverse=True) and answer["present"][0] == "Atelectasis"
    assert set(answer["present"]) == set(finding_bundles.FINDINGS[::3])  # those of the red channel
    expected = [probability(1, index, 14) for index in range(0, 14, 3)]
    assert [answer["findings"][name]["probability"] for name in finding_bundles.FINDINGS[::3]] == pytest.approx(
        expected, abs=1e-6
    )


def test_a_finding_without_a_threshold_is_never_sure(tmp_path) -> None:
    points = finding_bundles.points(THREE) | {"Effusion": {"threshold": None, "margin": 0.0}}
    client = create_app(finding_bundles.write(tmp_path / "bundle", operating_points=points).folder).test_client()
    [answer] = post(client, BLUE).get_json()["predictions"]
    assert answer["findings"]["Effusion"] == {
        "probability": pytest.approx(probability(1)), "threshold": None, "answer": "not sure",
    }  # fmt: skip
    page = post(client, BLUE, path="/", headers=BROWSER).text
    assert "Not sure" in page and len(BeautifulSoup(page, "html.parser").select(".bars .threshold")) == 2


def test_routes_agree(client) -> None:
    expected = post(client, RED, BLUE).get_json()["predictions"]
    coded = {"instances": [{"b64": base64.b64encode(file).decode()} for file in (RED, BLUE)]}
    assert client.post("/invocations", json=coded).get_json()["predictions"] == expected
    assert client.post("/invocations", data=BLUE, content_type="image/png").get_json()["predictions"] == expected[1:]
    raw = client.post("/predict", data=RED, content_type="application/octet-stream").get_json()
    assert raw["predictions"] == expected[:1] and raw["model"] == "chest"


def test_a_model_whose_outputs_are_no_probabilities_does_not_start(tmp_path, monkeypatch) -> None:
    made = finding_bundles.write(tmp_path / "bundle")
    values = np.array([[0.1, 1.2, 0.3]], np.float32)
    monkeypatch.setattr(
        "scanbook.models.engines.openvino.Inference.result",
        lambda *_: (values, np.zeros((1, 2, 2, 3), np.float32)),
    )
    with pytest.raises(BundleError, match="not all between 0 and 1"):
        Predictor(made)


# heat maps


def picture_of(uri: str) -> np.ndarray:
    kind, code = uri.split(",")
    assert kind == "data:image/png;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(code))).convert("RGBA"))


def test_heat_maps_lie_where_the_colour_of_the_finding_is(client) -> None:
    picture = np.zeros((160, 240, 3), np.uint8)
    picture[:, 120:] = (0, 0, 255)
    picture[:, :120] = (255, 0, 0)
    [answer] = post(client, images.encode_png(picture), path="/predict?heatmap=1").get_json()["predictions"]
    assert set(answer["heat_maps"]) == {"Atelectasis", "Effusion"}  # half of the image: not sure
    red, blue = (picture_of(answer["heat_maps"][name]) for name in ("Atelectasis", "Effusion"))
    assert red.shape == (160, 240, 4)
    assert red[:, 140:, 3].max() == 0 and red[:, :100, 3].min() > 120
    assert blue[:, :100, 3].max() == 0 and blue[:, 140:, 3].min() > 120


def test_a_heat_map_of_levels_looks_as_one_of_all_colours() -> None:
    heat_map = np.random.default_rng(0).normal(size=(7, 7)).astype(np.float32)
    whole, levels = overlay(heat_map, (100, 120)), overlay_of_levels(heat_map, (100, 120))
    shown, expected = (np.asarray(Image.open(io.BytesIO(data)).convert("RGBA")).astype(int) for data in (levels, whole))
    assert np.abs(shown - expected).max() <= 12 and len(levels) < len(whole) / 2
    assert shown[..., 3].min() == 0 and shown[..., 3].max() > 140


def test_a_heat_map_can_be_had_of_any_finding_and_their_number_is_bounded(client, fourteen) -> None:
    black = png((0, 0, 0))
    [answer] = post(client, black, path="/predict?heatmap=1").get_json()["predictions"]
    assert len(answer["heat_maps"]) == 1 and answer["present"] == []  # of the most probable
    [answer] = post(client, black, path="/predict?heatmap=Cardiomegaly").get_json()["predictions"]
    assert "Cardiomegaly" in answer["heat_maps"]
    [answer] = post(fourteen.test_client(), WHITE, path="/predict?heatmap=Hernia").get_json()["predictions"]
    assert len(answer["heat_maps"]) == MAPS + 1 and list(answer["heat_maps"])[-1] == "Hernia"
    assert "name of a finding" in problem(post(client, RED, path="/predict?heatmap=Lung"), 400)["detail"]


# exams


def test_an_exam_is_answered_beside_its_images(client) -> None:
    answer = post(client, RED, png((0, 0, 200)), path="/predict?exam=1").get_json()
    assert list(answer) == ["model", "predictions", "exam", "notice", "request_id"]
    assert answer["predictions"] == post(client, RED, png((0, 0, 200))).get_json()["predictions"]
    exam = answer["exam"]
    assert exam["images"] == 2 and exam["present"] == ["Atelectasis", "Effusion"]
    for index, (name, brightness) in enumerate(zip(THREE, (1, 0, 200 / 255), strict=True)):
        assert exam["findings"][name]["probability"] == pytest.approx(probability(brightness, index), abs=1e-5)
    one = post(client, RED, path="/predict?exam=1").get_json()
    assert one["exam"]["images"] == 1 and one["exam"]["present"] == ["Atelectasis"]
    coded = {"instances": [{"b64": base64.b64encode(file).decode()} for file in (RED, png((0, 0, 200)))]}
    assert client.post("/invocations", json=coded | {"exam": True}).get_json()["exam"] == exam
    assert "exam" not in client.post("/invocations", json=coded | {"exam": False}).get_json()
    assert "exam" not in post(client, RED, path="/predict?exam=0").get_json()


def test_an_exam_of_classes_is_the_mean_of_the_logits(colours) -> None:
    answer = post(colours.test_client(), RED, GREY, path="/predict?exam=1").get_json()
    # 5 × the mean brightness of each channel; the temperature of the images (1.5) is undone, that of exams is the same
    scores = 5 * np.array([255 + 90, 90, 90]) / 2 / 255
    expected = np.exp(scores) / np.exp(scores).sum()
    assert list(answer["exam"]["probabilities"].values()) == pytest.approx(expected, abs=1e-5)
    assert answer["exam"]["class"] == "red" and answer["exam"]["images"] == 2 and not answer["exam"]["abstained"]
    assert answer["predictions"][0]["class"] == "red"


@pytest.mark.parametrize("path", ["/predict?exam=1", "/invocations"])
def test_a_model_without_exams_says_so(fourteen, path) -> None:
    client = fourteen.test_client()
    body = {"instances": [{"b64": base64.b64encode(RED).decode()}], "exam": True}
    answer = client.post(path, json=body) if path == "/invocations" else post(client, RED, path=path)
    assert "no answer for exams" in problem(answer, 400)["detail"]


@pytest.mark.parametrize(
    ("path", "files", "detail"),
    [
        ("/predict?exam=yes", [RED], "exam is neither 0 nor 1"),
        ("/predict?exam=1", [RED, BAD["text"]], "image 2 of 2"),
        ("/predict?exam=1", [], "no file"),
        ("/predict?exam=1", [RED] * (MAX_IMAGES + 1), "at most 32"),
        ("/predict?heatmap=2", [RED], "heatmap is neither 0 nor 1"),
    ],
)
def test_wrong_requests_are_a_400_with_a_sentence(client, path, files, detail) -> None:
    assert detail in problem(post(client, *files, path=path), 400)["detail"]


@pytest.mark.parametrize("exam", [1, "true", None, [], {}])
def test_exam_in_json_is_true_or_false(client, exam) -> None:
    body = {"instances": [{"b64": base64.b64encode(RED).decode()}], "exam": exam}
    assert "neither true nor false" in problem(client.post("/invocations", json=body), 400)["detail"]


@pytest.mark.parametrize("value", ["1", "0", "yes"])
def test_invocations_do_not_ignore_an_exam_in_the_query(client, value) -> None:
    path, coded = f"/invocations?exam={value}", {"instances": [{"b64": base64.b64encode(RED).decode()}]}
    for answer in (client.post(path, json=coded), client.post(path, data=RED, content_type="image/png")):
        assert '"exam": true' in problem(answer, 400)["detail"]


# the description


@pytest.mark.parametrize("name", ["app", "fourteen", "colours"])
def test_answers_are_as_described(name, request) -> None:
    served = request.getfixturevalue(name)
    client = served.test_client()
    document = client.get("/openapi.json").get_json()

    def conforms(answer, path: str) -> None:
        content = document["paths"][path]["post"]["responses"]["200"]["content"]["application/json"]
        schema = content["schema"] | {"components": document["components"]}
        assert answer.status_code == 200
        Draft202012Validator(schema).validate(answer.get_json())

    conforms(post(client, RED, GREY), "/predict")
    conforms(post(client, RED, GREY, path="/predict?heatmap=1"), "/predict")
    has_exams = name != "fourteen"
    parameters = {entry["name"] for entry in document["paths"]["/predict"]["post"]["parameters"]}
    assert ("exam" in parameters) == has_exams == ("Exam" in document["components"]["schemas"])
    if has_exams:
        conforms(post(client, RED, GREY, path="/predict?exam=1"), "/predict")
        body = {"instances": [{"b64": base64.b64encode(RED).decode()}], "exam": True}
        conforms(client.post("/invocations", json=body), "/invocations")
    kind = document["components"]["schemas"]["Prediction"]["properties"]
    assert ("findings" in kind) == (name != "colours") != ("class" in kind)


# the page


def articles(answer) -> list[BeautifulSoup]:
    return BeautifulSoup(answer.text, "html.parser").select("article")


def words(tag) -> str:
    return " ".join(tag.get_text().split())


def send(client, *files: bytes, language: str = "en", **fields: str):
    data = {"image": [(io.BytesIO(file), "photo.png") for file in files], **fields}
    return client.post(f"/?lang={language}", data=data, content_type="multipart/form-data", headers=BROWSER)


@pytest.mark.parametrize(
    ("language", "heading", "states", "none"),
    [
        ("en", "Atelectasis, Effusion", ["present", "absent"], "None of these findings"),
        ("pt", "Atelectasia, Derrame", ["presente", "ausente"], "Nenhum destes achados"),
        ("ko", "무기폐, 흉수", ["있음", "없음"], "해당하는 소견 없음"),
    ],
)
def test_a_page_has_a_bar_for_each_finding_in_every_language(client, language, heading, states, none) -> None:
    [article] = articles(send(client, PURPLE, language=language))
    assert words(article.h2) == heading
    assert [words(line) for line in article.select(".bars .state")] == [states[0], states[0], states[1]]
    assert [line["class"] for line in article.select(".bars li")] == [["present"], ["present"], ["absent"]]
    marks = [float(mark["x"].rstrip("%")) for mark in article.select(".threshold")]
    assert marks == pytest.approx([49.75] * 3)
    fills = [float(fill["width"].rstrip("%")) / 100 for fill in article.select(".fill")]
    assert fills == pytest.approx([probability(1)] * 2 + [probability(0)], abs=1e-4)
    [nothing] = articles(send(client, png((0, 0, 0)), language=language))
    assert words(nothing.h2) == none


def test_a_page_says_of_what_it_is_not_sure(client) -> None:
    [article] = articles(send(client, png((255, 128, 128))))
    assert words(article.h2) == "Atelectasis" and "Not sure: Cardiomegaly, Effusion" in words(article)
    [grey] = articles(send(client, png((128, 128, 0))))
    assert words(grey.h2) == "Not sure" and "Not sure: Atelectasis, Cardiomegaly" in words(grey)


def test_a_page_says_which_findings_have_no_threshold(client, fourteen, tmp_path) -> None:
    points = finding_bundles.points(THREE)
    points["Cardiomegaly"] = {"threshold": None, "margin": 0.0}
    made = finding_bundles.write(tmp_path / "bundle", operating_points=points)
    rare = "A finding without a mark was too rare for a threshold: the model is never sure of it."
    assert rare in send(create_app(made.folder).test_client(), PURPLE).text
    assert rare not in send(client, PURPLE).text


def test_a_doubtful_answer_looks_doubtful(client) -> None:
    assert articles(send(client, png((128, 128, 0))))[0].h2.get("class") == ["unsure"]
    assert not articles(send(client, png((255, 128, 128))))[0].h2.get("class")  # one finding is present


@pytest.mark.parametrize(
    ("language", "button", "busy"),
    [
        ("en", "Look for findings", "Looking for findings…"),
        ("pt", "Procurar achados", "Procurando achados…"),
        ("ko", "소견 찾기", "소견을 찾는 중…"),
    ],
)
def test_findings_are_looked_for_and_classes_told_apart(client, colours, language, button, busy) -> None:
    pages = [
        BeautifulSoup(app.get(f"/?lang={language}").text, "html.parser") for app in (client, colours.test_client())
    ]
    of_findings, of_classes = pages
    assert words(of_findings.select("#send")[0]) == button and of_findings.form["data-busy"] == busy
    assert words(of_classes.select("#send")[0]) != button and of_classes.form["data-busy"] != busy


def test_findings_that_are_absent_are_folded_away_and_maps_are_bounded(fourteen) -> None:
    client = fourteen.test_client()
    answer = send(client, png((0, 0, 0)), finding="Hernia")
    [article] = articles(answer)
    assert words(article.summary) == "8 more findings, all absent" and len(article.select(".bars li")) == 14
    assert [words(label) for label in article.select(".choice label")] == ["Atelectasis", "Hernia"]
    [white] = articles(send(client, WHITE))
    assert words(white.h2) == "Atelectasis, Cardiomegaly, Effusion and 11 more" and not white.select("details")
    assert len(white.select(".heat")) == MAPS == len(white.select(".choice input"))
    assert len({radio["name"] for radio in white.select(".choice input")}) == 1
    soup = BeautifulSoup(answer.text, "html.parser")
    assert [option["value"] for option in soup.select("option[selected]")] == ["Hernia"]
    assert not soup.select("[name=exam]")  # this model has no exams


@pytest.mark.parametrize(("count", "folded"), [(6, 0), (8, 0), (9, 3)])
def test_one_or_two_findings_are_not_folded_away(count, folded) -> None:
    view = View(1, findings=[Finding(name, 0.1, "absent", 0.5) for name in finding_bundles.names(count)])
    assert count - view.shown == folded


def test_the_largest_page_is_bounded(tmp_path) -> None:
    """32 pictures of camera size with all their maps: the bytes of a page of classes, whose maps have every colour."""
    made = finding_bundles.write(tmp_path / "bundle", 40)
    noise = np.random.default_rng(0).integers(0, 256, (12, 16, 3), np.uint8).repeat(60, 0).repeat(60, 1)
    answer = send(create_app(made.folder).test_client(), images.encode_png(noise), finding="Finding 40")
    assert len(answer.data) < 900_000


def test_files_of_one_exam_are_answered_first_as_an_exam(client, colours) -> None:
    answer = send(client, RED, BAD["text"], png((0, 0, 200)), exam="1")
    exam, *others = articles(answer)
    assert exam["id"] == "exam" and words(exam.h2) == "Atelectasis, Effusion" and len(others) == 3
    assert "Exam of 2 images" in words(exam) and "Answered from 2 of 3 images" in words(exam)
    assert BeautifulSoup(answer.text, "html.parser").select("[name=exam]")[0].has_attr("checked")
    assert articles(send(client, RED, PURPLE))[0]["id"] == "image-1"
    exam, *_ = articles(send(colours.test_client(), RED, GREY, exam="1"))
    assert words(exam.h2) == "red" and "Calibrated probability: 85.9 %" in words(exam) and not exam.select("figure")
    refused = send(client, BAD["text"], BAD["text"], exam="1")
    assert refused.status_code == 400 and [tag["id"] for tag in articles(refused)] == ["image-1", "image-2"]


def test_a_refused_request_keeps_what_was_chosen(client) -> None:
    """A reader who corrects the files of an exam sends an exam again."""
    for files in ([], [BAD["text"]]):
        answer = send(client, *files, exam="1", finding="Effusion")
        page = BeautifulSoup(answer.text, "html.parser")
        assert answer.status_code == 400 and page.select("[name=exam]")[0].has_attr("checked")
        assert [option["value"] for option in page.select("option[selected]")] == ["Effusion"]
    unchecked = send(client, RED, exam="0")
    assert articles(unchecked)[0]["id"] == "image-1" and " checked> These" not in unchecked.text


@pytest.mark.parametrize(
    ("fields", "text"), [({"finding": "Lung"}, "does not know this finding"), ({"exam": "1"}, "no answer for exams")]
)
def test_a_choice_that_the_model_lacks_is_refused(fourteen, fields, text) -> None:
    answer = send(fourteen.test_client(), RED, **fields)
    assert answer.status_code == 400 and text in answer.text and "<form" in answer.text


def test_a_page_escapes_the_names_of_findings(tmp_path) -> None:
    names = ("<b>Mass</b>", 'a "quoted" one', "c")
    made = finding_bundles.write(
        tmp_path / "bundle",
        findings=names,
        calibration=finding_bundles.calibration(names),
        operating_points=finding_bundles.points(names),
    )
    text = send(create_app(made.folder).test_client(), WHITE, finding='a "quoted" one').text
    assert "<b>Mass" not in text and "&lt;b&gt;Mass" in text
    assert BeautifulSoup(text, "html.parser").select("option[selected]")[0]["value"] == 'a "quoted" one'
