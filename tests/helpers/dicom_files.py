"""DICOM files for the tests: each names a patient, as a hospital's do."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from pydicom import uid
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset

HEIGHT, WIDTH = 24, 32
NAME, PATIENT = "Mustermann^Erika", "PID-Q4711"
RAMP = np.linspace(0, 1, HEIGHT * WIDTH).reshape(HEIGHT, WIDTH)


def header(pixels: np.ndarray, bits: int = 0, kind: str = "MONOCHROME2", **elements: Any) -> Dataset:
    """A file of one image whose header names a patient; `elements` come on top, None removes one."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = uid.DigitalXRayImageStorageForPresentation
    meta.MediaStorageSOPInstanceUID = uid.generate_uid()
    meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    made = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    made.SOPClassUID, made.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    made.PatientName, made.PatientID, made.PatientBirthDate = NAME, PATIENT, "19510314"
    made.Rows, made.Columns = pixels.shape[-2:] if pixels.ndim == 2 else pixels.shape[:2]
    made.SamplesPerPixel = pixels.shape[2] if pixels.ndim == 3 else 1
    if pixels.ndim == 3:
        made.PlanarConfiguration = 0
    made.PhotometricInterpretation = kind
    made.BitsAllocated = pixels.dtype.itemsize * 8
    made.BitsStored = bits or made.BitsAllocated
    made.HighBit, made.PixelRepresentation = made.BitsStored - 1, int(pixels.dtype.kind == "i")
    made.PixelData = pixels.tobytes()
    for name, value in elements.items():
        if value is None:
            delattr(made, name)
        else:
            setattr(made, name, value)
    return made


def encoded(made: Dataset) -> bytes:
    buffer = io.BytesIO()
    made.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def identifying(text: str) -> list[str]:
    return [each for each in (NAME, "Mustermann", "Erika", PATIENT, "Q4711", "19510314") if each in text]
