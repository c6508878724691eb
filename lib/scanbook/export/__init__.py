"""Export: a trained network becomes a bundle, and every way of asking it is held against the others."""

from scanbook.export.formats import FIXED, fixed, parity_table, quantised
from scanbook.export.making import DICOM_PACKAGES, Export, asks_for, files, make, said, write_bundle

__all__ = [
    "DICOM_PACKAGES",
    "FIXED",
    "Export",
    "asks_for",
    "files",
    "fixed",
    "make",
    "parity_table",
    "quantised",
    "said",
    "write_bundle",
]
