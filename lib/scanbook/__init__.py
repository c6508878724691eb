"""Notebook research suite for medical image classification."""

import os

MAX_PIXELS = 50_000_000
"""Largest image decoded: a 50-megapixel photograph; more is refused before it is unpacked."""

# OpenCV reads these once, when it is first imported, which any module of scanbook may do. Its log is a page of native
# messages for every broken file; scanbook says in a line which file it is. Its own threads would only be in the way:
# wherever there are several images, scanbook gives each thread some
os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(MAX_PIXELS))
os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
os.environ.setdefault("OPENCV_FOR_THREADS_NUM", "1")
