"""Notebook research suite for medical image classification."""

import os
import sys

from scanbook.runtime import environment

MAX_PIXELS = 50_000_000
"""Largest number of pixels of an image; a larger one is refused before it is decoded."""

STARTED_OTHERWISE = environment.ignore_user_settings()
"""Whether Python itself started with a setting that scanbook ignores."""

# OpenCV reads these once, when it is first imported, which any module of scanbook may do. Its log is a page of native
# messages for every broken file; scanbook names the file in one line. OpenCV's own threads would compete with those of
# scanbook, which processes several images in parallel
os.environ["OPENCV_IO_MAX_IMAGE_PIXELS"] = str(MAX_PIXELS)
os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
os.environ.setdefault("OPENCV_FOR_THREADS_NUM", "1")

# nbformat imports jsonschema, and that, where it is installed, a check of addresses that no notebook has: 1.7 s
sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]
