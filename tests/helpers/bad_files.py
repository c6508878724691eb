"""Broken, hostile and unusual files that a service must handle."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Callable
from functools import cache

import cv2
import numpy as np
from PIL import Image, PngImagePlugin
from pydicom import uid
from pydicom.encaps import encapsulate

from helpers import dicom_files

HEIGHT, WIDTH = 48, 72
SIDE = 20_000
UPRIGHT = {
    1: None, 2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}  # fmt: skip
"""How a camera stores a picture for each EXIF orientation, which turns it upright again."""


def picture(height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """Return a dark red picture with a bright corner, top left: turning or mirroring it changes its heat map."""
    pixels = np.full((height, width, 3), (80, 30, 40), np.uint8)
    pixels[: height // 2, : width // 2] = (240, 40, 60)
    return pixels


def saved(kind: str, image: Image.Image | None = None, **options: object) -> bytes:
    buffer = io.BytesIO()
    (image or Image.fromarray(picture())).save(buffer, kind, **options)
    return buffer.getvalue()


PLAIN = saved("PNG")
JPEG = saved("JPEG", quality=95)
TIFF = saved("TIFF")
WEBP = saved("WEBP", lossless=True)
NOISE = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)

DETAILED = saved("JPEG", Image.fromarray(NOISE), quality=95)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, bits: int, colour: int, *chunks: bytes) -> bytes:
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(chunks) + chunk(b"IEND", b"")


def with_chunk(*extra: bytes) -> bytes:
    """Return the plain picture with more chunks after its header."""
    return PLAIN[:33] + b"".join(extra) + PLAIN[33:]


def zeros(count: int) -> bytes:
    """Return compressed zero bytes, a thousandth of `count`."""
    packer = zlib.compressobj(1)
    parts = [packer.compress(bytes(2**20)) for _ in range(count // 2**20)]
    return b"".join([*parts, packer.compress(bytes(count % 2**20)), packer.flush()])


def segment(marker: int, data: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(data) + 2) + data


def sized(data: bytes, height: int, width: int, marker: bytes = b"\xff\xc0") -> bytes:
    """Return a JPEG that declares another size."""
    at = data.index(marker) + 5
    return data[:at] + struct.pack(">HH", height, width) + data[at + 4 :]


def webp_of_one_colour(width: int, height: int) -> bytes:
    """Return a lossless WebP of one colour, whose few bytes may declare any size."""
    data = bytearray(saved("WEBP", Image.new("RGB", (1, 1), (200, 0, 0)), lossless=True))
    at = data.index(b"\x2f", 20) + 1
    rest = int.from_bytes(data[at : at + 4], "little") >> 28
    data[at : at + 4] = (rest << 28 | (height - 1) << 14 | (width - 1)).to_bytes(4, "little")
    return bytes(data)


def tiff(width: int, height: int, *more: tuple[int, int, int], order: str = "<") -> bytes:
    """Return a TIFF with some fields and no pixels."""
    fields = [(256, 4, width), (257, 4, height), (258, 3, 8), (259, 3, 1), (262, 3, 1), (273, 4, 8), (277, 3, 1),
              (278, 4, height), (279, 4, 100), *more]  # fmt: skip
    rows = b"".join(struct.pack(f"{order}HHII", tag, kind, 1, value) for tag, kind, value in sorted(fields))
    start = b"II*\0" if order == "<" else b"MM\0*"
    return start + struct.pack(f"{order}IH", 8, len(fields)) + rows + bytes(104)


def looping_tiff() -> bytes:
    """Return a TIFF whose list of pages is endless: the next page is the first."""
    data = bytearray(TIFF)
    [start] = struct.unpack_from("<I", data, 4)
    struct.pack_into("<I", data, start + 2 + 12 * struct.unpack_from("<H", data, start)[0], start)
    return bytes(data)


def bmp(width: int, height: int, compression: int = 0, body: bytes = bytes(64)) -> bytes:
    bits = 8 if compression else 24
    head = struct.pack("<IHHIIiiHHIIiiII", 54, 0, 0, 54, 40, width, height, 1, bits, compression, 0, 0, 0, 0, 0)
    return b"BM" + head + body


def exif(orientation: int) -> bytes:
    values = Image.Exif()
    values[0x0112] = orientation
    return values.tobytes()


def turned(orientation: int, kind: str = "JPEG", **options: object) -> bytes:
    """Return the picture as a turned camera stores it."""
    image, way = Image.fromarray(picture()), UPRIGHT[orientation]
    return saved(kind, image if way is None else image.transpose(way), exif=exif(orientation), **options)


def animated(kind: str, frames: int = 3, **options: object) -> bytes:
    """Return the picture followed by other frames."""
    others = [Image.new("RGB", (WIDTH, HEIGHT), (0, 0, 50 * n % 256)) for n in range(1, frames)]
    return saved(kind, save_all=True, append_images=others, duration=50, loop=0, **options)


def archive() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("photo.jpg", JPEG)
    return buffer.getvalue()


def dicom(**elements: object) -> bytes:
    return dicom_files.encoded(dicom_files.header(np.full((8, 8), 9, np.uint8), **elements))


def deflated_dicom() -> bytes:
    made = dicom_files.header(np.zeros((2000, 2000), np.uint8))
    made.file_meta.TransferSyntaxUID = uid.DeflatedExplicitVRLittleEndian
    return dicom_files.encoded(made)


def half_dicom() -> bytes:
    made = dicom_files.header(np.zeros((HEIGHT, WIDTH), np.uint8))
    data = saved("JPEG", Image.fromarray(NOISE).convert("L"))
    made.PixelData = encapsulate([data[: len(data) // 2] + b"\xff\xd9"])
    made["PixelData"].VR = "OB"
    made.file_meta.TransferSyntaxUID = uid.JPEGBaseline8Bit
    return dicom_files.encoded(made)


def first_scan() -> bytes:
    data = saved("JPEG", Image.fromarray(NOISE), progressive=True)
    return data[: data.index(b"\xff\xda", data.index(b"\xff\xda") + 2)] + b"\xff\xd9"


def pages(count: int) -> bytes:
    return saved("TIFF", save_all=True, append_images=[Image.new("RGB", (WIDTH, HEIGHT))] * (count - 1))


def encoded(extension: str, pixels: np.ndarray) -> bytes:
    return cv2.imencode(extension, pixels)[1].tobytes()


def scans(count: int) -> bytes:
    """A progressive JPEG that repeats its last scan: each costs a client some bytes, and a decoder all pixels."""
    data = saved("JPEG", Image.new("L", (1000, 1000), 100), progressive=True)
    last = data.rindex(b"\xff\xda")
    return data[:-2] + data[last:-2] * count + data[-2:]


def described(key: str, value: str) -> PngImagePlugin.PngInfo:
    info = PngImagePlugin.PngInfo()
    info.add_text(key, value, zip=True)
    return info


def text(kind: str) -> bytes:
    """A PNG with an eighth of a gigabyte of text, a hundred kilobytes when packed."""
    packed = zeros(2**27)
    return with_chunk(chunk(kind.encode(), {"zTXt": b"a\0\0", "iTXt": b"a\0\1\0\0\0", "iCCP": b"a\0\0"}[kind] + packed))


REFUSED: dict[str, tuple[str, Callable[[], bytes]]] = {
    # nothing, or no image
    "0 bytes": ("empty", lambda: b""),
    "one byte": ("not-an-image", lambda: b"\xff"),
    "zeros": ("not-an-image", lambda: bytes(5000)),
    "text": ("not-an-image", lambda: b"this is no image"),
    "JSON": ("not-an-image", lambda: b'{"image": "photo.jpg"}'),
    "a path": ("not-an-image", lambda: b"/etc/passwd"),
    "an address": ("not-an-image", lambda: b"http://127.0.0.1:22/"),
    "PDF named .jpg": ("not-an-image", lambda: b"%PDF-1.7\n1 0 obj<</Type/Catalog>>endobj\ntrailer<</Root 1 0 R>>\n"),
    "ZIP named .jpg": ("not-an-image", archive),
    "gzip": ("not-an-image", lambda: b"\x1f\x8b\x08\0" + zeros(2**20)),
    "ELF": ("not-an-image", lambda: b"\x7fELF\x02\x01\x01" + bytes(100)),
    "base64 of a JPEG": ("not-an-image", lambda: b"data:image/jpeg;base64,/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDAP//"),
    "numpy": ("format", lambda: b"\x93NUMPY\x01\0" + bytes(200)),
    # formats that are not read
    "SVG named .jpg": ("format", lambda: b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>"),
    "SVG with entities": ("format", lambda: b"<?xml version='1.0'?><!DOCTYPE s [<!ENTITY a 'aa'>]><svg>&a;</svg>"),
    "HTML named .jpg": ("format", lambda: b"\xef\xbb\xbf\r\n<!doctype html><script>alert(1)</script>"),
    "GIF": ("format", lambda: saved("GIF")),
    "animated GIF": ("format", lambda: animated("GIF")),
    "HEIC header": ("format", lambda: b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100)),
    "AVIF header": ("unreadable", lambda: b"\0\0\0\x1cftypavif\0\0\0\0mif1miaf" + bytes(100)),
    "MP4": ("format", lambda: b"\0\0\0\x20ftypisom\0\0\2\0isomiso2" + bytes(100)),
    "ICO": ("format", lambda: saved("ICO")),
    "JPEG 2000": ("format", lambda: encoded(".jp2", picture())),
    "PPM": ("format", lambda: b"P6 2 2 255\n" + bytes(12)),
    "PPM of absurd size": ("format", lambda: b"P6 99999 99999 255\n" + bytes(12)),
    "Radiance HDR": ("format", lambda: b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n\n-Y 9999 +X 9999\n"),
    "OpenEXR": ("format", lambda: b"\x76\x2f\x31\x01\x02\0\0\0" + bytes(100)),
    "PSD": ("format", lambda: b"8BPS\0\x01" + bytes(100)),
    "WAV in RIFF": ("unreadable", lambda: b"RIFF\x24\0\0\0WAVEfmt " + bytes(40)),
    # cut short, or damaged
    "JPEG, first half": ("truncated", lambda: JPEG[: len(JPEG) // 2]),
    "JPEG, first half with an end": ("truncated", lambda: DETAILED[: len(DETAILED) // 2] + b"\xff\xd9"),
    "JPEG with zeros in its middle": ("unreadable", lambda: DETAILED[:2000] + bytes(500) + DETAILED[2500:]),
    "JPEG of 7,000 x 7,000 over fewer pixels": ("truncated", lambda: sized(DETAILED, 7000, 7000)),
    "progressive JPEG of its first scan": ("truncated", first_scan),
    "JPEG without its last bytes": ("truncated", lambda: JPEG[:-2]),
    "JPEG header alone": ("truncated", lambda: JPEG[:30]),
    "JPEG of two markers": ("unreadable", lambda: b"\xff\xd8\xff\xd9"),
    "JPEG of size 0": ("unreadable", lambda: sized(JPEG, 0, 0)),
    "JPEG of markers without end": ("truncated", lambda: b"\xff\xd8" + segment(0xE1, b"") * 200_000),
    "JPEG of padding": ("truncated", lambda: b"\xff\xd8" + b"\xff" * 500_000),
    "progressive JPEG, first half": ("truncated", lambda: saved("JPEG", progressive=True)[:400]),
    "JPEG of a thousand scans": ("unreadable", lambda: scans(1000)),
    "PNG header alone": ("truncated", lambda: PLAIN[:33]),
    "PNG, signature alone": ("truncated", lambda: PLAIN[:8]),
    "PNG, half of its pixels": ("truncated", lambda: saved("PNG", Image.fromarray(NOISE))[:6000]),
    "PNG with a changed byte": ("unreadable", lambda: PLAIN[:60] + bytes([PLAIN[60] ^ 1]) + PLAIN[61:]),
    "PNG of size 0": ("unreadable", lambda: png(0, 0, 8, 2, chunk(b"IDAT", zlib.compress(b"")))),
    "PNG without a header": ("unreadable", lambda: b"\x89PNG\r\n\x1a\n" + chunk(b"IEND", b"")),
    "PNG of a wrong checksum in its header": ("unreadable", lambda: PLAIN[:29] + b"\0\0\0\0" + PLAIN[33:]),
    "PNG of an impossible depth": ("unreadable", lambda: png(8, 8, 7, 2, chunk(b"IDAT", zlib.compress(bytes(200))))),
    "PNG whose chunk is longer than the file": ("truncated", lambda: PLAIN[:33] + b"\x7f\xff\xff\xffIDAT" + bytes(50)),
    "PNG palette without a palette": ("unreadable", lambda: png(8, 8, 8, 3, chunk(b"IDAT", zlib.compress(bytes(72))))),
    "WebP, first half": ("unreadable", lambda: WEBP[: len(WEBP) // 2]),
    "WebP header alone": ("unreadable", lambda: WEBP[:16]),
    "TIFF, first half": ("unreadable", lambda: TIFF[: len(TIFF) // 2]),
    "TIFF of floating-point levels from -2 to 2": (
        "levels",
        lambda: saved("TIFF", Image.fromarray(np.linspace(-2, 2, 64, dtype=np.float32).reshape(8, 8))),
    ),
    "TIFF without a page": ("unreadable", lambda: b"II*\0" + struct.pack("<I", 0)),
    "TIFF whose page lies outside": ("unreadable", lambda: b"II*\0" + struct.pack("<I", 2**32 - 9)),
    "BMP header alone": ("unreadable", lambda: bmp(8, 8)[:30]),
    "BMP of negative width": ("unreadable", lambda: bmp(-8, 8)),
    # too large, declared or unpacked
    "20,000 x 20,000 PNG, declared": ("too-many-pixels", lambda: png(SIDE, SIDE, 8, 2, chunk(b"IDAT", b""))),
    "20,000 x 20,000 PNG, compressed": (
        "too-many-pixels",
        lambda: png(SIDE, SIDE, 1, 0, chunk(b"IDAT", zeros(SIDE * (SIDE // 8 + 1)))),
    ),
    "4,294,967,295 x 1 PNG": ("too-many-pixels", lambda: png(2**32 - 1, 1, 8, 2, chunk(b"IDAT", b""))),
    "65,500 x 65,500 JPEG": ("too-many-pixels", lambda: sized(JPEG, 65_500, 65_500)),
    "progressive JPEG bomb": (
        "too-many-pixels",
        lambda: sized(saved("JPEG", progressive=True), 60_000, 60_000, b"\xff\xc2"),
    ),
    "WebP bomb of one colour": ("unreadable", lambda: webp_of_one_colour(16_383, 16_383)),
    "TIFF of absurd size": ("too-many-pixels", lambda: tiff(2**31 - 1, 2**31 - 1)),
    "20,000 x 20,000 TIFF": ("too-many-pixels", lambda: tiff(SIDE, SIDE)),
    "TIFF of absurd size, big endian": ("too-many-pixels", lambda: tiff(2**20, 2**20, order=">")),
    "20,000 x 20,000 BMP": ("unreadable", lambda: bmp(SIDE, SIDE)),
    "20,000 x 20,000 BMP of runs": ("unreadable", lambda: bmp(SIDE, SIDE, 1)),
    "upside-down BMP of absurd height": ("unreadable", lambda: bmp(2, -(2**31))),
    # DICOM
    "DICOM preamble alone": ("not-an-image", lambda: bytes(128) + b"DICM"),
    "DICOM, first half": ("not-an-image", lambda: dicom()[:300]),
    "DICOM with text behind the preamble": ("not-an-image", lambda: bytes(128) + b"DICM" + b"not a header " * 40),
    "DICOM, deflated": ("unreadable", deflated_dicom),
    "DICOM of 20,000 x 20,000": ("too-many-pixels", lambda: dicom(Rows=SIDE, Columns=SIDE)),
    "DICOM with fewer pixels than it says": ("unreadable", lambda: dicom(Rows=100, Columns=100)),
    "DICOM that contradicts itself": ("unreadable", lambda: dicom(BitsAllocated=1, BitsStored=1, HighBit=0)),
    "DICOM of half a JPEG": ("unreadable", half_dicom),
    "DICOM of frames": ("several-frames", lambda: dicom(NumberOfFrames="3")),
    "DICOM with a name burned in": ("identifying", lambda: dicom(BurnedInAnnotation="YES")),
    "DICOM without an image": ("not-an-image", lambda: dicom(Rows=None)),
}  # fmt: skip
"""By name: the reason that a refusal gives, and what makes the bytes."""

GREY = Image.fromarray(picture()).convert("L")
ODD: dict[str, tuple[Callable[[], bytes], Callable[[], bytes]]] = {
    "JPEG named .png": (lambda: JPEG, lambda: PLAIN),
    "PNG": (lambda: PLAIN, lambda: PLAIN),
    "lossless WebP": (lambda: WEBP, lambda: PLAIN),
    "TIFF": (lambda: TIFF, lambda: PLAIN),
    "compressed TIFF": (lambda: saved("TIFF", compression="tiff_lzw"), lambda: PLAIN),
    "TIFF whose pages are a circle": (looping_tiff, lambda: PLAIN),
    "TIFF of pages": (lambda: pages(20), lambda: PLAIN),
    "BMP": (lambda: saved("BMP"), lambda: PLAIN),
    "upside-down BMP": (lambda: bmp(WIDTH, -HEIGHT, body=picture()[..., ::-1].tobytes()), lambda: PLAIN),
    "progressive JPEG": (lambda: saved("JPEG", progressive=True, quality=95), lambda: PLAIN),
    "grey PNG": (lambda: saved("PNG", GREY), lambda: saved("PNG", GREY.convert("RGB"))),
    "grey JPEG": (lambda: saved("JPEG", GREY, quality=95), lambda: saved("PNG", GREY.convert("RGB"))),
    "palette PNG": (lambda: saved("PNG", Image.fromarray(picture()).quantize(8)), lambda: PLAIN),
    "PNG of one bit": (
        lambda: saved("PNG", GREY.point(lambda level: 255 * (level > 60), "1")),
        lambda: saved("PNG", GREY.point(lambda level: 255 * (level > 60)).convert("RGB")),
    ),
    "16-bit PNG": (
        lambda: encoded(".png", picture()[..., ::-1].astype(np.uint16) * 257),
        lambda: PLAIN,
    ),
    "16-bit TIFF": (
        lambda: encoded(".tiff", picture()[..., ::-1].astype(np.uint16) * 257),
        lambda: PLAIN,
    ),
    "12 bits in 16-bit PNG": (lambda: encoded(".png", picture()[..., ::-1].astype(np.uint16) * 16), lambda: PLAIN),
    "TIFF with alpha": (
        lambda: saved("TIFF", Image.fromarray(np.dstack([picture(), picture()[..., 0]]))),
        lambda: PLAIN,
    ),
    "PNG with alpha": (lambda: saved("PNG", Image.fromarray(picture()).convert("RGBA")), lambda: PLAIN),
    "WebP with alpha": (
        lambda: saved("WEBP", Image.fromarray(picture()).convert("RGBA"), lossless=True),
        lambda: PLAIN,
    ),
    "CMYK JPEG": (lambda: saved("JPEG", Image.fromarray(picture()).convert("CMYK"), quality=95), lambda: PLAIN),
    "animated PNG": (lambda: animated("PNG"), lambda: PLAIN),
    "animated WebP": (lambda: animated("WEBP", lossless=True), lambda: PLAIN),
    "animated WebP of 400 frames": (lambda: animated("WEBP", 400, lossless=True), lambda: PLAIN),
    **{
        f"EXIF orientation {number}": ((lambda number=number: turned(number, quality=95)), lambda: PLAIN)
        for number in UPRIGHT
    },
    "EXIF orientation 9": (lambda: saved("JPEG", quality=95, exif=exif(9)), lambda: PLAIN),
    "broken EXIF": (lambda: JPEG[:2] + segment(0xE1, b"Exif\0\0MM\0*\xff\xff\xff\xff") + JPEG[2:], lambda: PLAIN),
    "EXIF in a circle": (
        lambda: JPEG[:2] + segment(0xE1, b"Exif\0\0II*\0\x08\0\0\0\0\0\x08\0\0\0") + JPEG[2:],
        lambda: PLAIN,
    ),
    "JPEG with a thumbnail": (lambda: JPEG[:2] + segment(0xE1, b"Exif\0\0" + JPEG) + JPEG[2:], lambda: PLAIN),
    "JPEG with data behind its end": (lambda: JPEG + b"camera's own \xff\xd8\xff\xd9" + bytes(9000), lambda: PLAIN),
    "JPEG with a page behind its end": (lambda: JPEG + b"<script>alert(1)</script>", lambda: PLAIN),
    "JPEG with bytes before its end": (lambda: JPEG[:-2] + bytes(50) + JPEG[-2:], lambda: PLAIN),
    "JPEG and ZIP in one": (lambda: JPEG + archive(), lambda: PLAIN),
    "PNG with data behind its end": (lambda: PLAIN + bytes(9000), lambda: PLAIN),
    "PNG with names in its text": (
        lambda: saved("PNG", pnginfo=described("Patient", "Mustermann^Erika")),
        lambda: PLAIN,
    ),
    "PNG with a text bomb": (lambda: text("zTXt"), lambda: PLAIN),
    "PNG with an international text bomb": (lambda: text("iTXt"), lambda: PLAIN),
    "PNG with a profile bomb": (lambda: text("iCCP"), lambda: PLAIN),
    "PNG of 20,000 chunks": (lambda: with_chunk(*[chunk(b"prVt", b"")] * 20_000), lambda: PLAIN),
    "PNG with a wrong checksum in a side chunk": (
        lambda: with_chunk(chunk(b"tEXt", b"a\0b")[:-1] + b"\0"),
        lambda: PLAIN,
    ),
    "PNG with more pixels than it declares": (
        lambda: png(8, 8, 8, 0, chunk(b"IDAT", zeros(2**26))),
        lambda: saved("PNG", Image.new("RGB", (8, 8))),
    ),
    "one pixel": (
        lambda: saved("PNG", Image.new("RGB", (1, 1), (9, 200, 9))),
        lambda: saved("BMP", Image.new("RGB", (1, 1), (9, 200, 9))),
    ),
    "one row": (
        lambda: saved("JPEG", Image.new("RGB", (3000, 1), (9, 200, 9)), quality=95),
        lambda: saved("PNG", Image.new("RGB", (3000, 1), (9, 200, 9))),
    ),
    "DICOM without its preamble": (
        lambda: dicom_files.encoded(dicom_files.header(np.asarray(GREY)))[132:],
        lambda: saved("PNG", GREY.convert("RGB")),
    ),
    "DICOM": (
        lambda: dicom_files.encoded(dicom_files.header(np.asarray(GREY))),
        lambda: saved("PNG", GREY.convert("RGB")),
    ),
}
"""By name: what makes an odd but valid file, and the plain one that shows the same."""


@cache
def refused(name: str) -> bytes:
    return REFUSED[name][1]()


@cache
def odd(name: str) -> bytes:
    return ODD[name][0]()
