"""Small datasets without image files, for tests of splits: of classes or findings, with groups and copies."""

from __future__ import annotations

import numpy as np
import pandas as pd
from hypothesis import strategies as st

from scanbook.data.manifest import Manifest, finding_column


def of_classes(rows: list[tuple[str, str]], splits: list[str] | None = None) -> tuple[Manifest, pd.DataFrame]:
    """A dataset of (label, group) rows, all different and readable, and its scan."""
    frame = pd.DataFrame(rows, columns=["label", "group"])
    frame["image_id"] = [f"i{number:03d}" for number in range(len(rows))]
    frame = frame.assign(path="", mask_path="", split=splits or "")
    scanned = pd.DataFrame({"image_id": frame["image_id"], "error": "", "sha256": frame["image_id"]})
    return Manifest("mini", frame, tuple(sorted(set(frame["label"])))), scanned


def plain(count: int = 60, classes: str = "ab", group_size: int = 1) -> list[tuple[str, str]]:
    return [(classes[(n // group_size) % len(classes)], f"g{n // group_size:03d}") for n in range(count)]


def of_findings(
    values: np.ndarray, group: np.ndarray, split: str | list[str] = "", names: tuple[str, ...] = ()
) -> tuple[Manifest, pd.DataFrame]:
    """A dataset of these labels, all files different and readable, and its scan."""
    names = names or tuple(f"f{number}" for number in range(values.shape[1]))
    frame = pd.DataFrame({"image_id": [f"i{number:04d}" for number in range(len(values))], "group": group})
    frame = frame.assign(path="", mask_path="", split=split)
    frame = pd.concat([frame, pd.DataFrame(values.astype(float), columns=list(map(finding_column, names)))], axis=1)
    scanned = pd.DataFrame({"image_id": frame["image_id"], "error": "", "sha256": frame["image_id"]})
    return Manifest.of_findings("ward", frame, names), scanned


@st.composite
def tables(draw: st.DrawFn) -> tuple[Manifest, pd.DataFrame]:
    """Random tables: uneven groups and classes, copies within and across groups and labels, unreadable files."""
    count = draw(st.integers(30, 90))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    groups = rng.integers(0, draw(st.integers(12, 40)), count)
    labels = rng.choice(list("abc"), count, p=[0.5, 0.3, 0.2])
    if draw(st.booleans()):
        labels = np.array(list("abc"))[groups % 3]
    manifest, scanned = of_classes([(str(label), f"g{group}") for label, group in zip(labels, groups, strict=True)])
    copied = draw(st.integers(0, 12))
    scanned.loc[rng.choice(count, copied), "sha256"] = rng.choice(scanned["sha256"], copied)
    scanned.loc[rng.choice(count, draw(st.integers(0, 4))), "error"] = "is empty"
    return manifest, scanned
