"""Connections to a running service."""

import socket

from helpers import services

GET = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"


def post(image: bytes, *lines: str) -> bytes:
    fields = ("Host: x", "Content-Type: image/png", f"Content-Length: {len(image)}", *lines)
    return "\r\n".join(("POST /predict HTTP/1.1", *fields, "", "")).encode() + image


def who_answers(served) -> dict[int, socket.socket]:
    """A connection to each worker, found by who has it open."""
    found = {}
    for _ in range(30):
        sock = served.connect()
        sock.sendall(GET)
        services.read_answer(sock)
        port = sock.getsockname()[1]
        owner = next(
            each.pid
            for each in served.workers()
            for one in each.net_connections("tcp")
            if one.raddr and one.raddr.port == port
        )
        if owner in found:
            sock.close()
        found.setdefault(owner, sock)
    return found


def form(*files: bytes, field="image", name="photo.jpg", head="") -> tuple[bytes, str]:
    """Body and type of a form, with a file name as it is: libraries would clean it."""
    start = f'--b\r\nContent-Disposition: form-data; name="{field}"; filename="{name}"\r\n{head}\r\n'.encode()
    return b"".join(start + each + b"\r\n" for each in files) + b"--b--\r\n", "multipart/form-data; boundary=b"


def memory(served) -> int:
    return sum(each.memory_info().rss for each in served.workers())
