"""What programs ask beside predictions: health, counts, the description, SageMaker's contract; limits and settings."""

import argparse
import base64
import threading
import time

import numpy as np
import pytest
from jsonschema import Draft202012Validator

from helpers.bundles import CLASSES, SIZE
from helpers.uploads import BAD, BLUE, BROWSER, GREY, RED, post, problem
from scanbook.errors import BundleError, ModelError
from scanbook.models.engines import OpenVinoEngine
from scanbook.models.engines.openvino import OpenVinoQueue
from scanbook.serving.app import create_app
from scanbook.serving.predictor import TOGETHER, BusyError
from scanbook.serving.settings import Settings, add_options, find_bundle, from_options
from scanbook.serving.state import EXTENSION
from scanbook.serving.uploads import MAX_BYTES, MAX_IMAGES


@pytest.fixture
def small(bundle):
    """A client of an application with room for two images."""
    return create_app(bundle.folder, Settings(queue=2)).test_client()


def b64(*files: bytes) -> dict:
    return {"instances": [{"b64": base64.b64encode(file).decode()} for file in files]}


# SageMaker


def test_invocations_answer_as_predict_does(client):
    expected = post(client, RED, BLUE).get_json()["predictions"]
    assert client.post("/invocations", json=b64(RED, BLUE)).get_json()["predictions"] == expected
    for kind in ("image/png", "image/jpeg", "application/octet-stream", "application/x-image"):
        answer = client.post("/invocations", data=BLUE, content_type=kind)
        if kind == "application/x-image":
            assert "application/x-image" in problem(answer, 415)["detail"]
        else:
            assert answer.get_json()["predictions"] == expected[1:]
    assert client.get("/ping").status_code == 200


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"9" * 5000, "not JSON"),
        (b"null", "instances"),
        (b"[]", "instances"),
        (b'{"instances": {}}', "instances"),
        (b'{"instances": []}', "instances"),
        (b'{"instances": [{"b64": ""}], "x": 1}', "instances"),
        (b'{"instances": ["x"]}', "instance 1 of 1"),
        (b'{"instances": [{"b64": 1}]}', "instance 1 of 1"),
        (b'{"instances": [{"b64": "", "x": 1}]}', "instance 1 of 1"),
        (b'{"instances": [{"b64": "AA=="}, {}]}', "instance 2 of 2"),
        (b'{"instances": [{"b64": "AA=A"}]}', "base64"),
        (b'{"instances": [{"b64": "AA==\\n"}]}', "base64"),
        (b'{"instances": [{"b64": "A_-="}]}', "base64"),
        ('{"instances": [{"b64": "é"}]}'.encode(), "base64"),
        (b'{"instances": [{"b64": "\\ud800"}]}', "base64"),
        (b'{"instances": [{"b64": ""}]}', "empty"),
        (b'{"instances": [{"b64": "AAAA"}]}', "decoded"),
    ],
)
def test_wrong_json_is_a_400_with_a_sentence(client, body, detail):
    assert detail in problem(client.post("/invocations", data=body, content_type="application/json"), 400)["detail"]


def test_json_has_the_limits_of_other_requests(client):
    assert "32" in problem(client.post("/invocations", json=b64(*[RED] * (MAX_IMAGES + 1))), 400)["detail"]
    problem(client.post("/invocations", data=bytes(MAX_BYTES + 1), content_type="application/json"), 413)


# well, ready, counted


def test_full_queue_is_refused_at_once_and_before_decoding(small, monkeypatch):
    service = small.application.extensions[EXTENSION]
    assert small.get("/readyz").status_code == 200
    assert "at most 2" in problem(post(small, RED, RED, RED), 400)["detail"]
    submit, hold, held = service.predictor._queues[TOGETHER].submit, threading.Event(), threading.Event()

    def slowly(images):
        held.set()
        assert hold.wait(10)
        return submit(images)

    monkeypatch.setattr(service.predictor._queues[TOGETHER], "submit", slowly)
    answers = []
    thread = threading.Thread(
        target=lambda: answers.append(post(small.application.test_client(), RED, BLUE).status_code)
    )
    thread.start()
    assert held.wait(10)
    started = time.perf_counter()
    for refused in (post(small, BAD["text"]), small.get("/readyz")):
        assert refused.headers["Retry-After"] == "1" and problem(refused, 503)
    page = post(small, RED, path="/", headers=BROWSER)
    assert page.status_code == 503 and page.mimetype == "text/html" and page.headers["Retry-After"] == "1"
    assert time.perf_counter() - started < 2
    # SageMaker would replace a container that does not answer its ping
    assert small.get("/healthz").status_code == small.get("/ping").status_code == 200
    with pytest.raises(BusyError):
        service.predictor.predict([RED])
    hold.set()
    thread.join()
    assert answers == [200] and small.get("/readyz").status_code == 200
    post(small, BAD["text"])  # a refusal gives its room back
    assert post(small, RED, BLUE).status_code == 200


def test_who_is_about_to_stop_is_not_ready(small):
    small.application.extensions[EXTENSION].stopping.set()
    assert "stop" in problem(small.get("/readyz"), 503)["detail"]
    assert small.get("/healthz").status_code == 200 and post(small, RED).status_code == 200


def counts(client) -> dict[str, float]:
    answer = client.get("/metrics")
    assert answer.mimetype == "text/plain"
    lines = [line.rsplit(" ", 1) for line in answer.text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, value in lines}


def test_metrics_count_what_happened(small):
    post(small, RED, GREY)
    post(small, BAD["text"])
    small.get("/jane_doe")
    small.open("/predict", method="JANE")
    after = counts(small)
    assert after["scanbook_images_total"] == 2 and after["scanbook_abstained_total"] == 1
    assert after['scanbook_images_refused_total{reason="not_an_image"}'] == 1
    assert after['scanbook_requests_total{method="POST",route="/predict",status="200"}'] == 1
    assert after['scanbook_requests_total{method="POST",route="/predict",status="400"}'] == 1
    assert after['scanbook_requests_total{method="GET",route="unknown route",status="404"}'] == 1
    assert after['scanbook_requests_total{method="other",route="unknown route",status="405"}'] == 1
    assert after['scanbook_request_seconds_count{route="/predict"}'] == 2
    for stage in ("decoding", "waiting", "inference"):
        assert after[f'scanbook_image_seconds_count{{stage="{stage}"}}'] == 2
        assert 0 <= after[f'scanbook_image_seconds_sum{{stage="{stage}"}}'] < 5
    assert after["scanbook_queue_images"] == 0 and after["scanbook_queue_limit"] == 2
    assert after['scanbook_model_info{model="colours",precision="fp32"}'] == 1
    assert not any("jane" in name.lower() for name in after)


# the description


def test_description_is_openapi_and_the_answers_are_as_described(client):
    document = client.get("/openapi.json").get_json()
    assert document["openapi"] == "3.1.0"
    served = {rule.rule for rule in client.application.url_map.iter_rules() if rule.endpoint.startswith("programs.")}
    assert set(document["paths"]) == served

    def conforms(answer, path, method):
        described = document["paths"][path][method]["responses"][str(answer.status_code)]
        if "$ref" in described:
            described = document["components"]["responses"][described["$ref"].rpartition("/")[2]]
        [(kind, content)] = described["content"].items()
        assert answer.mimetype == kind and set(described["headers"]) <= set(answer.headers.keys())
        if kind != "text/plain":
            Draft202012Validator(content["schema"] | {"components": document["components"]}).validate(
                answer.get_json(force=True)
            )

    for path in ("/healthz", "/readyz", "/ping", "/metrics", "/openapi.json"):
        conforms(client.get(path), path, "get")
    for answer in (
        post(client, RED, GREY),
        post(client, RED, path="/predict?heatmap=1"),
        client.post("/predict?heatmap=yes", data=RED, content_type="image/png"),
        client.post("/predict", data=b"x", content_type="image/png"),
        client.post("/predict"),
        client.post("/predict", data=bytes(MAX_BYTES + 1), content_type="image/png"),
    ):
        conforms(answer, "/predict", "post")
    conforms(client.post("/invocations", json=b64(RED)), "/invocations", "post")


def test_programs_get_json_whatever_they_accept(client):
    for accept in ("text/html", "application/xml", "*/*;q=0", ""):
        headers = {"Accept": accept}
        assert client.post("/predict", data=RED, content_type="image/png", headers=headers).get_json()["predictions"]
        problem(client.get("/predict", headers=headers), 405)
        problem(client.post("/healthz", headers=headers), 405)
        problem(client.post("/predict", data=b"x", content_type="image/png", headers=headers), 400)
    for path in ("/healthz", "/readyz", "/ping", "/metrics", "/openapi.json"):
        assert set(client.post(path).headers["Allow"].split(", ")) == {"GET", "HEAD", "OPTIONS"}


# who asks


def test_rate_limit_is_each_clients_own_and_spares_the_watchers(bundle):
    client = create_app(bundle.folder, Settings(rate_limit="3/minute", trusted_proxies=1)).test_client()

    def ask(address: str):
        headers = {"X-Forwarded-For": address}
        return client.post("/predict", data=RED, content_type="image/png", headers=headers)

    assert [ask("10.0.0.1").status_code for _ in range(3)] == [200] * 3
    refused = ask("10.0.0.1")
    assert "3/minute" in problem(refused, 429)["detail"] and 1 <= int(refused.headers["Retry-After"]) <= 61
    # what the client itself says of its address comes before what the load balancer says
    assert ask("10.0.0.2, 10.0.0.1").status_code == 429
    assert ask("10.0.0.2").status_code == 200
    for path in ("/healthz", "/readyz", "/ping", "/metrics", "/static/page.css"):
        assert all(client.get(path, headers={"X-Forwarded-For": "10.0.0.1"}).status_code == 200 for _ in range(5)), path
    page = client.get("/", headers=BROWSER | {"X-Forwarded-For": "10.0.0.1"})
    assert page.status_code == 429 and page.mimetype == "text/html"


def test_nobodys_word_on_an_address_is_taken_without_a_proxy(bundle):
    client = create_app(bundle.folder, Settings(rate_limit="2/minute")).test_client()
    statuses = [
        client.post(
            "/predict", data=RED, content_type="image/png", headers={"X-Forwarded-For": f"10.0.0.{n}"}
        ).status_code
        for n in range(3)
    ]
    assert statuses == [200, 200, 429]


@pytest.mark.parametrize("host", ["evil.example", "a b", "x\ty", "[::1", "evil.example:99999", ""])
def test_a_host_of_the_clients_changes_nothing(client, host):
    for path in ("", "//healthz", "/healthz/", "/static", "/model-card/", "//evil.example/"):
        answer = client.get("/", environ_overrides={"PATH_INFO": path}, headers={"Host": host})
        assert answer.status_code in (200, 400, 404) and "Location" not in answer.headers
        assert "evil" not in answer.text


# settings


def parsed(*words: str) -> Settings:
    parser = argparse.ArgumentParser(exit_on_error=False)
    add_options(parser)
    return from_options(parser.parse_args(words))


def test_settings_come_from_options_then_variables(monkeypatch):
    assert parsed() == Settings()
    monkeypatch.setenv("SCANBOOK_PORT", "9000")
    monkeypatch.setenv("SCANBOOK_RATE_LIMIT", "60/minute")
    monkeypatch.setenv("SCANBOOK_QUEUE", "")
    assert parsed() == Settings(port=9000, rate_limit="60/minute")
    assert parsed("--port", "1", "--precision", "int8", "--trusted-proxies", "2") == Settings(
        port=1, precision="int8", trusted_proxies=2, rate_limit="60/minute"
    )


@pytest.mark.parametrize(
    ("variable", "value"),
    [("PORT", "x"), ("PORT", "70000"), ("WORKERS", "0"), ("QUEUE", "0"), ("PRECISION", "fp16"), ("RATE_LIMIT", "60")],
)
def test_wrong_settings_are_refused(monkeypatch, variable, value):
    monkeypatch.setenv(f"SCANBOOK_{variable}", value)
    with pytest.raises(argparse.ArgumentError, match=f"'{value}' is not a "):
        parsed()


def test_the_bundle_is_found_where_it_usually_is(tmp_path, monkeypatch):
    monkeypatch.setattr("scanbook.serving.settings.MODEL_FOLDER", tmp_path / "model")
    assert find_bundle().resolve() == find_bundle("").resolve() and not find_bundle().is_absolute()
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "bundle.json").touch()
    assert find_bundle() == tmp_path / "model"
    monkeypatch.setenv("SCANBOOK_BUNDLE", "named")
    assert str(find_bundle()) == "named" and str(find_bundle("given")) == "given"


def test_a_precision_that_the_bundle_lacks_is_refused(bundle):
    with pytest.raises(BundleError, match="no int8 model"):
        create_app(bundle.folder, Settings(precision="int8"))


# the queue of inferences


def test_queued_inferences_give_each_its_own_answer(bundle):
    engine = OpenVinoEngine(bundle.model_path())
    queue = OpenVinoQueue(engine)
    noise = np.random.default_rng(0).integers(0, 256, (64, 1, *SIZE, 3), dtype=np.uint8)
    expected = [engine.predict(image) for image in noise]
    answers: list = [None] * len(noise)

    def ask(first: int) -> None:
        for index in range(first, len(noise), 8):
            answers[index] = queue.submit(noise[index]).result(10)

    threads = [threading.Thread(target=ask, args=(first,)) for first in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for answer, right in zip(answers, expected, strict=True):
        for output, expected_output in zip(answer, right, strict=True):
            np.testing.assert_array_equal(output, expected_output)
    assert len(CLASSES) == answers[0][0].shape[1]


def test_a_batch_that_cannot_be_inferred_is_refused(bundle):
    queue = OpenVinoQueue(OpenVinoEngine(bundle.model_path()))
    for wrong in (np.zeros((1, 3, 3, 3), np.uint8), np.zeros((1, *SIZE, 3), np.float32), np.zeros(SIZE, np.uint8)):
        with pytest.raises(ModelError, match=r"a batch is .*, expected uint8 \[\?,16,24,3\]"):
            queue.submit(wrong)
    assert queue.submit(np.zeros((1, *SIZE, 3), np.uint8)).result(10)[0].shape == (1, 3)
