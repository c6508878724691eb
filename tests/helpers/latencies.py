"""A small service whose latency is known."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@contextmanager
def serving(answer: Callable[[BaseHTTPRequestHandler, int, bytes], tuple[int, dict[str, str]]]) -> Iterator[str]:
    """A server that keeps connections open; `answer` gets the request, its number and its body."""
    numbers, lock = iter(range(10**9)), threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True  # else the body of an answer waits 40 ms for the header's receipt

        def do_POST(self) -> None:
            with lock:
                number = next(numbers)
            body = self.rfile.read(int(self.headers["Content-Length"]))
            status, headers = answer(self, number, body)
            content = json.dumps({"number": number}).encode()
            self.send_response(status)
            for name, value in ({"Content-Length": str(len(content))} | headers).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_args: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        request_queue_size = 64

        def handle_error(self, *_args: object) -> None:
            pass  # a client that has seen enough closes its connection

    server = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/predict"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def fine(*_request: object) -> tuple[int, dict[str, str]]:
    return 200, {}
