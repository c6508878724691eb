"""Images that two sources share: exact copies by content, and near-duplicates."""

from __future__ import annotations

import pandas as pd

from scanbook.data import quality
from scanbook.data.manifest import COLUMNS, TRAIN, Manifest
from scanbook.errors import DataError
from scanbook.evaluation.sources import EXTERNAL, INTERNAL
from scanbook.store import fingerprint

_SEPARATOR = ": "
EXACT = "exact copy"
SHARED = ["image", "copy_of", "split", "kind", "correlation"]
"""Columns of `find_shared`."""


def join_sources(internal: Manifest, external: Manifest) -> Manifest:
    """Return the images of both sources as one dataset, whose classes are the sources, as one training split.

    Images without a split are not among them. Names and groups begin with the source, so that none are shared.
    """
    frames = []
    for source, manifest in ((INTERNAL, internal), (EXTERNAL, external)):
        frame = manifest.frame[manifest.frame["split"] != ""]
        names = {key: source + _SEPARATOR + frame[key].astype(str) for key in ("image_id", "group")}
        frames.append(frame[list(COLUMNS)].assign(**names, label=source, split=TRAIN, mask_path=""))
    facts = {"data": fingerprint(*(manifest.facts.get("data", "") for manifest in (internal, external)))}
    frame = pd.concat(frames, ignore_index=True)
    return Manifest(f"{internal.name} and {external.name}", frame, (INTERNAL, EXTERNAL), facts)


def find_shared(internal: Manifest, external: Manifest) -> pd.DataFrame:
    """Return the external images that are copies of internal ones.

    Returns:
        One row per external image: image (its id), copy_of and split (of the internal image), kind ("exact copy", or
        the orientation of a near-duplicate), correlation (of details; 1 for an exact copy).

    Raises:
        DataError: At least half of the external images are exact copies of internal ones: they are one source.
    """
    joined = join_sources(internal, external)
    scanned = quality.scan(joined)[["image_id", "sha256"]].assign(source=joined.frame["label"].to_numpy())
    sides = [scanned[scanned["source"] == source] for source in (INTERNAL, EXTERNAL)]
    exact = sides[1].merge(sides[0].drop_duplicates("sha256"), on="sha256", suffixes=("", "_other"))
    if len(exact) >= 0.5 * len(sides[1]) > 0:
        raise DataError(
            f"{len(exact)} of {len(sides[1])} images of {external.name} are byte-identical to images of "
            f"{internal.name}, from which the bundle was trained; expected images of another source: name another study"
        )
    near = quality.near_copies(joined)
    internal_first = near["image_id"].str.startswith(INTERNAL + _SEPARATOR)
    near = near[internal_first & near["other"].str.startswith(EXTERNAL + _SEPARATOR)]
    rows = [
        pd.DataFrame(
            {"image": exact["image_id"], "copy_of": exact["image_id_other"], "kind": EXACT, "correlation": 1.0}
        ),
        pd.DataFrame(
            {
                "image": near["other"],
                "copy_of": near["image_id"],
                "kind": near["orientation"].map("near-duplicate, {}".format),
                "correlation": near["correlation"],
            }
        ).sort_values("correlation", ascending=False),
    ]
    table = pd.concat(rows, ignore_index=True).drop_duplicates("image", ignore_index=True)
    for name, source in (("image", EXTERNAL), ("copy_of", INTERNAL)):
        table[name] = table[name].astype(str).str.removeprefix(source + _SEPARATOR)
    splits = internal.frame.assign(image_id=internal.frame["image_id"].astype(str)).set_index("image_id")["split"]
    table.insert(2, "split", table["copy_of"].map(splits))
    return table[SHARED]
