"""Levels of every depth become 8 bits by one rule; alpha is dropped alike in every format; files not read are named."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, features

from scanbook.data import formats, images
from scanbook.data.quality.scanning import describe
from scanbook.errors import ImageError

HEIGHT, WIDTH = 40, 64
RAMP = np.linspace(0, 1, HEIGHT * WIDTH).reshape(HEIGHT, WIDTH)
COLOURS = np.stack([RAMP, RAMP[::-1], RAMP[:, ::-1] * 0.5], -1)
ALPHA = np.tile(np.linspace(0, 1, WIDTH), (HEIGHT, 1))


def tiff(levels: np.ndarray, order: str = "<", **tags: int) -> bytes:
    """Return an uncompressed TIFF of one strip; `tags` are t339=2 and so on."""
    stored = levels.astype(levels.dtype.newbyteorder(order))
    samples = levels.shape[2] if levels.ndim == 3 else 1
    kind = {"u": 1, "i": 2, "f": 3}[levels.dtype.kind]
    bits = 8 * levels.dtype.itemsize
    values = {256: levels.shape[1], 257: levels.shape[0], 258: bits, 259: 1, 262: 2 if samples > 2 else 1, 277: samples}
    values |= {278: levels.shape[0], 279: stored.nbytes, 339: kind} | {int(tag[1:]): tags[tag] for tag in tags}
    if samples in (2, 4):
        values.setdefault(338, 2)
    count = len(values) + 1
    tail = 8 + 2 + 12 * count + 4
    fields = {**{tag: (4 if tag in (256, 257, 278, 279) else 3, 1, value) for tag, value in values.items()}}
    extra = b""
    for tag in (258, 339):  # one number per sample; more than two do not fit into the field
        numbers = struct.pack(f"{order}{samples}H", *[values[tag]] * samples)
        if samples > 2:
            fields[tag] = (3, samples, tail + len(extra))
            extra += numbers
        elif samples == 2:
            fields[tag] = (3, 2, numbers)
    fields[273] = (4, 1, tail + len(extra))
    rows = b""
    for tag, (form, number, value) in sorted(fields.items()):
        inline = value if isinstance(value, bytes) else None
        if inline is None:
            short = form == 3 and number == 1
            inline = struct.pack(f"{order}HH", value, 0) if short else struct.pack(f"{order}I", value)
        rows += struct.pack(f"{order}HHI", tag, form, number) + inline
    start = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}IH", 8, count)
    return start + rows + bytes(4) + extra + stored.tobytes()


def png(levels: np.ndarray) -> bytes:
    ordered = levels if levels.ndim == 2 else levels[..., [2, 1, 0, 3][: levels.shape[2]]]
    return cv2.imencode(".png", np.ascontiguousarray(ordered))[1].tobytes()


def saved(kind: str, levels: np.ndarray, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(levels).save(buffer, kind, **options)
    return buffer.getvalue()


def mode(data: bytes, folder: Path) -> str:
    path = folder / "image"
    path.write_bytes(data)
    return str(describe(str(path))[0]["mode"])


def refusal(data: bytes) -> ImageError:
    with pytest.raises(ImageError) as caught:
        images.read(data)
    assert "\n" not in str(caught.value)
    return caught.value


@pytest.mark.parametrize("encode", [png, tiff])
@pytest.mark.parametrize("colours", [False, True])
@pytest.mark.parametrize("bits", [8, 12, 16])
def test_the_upper_eight_of_the_bits_in_use(bits: int, colours: bool, encode, tmp_path: Path) -> None:
    share = COLOURS if colours else RAMP
    levels = (share * (2**bits - 1)).astype(np.uint16)
    decoded = images.read(encode(levels))
    assert np.abs(decoded - 255.0 * (share if colours else share[..., None])).max() <= 1
    name = "RGB" if colours else "grey"
    assert mode(encode(levels), tmp_path) == (f"16-bit {name}" if bits == 16 else f"{bits}-bit {name} in 16-bit")


def test_images_of_one_dataset_stay_comparable() -> None:
    bright, dark = (png((RAMP * highest).astype(np.uint16)) for highest in (4000, 400))
    ratio = images.read(bright).mean() / images.read(dark).mean()
    assert 9 < ratio < 11.5, "an image is not stretched by itself"


def test_ten_and_fourteen_bits_are_neither_black_nor_stretched() -> None:
    for bits in (10, 14):
        decoded = images.read(png((RAMP * (2**bits - 1)).astype(np.uint16)))
        assert decoded.max() == 63 and len(np.unique(decoded)) == 64


@pytest.mark.parametrize("dtype", [np.int16, np.int32])
def test_signed_levels_are_hounsfield_units(dtype: type, tmp_path: Path) -> None:
    units = (RAMP * 5000 - 2000).round().astype(dtype)
    decoded = images.read(tiff(units))[..., 0].astype(float)
    assert np.abs(decoded - ((units.astype(float) + 1024) / 16).clip(0, 255)).max() <= 1
    assert mode(tiff(units), tmp_path) == "signed grey (-1024 to 3071)"


@pytest.mark.parametrize("dtype", [np.int16, np.int32, np.uint32])
def test_whole_levels_from_zero_count_alike_whatever_the_type(dtype: type) -> None:
    levels = (RAMP * 4095).astype(np.uint16)
    assert np.array_equal(images.read(tiff(levels.astype(dtype))), images.read(png(levels)))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("colours", [False, True])
def test_floating_point_from_0_to_1(dtype: type, colours: bool, tmp_path: Path) -> None:
    share = COLOURS if colours else RAMP
    decoded = images.read(tiff(share.astype(dtype)))
    assert np.abs(decoded - 255 * (share if colours else share[..., None])).max() <= 0.51
    assert mode(tiff(RAMP.astype(dtype)), tmp_path) == "floating-point grey (0 to 1)"


@pytest.mark.parametrize("bits", [8, 12, 16])
def test_floating_point_beyond_1_counts_as_whole_levels(bits: int) -> None:
    levels = (RAMP * (2**bits - 1)).round()
    assert np.array_equal(images.read(tiff(levels.astype(np.float32))), images.read(png(levels.astype(np.uint16))))


@pytest.mark.parametrize(
    ("levels", "words"),
    [
        ((RAMP * 4 - 2).astype(np.float32), "floating-point levels from -2 to 2"),
        ((RAMP * 1e6).astype(np.float32), "floating-point levels from 0 to 1e+06"),
        ((RAMP * 1e6).astype(np.uint32), "whole levels from 0 to 1e+06"),
        ((RAMP * 60000 - 30000).astype(np.int16), "whole levels from -30000 to 30000"),
        (np.where(RAMP > 0.5, np.nan, RAMP).astype(np.float32), "NaN"),
    ],
)
def test_levels_of_unknown_brightness_are_refused_by_their_range(levels: np.ndarray, words: str) -> None:
    error = refusal(tiff(levels))
    assert words in str(error) and "same limits for all images" in str(error) and error.reason == "levels"


def test_white_is_zero_and_either_byte_order() -> None:
    levels = (RAMP * 65535).astype(np.uint16)
    assert np.array_equal(images.read(tiff(levels, ">")), images.read(png(levels)))
    assert np.array_equal(images.read(tiff(levels, t262=0)), 255 - images.read(png(levels)))
    assert np.array_equal(
        images.read(tiff((RAMP * 255).astype(np.uint8), t262=0))[..., 0], 255 - (RAMP * 255).astype(np.uint8)
    )


@pytest.mark.parametrize("orientation", [3, 6, 8])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_a_tiff_is_turned_upright_whatever_its_depth(orientation: int, dtype: type) -> None:
    full = 1 if dtype == np.float32 else np.iinfo(dtype).max
    turns = {3: 2, 6: -1, 8: 1}[orientation]
    for shares in (RAMP, COLOURS, np.dstack([COLOURS, ALPHA])):
        levels = (shares * full).astype(dtype)
        if dtype == np.float32 and shares.ndim == 3 and shares.shape[2] == 4:
            continue
        upright = images.read(tiff(levels))
        assert np.array_equal(images.read(tiff(levels, t274=orientation)), np.rot90(upright, turns))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_alpha_is_dropped_alike_in_every_format(dtype: type) -> None:
    full = np.iinfo(dtype).max
    colours, alpha = (COLOURS * full).astype(dtype), (ALPHA * full).astype(dtype)
    levels = np.dstack([colours, alpha])
    expected = images.read(png(colours))
    files = {"PNG": png(levels), "TIFF": tiff(levels), "TIFF, big endian": tiff(levels, ">")}
    if dtype == np.uint8:
        for kind, options in (
            ("WEBP", {"lossless": True, "exact": True}),
            ("BMP", {}),
            ("TIFF", {"compression": "tiff_lzw"}),
        ):
            files[f"{kind} {options}"] = saved(kind, levels, **options)
    for name, data in files.items():
        assert np.array_equal(images.read(data), expected), name
    seen = ALPHA > 0.2
    multiplied = np.dstack([(COLOURS * ALPHA[..., None] * full).round().astype(dtype), alpha])
    error = np.abs(images.read(tiff(multiplied, t338=1)).astype(int) - expected)
    assert error[seen].max() <= 6, "colours that were multiplied by alpha are divided by it"


def test_masks_of_any_depth(tmp_path: Path) -> None:
    mask = RAMP > 0.4
    for dtype in (np.uint8, np.uint16):
        for high in (1, 255, np.iinfo(dtype).max):
            (tmp_path / "mask.png").write_bytes(png(mask.astype(dtype) * dtype(high)))
            assert np.array_equal(images.load_mask(tmp_path / "mask.png"), mask), (dtype, high)


def test_a_changed_byte_of_a_png_or_a_packed_tiff_is_noticed() -> None:
    pixels = (COLOURS * 255).astype(np.uint8)
    noise = np.random.default_rng(0).integers(0, 4, pixels.shape, np.uint8)
    for data in (saved("PNG", pixels + noise), saved("TIFF", pixels + noise, compression="tiff_adobe_deflate")):
        images.read(data)
        changed = bytearray(data)
        changed[len(data) // 2] ^= 0x55
        assert "damaged" in str(refusal(bytes(changed)))


def test_a_tiff_is_refused_by_its_declared_size() -> None:
    declared = tiff(np.zeros((4, 4), np.float64), t256=9000, t257=5000)
    assert refusal(declared).reason == "too_many_pixels" and "9000 × 5000" in str(refusal(declared))
    assert "5 channels" in str(refusal(tiff(np.zeros((4, 4, 5), np.uint8))))


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow reads no AVIF")
def test_avif_is_read_upright_or_refused_in_one_line() -> None:
    pixels = (COLOURS * 255).astype(np.uint8)
    data = saved("AVIF", pixels, quality=95)
    assert np.abs(images.read(data).astype(int) - pixels).mean() < 3
    turned = Image.Exif()
    turned[274] = 6
    stored = saved("AVIF", np.ascontiguousarray(np.rot90(pixels)), quality=95, exif=turned)
    assert np.abs(images.read(stored).astype(int) - pixels).mean() < 3
    alpha = saved("AVIF", np.dstack([pixels, (ALPHA * 255).astype(np.uint8)]), quality=95)
    assert np.abs(images.read(alpha).astype(int) - pixels).mean() < 3
    for broken in (data[: len(data) // 2], data[:40]):
        assert "AVIF" in str(refusal(broken)) and refusal(broken).reason == "unreadable"


def test_without_a_decoder_avif_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    plugin = pytest.importorskip("PIL.AvifImagePlugin")
    monkeypatch.setattr(plugin, "SUPPORTED", False)
    error = refusal(b"\0\0\0\x1cftypavif\0\0\0\0mif1miaf" + bytes(100))
    assert "Pillow 11.3" in str(error) and error.reason == "format"


NAMED = {
    "GIF": (b"GIF89a" + bytes(30), "format"),
    "HEIC": (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(30), "format"),
    "video": (b"\0\0\0\x18ftypisom\0\0\2\0isommp41" + bytes(30), "format"),
    "PPM": (b"P6 2 2 255\n" + bytes(12), "format"),
    "JPEG 2000": (b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(30), "format"),
    "JPEG XL": (b"\xff\x0a" + bytes(30), "format"),
    "SVG": (b"\n<svg xmlns='http://www.w3.org/2000/svg'/>", "format"),
    "Photoshop": (b"8BPS\0\1" + bytes(30), "format"),
    "NIfTI": (bytes(344) + b"n+1\0" + bytes(30), "format"),
    "NumPy": (b"\x93NUMPY\1\0" + bytes(30), "format"),
    "NRRD": (b"NRRD0004\n# Complete\n", "format"),
    "MetaImage": (b"ObjectType = Image\nNDims = 3\n", "format"),
    "raw": (tiff(np.zeros((4, 4), np.uint8), t50706=1), "format"),
    "gzip": (b"\x1f\x8b\x08\0" + bytes(30), "not_an_image"),
    "ZIP": (b"PK\3\4" + bytes(30), "not_an_image"),
    "PDF": (b"%PDF-1.7\n", "not_an_image"),
    "git lfs pull": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "not_an_image"),
    "Mac": (b"\0\5\x16\7\0\2\0\0Mac OS X" + bytes(30), "not_an_image"),
}


@pytest.mark.parametrize("name", NAMED)
def test_a_format_that_is_not_read_is_named_with_what_to_do(name: str) -> None:
    data, reason = NAMED[name]
    error = refusal(data)
    assert name in str(error) and "; " in str(error) and error.reason == reason
    kind = formats.identify(data)
    assert kind is not None and name in f"{kind[0]} {kind[1]}"
