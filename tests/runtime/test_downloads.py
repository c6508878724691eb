"""Downloads end where a server or proxy accepts a connection and gives no answer, or hardly any."""

from __future__ import annotations

import socket
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path

import pooch
import pytest
import requests

from helpers import planted
from scanbook.errors import ModelError
from scanbook.models import backbones
from scanbook.models.backbones import imagenet
from scanbook.runtime import downloads

SILENCE = 0.2
HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n"


def mute(_: socket.socket, __: threading.Event) -> None:
    """Accept, and say nothing: so do proxies that drop what they do not allow."""


def stalls(connection: socket.socket, _: threading.Event) -> None:
    connection.recv(4096)
    connection.sendall(HEAD + bytes(5000))


def trickles(connection: socket.socket, done: threading.Event) -> None:
    connection.recv(4096)
    connection.sendall(HEAD)
    while not done.wait(SILENCE / 10):
        connection.sendall(b"x")


@pytest.fixture
def server() -> Iterator[Callable[[Callable[..., None]], int]]:
    """Start servers that treat each connection in one way; return their ports."""
    done, open_sockets = threading.Event(), []

    def listen(behaviour: Callable[..., None]) -> int:
        listener = socket.create_server(("127.0.0.1", 0))
        open_sockets.append(listener)

        def accept() -> None:
            with suppress(OSError):  # the listener is closed
                while True:
                    connection = listener.accept()[0]
                    open_sockets.append(connection)
                    threading.Thread(target=treat, args=(connection,), daemon=True).start()

        def treat(connection: socket.socket) -> None:
            with suppress(OSError):  # the other side has had enough
                behaviour(connection, done)

        threading.Thread(target=accept, daemon=True).start()
        return listener.getsockname()[1]

    yield listen
    done.set()
    for each in open_sockets:
        with suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)
        each.close()


def by_urllib(address: str, folder: Path) -> None:
    """As Keras does."""
    urllib.request.urlretrieve(address, folder / "file")


def by_requests(address: str, folder: Path) -> None:
    """As kagglehub does: without a limit of its own."""
    with requests.Session() as session, closing(session.get(address, stream=True)) as response:
        (folder / "file").write_bytes(b"".join(response.iter_content(1 << 20)))


def by_pooch(address: str, folder: Path) -> None:
    """As for MedMNIST."""
    pooch.retrieve(address, None, "file", folder, downloader=pooch.HTTPDownloader(timeout=None))


@pytest.mark.parametrize("download", [by_urllib, by_requests, by_pooch])
@pytest.mark.parametrize(
    ("scheme", "behaviour"), [("http", mute), ("https", mute), ("http", stalls), ("http", trickles)]
)
def test_a_server_without_an_answer_ends_the_download(
    scheme: str, behaviour: Callable[..., None], download: Callable[[str, Path], None], server, tmp_path, no_proxy
) -> None:
    address = f"{scheme}://127.0.0.1:{server(behaviour)}/file"
    with pytest.raises(OSError) as ended, downloads.limited(SILENCE):
        download(address, tmp_path)
    assert downloads.silent(ended.value), ended.value


def test_a_slow_server_is_waited_for(server, tmp_path, no_proxy) -> None:
    """Slower than the limit in all, with pauses below it."""

    def answer(connection: socket.socket, done: threading.Event) -> None:
        connection.recv(4096)
        connection.sendall(HEAD)
        for _ in range(20):
            done.wait(silence / 16)
            connection.sendall(bytes(5000))

    silence, started = 5 * SILENCE, time.monotonic()  # a machine under load makes pauses of its own
    with downloads.limited(silence):
        by_urllib(f"http://127.0.0.1:{server(answer)}/file", tmp_path)
    assert (tmp_path / "file").stat().st_size == 100_000 and time.monotonic() - started > silence


def test_nothing_of_the_limit_remains(tmp_path: Path) -> None:
    before = socket.getdefaulttimeout(), socket.socket.settimeout, socket.SocketIO.readinto
    with pytest.raises(ZeroDivisionError), downloads.limited(SILENCE):
        assert socket.getdefaulttimeout() == SILENCE
        _ = 1 / 0
    assert (socket.getdefaulttimeout(), socket.socket.settimeout, socket.SocketIO.readinto) == before


@pytest.fixture
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


def test_weights_behind_a_silent_proxy_fall_back_as_those_that_are_refused(
    server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, no_proxy
) -> None:
    """Through Keras and kagglehub themselves; one of them waits the whole time, and the next ones hardly at all."""
    monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{server(mute)}")
    monkeypatch.setattr("urllib.request._opener", None)  # made once in a process, with the proxies of that moment
    monkeypatch.setenv("SCANBOOK_STORE", str(tmp_path / "store"))
    monkeypatch.setattr("keras.src.backend.config._KERAS_DIR", str(tmp_path))
    monkeypatch.setenv("KAGGLEHUB_CACHE", str(tmp_path))
    monkeypatch.setattr(imagenet, "_patience", [0.5])
    monkeypatch.setattr(imagenet, "_LITTLE", 0.1)
    weights, missing = backbones.resolve(planted.study(backbones=["resnet18", "mobilenet_0.25", "mobilenet_v2_0.35"]))
    assert weights["mobilenet_v2_0.35"].source == "scanbook"
    assert "resnet18: not in the Keras cache and not downloadable (no answer within 0.5 s)" in missing["resnet18"]
    assert "no answer within 0.1 s" in missing["mobilenet_0.25"]
    with pytest.raises(ModelError, match="no answer within"):
        backbones.pretrained("mobilenet_v2_0.35", "imagenet")
    assert [path for path in tmp_path.rglob("*") if path.is_file() and path.name.startswith("mobilenet")] == []
