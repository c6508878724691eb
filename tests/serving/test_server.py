"""gunicorn as the server uses it: what it needs of its internals, and how the service stops."""

import ast
import inspect
import logging
import os
import re
import signal
import socket
import sys
import threading
import time
from importlib import import_module
from pathlib import Path

import psutil
import pytest

import scanbook
from helpers import services
from helpers.connections import GET

# the checks import gunicorn themselves, so that a name that it lacks fails its test and no other
LIB = Path(scanbook.__file__).parent
SERVER = LIB / "serving" / "server.py"
ADDRESSES = ("127.0.0.1", 1), ("127.0.0.1", 2)


def check_names() -> None:
    """Every name that the server imports is there."""
    nodes = [node for node in ast.walk(ast.parse(SERVER.read_text())) if isinstance(node, ast.ImportFrom)]
    names = [(node.module, alias.name) for node in nodes if node.module.startswith("gunicorn") for alias in node.names]
    missing = [f"{module}.{name}" for module, name in names if not has(module, name)]
    assert len(names) > 5 and not missing


def has(module: str, name: str) -> bool:
    try:
        return hasattr(import_module(module), name) or bool(import_module(f"{module}.{name}"))
    except ImportError:
        return False


class Sink:
    """What the server passes as a socket."""

    def __init__(self) -> None:
        self.sent = b""

    def sendall(self, data: bytes) -> None:
        self.sent += data


def check_parser() -> None:
    """Pieces in, requests out; after the last byte of the request nothing is left."""
    from gunicorn import config, http

    pieces = iter([b"POST /a?b=c HTTP/1.1\r\nHost: x\r\nContent-", b"Length: 5\r\n\r\nhel", b"lo"])
    parser = http.get_parser(config.Config(), pieces, ADDRESSES[0])
    request = next(parser)
    assert isinstance(parser, http.RequestParser) and not request.should_close()
    assert request.body.read() == b"hello" and parser.finish_body() and parser.unreader.read() == b""
    request.force_close()
    assert request.should_close()


def check_response() -> None:
    """`wsgi.create` gives the environment and a response, which writes to `sendall` alone."""
    from gunicorn import config, http
    from gunicorn.http import wsgi

    parser, sink = http.get_parser(config.Config(), iter([GET]), ADDRESSES[0]), Sink()
    response, environ = wsgi.create(next(parser), sink, *ADDRESSES, config.Config())
    assert environ["PATH_INFO"] == "/healthz" and environ["REMOTE_ADDR"] == "127.0.0.1" and "wsgi.input" in environ
    response.start_response("200 OK", [("Content-Length", "2")])
    response.write(b"ok")
    response.close()
    assert sink.sent.startswith(b"HTTP/1.1 200 OK\r\n") and sink.sent.endswith(b"\r\n\r\nok")
    assert not response.should_close()


def check_worker() -> None:
    """A worker has what the loop reads; it takes SIGTERM in `handle_exit`, and loads the application before `run`."""
    from gunicorn import config
    from gunicorn.workers.base import Worker

    worker = Worker(1, os.getpid(), ["listener"], None, 60, config.Config(), logging.getLogger("test"))
    assert worker.sockets == ["listener"] and worker.ppid == os.getpid() and worker.alive
    assert worker.cfg.worker_connections and worker.cfg.graceful_timeout and worker.log
    worker.notify()
    worker.tmp.close()
    worker.handle_exit(signal.SIGTERM, None)
    assert not worker.alive
    source = inspect.getsource(Worker.init_process)
    assert 0 < source.index("self.load_wsgi()") < source.index("self.run()")
    assert "self.wsgi = self.app.wsgi()" in inspect.getsource(Worker.load_wsgi)
    assert "signal.signal(signal.SIGTERM, self.handle_exit)" in inspect.getsource(Worker.init_signals)


def check_application() -> None:
    """An application sets its options in `load_config`, and takes every one that the server sets."""
    from gunicorn.app.base import BaseApplication

    from scanbook.serving import server

    application = server._Application(lambda: "the application", server.Settings())
    assert isinstance(application, BaseApplication) and application.wsgi() == "the application"
    assert application.cfg.worker_class is server._Worker and application.cfg.threads == 72


def check_arbiter() -> None:
    """The main process stops by `stop`, holds its listeners, each with a socket, and queues its signals."""
    from gunicorn import config, sock
    from gunicorn.arbiter import Arbiter

    assert Arbiter.LISTENERS == [] and isinstance(inspect.signature(Arbiter.stop).parameters["graceful"].default, bool)
    assert "self.SIG_QUEUE.put_nowait(sig)" in inspect.getsource(Arbiter.signal)
    listener = sock.TCPSocket(("127.0.0.1", 0), config.Config(), logging.getLogger("test"))
    assert isinstance(listener.sock, socket.socket)
    listener.close()


def check_errors() -> None:
    """The parser's errors have one parent; those of a client and of the application are told apart."""
    from gunicorn.http import errors

    from scanbook.serving import server

    client = (errors.LimitRequestLine(1), errors.LimitRequestHeaders("x"), errors.ExpectationFailed("x"))
    assert [server.status_of(error) for error in client] == [414, 431, 417]
    others = (errors.UnsupportedTransferCoding("x"), errors.InvalidResponseHeader("x"), errors.InvalidHeader("x"))
    assert [server.status_of(error) for error in others] == [501, 500, 400]
    assert server.status_of(errors.NoMoreData()) == 500  # no error of the parser: it ends a connection


@pytest.mark.parametrize(
    "check", [check_names, check_parser, check_response, check_worker, check_application, check_arbiter, check_errors]
)
def test_gunicorn_has_what_the_server_uses(check):
    check()


def test_only_the_server_uses_gunicorn():
    users = [path for path in LIB.rglob("*.py") if re.search(r"^\s*(from|import) gunicorn\b", path.read_text(), re.M)]
    assert users == [SERVER]


@pytest.mark.skipif(sys.platform != "linux", reason="only there can a socket let nobody in and keep who is in")
def test_after_sigterm_a_client_is_refused_not_lost(bundle, tmp_path):
    with services.running(bundle.folder, tmp_path / "log") as served:
        [worker] = served.workers()
        worker.suspend()  # it will never accept anybody again
        served.process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + 10
        main = psutil.Process(served.process.pid)
        while any(connection.status == psutil.CONN_LISTEN for connection in main.net_connections("tcp")):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        outcomes = []

        def connect() -> None:
            try:
                with served.connect() as late:
                    late.sendall(GET)
                    outcomes.append(late.recv(100))
            except OSError as error:
                outcomes.append(type(error))

        client = threading.Thread(target=connect)
        client.start()
        time.sleep(0.2)
        worker.kill()
        client.join()
        # without a connection nothing was sent, so the client can turn to another service
        assert outcomes == [ConnectionRefusedError]
        assert served.process.wait(timeout=15) == 0
