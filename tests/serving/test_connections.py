"""Each limit of a connection, by a clock that the test sets: what ends, what it is told, and what goes on."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from helpers.connections import GET, post
from scanbook.serving import connections
from scanbook.serving.connections import Connections, Phase

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
HUGE = bytes(8 * 2**20)


class Loop:
    """A loop over real sockets, whose clock stands still."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.hold = 1000.0, threading.Event()
        monkeypatch.setattr(connections, "time", SimpleNamespace(monotonic=lambda: self.now))
        self.hold.set()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.connections = Connections(
            [self.listener], self.answer, lambda status, _: b"%d" % status, threads=2, most=3, keep_alive=75
        )
        self.clients: list[socket.socket] = []

    def answer(self, request: bytes, _connection: object, closes: bool) -> tuple[bytes, bool]:
        self.hold.wait(10)
        return (HUGE if request.startswith(b"GET /huge") else ANSWER), not closes

    def client(self, sent: bytes = b"") -> socket.socket:
        """Connect, send, and let the loop notice."""
        sock = socket.create_connection(self.listener.getsockname(), timeout=10)
        self.clients.append(sock)
        sock.sendall(sent)
        self.turn()
        return sock

    def turn(self, seconds: float = 0) -> None:
        """Let some time pass, and the loop do what there is to do."""
        self.now += seconds
        for _ in range(20):
            self.connections.work(0.002)
        while self.hold.is_set() and Phase.QUEUED in self.phases():
            self.connections.work(0.01)

    def phases(self) -> list[Phase]:
        return sorted((connection.phase for connection in self.connections._open), key=lambda phase: phase.value)


@pytest.fixture
def loop(monkeypatch: pytest.MonkeyPatch) -> Iterator[Loop]:
    loop = Loop(monkeypatch)
    yield loop
    loop.hold.set()
    loop.connections.close()
    for sock in (*loop.clients, loop.listener, *(connection.sock for connection in loop.connections._open)):
        sock.close()


def received(sock: socket.socket) -> bytes:
    """What a client gets until the service ends the connection."""
    return b"".join(iter(lambda: sock.recv(2**16), b""))


@pytest.mark.parametrize(
    ("sent", "phase", "seconds", "told"),
    [
        (b"", Phase.IDLE, 10, b""),
        (GET[:9], Phase.HEAD, 10, b"408"),
        (post(b"image")[:-1], Phase.BODY, 30, b"408"),
        (post(bytes(2**17 + 1))[:-1], Phase.BODY, 32, b"408"),  # two more seconds for 128 KB
        (GET, Phase.IDLE, 75, ANSWER),
    ],
)
def test_what_comes_too_late_is_ended(loop, sent, phase, seconds, told):
    sock = loop.client(sent)
    loop.turn(seconds - 0.1)
    assert loop.phases() == [phase]
    loop.turn(0.2)
    loop.turn(connections.LINGER_SECONDS + 0.1)
    assert received(sock) == told and not loop.connections


def test_who_does_not_read_is_left(loop):
    sock = loop.client(GET.replace(b"/healthz", b"/huge"))
    loop.turn(connections.WRITE_SECONDS - 0.1)
    assert loop.phases() == [Phase.SENDING]
    loop.turn(0.2)
    assert not loop.connections and len(received(sock)) < len(HUGE)


def test_a_slow_reader_gets_all_of_it(loop):
    sock = loop.client(GET.replace(b"/healthz", b"/huge"))
    count = 0
    while count < len(HUGE):
        count += len(sock.recv(2**18))
        loop.turn()
    assert count == len(HUGE) and loop.phases() == [Phase.IDLE]


def test_the_oldest_leaves_where_there_are_too_many_unless_it_is_answered(loop):
    loop.hold.clear()
    answered = loop.client(GET)
    oldest = loop.client(GET[:9])
    loop.turn(1)
    younger, newest = loop.client(b""), loop.client(GET[:9])
    assert received(oldest) == b"" and len(loop.connections) == 3
    assert loop.phases() == [Phase.IDLE, Phase.HEAD, Phase.QUEUED]
    loop.hold.set()
    for sock, rest in ((answered, b""), (younger, GET), (newest, GET[9:])):
        sock.sendall(rest)
        loop.turn()
        assert sock.recv(2**16) == ANSWER


def test_the_oldest_request_makes_room_in_memory(loop, monkeypatch):
    monkeypatch.setattr(connections, "MAX_HELD", 100_000)
    request = post(bytes(60_000))
    oldest = loop.client(request[:-1])
    loop.turn(1)
    younger = loop.client(request[:-1])
    assert oldest.recv(100) == b"503"
    younger.sendall(request[-1:])
    loop.turn()
    assert younger.recv(100) == ANSWER


@pytest.mark.parametrize(
    ("sent", "held"), [(GET, 0), (GET * 3, 0), (GET + GET[:9], 9), (post(HUGE)[:90_000], 90_000), (b"x" * 40_000, 0)]
)
def test_memory_is_counted_to_the_last_byte(loop, sent, held):
    sock = loop.client(sent[:-1])
    sock.sendall(sent[-1:])
    loop.turn()
    assert loop.connections._held == held
    sock.close()
    loop.turn(100)
    assert not loop.connections and loop.connections._held == 0


def test_who_was_refused_may_send_a_while(loop, monkeypatch):
    monkeypatch.setattr(connections, "DRAINED", 100_000)
    sock = loop.client(b"x" * 40_000)
    loop.turn()
    assert sock.recv(3) == b"431" and loop.phases() == [Phase.ENDING]
    sock.sendall(b"x" * 90_000)
    loop.turn(1)
    loop.turn(connections.LINGER_SECONDS - 0.1)  # since what it sent last
    assert loop.phases() == [Phase.ENDING]
    sock.sendall(b"x" * 90_000)
    loop.turn()
    assert not loop.connections


def test_who_is_in_is_answered_after_the_listener_closes(loop):
    waiting = [socket.create_connection(loop.listener.getsockname(), timeout=10) for _ in range(2)]
    loop.clients += waiting
    loop.connections.stop_accepting()
    for sock in waiting:
        sock.sendall(GET)
    loop.turn()
    assert [sock.recv(2**16) for sock in waiting] == [ANSWER, ANSWER]
    loop.turn(connections.LINGER_SECONDS + 0.1)
    assert not loop.connections
