"""The decoder: every format becomes oriented 8-bit RGB, or one line that names the problem."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import time
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scanbook.data import images
from scanbook.errors import ImageError

HEIGHT, WIDTH = 60, 80
FORMATS = (".jpg", ".png", ".bmp", ".tiff", ".webp")


def picture(height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """A smooth image whose channels and corners all differ, so that a swap or a turn shows."""
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    return np.stack([20 + 200 * x, 40 + 150 * y, 230 - 180 * x * y], -1).round().astype(np.uint8)


def encode(pixels: np.ndarray, extension: str, *options: int) -> bytes:
    """OpenCV's encoder, given RGB."""
    ordered = pixels[..., ::-1] if pixels.ndim == 3 else pixels
    return cv2.imencode(extension, np.ascontiguousarray(ordered), list(options))[1].tobytes()


JPEG = encode(picture(), ".jpg", cv2.IMWRITE_JPEG_QUALITY, 95)


def difference(decoded: np.ndarray, expected: np.ndarray) -> float:
    assert decoded.shape == expected.shape and decoded.dtype == np.uint8
    return float(np.abs(decoded.astype(float) - expected).max())


def exif(orientation: int) -> bytes:
    """APP1 segment with nothing but an orientation."""
    entry = struct.pack(">HHIHH", 0x0112, 3, 1, orientation, 0)
    body = b"Exif\0\0" + b"MM\0*" + struct.pack(">IH", 8, 1) + entry + struct.pack(">I", 0)
    return segment(0xE1, body)


def segment(marker: int, body: bytes) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body


def refusal(source: bytes | Path) -> str:
    with pytest.raises(ImageError) as caught:
        images.read(source)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("extension", FORMATS)
def test_rgb_in_its_order_from_bytes_and_from_a_file(extension: str, tmp_path: Path) -> None:
    data = encode(picture(), extension)
    decoded = images.read(data)
    assert difference(decoded, picture()) <= (0 if extension in (".png", ".bmp", ".tiff") else 12)
    assert difference(decoded[..., ::-1], picture()) > 100, "this picture must tell RGB from BGR"
    path = tmp_path / f"image{extension}"
    path.write_bytes(data)
    assert np.array_equal(images.read(path), decoded)
    assert np.array_equal(images.load(path, (32, 48)), images.load(data, (32, 48)))


# how a camera's sensor stores the upright picture, for each EXIF orientation (EXIF 2.3, tag 0x0112)
STORED = {
    1: lambda upright: upright,
    2: lambda upright: upright[:, ::-1],
    3: lambda upright: upright[::-1, ::-1],
    4: lambda upright: upright[::-1],
    5: lambda upright: upright.transpose(1, 0, 2),
    6: lambda upright: np.rot90(upright, 1),
    7: lambda upright: upright[::-1, ::-1].transpose(1, 0, 2),
    8: lambda upright: np.rot90(upright, -1),
}


@pytest.mark.parametrize("orientation", STORED)
def test_exif_orientation_is_applied(orientation: int) -> None:
    stored = encode(np.ascontiguousarray(STORED[orientation](picture())), ".jpg", cv2.IMWRITE_JPEG_QUALITY, 95)
    decoded = images.read(stored[:2] + exif(orientation) + stored[2:])
    assert difference(decoded, picture()) <= 12


def test_grey_becomes_three_equal_channels() -> None:
    grey = picture()[..., 0]
    for extension in (".png", ".tiff", ".bmp"):
        assert np.array_equal(images.read(encode(grey, extension)), np.stack([grey] * 3, -1))


def test_transparency_is_dropped() -> None:
    alpha = np.tile(np.linspace(0, 255, WIDTH).astype(np.uint8), (HEIGHT, 1))
    data = cv2.imencode(".png", np.dstack([picture()[..., ::-1], alpha]))[1].tobytes()
    assert np.array_equal(images.read(data), picture())


def test_sixteen_bits_become_eight() -> None:
    deep = picture().astype(np.uint16) * 257
    for extension in (".png", ".tiff"):
        assert difference(images.read(encode(deep, extension)), picture()) <= 1
        assert difference(images.read(encode(deep[..., 1], extension))[..., 0], picture()[..., 1]) <= 1


def png(colour_type: int, rows: bytes, width: int, height: int, *chunks: tuple[bytes, bytes]) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, colour_type, 0, 0, 0)
    parts = ((b"IHDR", header), *chunks, (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    body = b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in parts
    )
    return b"\x89PNG\r\n\x1a\n" + body


@pytest.mark.parametrize("transparent", [(), ((b"tRNS", b"\x00\xff\x80"),)])
def test_a_palette_is_looked_up(transparent: tuple[tuple[bytes, bytes], ...]) -> None:
    palette = ((b"PLTE", bytes([255, 0, 0, 0, 200, 0, 10, 20, 250])),)
    decoded = images.read(png(3, b"\0\0\1\2\0\2\1\0", 3, 2, *palette, *transparent))
    red, green, blue = [255, 0, 0], [0, 200, 0], [10, 20, 250]
    assert decoded.tolist() == [[red, green, blue], [blue, green, red]]


def test_cmyk_becomes_rgb() -> None:
    # Pillow comes with matplotlib; OpenCV cannot write CMYK
    pillow = pytest.importorskip("PIL.Image")
    buffer = io.BytesIO()
    pillow.fromarray(picture()).convert("CMYK").save(buffer, "JPEG", quality=95)
    assert difference(images.read(buffer.getvalue()), picture()) <= 16


def test_no_image_is_one_line(tmp_path: Path) -> None:
    assert "empty (0 bytes)" in refusal(b"")
    assert "cannot be decoded" in refusal(b"not an image, but some text")
    assert "cannot be decoded" in refusal(b"\xff\xd8\xff\xd9")
    assert "cannot be decoded" in refusal(b"BM" + b"\0" * 30)
    assert "is a GIF" in refusal(b"GIF89a" + b"\0" * 30)
    missing = tmp_path / "missing.jpg"
    assert str(missing) in refusal(missing) and "No such file" in refusal(missing)
    assert "directory" in refusal(tmp_path)
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"text")
    assert str(broken) in refusal(broken)


@pytest.mark.parametrize("extension", FORMATS)
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_refused_not_half_shown(extension: str, share: float) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    data = encode(noise, extension)
    assert images.read(data).shape == noise.shape
    refusal(data[: min(int(len(data) * share), len(data) - 3)])


def test_the_end_of_an_embedded_thumbnail_is_not_the_end_of_the_image() -> None:
    thumbnail = encode(picture(12, 16), ".jpg")
    assert thumbnail.endswith(b"\xff\xd9")
    whole = JPEG[:2] + exif(1) + segment(0xE1, b"Exif\0\0" + thumbnail) + JPEG[2:]
    assert difference(images.read(whole), picture()) <= 12
    assert "truncated JPEG" in refusal(whole[:-40])


def test_bytes_after_the_end_and_padding_before_a_marker_do_no_harm() -> None:
    assert np.array_equal(images.read(JPEG + b"\0" * 100), images.read(JPEG))
    assert np.array_equal(images.read(JPEG + b"camera's own trailer \xff\xd8 \xff\xd9"), images.read(JPEG))
    padded = JPEG[:2] + b"\xff\xff" + JPEG[2:]
    assert np.array_equal(images.read(padded), images.read(JPEG))


def test_a_progressive_jpeg_is_read_whole_or_not_at_all() -> None:
    data = encode(picture(), ".jpg", cv2.IMWRITE_JPEG_PROGRESSIVE, 1)
    assert difference(images.read(data), picture()) <= 12
    assert "truncated JPEG" in refusal(data[: len(data) // 2])


def huge_jpeg() -> bytes:
    start = JPEG.index(b"\xff\xc0") + 5
    return JPEG[:start] + struct.pack(">HH", 60000, 60000) + JPEG[start + 4 :]


def huge_bmp() -> bytes:
    header = struct.pack("<IHHIIiiHHIIiiII", 54, 0, 0, 54, 40, 20000, 20000, 1, 24, 0, 0, 0, 0, 0, 0)
    return b"BM" + header + b"\0" * 64


HUGE = {
    "PNG": png(2, b"\0" * 100, 60000, 60000),
    "JPEG": huge_jpeg(),
    "BMP": huge_bmp(),
}


@pytest.mark.parametrize("kind", HUGE)
def test_a_huge_declared_size_is_refused_before_it_is_unpacked(kind: str) -> None:
    started = time.perf_counter()
    message = refusal(HUGE[kind])
    assert time.perf_counter() - started < 0.5
    if kind != "BMP":
        assert "60000 × 60000" in message and f"{images.MAX_PIXELS:,}" in message


def test_opencv_has_the_limit_and_writes_no_messages() -> None:
    """`import scanbook` sets both, before any module can import OpenCV."""
    program = (
        "from scanbook.data import images\nfrom scanbook.errors import ImageError\nimport cv2, numpy as np, sys\n"
        f"broken = {encode(picture(), '.tiff')[:2000]!r}\n"
        "try:\n    images.read(broken)\n    sys.exit(3)\nexcept ImageError:\n    pass\n"
        "data = cv2.imencode('.bmp', np.zeros((7500, 7500), np.uint8))[1]\n"
        "try:\n    found = cv2.imdecode(data, cv2.IMREAD_COLOR)\nexcept cv2.error:\n    found = None\n"
        "sys.exit(found is not None)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and done.stderr == "", done.stderr


@given(st.binary(max_size=400))
@settings(max_examples=30, deadline=None)
def test_any_bytes_are_an_image_or_an_image_error(data: bytes) -> None:
    for start in (b"", JPEG[:2], JPEG[:200], b"\x89PNG\r\n\x1a\n"):
        try:
            assert images.read(start + data).dtype == np.uint8
        except ImageError as error:
            assert "\n" not in str(error)


def test_shrinking_averages_areas_and_enlarging_interpolates() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8)
    means = pixels.reshape(32, 2, 48, 2, 3).mean((1, 3))
    assert difference(images.resize(pixels, (32, 48)), means) <= 1
    assert images.resize(pixels, (64, 96)) is pixels
    stripes = np.tile(np.array([0, 255], np.uint8), (120, 90))
    assert np.abs(images.resize(stripes, (24, 31)).astype(int) - 127.5).max() < 45, "no aliasing, whatever the factor"
    ramp = np.repeat(np.arange(0, 200, 10, dtype=np.uint8)[None], 20, 0)
    enlarged = images.resize(ramp, (40, 40))
    assert enlarged.shape == (40, 40) and (np.diff(enlarged[0].astype(int)) >= 0).all()
    assert len(np.unique(enlarged)) > len(np.unique(ramp)), "levels between the pixels"


@given(st.integers(50, 400), st.integers(50, 400), st.integers(32, 64), st.integers(32, 64), st.integers(0, 9))
@settings(max_examples=30, deadline=None)
def test_halving_first_is_close_to_averaging_areas_at_once(height, width, rows, columns, seed) -> None:
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    pixels = cv2.GaussianBlur(noise, (0, 0), 2)
    decoded = images.resize(pixels, (rows, columns))
    if height >= rows and width >= columns:
        at_once = cv2.resize(pixels, (columns, rows), interpolation=cv2.INTER_AREA)
        assert np.abs(decoded.astype(int) - at_once).mean() < 0.25 * pixels.std()


def photograph(height: int, width: int, blur: float = 1.5) -> np.ndarray:
    """Texture of every scale down to some pixels, as a camera gives it."""
    random, pixels = np.random.default_rng([height, width]), picture(height, width).astype(np.float32)
    for scale in (1, 2, 4):
        noise = cv2.GaussianBlur(random.normal(0, 1, (height, width, 3)).astype(np.float32), (0, 0), blur * scale)
        pixels += 12 * noise / noise.std()
    return np.clip(pixels, 0, 255).astype(np.uint8)


@pytest.mark.parametrize(("height", "width", "size"), [(450, 600, 224), (664, 504, 48), (448, 672, 56)])
def test_a_jpeg_halved_while_it_is_decoded_is_close_to_one_halved_afterwards(height, width, size) -> None:
    data = encode(photograph(height, width), ".jpg", cv2.IMWRITE_JPEG_QUALITY, 92)
    decoded, after = images.load(data, (size, size)), images.resize(images.read(data), (size, size))
    assert not np.array_equal(decoded, after), "this one should have been halved while it was decoded"
    assert np.abs(decoded.astype(float) - after).mean() < 1.5


@pytest.mark.parametrize(
    ("stored", "size"), [((224, 300), (113, 150)), ((224, 300), (150, 113)), ((451, 601), (224, 224))]
)
def test_a_jpeg_is_never_decoded_below_the_size_to_reach_or_with_a_remainder(stored, size) -> None:
    data = encode(photograph(*stored), ".jpg")
    assert np.array_equal(images.load(data, size), images.resize(images.read(data), size))


@pytest.mark.parametrize("orientation", STORED)
def test_exif_orientation_is_applied_to_a_reduced_jpeg_too(orientation: int) -> None:
    upright = picture(480, 640)
    stored = encode(np.ascontiguousarray(STORED[orientation](upright)), ".jpg", cv2.IMWRITE_JPEG_QUALITY, 95)
    assert difference(images.load(stored[:2] + exif(orientation) + stored[2:], (60, 80)), picture(60, 80)) <= 12


def test_load_reaches_the_size_whatever_the_shape() -> None:
    for height, width in ((1, 1), (3, 200), (200, 3), (60, 80)):
        assert images.load(encode(picture(height, width), ".png"), (32, 48)).shape == (32, 48, 3)


def test_a_mask_is_true_where_bright(tmp_path: Path) -> None:
    mask = np.zeros((40, 60), np.uint8)
    mask[10:30, 20:50] = 255
    (tmp_path / "mask.png").write_bytes(images.encode_png(mask))
    decoded = images.load_mask(tmp_path / "mask.png")
    assert decoded.dtype == bool and np.array_equal(decoded, mask > 0)
    small = images.load_mask(tmp_path / "mask.png", (20, 30))
    assert np.array_equal(small, mask[::2, ::2] > 0)


@pytest.mark.parametrize("size", [None, (20, 30), (80, 120), (23, 31)])
def test_a_mask_of_levels_0_and_1_is_that_of_0_and_255(size: tuple[int, int] | None, tmp_path: Path) -> None:
    mask = np.zeros((40, 60), np.uint8)
    mask[10:30, 20:50] = 1
    for name, levels in (("one", mask), ("full", mask * 255), ("empty", mask * 0)):
        (tmp_path / f"{name}.png").write_bytes(images.encode_png(levels))
    one, full, empty = (images.load_mask(tmp_path / f"{name}.png", size) for name in ("one", "full", "empty"))
    assert np.array_equal(one, full) and one.any() and not one.all() and not empty.any()


@given(st.integers(1, 20), st.integers(1, 20), st.booleans(), st.integers(0, 2**32 - 1))
@settings(max_examples=15, deadline=None)
def test_png_keeps_every_pixel(height: int, width: int, grey: bool, seed: int) -> None:
    shape = (height, width) if grey else (height, width, 3)
    pixels = np.random.default_rng(seed).integers(0, 256, shape, np.uint8)
    decoded = images.read(images.encode_png(pixels))
    assert np.array_equal(decoded, np.stack([pixels] * 3, -1) if grey else pixels)
