"""The service under load: answers do not mix, the queue has an end, a worker that dies takes nobody with it."""

import http.client
import json
import os
import re
import shutil
import signal
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from helpers import services
from helpers.connections import client_ports, connect_to_workers, form, memory
from helpers.uploads import RED
from scanbook.data import images

CLIENTS = 16


@pytest.fixture(scope="module")
def pair(bundle, tmp_path_factory):
    with services.running(bundle.folder, tmp_path_factory.mktemp("log") / "log", "--workers", "2") as service:
        yield service
        assert "Traceback" not in service.log.read_text()


def different(count: int) -> list[bytes]:
    random = np.random.default_rng(3)
    return [
        images.encode_png(random.integers(0, 256, (60, 80, 3), np.uint8) // random.integers(1, 9, 3, np.uint8))
        for _ in range(count)
    ]


def ask(connection: http.client.HTTPConnection, body: bytes, kind: str) -> tuple[int, dict, str]:
    connection.request("POST", "/predict", body, {"Content-Type": kind})
    response = connection.getresponse()
    return response.status, json.loads(response.read()), response.getheader("Retry-After") or ""


def connect(served) -> http.client.HTTPConnection:
    return http.client.HTTPConnection("127.0.0.1", served.port, timeout=20)


@pytest.mark.slow
def test_clients_with_one_file_name_get_their_own_answers(pair):
    bodies = [form(image, name="image.png") for image in different(CLIENTS)]
    alone = [ask(connect(pair), *body)[1]["predictions"] for body in bodies]
    assert len({json.dumps(predictions) for predictions in alone}) == CLIENTS
    together = threading.Barrier(CLIENTS)

    def client(number: int) -> bool:
        connection = connect(pair)
        together.wait()
        return all(ask(connection, *bodies[number])[1]["predictions"] == alone[number] for _ in range(12))

    with ThreadPoolExecutor(CLIENTS) as pool:
        assert all(pool.map(client, range(CLIENTS)))


@pytest.mark.slow
def test_a_full_queue_refuses_and_never_grows(bundle, tmp_path):
    with services.running(bundle.folder, tmp_path / "log", "--queue", "2") as served:
        large = images.encode_png(np.zeros((2000, 2000, 3), np.uint8))  # slow to decode
        ended, lengths, together = threading.Event(), [], threading.Barrier(CLIENTS)

        def watch() -> None:
            while not ended.wait(0.01):
                match = re.search(rb"^scanbook_queue_images (\S+)", served.get("/metrics")[1], re.MULTILINE)
                lengths.append(float(match[1]))

        def client(_number: int) -> list[tuple[int, dict, str]]:
            connection = connect(served)
            together.wait()
            return [ask(connection, large, "image/png") for _ in range(3)]

        watching = threading.Thread(target=watch)
        watching.start()
        with ThreadPoolExecutor(CLIENTS) as pool:
            answers = [answer for row in pool.map(client, range(CLIENTS)) for answer in row]
        ended.set()
        watching.join()
        assert {status for status, _, _ in answers} == {200, 503}
        for status, values, later in answers:
            if status != 200:
                assert int(later) >= 1 and "the limit is 2" in values["detail"] and values["status"] == 503
        assert max(lengths) <= 2
        assert served.classify(RED) == "red" and served.get("/readyz")[0] == 200


@pytest.mark.slow
def test_a_worker_killed_under_load_takes_only_its_own_connections(bundle, tmp_path):
    with services.running(bundle.folder, tmp_path / "log", "--workers", "2") as served:
        deadline = time.monotonic() + 20
        while len(mine := connect_to_workers(served)) < 2:
            assert time.monotonic() < deadline
        victim, other = mine
        owners, lost, answered = {}, [], []
        ended = threading.Event()

        def client(_number: int) -> None:
            connection, port = None, 0
            while not ended.is_set():
                began = time.monotonic()
                try:
                    if connection is None:
                        connection = connect(served)
                        connection.connect()
                        port = connection.sock.getsockname()[1]
                    status, values, _ = ask(connection, RED, "image/png")
                    assert status == 200 and values["predictions"][0]["class"] == "red"
                    answered.append(time.monotonic())
                except (OSError, http.client.HTTPException) as error:
                    lost.append((port, began, repr(error)))
                    connection = None

        with ThreadPoolExecutor(CLIENTS) as pool:
            clients = [pool.submit(client, number) for number in range(CLIENTS)]
            time.sleep(1)
            owners |= {port: pid for pid, ports in client_ports(served).items() for port in ports}
            os.kill(victim, signal.SIGKILL)
            killed = time.monotonic()
            while victim in (pids := {worker.pid for worker in served.workers()}) or len(pids) < 2:
                assert time.monotonic() < killed + 10
                time.sleep(0.05)
            time.sleep(2)
            ended.set()
            for future in clients:
                future.result()
        for sock in mine.values():
            sock.close()
        assert len(owners) > CLIENTS and {victim, other} == set(owners.values())
        # each client may lose one request, and only to the one that was killed
        assert all(owners.get(port, victim) == victim for port, _, _ in lost), lost
        assert len(lost) <= CLIENTS and len({port for port, _, _ in lost}) == len(lost)
        assert other in {worker.pid for worker in served.workers()}
        assert max(answered) > killed + 1.5
        print(f"{len(answered)} answered, {len(lost)} lost with the killed worker")
    assert "Traceback" not in (tmp_path / "log").read_text()


SCRIPT = """
local file = io.open("{body}", "rb")
wrk.method, wrk.body, wrk.headers["Content-Type"] = "POST", file:read("*a"), "{kind}"
file:close()
local threads = {{}}
setup = function(thread) table.insert(threads, thread) end
response = function(status)
  seen = seen or {{}}
  seen[status] = (seen[status] or 0) + 1
end
done = function(summary, latency)
  for _, thread in ipairs(threads) do
    for status, count in pairs(thread:get("seen") or {{}}) do print("status", status, count) end
  end
  local e = summary.errors
  print("broken", e.connect + e.read + e.write + e.timeout)
  print("p99", latency:percentile(99) / 1000)
end
"""


@pytest.mark.slow
def test_many_connections_get_answers_and_memory_stays_flat(pair, tmp_path):
    if not shutil.which("wrk"):
        pytest.skip("wrk is not installed")
    body, kind = form(images.encode_png(np.random.default_rng(4).integers(0, 256, (120, 160, 3), np.uint8)))
    (tmp_path / "body").write_bytes(body)
    (tmp_path / "post.lua").write_text(SCRIPT.format(body=tmp_path / "body", kind=kind))

    def load(seconds: int) -> tuple[dict[int, int], dict[str, float]]:
        command = ["wrk", "-t1", f"-c{CLIENTS}", f"-d{seconds}s", "-s", str(tmp_path / "post.lua")]
        address = f"http://127.0.0.1:{pair.port}/predict"
        text = subprocess.run([*command, address], capture_output=True, text=True, check=True, timeout=60).stdout
        statuses = {int(status): int(count) for status, count in re.findall(r"^status\t(\d+)\t(\d+)", text, re.M)}
        return statuses, {name: float(value) for name, value in re.findall(r"^(broken|p99)\t(\S+)", text, re.M)}

    load(6)  # by then each worker has grown by the few MB that it keeps
    before = memory(pair)
    statuses, figures = load(4)
    after = memory(pair)
    print(f"{statuses} p99 {figures['p99']:.0f} ms, {before / 2**20:.0f} to {after / 2**20:.0f} MB")
    assert statuses[200] > 100 and set(statuses) <= {200, 503} and figures["broken"] == 0
    assert after < 1.05 * before
