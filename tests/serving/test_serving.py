"""The service: known answers, hostile uploads, and a real gunicorn."""

import base64
import http.client
import json
import logging
import re
import signal
import socket
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest

from helpers import services
from helpers.bundles import CLASSES, SIZE, write
from helpers.uploads import (
    BAD,
    BLUE,
    BROWSER,
    GREEN,
    GREY,
    RED,
    jpeg,
    plain,
    png,
    post,
    problem,
)
from scanbook.data import images
from scanbook.errors import BundleError, ImageError
from scanbook.serving.__main__ import main
from scanbook.serving.app import create_app
from scanbook.serving.predictor import SHOWN, overlay
from scanbook.serving.state import EXTENSION
from scanbook.serving.uploads import MAX_BYTES, MAX_IMAGES


@pytest.fixture(scope="module")
def predictor(app):
    return app.extensions[EXTENSION].predictor


def expected(mean) -> np.ndarray:
    scores = np.exp(5 * np.asarray(mean) / 255)
    return scores / scores.sum()


# answers


@pytest.mark.parametrize(
    ("file", "label"), [(RED, "red"), (GREEN, "green"), (BLUE, "blue"), (jpeg((0, 0, 255)), "blue")]
)
def test_predict_names_the_colour(client, file, label):
    answer = post(client, file).get_json()
    assert answer["model"] == "colours" and "not a diagnosis" in answer["notice"] and answer["request_id"]
    [prediction] = answer["predictions"]
    assert prediction["class"] == label and not prediction["abstained"]
    assert prediction["confidence"] == pytest.approx(expected([255, 0, 0])[0], abs=0.01)
    assert list(prediction["probabilities"]) == list(CLASSES)
    assert sum(prediction["probabilities"].values()) == pytest.approx(1, abs=1e-5)
    assert "heat_map" not in prediction


def test_unsure_answer_is_marked(client):
    [prediction] = post(client, GREY).get_json()["predictions"]
    assert prediction["abstained"] and prediction["confidence"] == pytest.approx(1 / 3, abs=1e-4)


def test_raw_body_and_form_agree(client):
    raw = client.post("/predict", data=BLUE, content_type="image/png").get_json()["predictions"]
    # the type that the client claims says nothing: the bytes decide
    lied = client.post("/predict", data=BLUE, content_type="image/jpeg").get_json()["predictions"]
    assert raw == lied == post(client, BLUE).get_json()["predictions"]


def test_many_images_keep_their_order(client):
    answers = post(client, RED, BLUE, GREEN, BLUE).get_json()["predictions"]
    assert [answer["class"] for answer in answers] == ["red", "blue", "green", "blue"]


def test_keys_keep_the_class_order_in_the_bytes_sent(client):
    text = post(client, RED).get_data(as_text=True)
    assert re.findall(r'"(red|green|blue)":', text) == list(CLASSES)


def test_heat_map_lies_where_the_colour_is(client, predictor):
    picture = plain((0, 0, 0), 160, 240)
    picture[:, 120:] = (0, 0, 255)
    [answer] = post(client, images.encode_png(picture), path="/predict?heatmap=1").get_json()["predictions"]
    kind, code = answer["heat_map"].split(",")
    assert kind == "data:image/png;base64"
    heat_map = cv2.imdecode(np.frombuffer(base64.b64decode(code), np.uint8), cv2.IMREAD_UNCHANGED)
    assert heat_map.shape == (160, 240, 4)
    assert heat_map[:, :100, 3].max() == 0 and heat_map[:, 140:, 3].min() > 120
    [shown] = predictor.predict([png(height=90, width=2 * SHOWN)], pictures=True)
    assert images.read(shown.picture).shape == (45, SHOWN, 3)


def test_overlay_without_evidence_is_transparent():
    heat_map = cv2.imdecode(
        np.frombuffer(overlay(np.full((3, 3), -2.0, np.float32), (20, 30)), np.uint8), cv2.IMREAD_UNCHANGED
    )
    assert heat_map.shape == (20, 30, 4) and not heat_map[..., 3].any()


def test_predictor_sees_what_the_notebooks_see(predictor):
    noise = np.random.default_rng(0).integers(0, 256, (70, 50, 3), dtype=np.uint8)
    file = images.encode_png(noise)
    [prediction] = predictor.predict([file])
    mean = images.load(file, SIZE).mean((0, 1))
    np.testing.assert_allclose(prediction.probabilities, expected(mean), atol=1e-5)
    assert prediction.picture == prediction.heat_map == b""
    with pytest.raises(ImageError, match="image 2 of 2: the image is empty"):
        predictor.predict([file, b""])


def test_threads_get_the_answers_they_get_alone(client, bundle):
    random = np.random.default_rng(1)
    files = [
        images.encode_png(random.integers(0, 256, (30, 30, 3), dtype=np.uint8) // np.uint8(1 + n)) for n in range(16)
    ]
    alone = [post(client, file).get_json()["predictions"] for file in files]
    assert len({json.dumps(predictions) for predictions in alone}) == 16
    application = client.application

    def repeat(n: int) -> bool:
        mine = application.test_client()
        return all(post(mine, files[n], names=["same.png"]).get_json()["predictions"] == alone[n] for _ in range(8))

    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(repeat, range(16))) == [True] * 16


# refusals


REASONS = {
    "empty": "empty",
    "text": "not-an-image",
    "truncated JPEG": "truncated",
    "bomb": "too-many-pixels",
    "SVG": "format",
    "HTML": "format",
    "GIF": "format",
    "HEIC": "format",
    "truncated PNG header": "truncated",
    "a format that OpenCV reads through the disk": "format",
}


@pytest.mark.parametrize("name", BAD)
def test_bytes_that_are_no_image_are_a_400(client, name):
    for response in (post(client, BAD[name]), client.post("/predict", data=BAD[name], content_type="image/png")):
        values = problem(response, 400)
        assert values["type"] == f"urn:scanbook:{REASONS[name]}" and values["title"] == "Unreadable image"
        assert values["detail"].startswith("the image")


def test_refusal_says_which_image(client):
    values = problem(post(client, RED, BAD["text"], BLUE), 400)
    assert values["detail"].startswith("image 2 of 3: ") and values["type"] == "urn:scanbook:not-an-image"


def test_requests_without_an_image_say_what_is_expected(client):
    assert "'image'" in problem(post(client, RED, field="photo"), 400)["detail"]
    assert (
        "'image'"
        in problem(client.post("/predict", data={"image": "text"}, content_type="multipart/form-data"), 400)["detail"]
    )
    assert "application/json" in problem(client.post("/predict", json={"image": "x"}), 415)["detail"]
    assert "missing" in problem(client.post("/predict"), 415)["detail"]
    problem(client.post("/predict", data=b"--x", content_type="multipart/form-data; boundary=x"), 400)
    problem(client.post("/predict", data=b"", content_type="multipart/form-data"), 400)


def test_large_requests_are_refused(client):
    huge = bytes(MAX_BYTES + 1)
    assert "16 MB" in problem(client.post("/predict", data=huge, content_type="image/png"), 413)["detail"]
    assert "16 MB" in problem(post(client, huge), 413)["detail"]
    assert "32" in problem(post(client, *[RED] * (MAX_IMAGES + 1)), 400)["detail"]
    assert "at most 32 files as 'image'" in problem(post(client, *[RED] * 500), 413)["detail"]


def test_unknown_routes_and_methods(client):
    problem(client.get("/nothing"), 404)
    answer = problem(client.get("/predict"), 405)
    assert answer["title"] == "Method Not Allowed"
    assert client.get("/predict").headers["Allow"]
    page = client.get("/nothing", headers=BROWSER)
    assert page.status_code == 404 and page.mimetype == "text/html" and "does not exist" in page.text
    for path in ("/static/../app.py", "/static/%2e%2e/app.py", "/static/..%2f..%2fbundle.py"):
        assert client.get(path).status_code == 404


def test_a_failure_inside_is_a_plain_500(bundle, monkeypatch, caplog):
    application = create_app(bundle.folder)
    monkeypatch.setattr(application.extensions[EXTENSION].predictor, "_queues", {})
    with caplog.at_level(logging.INFO, "scanbook.serving"):
        values = problem(post(application.test_client(), RED, names=["jane_doe.png"]), 500)
    assert "NoneType" not in values["detail"]
    assert f"{values['request_id']} failed" in caplog.text and "jane_doe" not in caplog.text
    assert not application.debug and not application.testing


# privacy and safety


@pytest.mark.parametrize(
    "name", ["../../evil.png", "/etc/passwd", "..\\..\\x.png", "a\x00b.png", "a" * 5000, "<script>.png"]
)
def test_file_names_are_ignored(client, name):
    answer = post(client, RED, names=[name])
    assert answer.get_json()["predictions"][0]["class"] == "red"
    assert name not in answer.text


def test_nothing_is_written_and_no_name_is_logged(client, monkeypatch, tmp_path, caplog):
    noise = np.random.default_rng(2).integers(0, 256, (900, 900, 3), dtype=np.uint8)
    large = images.encode_png(noise)
    assert len(large) > 2_000_000

    def forbidden(*_args, **_options):
        raise AssertionError("a temporary file was asked for")

    for maker in ("TemporaryFile", "SpooledTemporaryFile", "NamedTemporaryFile", "mkstemp"):
        monkeypatch.setattr(tempfile, maker, forbidden)
    monkeypatch.chdir(tmp_path)
    before = set(Path(tempfile.gettempdir()).iterdir())
    with caplog.at_level(logging.DEBUG):
        assert post(client, large, names=["jane_doe.png"]).status_code == 200
        assert post(client, large, names=["jane_doe.png"], path="/").status_code == 200
        assert client.get("/jane_doe?name=jane_doe").status_code == 404
    assert not list(tmp_path.iterdir())
    assert not [
        path for path in set(Path(tempfile.gettempdir()).iterdir()) - before if path.stat().st_size == len(large)
    ]
    assert "POST /predict 200" in caplog.text and "jane_doe" not in caplog.text


@pytest.mark.parametrize("path", ["/", "/healthz", "/model-card", "/nothing", "/static/page.css"])
def test_security_headers(client, path):
    headers = client.get(path).headers
    policy = dict(part.strip().split(" ", 1) for part in headers["Content-Security-Policy"].split(";"))
    assert policy["default-src"] == "'none'" and policy["script-src"] == policy["style-src"] == "'self'"
    assert policy["frame-ancestors"] == "'none'" and policy["form-action"] == "'self'"
    assert headers["X-Content-Type-Options"] == "nosniff" and headers["Referrer-Policy"] == "no-referrer"
    assert headers["X-Frame-Options"] == "DENY" and "camera=(self)" in headers["Permissions-Policy"]
    assert (headers["Cache-Control"] == "no-store") == (not path.startswith("/static"))


# the process


def test_altered_bundle_does_not_start(bundle, tmp_path, monkeypatch):
    changed = write(tmp_path / "bundle")
    changed.model_path().write_bytes(changed.model_path().read_bytes() + b" ")
    monkeypatch.setattr(sys, "argv", ["serving", str(changed.folder)])
    with pytest.raises(SystemExit) as stop:
        main()
    assert "model.xml was changed" in stop.value.code and "\n" not in stop.value.code
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BundleError, match="is not a bundle"):
        create_app()


WSGI = ("-m", "gunicorn", "--no-control-socket", "scanbook.serving.app:create_app()")


def test_another_wsgi_server_runs_the_application(bundle, tmp_path):
    home = {"SCANBOOK_BUNDLE": str(bundle.folder), "HOME": str(tmp_path)}
    with services.running(bundle.folder, tmp_path / "log", command=WSGI, **home) as served:
        connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=10)
        for file, label in ((RED, "red"), (BLUE, "blue")):
            connection.request("POST", "/predict", file, {"Content-Type": "image/png"})
            assert json.loads(connection.getresponse().read())["predictions"][0]["class"] == label
        connection.request("POST", "/predict", b"no image", {"Content-Type": "image/png"})
        response = connection.getresponse()
        assert response.status == 400 and json.loads(response.read())["status"] == 400
        connection.close()
        connection.request("POST", "/predict", bytes(MAX_BYTES + 1), {"Content-Type": "image/png"})
        assert connection.getresponse().status == 413
        connection.close()
        served.process.send_signal(signal.SIGTERM)
        assert served.process.wait(timeout=15) == 0
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.1", served.port)) != 0
    lines = (tmp_path / "log").read_text()
    assert "POST /predict 200" in lines and "Traceback" not in lines
    assert [path.name for path in tmp_path.iterdir()] == ["log"]
