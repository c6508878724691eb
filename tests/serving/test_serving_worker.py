"""The worker over real sockets: slow clients do not block others, and no accepted request is lost when it stops."""

import http.client
import os
import re
import resource
import signal
import socket
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from helpers import services
from helpers.connections import GET, connect_to_workers, post
from helpers.uploads import BLUE, GREEN, RED
from scanbook.serving.uploads import MAX_BYTES

FILES = resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def test_a_connection_is_used_again_and_requests_queue_up_on_it(served):
    with served.connect() as sock:
        sock.sendall(post(RED) + GET + post(BLUE))
        sock.sendall(GET)
        bodies = [services.read_response(sock) for _ in range(4)]
    assert [status for status, _, _ in bodies] == [200] * 4
    assert all(fields["connection"] == "keep-alive" for _, fields, _ in bodies)
    assert b'"class":"red"' in bodies[0][2] and b'"class":"blue"' in bodies[2][2] and b'"ok"' in bodies[3][2]


def test_chunks_make_a_body(served):
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (GREEN[:10], GREEN[10:])) + b"0\r\n\r\n"
    head = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nTransfer-Encoding: chunked\r\n\r\n"
    with served.connect() as sock:
        for at in range(0, len(chunks), 7):
            sock.sendall((head if at == 0 else b"") + chunks[at : at + 7])
        status, _, body = services.read_response(sock)
        assert status == 200 and b'"class":"green"' in body
        sock.sendall(GET)
        assert services.read_response(sock)[0] == 200


def test_clients_are_told_to_continue_before_they_send_much(served):
    with served.connect(timeout=2) as sock:
        head, body = post(RED, "Expect: 100-continue").split(b"\r\n\r\n", 1)
        sock.sendall(head + b"\r\n\r\n")
        assert sock.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        sock.sendall(body)
        assert sock.recv(12) == b"HTTP/1.1 200"


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"GET / HTTP/1.1\nHost: x\n\n", 400),
        (b"GET / HTTP/9\r\nHost: x\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\nX-Secret\x00: jane_doe\r\n\r\n", 400),
        (b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 414),
        (b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 40_000, 431),
        (b"GET / HTTP/1.1\r\nHost: x\r\nExpect: jane_doe\r\n\r\n", 417),
        (b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        (b"POST /predict HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nFFFFFFF\r\n", 413),
    ],
)
def test_what_is_no_request_gets_a_problem_and_no_second_chance(served, sent, status):
    with served.connect() as sock:
        sock.sendall(sent + GET)
        code, fields, body = services.read_response(sock)
        assert code == status and fields["content-type"] == "application/problem+json"
        assert b'"detail"' in body and fields["connection"] == "close" and fields["x-frame-options"] == "DENY"
        assert not sock.recv(100)
    assert "jane_doe" not in served.log.read_text() and b"jane_doe" not in body


def test_too_much_is_refused_before_it_is_sent(served):
    with served.connect() as sock:
        sock.sendall(post(b"", "Expect: 100-continue").replace(b"Length: 0", b"Length: %d" % (MAX_BYTES + 1)))
        status, fields, body = services.read_response(sock)
        assert status == 413 and fields["connection"] == "close" and b"16 MB" in body
    # and one who sends it all before reading gets to read the answer
    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=10)
    connection.request("POST", "/predict", bytes(2 * MAX_BYTES), {"Content-Type": "image/png"})
    assert connection.getresponse().status == 413


@pytest.mark.skipif(FILES < 1024, reason=f"a process may open {FILES} files here; this needs 1,024")
def test_who_drips_or_does_not_read_holds_up_nobody(served):
    dripping = [served.connect() for _ in range(300)]
    for number, sock in enumerate(dripping):
        sock.sendall(b"POST /predict HTTP/1.1\r\nHost: x\r\n" if number % 2 else post(RED)[:-5])
    greedy = [served.connect() for _ in range(20)]
    for sock in greedy:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.sendall(b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n" * 200)
    stop = threading.Event()

    def drip() -> None:
        while not stop.wait(0.05):
            for sock in dripping[1::2]:
                sock.send(b"X")

    thread = threading.Thread(target=drip)
    thread.start()
    try:
        with ThreadPoolExecutor(8) as pool:  # each waits 15 s at most, which is less than the slow ones are given
            assert set(pool.map(served.classify, [BLUE] * 40)) == {"blue"}
    finally:
        stop.set()
        thread.join()
        for sock in dripping + greedy:
            sock.close()


@pytest.mark.slow
def test_a_request_that_does_not_arrive_is_ended(served):
    with served.connect(20) as silent, served.connect(20) as slow, served.connect(20) as used:
        used.sendall(GET)
        services.read_response(used)
        started = time.perf_counter()
        slow.sendall(b"GET / HTTP/1.1\r\nHo")
        status, fields, _ = services.read_response(slow)
        assert status == 408 and fields["connection"] == "close" and 9 < time.perf_counter() - started < 13
        assert not silent.recv(10)  # nothing was asked, so nothing is answered
        used.sendall(GET)
        assert services.read_response(used)[0] == 200


def ask_until(served, ended: threading.Event, lost: list, again: bool) -> int:
    """Asks on, on a new connection each time or on one: what was taken has to be answered; counts the answers."""
    answered, connection = 0, None
    while not ended.is_set():
        try:
            if connection is None:
                connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=15)
                connection.connect()
        except ConnectionRefusedError:
            return answered
        try:
            connection.request("POST", "/predict", RED, {"Content-Type": "image/png"})
            response = connection.getresponse()
            if response.status != 200 or b'"red"' not in response.read():
                lost.append(response.status)
            answered += 1
            if not again or response.getheader("Connection") == "close":
                connection.close()
                connection = None
        except OSError as error:
            lost.append(repr(error))
            return answered
    return answered


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="only there can a socket let nobody in and keep who is in")
@pytest.mark.parametrize("workers", [1, 2])
def test_sigterm_loses_no_request(bundle, tmp_path, workers):
    with services.running(bundle.folder, tmp_path / "log", "--workers", str(workers)) as served:
        folder = metric_folder(served)
        assert len(list(folder.iterdir())) >= workers
        ended, lost = threading.Event(), []
        with served.connect() as late, ThreadPoolExecutor(8) as pool:
            late.sendall(post(BLUE)[:50])
            asking = [pool.submit(ask_until, served, ended, lost, number % 2 == 0) for number in range(8)]
            time.sleep(1)
            started = time.perf_counter()
            served.process.send_signal(signal.SIGTERM)
            time.sleep(0.3)
            late.sendall(post(BLUE)[50:])
            status, fields, body = services.read_response(late)
            assert status == 200 and b'"blue"' in body and fields["connection"] == "close"
            counts = [future.result() for future in asking]
        assert served.process.wait(timeout=15) == 0 and time.perf_counter() - started < 10
        assert lost == [] and min(counts) > 5
    assert "Traceback" not in (tmp_path / "log").read_text()
    assert not folder.exists()


@pytest.mark.slow
def test_a_killed_worker_is_replaced_and_the_other_goes_on(bundle, tmp_path):
    with services.running(bundle.folder, tmp_path / "log", "--workers", "2") as served:
        deadline = time.monotonic() + 20
        while len(mine := connect_to_workers(served)) < 2:
            assert time.monotonic() < deadline
        victim, other = sorted(mine)
        connection = mine[other]
        counted = images_counted(served)
        os.kill(victim, signal.SIGKILL)
        for _ in range(20):
            connection.sendall(post(GREEN))
            assert services.read_response(connection)[0] == 200
        started = time.monotonic()
        while victim in (pids := {worker.pid for worker in served.workers()}) or len(pids) < 2:
            assert time.monotonic() < started + 10
            time.sleep(0.05)
        for _ in range(20):
            assert served.classify(RED) == "red"
        assert time.monotonic() - started < 10
        assert images_counted(served) == counted + 40  # what the killed one had counted still counts
        for sock in mine.values():
            sock.close()


def images_counted(served) -> float:
    return float(re.search(rb"^scanbook_images_total (\S+)", served.get("/metrics")[1] + b"\n", re.MULTILINE)[1])


def metric_folder(served) -> Path:
    mapped = (region.path for worker in served.workers() for region in worker.memory_maps())
    [folder] = {Path(path).parent for path in mapped if "scanbook-metrics-" in path}
    return folder
