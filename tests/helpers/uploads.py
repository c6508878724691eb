"""Image files that tests send to a service, and checks of its responses."""

import io
import json
import zlib

import cv2
import numpy as np

from scanbook.data import images

BROWSER = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
"""Header fields of a browser."""


def plain(colour, height=40, width=60) -> np.ndarray:
    """Return an image of one RGB colour, uint8 `(height, width, 3)`."""
    return np.full((height, width, 3), colour, np.uint8)


def png(colour=(255, 0, 0), **size) -> bytes:
    """Return a PNG file of one RGB colour."""
    return images.encode_png(plain(colour, **size))


def jpeg(colour=(255, 0, 0), **size) -> bytes:
    """Return a JPEG file of one RGB colour."""
    return cv2.imencode(".jpg", plain(colour[::-1], **size))[1].tobytes()


def huge_png() -> bytes:
    """Return a PNG file of a few bytes that declares 20,000 × 20,000 pixels."""
    sides = (20_000).to_bytes(4, "big") * 2
    chunk = b"IHDR" + sides + b"\x08\x02\x00\x00\x00"
    return b"\x89PNG\r\n\x1a\n\x00\x00\x00\x0d" + chunk + zlib.crc32(chunk).to_bytes(4, "big") + b"\x00\x00\x00\x00IDAT"


RED, GREEN, BLUE, GREY = png(), png((0, 255, 0)), png((0, 0, 255)), png((90, 90, 90))
BAD = {
    "empty": b"",
    "text": b"this is no image",
    "truncated JPEG": jpeg(height=300, width=300)[:-200],
    "truncated PNG header": RED[:20],
    "bomb": huge_png(),
    "a format that OpenCV reads through the disk": cv2.imencode(".hdr", plain((9, 9, 9)))[1].tobytes(),
    "SVG": b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>",
    "HTML": b"\xef\xbb\xbf\r\n<!doctype html><script>alert(1)</script>",
    "GIF": b"GIF89a\x01\x00\x01\x00\x80\x00\x00",
    "HEIC": b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic",
}
"""Files that the service refuses, by name."""


def post(client, *files: bytes, path="/predict", names=(), field="image", **options):
    """Send files in a form with a Flask test client and return the response."""
    names = names or ["photo.png"] * len(files)
    data = {field: [(io.BytesIO(file), name) for file, name in zip(files, names, strict=True)]}
    return client.post(path, data=data, content_type="multipart/form-data", **options)


def problem(response, status: int) -> dict:
    """Check that a response has the problem details of a status, and return them."""
    assert response.status_code == status
    assert response.mimetype == "application/problem+json"
    values = json.loads(response.data)
    assert set(values) == {"type", "title", "status", "detail", "request_id"}
    assert values["status"] == status and values["request_id"] == response.headers["X-Request-Id"]
    assert values["title"] and values["detail"] and "\n" not in values["detail"] and "Traceback" not in values["detail"]
    return values
