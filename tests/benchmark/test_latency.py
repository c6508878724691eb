"""`scanbook latency` against servers whose answers, delays and faults are known."""

from __future__ import annotations

import io
import json
import threading
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from werkzeug.formparser import parse_form_data

from helpers.latencies import fine, serving
from scanbook import cli
from scanbook.benchmark import http_client, latency, service
from scanbook.data import images
from scanbook.errors import RunError

JPEG = b"\xff\xd8\xff" + bytes(range(256)) * 40


@pytest.fixture(autouse=True)
def _headless(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCANBOOK_HEADLESS", "1")


def slow(*_request: object) -> tuple[int, dict[str, str]]:
    time.sleep(0.02)
    return 200, {}


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "a.jpg"
    path.write_bytes(JPEG)
    return path


def asked_one_by_one(
    url: str, image: Path, requests: int = 25, warm_up: int = 0, **options: object
) -> http_client.RequestLog:
    calls = http_client.RequestLog()
    service.send_in_sequence(http_client.make_target(url, [image], **options), requests, 0, warm_up, calls)
    return calls


# --- one at a time


def test_a_planted_latency_is_found(image: Path) -> None:
    with serving(slow) as url:
        calls = asked_one_by_one(url, image)
    figures = service.summary(calls.seconds)
    assert calls.outcomes == {http_client.ANSWERED: 25} and calls.connections == 1
    assert 20 <= figures["min"] <= figures["p50"]
    assert figures["p50_low"] <= figures["p50"] <= figures["p50_high"]
    assert figures["mean_low"] <= figures["mean"] <= figures["mean_high"]
    assert np.isnan(figures["p99"]) and figures["p95"] <= figures["max"]


def test_a_warm_up_does_not_count(image: Path) -> None:
    with serving(lambda _, number, __: (500 if number < 3 else 200, {})) as url:
        assert asked_one_by_one(url, image, 5, warm_up=3).outcomes == {http_client.ANSWERED: 5}


def test_requests_start_an_interval_apart(image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    starts = []

    def note(*_request: object) -> tuple[int, dict[str, str]]:
        starts.append(time.perf_counter())
        return 200, {}

    with serving(note) as url:
        service.send_in_sequence(http_client.make_target(url, [image]), 3, 0.15, 0, http_client.RequestLog())
    assert np.diff(starts).min() > 0.1


def test_every_failure_counts_and_none_is_a_latency(image: Path) -> None:
    def faulty(_: object, number: int, __: bytes) -> tuple[int, dict[str, str]]:
        if number % 5 == 4:
            return 500, {}
        if number % 5 == 3:
            return 503, {"Retry-After": "1"}
        return (503, {}) if number % 5 == 2 else (302, {"Location": "/elsewhere"}) if number % 5 == 1 else (200, {})

    with serving(faulty) as url:
        calls = asked_one_by_one(url, image, 20)
    assert calls.outcomes == {"answered": 4, "status 302": 4, "status 503": 4, http_client.BUSY: 4, "status 500": 4}
    assert len(calls.seconds) == 4
    assert sum(calls.errors.values()) == 16 and http_client.ANSWERED not in calls.errors
    assert calls.problem == 'status 302: {"number": 1}'


def test_a_connection_that_breaks_is_an_error_and_the_next_one_is_new(image: Path) -> None:
    def broken(request: BaseHTTPRequestHandler, number: int, _: bytes) -> tuple[int, dict[str, str]]:
        request.close_connection = True
        return 200, {"Content-Length": "999"} if number == 1 else {"Connection": "close"}

    with serving(broken) as url:
        calls = asked_one_by_one(url, image, 4)
    assert calls.outcomes["answered"] == 3 and sum(calls.errors.values()) == 1
    assert calls.connections == 4
    assert "broke" in calls.problem


def test_a_service_that_never_answers_is_given_up(image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_client, "TIMEOUT", 0.1)
    done = threading.Event()

    def never(*_request: object) -> tuple[int, dict[str, str]]:
        done.wait(5)
        return 200, {}

    with serving(never) as url:
        calls = asked_one_by_one(url, image, 2)
        done.set()
    assert calls.outcomes == {"no answer in 0.1 s": 2} and calls.seconds == []


def test_no_proxy_is_asked(image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with serving(fine) as url:
        assert asked_one_by_one(url, image, 1).outcomes == {http_client.ANSWERED: 1}


# --- what is sent


@pytest.mark.parametrize("form_field", ["", "file"])
def test_the_file_arrives_intact(image: Path, tmp_path: Path, form_field: str) -> None:
    other = tmp_path / "b.png"
    other.write_bytes(images.encode_png(np.zeros((4, 4, 3), np.uint8)))
    got = []

    def keep(request: BaseHTTPRequestHandler, _: int, body: bytes) -> tuple[int, dict[str, str]]:
        got.append((request.headers, body))
        return 200, {}

    with serving(keep) as url:
        asked = http_client.make_target(f"{url}?heatmap=1", [image, other], form_field, ["Authorization: Bearer x:y"])
        service.send_in_sequence(asked, 3, 0, 0, http_client.RequestLog())
    arrived = []
    for headers, body in got:
        assert headers["Authorization"] == "Bearer x:y"
        if not form_field:
            arrived.append((headers["Content-Type"], body))
            continue
        environ = {
            "wsgi.input": io.BytesIO(body),
            "CONTENT_TYPE": headers["Content-Type"],
            "CONTENT_LENGTH": str(len(body)),
        }
        _, _, files = parse_form_data(environ | {"REQUEST_METHOD": "POST"})
        [(name, file)] = files.items()
        assert name == "file" and file.filename in ("a.jpg", "b.png")
        arrived.append((file.mimetype, file.read()))
    assert arrived == [("image/jpeg", JPEG), ("image/png", other.read_bytes()), ("image/jpeg", JPEG)]


def test_a_content_type_can_be_named(image: Path) -> None:
    [(headers, _)] = http_client.make_target(
        "http://x/invocations", [image], "", ["Content-Type: application/x-image"]
    ).bodies
    assert headers["Content-Type"] == "application/x-image"


def test_a_synthetic_image_is_sent_where_none_is_named() -> None:
    [(headers, body)] = http_client.make_target("http://127.0.0.1/predict").bodies
    assert headers == {"Content-Type": "image/jpeg"}
    assert images.read(body).shape == (480, 640, 3)
    assert http_client.make_target("http://127.0.0.1/predict").bodies[0][1] == body


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"url": "localhost:8080/predict"}, "'localhost:8080/predict' is not the address"),
        ({"url": "ftp://x/predict"}, "not the address of a service"),
        ({"url": "http://[::1/predict"}, "not the address of a service"),
        ({"headers": ["Authorization"]}, "header 'Authorization' is malformed"),
        ({"headers": ["A: b\r\nC: d"]}, "is malformed; expected 'Name: value'"),
        ({"images": [Path("/nowhere/a.jpg")]}, "cannot read /nowhere/a.jpg"),
    ],
)
def test_what_cannot_be_sent_is_one_line(options: dict, message: str, image: Path) -> None:
    with pytest.raises(RunError, match=r"^[^\n]+$") as caught:
        http_client.make_target(**{"url": "http://127.0.0.1/predict", "images": [image]} | options)
    assert message in str(caught.value)


# --- under load


def test_clients_share_a_lock_in_vain(image: Path) -> None:
    """One request at a time takes the server 20 ms, whoever asks: more clients wait longer and get no more."""
    lock = threading.Lock()

    def one_at_a_time(*_request: object) -> tuple[int, dict[str, str]]:
        with lock:
            return slow()

    with serving(one_at_a_time) as url:
        asked = http_client.make_target(url, [image])
        alone, four = (service.measure_load(asked, clients, 0.3, 1, 4) for clients in (1, 4))
    for figures in (alone, four):
        assert figures["low"] <= figures["per_second"] <= figures["high"]
        assert figures["per_second"] <= 50 and figures["errors"] == {} and figures["problem"] == ""
    assert four["p50"] > alone["p50"]


def test_clients_of_a_service_that_waits_get_more_together(image: Path) -> None:
    together, met = threading.Barrier(4), []

    def all_at_once(*_request: object) -> tuple[int, dict[str, str]]:
        with suppress(threading.BrokenBarrierError):  # the last ones are not asked together
            met.append(together.wait(timeout=1))
        return slow()

    with serving(all_at_once) as url:
        figures = service.measure_load(http_client.make_target(url, [image]), 4, 0.3, 1, 4)
    assert {0, 1, 2, 3} <= set(met) and 0 < figures["per_second"] <= 200 and figures["p50"] >= 20
    assert 3 <= figures["windows"] <= 4 and figures["requests"] > 0 and figures["connections"] == 0


def test_failures_under_load_count_and_do_not_come_by_the_thousand(image: Path) -> None:
    with serving(lambda _, number, __: ((200, {}), (503, {"Retry-After": "1"}), (500, {}))[number % 3]) as url:
        figures = service.measure_load(http_client.make_target(url, [image]), 2, 0.3, 0, 3)
    assert set(figures["errors"]) == {http_client.BUSY, "status 500"}
    assert 0 < sum(figures["errors"].values()) <= 2 * (0.9 / service.PAUSE + 2) + 4
    assert figures["requests"] > 0


def test_a_service_that_only_fails_is_not_asked_for_long(image: Path) -> None:
    with serving(lambda *_: (500, {})) as url:
        figures = service.measure_load(http_client.make_target(url, [image]), 2, 0.2, 1)
    assert figures["windows"] == 1 and figures["requests"] == 0 and not figures["stable"]
    assert np.isnan(figures["p50"]) and figures["per_second"] == figures["low"] == figures["high"] == 0


# --- figures


@settings(max_examples=12, deadline=None)
@given(st.lists(st.floats(0.001, 10), min_size=1, max_size=150))
def test_the_summary_is_in_order(seconds: list[float]) -> None:
    figures = service.summary(seconds)
    times = 1000 * np.array(seconds)
    assert (
        figures["min"] <= figures["p50"] <= figures["max"]
        and figures["min"] <= figures["mean"] <= figures["max"] + 1e-9
    )
    assert np.isfinite(figures["p95"]) == (len(times) >= 20) and np.isfinite(figures["p99"]) == (len(times) >= 100)
    if len(times) > 1:
        assert figures["sd"] == pytest.approx(times.std(ddof=1))
        assert figures["min"] - 1e-9 <= figures["mean_low"] <= figures["mean_high"] <= figures["max"] + 1e-9


def test_the_interval_of_a_mean_covers_it_as_often_as_it_says() -> None:
    random = np.random.default_rng(0)
    inside = 0
    for seed in range(40):
        figures = service.summary(random.normal(0.1, 0.01, 100), seed)
        inside += figures["mean_low"] <= 100 <= figures["mean_high"]
    assert inside >= 33


# --- the command


def test_the_published_experiment_and_the_load_test(
    image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out" / "figures.json"
    words = ["--requests", "5", "--interval", "0", "--price", "0.23", "--concurrency", "1,2", "--seconds", "0.1"]
    with serving(slow) as url:
        status = cli.main(["latency", url, *words, "--image", str(image), "--output", str(output)])
    captured = capsys.readouterr()
    assert status == 0
    assert captured.err.splitlines() == [
        "5 requests, 0 s apart, after 3 that do not count …",
        "1 client, windows of 0.1 s until they agree …",
        "2 clients, windows of 0.1 s until they agree …",
    ]
    figures = json.loads(output.read_text())
    alone = figures["sequential"]
    assert alone["requests"] == 5 and alone["p99"] is None
    assert alone["usd_per_million"] == pytest.approx(0.23 / 3600 * alone["mean"] * 1000)
    assert [row["clients"] for row in figures["load"]] == [1, 2]
    for row in figures["load"]:
        assert row["usd_per_million"] == pytest.approx(0.23 / 3600 / row["per_second"] * 1e6)
    for words in ("5 answered, none failed", "p99          –", "one at a time, at 0.23 USD", "busy machine"):
        assert words in captured.out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--requests", "0"], "nothing to measure"),
        (["--requests", "-1"], "--requests is -1"),
        (["--interval", "nan"], "--interval is nan"),
        (["--warm-up", "-2"], "--warm-up is -2"),
        (["--price", "0"], "--price is 0.0; expected a number above 0"),
        (["--seconds", "0"], "--seconds is 0.0"),
        (["--concurrency", "1,two"], "--concurrency is '1,two'"),
        (["--concurrency", "0"], "--concurrency is '0'"),
    ],
)
def test_a_plan_that_makes_no_sense_is_one_line(
    words: list[str], message: str, image: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["latency", "http://127.0.0.1:9/predict", "--image", str(image), *words]) == 1
    error = capsys.readouterr().err
    assert error.startswith("scanbook: ") and message in error and error.count("\n") == 1


def test_nobody_listens(image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with serving(fine) as url:
        pass
    assert cli.main(["latency", url, "--image", str(image)]) == 1
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1 and f"no service answers at {url}" in captured.err and captured.out == ""


def test_a_service_that_refuses_all_is_an_error_with_its_reason(
    image: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving(lambda *_: (415, {})) as url:
        assert cli.main(["latency", url, "--image", str(image), "--requests", "2", "--interval", "0"]) == 1
    captured = capsys.readouterr()
    assert "2 × status 415" in captured.out
    assert "answered no request: status 415" in captured.err and captured.err.count("\n") == 2


def test_what_was_measured_before_an_interruption_is_shown(
    image: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    ask, left = http_client.Sender.send, iter(range(4))

    def until(self: http_client.Sender) -> str:
        if next(left, None) is None:
            raise KeyboardInterrupt
        return ask(self)

    monkeypatch.setattr(http_client.Sender, "send", until)
    output = tmp_path / "figures.json"
    with serving(fine) as url:
        words = ["--interval", "0", "--warm-up", "1", "--image", str(image), "--output", str(output)]
        assert cli.main(["latency", url, *words]) == 130
    captured = capsys.readouterr()
    assert "3 answered, none failed" in captured.out and captured.err.endswith("…\nscanbook: interrupted\n")
    assert json.loads(output.read_text())["sequential"]["requests"] == 3


def test_scanbooks_own_defaults_are_the_published_experiment() -> None:
    assert latency.Plan() == latency.Plan(requests=25, interval=5.0, concurrency=(), price=None)
    assert latency.parse_counts("") == () and latency.parse_counts("1, 2,8") == (1, 2, 8)
