"""Raw requests to a running service, and what its workers hold."""

import socket

from helpers import services

GET = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"


def post(image: bytes, *lines: str) -> bytes:
    """Return the bytes of a request that posts an image, with further header fields."""
    fields = ("Host: x", "Content-Type: image/png", f"Content-Length: {len(image)}", *lines)
    return "\r\n".join(("POST /predict HTTP/1.1", *fields, "", "")).encode() + image


def form(*files: bytes, field="image", name="photo.jpg", head="") -> tuple[bytes, str]:
    """Return body and content type of a form. The file name stays as it is; libraries would change it."""
    start = f'--b\r\nContent-Disposition: form-data; name="{field}"; filename="{name}"\r\n{head}\r\n'.encode()
    return b"".join(start + file + b"\r\n" for file in files) + b"--b--\r\n", "multipart/form-data; boundary=b"


def connect_to_workers(service: services.Service) -> dict[int, socket.socket]:
    """Return a connection to each worker by the worker's process id."""
    connections = {}
    for _ in range(30):
        sock = service.connect()
        sock.sendall(GET)
        services.read_response(sock)
        port = sock.getsockname()[1]
        owner = next(pid for pid, ports in client_ports(service).items() if port in ports)
        if owner in connections:
            sock.close()
        connections.setdefault(owner, sock)
    return connections


def client_ports(service: services.Service) -> dict[int, list[int]]:
    """Return the ports of the clients that are connected to each worker, by process id."""
    return {
        worker.pid: [connection.raddr.port for connection in worker.net_connections("tcp") if connection.raddr]
        for worker in service.workers()
    }


def memory(service: services.Service) -> int:
    """Return the resident memory of all workers, in bytes."""
    return sum(worker.memory_info().rss for worker in service.workers())
