"""A hostile client sends requests to a running service: each gets the right response, and the next client is served."""

import base64
import http.client
import json
import os
import re
import socket
import struct
import sys
import threading
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from helpers import bad_files, services
from helpers.connections import client_ports, form, memory, post
from helpers.uploads import BLUE, RED
from scanbook.serving.uploads import MAX_BYTES

PROBLEM = {"type", "title", "status", "detail", "request_id"}
LEAKS = (b"Traceback", b'File "', b".py", b"/home", b"/root", b"/tmp", b"site-packages", b"OpenCV", b"Mustermann")


@pytest.fixture
def unharmed(served):
    """The service; after the test the same process still answers a normal request."""
    before = {worker.pid for worker in served.workers()}
    yield served
    assert served.classify(BLUE) == "blue"
    assert {worker.pid for worker in served.workers()} == before


def ask(served, body, kind="image/jpeg", path="/predict", method="POST", **fields):
    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=15)
    connection.request(method, path, body, {"Content-Type": kind} | {k.replace("_", "-"): v for k, v in fields.items()})
    response = connection.getresponse()
    return response.status, response.headers, response.read()


def refused(answer, status=400) -> dict:
    code, headers, body = answer
    values = json.loads(body)
    assert code == values["status"] == status and set(values) == PROBLEM
    assert headers["Content-Type"] == "application/problem+json" and headers["X-Request-Id"] == values["request_id"]
    assert values["detail"] and "\n" not in values["detail"] and not any(leak in body for leak in LEAKS)
    return values


def predicted(served, image, path="/predict?heatmap=1"):
    status, _, body = ask(served, image, path=path)
    assert status == 200, body
    [answer] = json.loads(body)["predictions"]
    encoded = base64.b64decode(answer["heat_map"].partition(",")[2])
    return answer, cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_UNCHANGED)


# files


@pytest.mark.parametrize("name", bad_files.REFUSED)
def test_a_bad_file_gets_its_reason(served, name):
    reason = bad_files.REFUSED[name][0]
    values = refused(ask(served, bad_files.refused(name)))
    assert values["type"] == f"urn:scanbook:{reason}" and values["detail"].startswith("the image")
    # a person is told in a sentence too
    status, headers, page = ask(served, *form(bad_files.refused(name)), path="/", Accept="text/html")
    assert status == 400 and headers["Content-Type"].startswith("text/html")
    assert not any(leak in page for leak in LEAKS[:2]) and b"<script>alert" not in page


@pytest.mark.parametrize("name", bad_files.ODD)
def test_an_odd_file_gets_the_answer_of_the_plain_one(served, name):
    prediction, heat_map = predicted(served, bad_files.odd(name))
    expected, plain = predicted(served, bad_files.ODD[name][1]())
    assert prediction["class"] == expected["class"] and prediction["abstained"] == expected["abstained"]
    assert prediction["probabilities"] == pytest.approx(expected["probabilities"], abs=0.02)
    # where the colour is: upright, of the same frame
    assert heat_map.shape == plain.shape
    assert np.abs(heat_map[..., 3].astype(int) - plain[..., 3]).mean() < 4


# forms and JSON


@pytest.mark.parametrize(
    "name",
    ["../../../etc/passwd", "a\r\nX-Injected: 1", "a\nb", '"; name="other', "\0", "%2e%2e%2f", "é" * 500, "a" * 9000],
)
def test_a_file_name_decides_nothing(unharmed, name):
    status, headers, body = ask(unharmed, *form(RED, name=name))
    assert status in (200, 400, 413) and "X-Injected" not in headers
    if status == 200:
        assert json.loads(body)["predictions"][0]["class"] == "red" and name.encode() not in body
    else:
        refused((status, headers, body), status)


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (*form(RED, field="photo"), 400),
        (*form(), 400),
        (form(RED)[0], "multipart/form-data", 400),
        (form(RED)[0], "multipart/form-data; boundary=other", 400),
        (form(RED)[0], f"multipart/form-data; boundary={'b' * 5000}", 400),
        (form(RED)[0], "multipart/form-data; boundary=\xff", 400),
        (form(RED)[0][:-20], "multipart/form-data; boundary=b", 400),
        (b"--b\r\n" * 1000, "multipart/form-data; boundary=b", 400),
        (b"\r\n" * 500_000, "multipart/form-data; boundary=b", 413),
        (b"\r" * 1_000_000, "multipart/form-data; boundary=b", 413),
        (b"--b\r\n" + b"X: y\r\n" * 100_000 + b"\r\n--b--", "multipart/form-data; boundary=b", 413),
        (*form(*[RED] * 1000), 413),
        (b"image=" + b"a" * 100_000, "application/x-www-form-urlencoded", 415),
        (RED, "text/html", 415),
        (RED, "image", 415),
        (b"", "image/png", 400),
        (base64.b64encode(RED), "image/png", 400),
        (bytes(MAX_BYTES + 1), "image/png", 413),
    ],
)
def test_a_wrong_form_is_refused(unharmed, body, kind, status):
    values = refused(ask(unharmed, body, kind), status)
    assert values["detail"]


def test_what_is_in_a_form_twice_or_beside_is_no_harm(unharmed):
    extra = b'--b\r\nContent-Disposition: form-data; name="note"\r\n\r\n../../x\r\n'
    status, _, body = ask(unharmed, extra + form(RED, BLUE, head="Content-Type: text/html\r\n")[0], form()[1])
    assert status == 200 and [prediction["class"] for prediction in json.loads(body)["predictions"]] == ["red", "blue"]


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[" * 200_000, b'{"instances": 1e999}', b'{"instances": [{"b64": "!"}]}', b"\xff\xfe\0{", b"NaN",
     b'{"instances": [' + b'{"b64": ""},' * 50_000 + b'{"b64": ""}]}',
     json.dumps({"instances": [{"b64": base64.b64encode(bad_files.JPEG[:200]).decode()}]}).encode(),
     json.dumps({"instances": [{"b64": base64.b64encode(bad_files.JPEG).decode()[:-3]}]}).encode()],
)  # fmt: skip
def test_wrong_json_is_refused(unharmed, body):
    refused(ask(unharmed, body, "application/json", "/invocations"))


# heads


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("Accept-Language", "pt\tX-Injected: 1;q=9"),
        ("Accept-Language", ",".join(f"x{n};q=0.{n}" for n in range(2000))),
        ("Accept", "text/html;" * 1000),
        ("Accept", "text/html;q=NaN, */*;q=-inf"),
        ("Cookie", "lang=../../etc/passwd; lang=<script>alert(1)</script>"),
        ("Cookie", "lang=" + "pt" * 5000),
        ("Host", "evil.example/<script>"),
        ("X-Forwarded-For", "127.0.0.1, '\"<script>"),
        ("X-Forwarded-Host", "evil.example"),
        ("Range", "bytes=0-1,5-9999999999999999999"),
        ("If-Modified-Since", "Thu, 99 Jan 99999 99:99:99 GMT"),
        ("Content-Type", "image/png; charset=\xff\x01"),
        ("Authorization", "Basic " + "A" * 7000),
        ("SCRIPT_NAME", "/elsewhere"),
        ("Transfer-Encoding", "identity"),
    ],
)
def test_a_strange_field_decides_nothing(unharmed, name, value):
    for path in ("/", "/healthz", "/static/page.css"):
        with unharmed.connect() as sock:
            first = f"GET {path} HTTP/1.1\r\n" + ("" if name == "Host" else "Host: x\r\n")
            sock.sendall(f"{first}{name}: {value}\r\n\r\n".encode("latin-1"))
            status, fields, body = services.read_response(sock)
            assert status in (200, 206, 400, 416, 431, 501) and "x-injected" not in fields
            assert (
                b"<script>alert" not in body and b"evil.example" not in body and not any(x in body for x in LEAKS[:2])
            )


STRANGE = [
    "/?lang=pt%0d%0aX-Injected:%201",
    "/?lang=%3Cscript%3Ealert(1)%3C/script%3E",
    "/%0d%0aX-Injected:%201",
    "//evil.example",
    "//evil.example/%2e%2e",
    "/static/..%2f..%2fbundle.json",
    "/static/%00",
    "/static//etc/passwd",
    "/%ff%fe",
    "/\\evil.example",
    "/predict?heatmap=1&heatmap=%00",
    "/static/....//....//etc/passwd",
    "/model-card/../../etc/passwd",
    "http://evil.example/",
    "*",
    "/;/../metrics",
]


@pytest.mark.parametrize("path", [*STRANGE, "/" + "a/" * 4000, "/?" + "a&" * 4000])
def test_a_strange_address_leads_nowhere(unharmed, path):
    with unharmed.connect() as sock:
        sock.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nAccept: text/html\r\n\r\n".encode())
        status, fields, body = services.read_response(sock)
    assert status in (200, 400, 404, 405, 414) and "location" not in fields and "x-injected" not in fields
    assert b"<script>alert" not in body and b"root:" not in body and b"checksums" not in body


@pytest.mark.parametrize("method", ["TRACE", "CONNECT", "PUT", "DELETE", "PATCH", "OPTIONS", "HEAD", "JANE", "A" * 300])
def test_other_methods_do_nothing(unharmed, method):
    with unharmed.connect() as sock:
        sock.sendall(
            f"{method} /predict HTTP/1.1\r\nHost: x\r\nX-Secret: jane_doe\r\nConnection: close\r\n\r\n".encode()
        )
        data = b"".join(iter(lambda: sock.recv(9000), b""))
    assert int(data.split()[1]) in (200, 400, 405) and b"jane_doe" not in data


# sockets


def test_old_and_plain_clients_are_answered(unharmed):
    for line, persistent in ((b"HTTP/1.0\r\n", False), (b"HTTP/1.0\r\nConnection: keep-alive\r\n", True)):
        with unharmed.connect() as sock:
            sock.sendall(b"GET /healthz " + line + b"\r\n")
            assert services.read_response(sock)[0] == 200
            sock.settimeout(0.5)
            if persistent:
                with pytest.raises(TimeoutError):
                    sock.recv(1)
            else:
                assert sock.recv(1) == b""
    with unharmed.connect() as sock:  # one who has said all, and only listens
        sock.sendall(post(RED))
        sock.shutdown(socket.SHUT_WR)
        assert services.read_response(sock)[0] == 200


def test_a_length_that_is_too_short_smuggles_nothing(unharmed):
    hidden = b"GET /jane_doe HTTP/1.1\r\nHost: x\r\n\r\n"
    with unharmed.connect() as sock:
        sock.sendall(post(RED).replace(b"Length: %d" % len(RED), b"Length: %d" % (len(RED) - 4)) + hidden)
        assert services.read_response(sock)[0] == 400  # the image is cut short
        assert services.read_response(sock)[0] == 400  # what follows is no request
        assert sock.recv(1) == b""
    assert "jane_doe" not in unharmed.log.read_text()


def test_who_leaves_in_the_middle_is_forgotten(unharmed):
    large = bad_files.saved("PNG", bad_files.Image.fromarray(np.tile(bad_files.NOISE, (20, 20, 1))))
    for sent in (post(large)[: len(large) // 2], post(large), post(large).replace(b"/predict", b"/predict?heatmap=1")):
        for reset in (True, False):
            for _ in range(4):
                sock = unharmed.connect()
                if reset:  # a reset, not an orderly end
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                sock.sendall(sent)
                sock.close()
    deadline = time.monotonic() + 10
    while any(client_ports(unharmed).values()):
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.slow
def test_dripping_heads_and_bodies_hold_up_nobody(unharmed):
    alone = median_seconds(unharmed)
    dripping = [unharmed.connect() for _ in range(300)]
    stop = threading.Event()

    def drip() -> None:
        at, request = 0, post(bytes(100_000))
        heads = b"GET / HTTP/1.1\r\n" + b"X-Drip: 1\r\n" * 1000
        while not stop.wait(0.05):
            for number, sock in enumerate(dripping):
                try:
                    sock.send(
                        heads[at : at + 1]
                        if number % 2
                        else (request[:200] if not at else request[200 + at : 201 + at])
                    )
                except OSError:  # it has been ended
                    continue
            at += 1

    thread = threading.Thread(target=drip)
    thread.start()
    try:
        answered = [median_seconds(unharmed) for _ in range(3)]
    finally:
        stop.set()
        thread.join()
        for sock in dripping:
            sock.close()
    print(f"p50 {1000 * alone:.1f} ms alone, {1000 * float(np.median(answered)):.1f} ms beside 300 that drip")


def median_seconds(served) -> float:
    taken = []
    for _ in range(50):
        started = time.perf_counter()
        assert served.classify(RED, timeout=5) == "red"
        taken.append(time.perf_counter() - started)
    return float(np.median(taken))


@pytest.mark.slow
def test_memory_stays_flat_over_all_bad_and_odd_files(unharmed):
    files = [*map(bad_files.refused, bad_files.REFUSED), *map(bad_files.odd, bad_files.ODD)]
    connection = http.client.HTTPConnection("127.0.0.1", unharmed.port, timeout=30)

    def send_all() -> None:
        for file in files:
            connection.request("POST", "/predict", file, {"Content-Type": "image/jpeg"})
            response = connection.getresponse()
            response.read()
            assert response.status in (200, 400)

    for _ in range(20):  # each thread of a worker takes memory of its own when it first decodes a kind of file
        send_all()
    before = memory(unharmed)
    for _ in range(20):
        send_all()
    assert memory(unharmed) < 1.05 * before


@pytest.mark.skipif(sys.platform != "linux", reason="what a process has open is read from /proc")
def test_nothing_is_written(served):
    before = on_disk(served)
    noise = bad_files.Image.fromarray(np.random.default_rng(1).integers(0, 256, (900, 900, 3), np.uint8))
    large = bad_files.saved("PNG", noise)
    assert len(large) > 2_000_000
    ended, written = threading.Event(), set()

    def watch() -> None:
        while not ended.wait(0.001):
            written.update(name for worker in served.workers() for name in open_for_writing(worker.pid))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        for file in (large, bad_files.JPEG, bad_files.refused("Radiance HDR"), bad_files.odd("TIFF of pages")):
            ask(served, file)
            ask(served, *form(file), path="/", Accept="text/html")
    finally:
        ended.set()
        thread.join()
    # its log, and what gunicorn and the counts share in memory
    assert str(served.log) in written
    assert not [name for name in written if name != str(served.log) and not name.startswith("/dev/")]
    assert on_disk(served) == before


def open_for_writing(pid: int) -> list[str]:
    """Paths of the files that a process may write to just now (on Linux)."""
    paths = []
    for number in os.listdir(f"/proc/{pid}/fd"):
        try:
            name = os.readlink(f"/proc/{pid}/fd/{number}")
            flags = re.search(r"flags:\s+(\d+)", Path(f"/proc/{pid}/fdinfo/{number}").read_text())
        except OSError:  # closed since
            continue
        if name.startswith("/") and flags and int(flags[1], 8) & os.O_ACCMODE:
            paths.append(name)
    return paths


def on_disk(served) -> dict[str, tuple[int, int]]:
    """Every file of the bundle and of the folder that the service runs in, with its size and time; not its log."""
    folder = Path(served.process.args[-1])
    paths = [*folder.rglob("*"), *served.log.parent.rglob("*")]
    return {
        str(path): (path.stat().st_size, path.stat().st_mtime_ns)
        for path in paths
        if path.is_file() and path != served.log and "__pycache__" not in path.parts
    }
