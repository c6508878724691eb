"""DICOM: grey levels as a reader sees them, one line for what cannot be read, and no patient in anything shown."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import dcmwrite, uid
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence

from helpers.dicom_files import HEIGHT, PATIENT, RAMP, WIDTH, encoded, header, identifying
from scanbook import MAX_PIXELS
from scanbook.data import dicom, images, jpeg
from scanbook.errors import ImageError


def read(pixels: np.ndarray, **keys: Any) -> np.ndarray:
    decoded = images.read(encoded(header(pixels, **keys)))
    assert decoded.shape == (*pixels.shape[:2], 3) and decoded.dtype == np.uint8
    return decoded


def grey(pixels: np.ndarray, **keys: Any) -> np.ndarray:
    decoded = read(pixels, **keys)
    assert (decoded == decoded[..., :1]).all()
    return decoded[..., 0].astype(float)


def complaint(data: bytes) -> str:
    with pytest.raises(ImageError) as caught:
        images.read(data)
    assert "\n" not in str(caught.value) and not identifying(str(caught.value))
    return str(caught.value)


# what is seen


def test_eight_bit_grey_without_a_window_stays_as_it_is(tmp_path: Path) -> None:
    pixels = (20 + 100 * RAMP).astype(np.uint8)
    assert np.array_equal(grey(pixels), pixels)
    assert np.array_equal(grey(pixels, kind="MONOCHROME1"), 255 - pixels)
    path = tmp_path / "x.dcm"
    path.write_bytes(encoded(header(pixels)))
    assert np.array_equal(images.read(path)[..., 0], pixels)


@pytest.mark.parametrize("bits", [10, 12, 16])
@pytest.mark.parametrize("signed", [False, True])
def test_deeper_grey_without_a_window_is_spread(bits: int, signed: bool) -> None:
    low = -(2 ** (bits - 1)) if signed else 0
    pixels = (low + 100 + RAMP * (2**bits - 300)).round().astype(np.int16 if signed else np.uint16)
    assert np.abs(grey(pixels, bits=bits) - 255 * RAMP).max() <= 1
    assert np.abs(grey(pixels, bits=bits, kind="MONOCHROME1") - 255 * (1 - RAMP)).max() <= 1


@given(centre=st.floats(-900, 900), width=st.floats(2, 3000), slope=st.floats(0.5, 3), intercept=st.floats(-1024, 100))
@settings(max_examples=25, deadline=None)
def test_a_window_is_the_standards_formula(centre: float, width: float, slope: float, intercept: float) -> None:
    centre, width, slope, intercept = (round(value, 2) for value in (centre, width, slope, intercept))
    pixels = (RAMP * 2000 - 500).round().astype(np.int16)
    keys = {"WindowCenter": [centre, 40], "WindowWidth": [width, 400]}
    decoded = grey(pixels, RescaleSlope=slope, RescaleIntercept=intercept, **keys)
    levels = pixels * slope + intercept
    # PS3.3 C.11.2.1.2.1, over 0 to 255
    expected = (((levels - (centre - 0.5)) / (width - 1) + 0.5) * 255).clip(0, 255)
    assert np.abs(decoded - expected).max() <= 0.51


def test_a_sigmoid_and_an_exact_window() -> None:
    pixels = (RAMP * 4000).round().astype(np.uint16)
    window = {"WindowCenter": 2000, "WindowWidth": 1000, "bits": 12}
    sigmoid = grey(pixels, VOILUTFunction="SIGMOID", **window)
    assert np.abs(sigmoid - 255 / (1 + np.exp(-4 * (pixels - 2000.0) / 1000))).max() <= 0.51
    exact = grey(pixels, VOILUTFunction="LINEAR_EXACT", **window)
    assert np.abs(exact - (((pixels - 2000.0) / 1000 + 0.5) * 255).clip(0, 255)).max() <= 0.51


def test_a_window_that_is_none_counts_as_none() -> None:
    pixels = (RAMP * 4000).round().astype(np.uint16)
    plain = grey(pixels, bits=12)
    assert np.array_equal(grey(pixels, bits=12, WindowCenter=2000, WindowWidth=0), plain)
    assert np.array_equal(grey(pixels, bits=12, WindowCenter="", WindowWidth=""), plain)


def lookup(values: list[int], first: int, bits: int) -> Sequence:
    item = Dataset()
    item.LUTDescriptor = [len(values) % 65536, first, bits]
    item.add_new("LUTData", "US", values)
    return Sequence([item])


@pytest.mark.parametrize("bits", [8, 12])
def test_a_voi_lut_goes_before_the_window(bits: int) -> None:
    pixels = (RAMP * 3000).round().astype(np.uint16)
    # a curve, of more entries than 8 bits can count, between level 500 and 2499
    values = [round((2**bits - 1) * (n / 1999) ** 2) for n in range(2000)]
    decoded = grey(pixels, bits=12, VOILUTSequence=lookup(values, 500, bits), WindowCenter=10, WindowWidth=20)
    expected = 255 * ((pixels.astype(float) - 500).clip(0, 1999) / 1999) ** 2
    assert np.abs(decoded - expected).max() <= (1.1 if bits == 8 else 0.6)


@pytest.mark.parametrize("written", ["SS", "US"])
def test_a_voi_lut_may_start_below_zero(written: str) -> None:
    pixels = (RAMP * 3000 - 1500).round().astype(np.int16)
    sequence = lookup(list(range(2001)), 0, 11)
    first = -1000 if written == "SS" else 2**16 - 1000
    sequence[0].add_new("LUTDescriptor", written, [2001, first, 11])
    expected = (pixels.astype(float) + 1000).clip(0, 2000) * 255 / 2047
    assert np.abs(grey(pixels, VOILUTSequence=sequence) - expected).max() <= 0.51


def test_a_modality_lut_is_looked_up() -> None:
    pixels = np.arange(HEIGHT * WIDTH, dtype=np.uint16).reshape(HEIGHT, WIDTH) % 256
    sequence = lookup([(n * n) % 65536 for n in range(256)], 0, 16)
    sequence[0].ModalityLUTType = "US"
    expected = pixels.astype(float) ** 2 / 255**2 * 255
    assert np.abs(grey(pixels, ModalityLUTSequence=sequence) - expected).max() <= 1


def test_padding_around_the_image_does_not_set_its_contrast() -> None:
    pixels = (1000 + RAMP * 1000).round().astype(np.int16)
    pixels[:3] = -2000
    decoded = grey(pixels, PixelPaddingValue=-2000)
    inside = (pixels[3:] - pixels[3:].min()) / (pixels[3:].max() - pixels[3:].min()) * 255
    assert np.abs(decoded[3:] - inside).max() <= 1 and (decoded[:3] == 0).all()


def test_one_level_is_black_not_an_error() -> None:
    assert not grey(np.full((8, 9), 300, np.uint16)).any()


def test_colour_in_its_order() -> None:
    pixels = np.stack([255 * RAMP, 40 + 100 * RAMP.T.reshape(HEIGHT, WIDTH), 200 - 200 * RAMP], -1).astype(np.uint8)
    assert np.array_equal(read(pixels, kind="RGB"), pixels)
    assert np.array_equal(read(pixels.astype(np.uint16) << 4, kind="RGB", bits=12), pixels)
    ycbcr = encoded(header(pixels, kind="YBR_FULL"))
    weights = np.array([[1, 0, 1.402], [1, -0.344136, -0.714136], [1, 1.772, 0]])  # PS3.3 C.7.6.3.1.2
    expected = ((pixels - [0, 128, 128]) @ weights.T).clip(0, 255)
    assert np.abs(images.read(ycbcr) - expected).max() <= 1.5


def test_a_palette_is_looked_up() -> None:
    made = header(np.array([[0, 1], [2, 1]], np.uint8), kind="PALETTE COLOR")
    colours = {"Red": [255, 0, 10], "Green": [0, 200, 20], "Blue": [0, 0, 250]}
    for name, levels in colours.items():
        setattr(made, f"{name}PaletteColorLookupTableDescriptor", [3, 0, 16])
        setattr(made, f"{name}PaletteColorLookupTableData", np.array([n * 257 for n in levels], "<u2").tobytes())
    assert images.read(encoded(made)).tolist() == [[[255, 0, 0], [0, 200, 0]], [[10, 20, 250], [0, 200, 0]]]


def compressed(pixels: np.ndarray, syntax: uid.UID, **keys: Any) -> bytes:
    """JPEG 2000, JPEG or lossless JPEG-LS inside DICOM, by encoders of other libraries; RLE by pydicom's own."""
    made = header(pixels, **keys)
    if syntax == uid.RLELossless:
        made.compress(syntax)
    else:
        pillow = pytest.importorskip("PIL.Image")
        buffer = io.BytesIO()
        kind = {"format": "JPEG2000", "irreversible": False} if syntax == uid.JPEG2000Lossless else {"format": "JPEG"}
        pillow.fromarray(pixels).save(buffer, **kind)
        made.PixelData = encapsulate([buffer.getvalue()])
        made["PixelData"].VR = "OB"
        made.file_meta.TransferSyntaxUID = syntax
    return encoded(made)


@pytest.mark.parametrize("depth", [np.uint8, np.uint16])
@pytest.mark.parametrize("syntax", [uid.RLELossless, uid.JPEG2000Lossless], ids=lambda syntax: syntax.name)
def test_lossless_compression_changes_nothing(syntax: uid.UID, depth: type) -> None:
    pixels = (RAMP * np.iinfo(depth).max).astype(depth)
    decoded = images.read(compressed(pixels, syntax))
    assert np.array_equal(decoded, images.read(encoded(header(pixels))))


def test_jpeg_in_dicom() -> None:
    pixels = (255 * RAMP).astype(np.uint8)
    assert np.abs(images.read(compressed(pixels, uid.JPEGBaseline8Bit))[..., 0] - pixels.astype(float)).max() <= 8


@pytest.mark.parametrize("syntax", ["JPEGLosslessProcess14_1", "JPEGLSLossless"])
def test_lossless_jpeg_by_another_encoder(syntax: str, tmp_path: Path) -> None:
    gdcm = pytest.importorskip("gdcm")
    pixels = (RAMP * 4000).astype(np.uint16)
    plain, packed = tmp_path / "plain.dcm", tmp_path / "packed.dcm"
    plain.write_bytes(encoded(header(pixels, bits=12)))
    reader, change, writer = gdcm.ImageReader(), gdcm.ImageChangeTransferSyntax(), gdcm.ImageWriter()
    reader.SetFileName(str(plain))
    assert reader.Read()
    change.SetTransferSyntax(gdcm.TransferSyntax(getattr(gdcm.TransferSyntax, syntax)))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer.SetFileName(str(packed))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    assert writer.Write()
    assert packed.stat().st_size < plain.stat().st_size
    assert np.array_equal(images.read(packed), images.read(plain))


@pytest.mark.parametrize("bits", [1, 4])
def test_levels_of_few_bits_use_all_256(bits: int) -> None:
    levels = (RAMP * (2**bits - 1)).round().astype(np.uint8)
    expected = levels.astype(float) * 255 / (2**bits - 1)
    assert np.abs(grey(levels, bits=bits) - expected).max() <= 0.51
    assert np.abs(grey(levels, bits=bits, kind="MONOCHROME1") - (255 - expected)).max() <= 0.51


def test_one_bit_per_pixel_is_black_and_white() -> None:
    white = RAMP > 0.3
    made = header(np.zeros((HEIGHT, WIDTH), np.uint8), BitsAllocated=1, BitsStored=1, HighBit=0)
    made.PixelData = np.packbits(white.ravel(), bitorder="little").tobytes()
    assert np.array_equal(images.read(encoded(made))[..., 0], np.where(white, 255, 0))


def without_preamble(form: str) -> bytes:
    made = header((200 * RAMP).astype(np.uint8))
    if form == "file meta":
        return encoded(made)[132:]
    bare, buffer = Dataset(), io.BytesIO()
    bare.update({element.tag: element for element in made})
    implicit, little = "implicit" in form, "little" in form
    dcmwrite(buffer, bare, implicit_vr=implicit, little_endian=little, enforce_file_format=False)
    return buffer.getvalue()


@pytest.mark.parametrize("form", ["file meta", "implicit little", "explicit little", "explicit big"])
def test_a_file_without_a_preamble_is_read(form: str, tmp_path: Path) -> None:
    data = without_preamble(form)
    assert data[128:132] != b"DICM" and dicom.is_dicom(data[:132])
    assert np.array_equal(images.read(data)[..., 0], (200 * RAMP).astype(np.uint8))
    path = tmp_path / "x.jpg"  # the name decides nothing
    path.write_bytes(data)
    assert dicom.is_dicom_file(path) and dicom.patient(path) == PATIENT
    assert np.array_equal(images.read(path), images.read(data))
    assert "truncated" in complaint(data[:-20]) or "cannot be decoded" in complaint(data[:-20])


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\2\0",
        bytes(200),
        b"\2\0\0\0" + bytes(200),
        b"\x08\0\x05\0" * 50,
        b"\x08\0\x10\0CS\2\0ab" * 20,
        b"BM" + bytes(200),
    ],
)
def test_other_bytes_are_no_dicom_file(data: bytes) -> None:
    assert not dicom.is_dicom(data)


# what is refused


def test_what_cannot_be_read_is_one_line() -> None:
    pixels = (255 * RAMP).astype(np.uint8)
    assert "may show who the patient is" in complaint(encoded(header(pixels, BurnedInAnnotation="YES")))
    assert images.read(encoded(header(pixels, BurnedInAnnotation="NO"))).any()
    frames = header(np.stack([pixels] * 7).reshape(-1, WIDTH), Rows=HEIGHT, NumberOfFrames=7)
    assert "7 frames" in complaint(encoded(frames))
    assert "without an image" in complaint(encoded(header(pixels, Rows=None, PixelData=None)))
    assert "cannot be decoded" in complaint(encoded(header(pixels, PixelData=None)))
    assert "cannot be decoded" in complaint(encoded(header(pixels, PixelData=pixels.tobytes()[:100])))
    assert "cannot be decoded" in complaint(encoded(header(pixels, kind="HSV")))
    huge = complaint(encoded(header(pixels, Rows=60000, Columns=60000)))
    assert "60000 × 60000" in huge and f"{MAX_PIXELS:,}" in huge


def test_a_damaged_jpeg_in_a_file_is_refused() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH), np.uint8)
    whole = compressed(pixels, uid.JPEGBaseline8Bit)
    assert images.read(whole).any()
    start, end = whole.index(b"\xff\xda") + 10, whole.rindex(b"\xff\xd9")
    middle = (start + end) // 2
    half = whole[:middle] + b"\xff\xd9" + whole[middle + 2 :]
    assert "JPEG is damaged" in complaint(half) and "end" in complaint(half)
    assert "truncated DICOM" in complaint(whole[:middle])


@pytest.mark.parametrize("fault", ["depth", "version", "bytes between segments"])
def test_a_header_at_which_gdcm_would_end_the_process_is_refused(fault: str) -> None:
    whole = compressed((255 * RAMP).astype(np.uint8), uid.JPEGBaseline8Bit)
    depth, version, table = whole.index(b"\xff\xc0") + 4, whole.index(b"JFIF\0") + 5, whole.index(b"\xff\xdb")
    place, value = {"depth": (depth, 57), "version": (version, 30), "bytes between segments": (table, 0)}[fault]
    changed = whole[:place] + bytes([value]) + whole[place + 1 :]
    start = changed.index(b"\xff\xd8")
    assert jpeg.has_sound_header(whole[start:]) and not jpeg.has_sound_header(changed[start:])
    assert "header is wrong" in complaint(changed)


def test_an_encoding_without_a_decoder_is_named() -> None:
    made = header((255 * RAMP).astype(np.uint8))
    made.PixelData = encapsulate([b"\xff\x4f\xff\x51" + bytes(60)])
    made["PixelData"].VR = "OB"
    made.file_meta.TransferSyntaxUID = uid.HTJ2K
    assert "High-Throughput JPEG 2000" in complaint(encoded(made))


def test_a_deflated_file_is_refused_before_it_is_unpacked() -> None:
    made = header(np.zeros((1000, 1000), np.uint8))
    made.file_meta.TransferSyntaxUID = uid.DeflatedExplicitVRLittleEndian
    data = encoded(made)
    assert len(data) < 5000 and "deflated" in complaint(data)


WHOLE = encoded(header((RAMP * 4000).astype(np.uint16), bits=12, WindowCenter=2000, WindowWidth=4000))


@given(st.integers(140, len(WHOLE) - 1), st.binary(min_size=1, max_size=40), st.booleans())
@settings(max_examples=80, deadline=None)
def test_a_broken_file_is_an_image_or_one_line(place: int, noise: bytes, cut: bool) -> None:
    data = WHOLE[:place] if cut else WHOLE[:place] + noise + WHOLE[place + len(noise) :]
    try:
        assert images.read(data).dtype == np.uint8
    except ImageError as error:
        assert "\n" not in str(error) and not identifying(str(error))


def test_without_pydicom_other_images_are_read_and_one_line_says_how_to_get_it(tmp_path: Path) -> None:
    path = tmp_path / "x.dcm"
    path.write_bytes(encoded(header((255 * RAMP).astype(np.uint8))))
    program = (
        "import sys\nfrom pathlib import Path\nfrom scanbook.data import images\nimport numpy as np\n"
        "images.read(images.encode_png(np.zeros((4, 4), np.uint8)))\n"
        "print('pydicom' in sys.modules, 'pandas' in sys.modules)\nsys.modules['pydicom'] = None\n"
        f"try:\n    images.read(Path({str(path)!r}))\nexcept images.ImageError as error:\n    print(error)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    imported, message = done.stdout.splitlines()
    assert imported == "False False" and done.stderr == ""
    assert 'pip install "scanbook[dicom]"' in message


def test_reading_headers_says_nothing_on_any_channel(tmp_path: Path) -> None:
    pixels = (255 * RAMP).astype(np.uint8)
    made = header(pixels)
    data = encoded(made).replace(b"19510314", b"Erika\0\0\0")  # an invalid date, which pydicom would quote
    data = data.replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2\0\0\0")  # another encoding than the file's
    (tmp_path / "x.dcm").write_bytes(data)
    program = (
        "import logging\nfrom pathlib import Path\nfrom scanbook.data import dicom, images\nlogging.basicConfig()\n"
        f"path = Path({str(tmp_path / 'x.dcm')!r})\nimages.read(path)\nprint(dicom.patient(path))"
    )
    environment = os.environ | {"PYTHONWARNINGS": "default"}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environment)
    assert (done.stdout.strip(), done.stderr) == (PATIENT, "")
