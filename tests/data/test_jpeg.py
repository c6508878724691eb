"""JPEG: the pixels that OpenCV gives, and no answer where data are missing or damaged."""

from __future__ import annotations

import io
import re
import struct

import cv2
import numpy as np
import pytest
from PIL import Image

from scanbook.data import images, jpeg
from scanbook.errors import ImageError

HEIGHT, WIDTH = 240, 320
RANDOM = np.random.default_rng(0)
PIXELS = cv2.GaussianBlur(RANDOM.normal(128, 90, (HEIGHT, WIDTH, 3)), (0, 0), 2).clip(0, 255).astype(np.uint8)


def encode(mode: str = "RGB", **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(PIXELS).convert(mode).save(buffer, "JPEG", **({"quality": 90} | options))
    return buffer.getvalue()


WHOLE = {
    "sequential": encode(),
    "progressive": encode(progressive=True),
    "with restarts": encode(restart_marker_blocks=8),
    "grey": encode("L"),
}
END = b"\xff\xd9"
JUNK = b"".join(RANDOM.bytes(5).replace(b"\xff", b"\xff\0") + b"\xff\0\xff\xff\0" for _ in range(40))


def starts(data: bytes, marker: int) -> list[int]:
    return [found.start() for found in re.finditer(bytes([0xFF, marker]), data)]


def refusal(data: bytes) -> ImageError:
    with pytest.raises(ImageError) as caught:
        images.read(data)
    with pytest.raises(ImageError):
        images.load(data, (30, 40))
    assert "\n" not in str(caught.value)
    return caught.value


def sized(data: bytes, height: int, width: int) -> bytes:
    at = max(data.find(b"\xff\xc0"), data.find(b"\xff\xc2")) + 5
    return data[:at] + struct.pack(">HH", height, width) + data[at + 4 :]


@pytest.mark.parametrize(
    "options", [{}, {"progressive": True}, {"subsampling": 0}, {"subsampling": 1}, {"quality": 40}]
)
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_pixels_are_those_of_opencv_at_every_size(mode: str, options: dict[str, object]) -> None:
    data = encode(mode, **options)
    flags = {1: cv2.IMREAD_COLOR, 2: cv2.IMREAD_REDUCED_COLOR_2, 4: cv2.IMREAD_REDUCED_COLOR_4}
    for scale, flag in flags.items():
        expected = cv2.imdecode(np.frombuffer(data, np.uint8), flag)[..., ::-1]
        least = (0, 0) if scale == 1 else (HEIGHT // scale, HEIGHT // scale)
        assert np.array_equal(jpeg.decode(data, least=least), expected)


DAMAGED = {
    "half, closed by an end": lambda data: data[: len(data) // 2] + END,
    "all but the last hundredth, closed by an end": lambda data: data[: len(data) * 99 // 100] + END,
    "a stretch of zeros": lambda data: data[: len(data) // 2] + bytes(500) + data[len(data) // 2 + 500 :],
    "a piece that is missing": lambda data: data[: len(data) // 2] + data[len(data) // 2 + 700 :],
    "more pixels declared than there are": lambda data: sized(data, 7000, 7000),
    "eight rows more declared": lambda data: sized(data, HEIGHT + 8, WIDTH),
    "odd bytes before a segment, and half": lambda data: data[:2] + b"\1\2\3" + data[2 : len(data) // 2] + END,
    "a revision of JFIF that is unknown, and half": lambda data: (
        data.replace(b"JFIF\0\1\1", b"JFIF\0\0\0")[: len(data) // 2] + END
    ),
    "noise for data": lambda data: (
        data[: starts(data, 0xDA)[-1] + 14] + RANDOM.integers(0, 255, 4000, np.uint8).tobytes() + END
    ),
}


@pytest.mark.parametrize("damage", DAMAGED)
@pytest.mark.parametrize("kind", WHOLE)
def test_a_damaged_jpeg_is_refused(kind: str, damage: str) -> None:
    assert images.read(WHOLE[kind]).shape == PIXELS.shape
    damaged = DAMAGED[damage](WHOLE[kind])
    assert damaged != WHOLE[kind] and refusal(damaged).reason in ("truncated", "unreadable")


def test_a_missing_or_wrong_restart_is_refused() -> None:
    data = WHOLE["with restarts"]
    places = [found.start() for found in re.finditer(rb"\xff[\xd0-\xd7]", data)]
    at, later = places[20], places[28]
    assert later - at > 100
    refusal(data[:at] + data[at + 2 :])
    refusal(data[: at + 1] + bytes([0xD0 + (data[at + 1] - 0xD0 + 3) % 8]) + data[at + 2 :])
    refusal(data[:at] + data[later:])  # eight intervals, after which the numbers fit again


@pytest.mark.parametrize("kept", [1, 4, -1])
def test_a_progressive_jpeg_without_its_last_scans_is_refused(kept: int) -> None:
    data = WHOLE["progressive"]
    scans = starts(data, 0xDA)
    assert "scans are missing" in str(refusal(data[: scans[kept]] + END)) and refusal(data[: scans[kept]] + END)


def test_a_sequential_jpeg_without_its_last_component_is_refused() -> None:
    grey = WHOLE["grey"]
    at, scan = grey.index(b"\xff\xc0"), grey.index(b"\xff\xda")
    frame = b"\xff\xc0" + struct.pack(">HBHHB", 14, 8, HEIGHT, WIDTH, 2) + b"\1\x11\0\2\x11\0"
    three = frame[:3] + bytes([17]) + frame[4:9] + b"\3\1\x11\0\2\x11\0\3\x11\0"
    rest = grey[at + 13 : scan]
    pixels = grey[scan + 10 : -2]
    scans = [b"\xff\xda\0\x08\1" + bytes([number]) + b"\0\0\x3f\0" + pixels for number in (1, 2, 3)]
    whole = grey[:at] + three + rest + b"".join(scans) + END
    assert images.read(whole).shape == PIXELS.shape
    assert "scans are missing" in str(refusal(grey[:at] + three + rest + b"".join(scans[:2]) + END))


HARMLESS = {
    "bytes before the end": lambda data: data[:-2] + b"\0" * 60 + END,
    "any bytes before the end": lambda data: data[:-2] + JUNK + END,
    "bytes before a table": lambda data: data[:20] + b"\1\2\3" + data[20:],
    "bytes before the scan": lambda data: data[: starts(data, 0xDA)[0]] + b"\1\2\3" + data[starts(data, 0xDA)[0] :],
    "bytes after the end": lambda data: data + b"camera's own \xff\xd8 \xff\xd9",
    "an unknown revision of JFIF": lambda data: data.replace(b"JFIF\0\1\1", b"JFIF\0\0\0"),
    "padding": lambda data: data[:2] + b"\xff\xff\xff" + data[2:],
    "all of these": lambda data: HARMLESS["bytes before a table"](
        HARMLESS["an unknown revision of JFIF"](HARMLESS["bytes before the end"](data))
    ),
}


@pytest.mark.parametrize("oddity", HARMLESS)
@pytest.mark.parametrize("kind", WHOLE)
def test_odd_bytes_that_hide_no_pixel_do_no_harm(kind: str, oddity: str) -> None:
    changed = HARMLESS[oddity](WHOLE[kind])
    assert changed != WHOLE[kind]
    assert np.array_equal(images.read(changed), images.read(WHOLE[kind]))
    assert np.array_equal(images.load(changed, (60, 80)), images.load(WHOLE[kind], (60, 80)))


def test_a_rare_sampling_of_the_colours_is_read() -> None:
    """4:1:0, of grey blocks alone: a code of two bits for no change, and one for an end."""
    data = cv2.imencode(".jpg", np.full((64, 64, 3), 128, np.uint8))[1].tobytes()
    at, scan = data.index(b"\xff\xc0"), data.index(b"\xff\xda")
    blocks = ("00" + "1010") * 8 + "0000" * 2
    bits = blocks * (64 // 32 * 64 // 16)
    pixels = int(bits, 2).to_bytes(len(bits) // 8, "big").replace(b"\xff", b"\xff\0")
    odd = data[: at + 11] + b"\x42" + data[at + 12 : scan + 14] + pixels + END
    assert (images.read(odd) == 128).all()
    assert "no end marker" in str(refusal(odd[:-2]))


@pytest.mark.parametrize("marker", [0xC3, 0xC5, 0xCB, 0xF7])
def test_other_kinds_of_jpeg_never_reach_simplejpeg(marker: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """It writes past its memory where a JPEG without loss is to be reduced."""
    data = WHOLE["grey"].replace(b"\xff\xc0", bytes([0xFF, marker]))
    monkeypatch.setattr(jpeg.simplejpeg, "decode_jpeg", lambda *_, **__: pytest.fail("decoded"))
    assert jpeg.find_damage(data) == ""
    refusal(data)


def test_a_size_behind_too_many_segments_is_not_trusted() -> None:
    comment = b"\xff\xfe\0\2"
    hidden = sized(WHOLE["sequential"], 60000, 60000)
    assert "size" in str(refusal(hidden[:2] + comment * jpeg.MAX_SEGMENTS + hidden[2:]))
    assert "60000 × 60000" in str(refusal(hidden[:2] + b"junk" + hidden[2:]))


def test_random_bytes_in_a_file_are_pixels_or_one_line() -> None:
    random = np.random.default_rng(3)
    for kind, whole in WHOLE.items():
        for _ in range(40):
            data = bytearray(whole)
            for place in random.integers(2, len(data), 3):
                data[place] = random.integers(256)
            try:
                assert images.read(bytes(data)).dtype == np.uint8, kind
            except ImageError as error:
                assert "\n" not in str(error)
