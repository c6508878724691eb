"""The labels of another source under the names of a bundle."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pandas as pd

from scanbook.bundle import Bundle
from scanbook.data.manifest import Manifest, finding_column
from scanbook.errors import StudyError


def map_labels(
    manifest: Manifest, bundle: Bundle, mapping: Mapping[str, str], study: str
) -> tuple[Manifest, dict[str, tuple[str, ...]], pd.DataFrame]:
    """Return the images of another source with the bundle's classes or findings as labels.

    Args:
        manifest: The other source.
        bundle: The bundle; its order of classes or findings is that of the result.
        mapping: Its name of each of theirs; empty: equal names are the same.
        study: Name of the study of the other source, for errors.

    Returns:
        The images whose class is one of the bundle's, or all, of findings; the names of theirs by each of the bundle's;
        and the names that are excluded, with their images (index `name`, column images).

    Raises:
        StudyError: The labels are findings, and those of the bundle classes, or the other way round; a name in the
            mapping is unknown; or there is no mapping and a class is not one of the bundle's.
    """
    kind = "findings" if bundle.findings else "classes"
    theirs, ours = manifest.names, bundle.labels
    where = f"study {study}: external.classes"
    if bool(manifest.findings) != bool(bundle.findings):
        own = "findings" if manifest.findings else "classes"
        raise StudyError(f"study {study} has {own}, and bundle {bundle.name!r} {kind}; expected {kind} of both")
    for name, mapped in mapping.items():
        if name not in theirs:
            raise StudyError(f"{where} names {name!r}, which the images do not have; expected {', '.join(theirs)}")
        if mapped not in ours:
            raise StudyError(f"{where}.{name} is {mapped!r}; expected one of the bundle's {kind}, {', '.join(ours)}")
    used = dict(mapping) or {name: name for name in theirs if name in ours}
    unknown = [name for name in theirs if name not in used]
    if not used or (unknown and not mapping and bundle.classes):
        raise StudyError(
            f"study {study} has {unknown[0]!r}, which is none of the {kind} of bundle {bundle.name!r} "
            f"({', '.join(ours)}); name what each is, {where}: {{{unknown[0]}: {ours[0]}}}, and leave out the others"
        )
    sources = {name: tuple(their for their, our in used.items() if our == name) for name in ours}
    sources = {name: names for name, names in sources.items() if names}
    present = manifest.labels.present.sum(axis=0)
    counts = {name: int(count) for name, count in zip(theirs, present, strict=True) if name in unknown}
    excluded = pd.DataFrame({"images": pd.Series(counts, dtype=np.int64)}).rename_axis("name")
    mapped = _findings(manifest, bundle, sources) if bundle.findings else _classes(manifest, bundle, used)
    return mapped, sources, excluded


def _classes(manifest: Manifest, bundle: Bundle, used: Mapping[str, str]) -> Manifest:
    frame = manifest.frame[manifest.frame["label"].isin(list(used))]
    frame = frame.assign(label=frame["label"].map(used)).reset_index(drop=True)
    return replace(manifest, frame=frame, classes=bundle.classes)


def _findings(manifest: Manifest, bundle: Bundle, sources: Mapping[str, tuple[str, ...]]) -> Manifest:
    """Return the images with the bundle's findings; one of several names is present where any of them is."""
    values, columns = manifest.labels.values, {}
    for name in bundle.findings:
        places = [manifest.findings.index(their) for their in sources.get(name, ())]
        of_name = values[:, places]
        known = np.where((of_name == 0).all(axis=1), 0.0, np.nan)
        columns[finding_column(name)] = np.where((of_name == 1).any(axis=1), 1.0, known) if places else np.nan
    frame = manifest.frame.drop(columns=[finding_column(name) for name in manifest.findings])
    return Manifest.of_findings(manifest.name, frame.assign(**columns), bundle.findings, None, manifest.facts)
