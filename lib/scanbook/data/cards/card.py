"""The dataset card, in the format of Hugging Face: YAML front matter, then Markdown."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd
import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from scanbook.config import Study
from scanbook.data import adapters, quality, splits
from scanbook.data.cards.claims import claimed_splits, claims, comparable
from scanbook.data.manifest import Manifest

# identifiers of https://huggingface.co/docs/hub/repositories-licenses for the licences that studies name
_LICENCES = (
    *("apache-2.0", "mit", "cc0-1.0", "cc-by-4.0", "cc-by-sa-4.0", "cc-by-nc-4.0", "cc-by-nc-sa-4.0"),
    *("cc-by-nc-nd-4.0", "cc-by-nd-4.0", "odbl", "pddl", "unknown"),
)
_SIZES = (
    (1_000, "n<1K"),
    (10_000, "1K<n<10K"),
    (100_000, "10K<n<100K"),
    (1_000_000, "100K<n<1M"),
    (10_000_000, "1M<n<10M"),
)


def of_study(study: Study) -> str:
    """The dataset card of a study, from all that `dataset_card` needs; what the store has is not measured again."""
    listed, split = adapters.load(study), splits.make(study)
    statistics = quality.properties(split.quality, split.manifest)
    return dataset_card(
        study,
        listed,
        split,
        flagged=quality.flags(split.quality),
        exact=quality.exact_copies(split.quality),
        near=quality.across_splits(quality.near_copies(listed), split.manifest),
        differing=quality.differences(statistics, listed.classes),
        shortcuts=quality.shortcuts(split.quality, split.manifest, study.seed),
    )


def dataset_card(
    study: Study,
    listed: Manifest,
    split: splits.Split,
    *,
    flagged: pd.DataFrame,
    exact: pd.DataFrame,
    near: pd.DataFrame,
    differing: pd.DataFrame,
    shortcuts: pd.DataFrame,
) -> str:
    """The dataset card of a study's images.

    Args:
        study: The study.
        listed: Its images as the adapter listed them.
        split: Them with their parts.
        flagged: What `quality.flags` found.
        exact: What `quality.exact_copies` found.
        near: What `quality.across_splits` says of the near-duplicates.
        differing: What `quality.differences` found.
        shortcuts: What `quality.shortcuts` found.

    Returns:
        Markdown with YAML front matter (`pretty_name`, `license`, `task_categories`, `task_ids`, `size_categories`,
        `tags`), as https://huggingface.co/docs/hub/datasets-cards describes.
    """
    manifest, readable = split.manifest, split.quality[split.quality["error"] == ""]
    frame, source = manifest.frame, study.dataset
    left = split.excluded.assign(why=split.excluded["why"].map(_cause)).groupby("why", sort=False).size()
    sizes = {name: readable[name] for name in ("width", "height")}
    tints = quality.tints(quality.properties(split.quality, manifest), manifest.classes)
    bias = quality.difference_sentences(differing), quality.tint_sentences(tints), quality.shortcut_sentences(shortcuts)
    drawn_after = f", in the layout of {source.source}" if source.source else ""
    values = {
        "front": yaml.safe_dump(_front(study, len(frame)), sort_keys=False, allow_unicode=True).strip(),
        "name": _name(study),
        "study": study,
        "source": f"drawn by scanbook{drawn_after}" if study.on_stand_in else source.source or "not stated",
        "licence": study.licence or "not stated",
        "synthetic": study.on_stand_in or source.adapter == "synthetic",
        "images": len(frame),
        "classes": manifest.classes,
        "grouped": manifest.facts.get("grouped", False),
        "groups": frame["group"].nunique(),
        "notes": manifest.facts.get("notes", ()),
        "counts": _markdown(splits.table(manifest)),
        "balance": splits.balance(manifest),
        "claims": _markdown(claims(study, listed)),
        "claimed_splits": _markdown(claimed_splits(study, listed)),
        "incomparable": comparable(study, listed),
        "sizes": {name: (int(each.min()), int(each.median()), int(each.max())) for name, each in sizes.items()}
        if len(readable)
        else {},
        "formats": _shares(readable["format"]),
        "modes": _shares(readable["mode"]),
        "rules": flagged["rule"].value_counts(sort=False).to_dict(),
        "copied": len(exact),
        "copy_groups": exact["copy_group"].nunique(),
        "copy_conflicts": _conflicts(exact, frame),
        "near": len(near),
        "near_across": int(near["across"].sum()),
        "near_conflicts": int(near["conflict"].sum()),
        "bias": [each for each in bias if each],
        "given": (listed.frame["split"] != "").any(),
        "left": left.to_dict(),
        "drop": study.quality.drop,
    }
    loader = FileSystemLoader(Path(__file__).parent)
    template = Environment(
        loader=loader, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, autoescape=False
    )
    text = template.get_template("dataset_card.md.j2").render(values)
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def _front(study: Study, images: int) -> dict[str, object]:
    """Metadata that Hugging Face reads."""
    size = next((name for most, name in _SIZES if images < most), "n>10M")
    return {
        "pretty_name": _name(study),
        **licence(study),
        "task_categories": ["image-classification"],
        "task_ids": ["multi-class-image-classification"],
        "size_categories": [size],
        "tags": tags(study),
    }


def licence(study: Study) -> dict[str, object]:
    """The licence of a study's images as Hugging Face's hub spells it: `license`, and for an unlisted one more keys."""
    named = re.sub(r"[^a-z0-9.]+", "-", study.licence.lower()).strip("-")
    if named in _LICENCES:
        return {"license": named}
    if not study.licence:
        return {"license": "unknown"}
    linked = study.dataset.source.startswith("http")
    other = {"license": "other", "license_name": named[:60].strip("-")}
    return other | ({"license_link": study.dataset.source} if linked else {})


def tags(study: Study) -> list[str]:
    """Words by which the hub finds the images, or a model that was trained on them."""
    return ["medical", *([study.modality] if study.modality else [])]


def _name(study: Study) -> str:
    return f"{study.title} (synthetic images that stand in for it)" if study.on_stand_in else study.title


def _cause(why: str) -> str:
    """A reason without what is of one image alone."""
    rule, _, rest = why.partition(":")
    return rule.replace("_", " ") if rest else why


def _conflicts(exact: pd.DataFrame, frame: pd.DataFrame) -> int:
    labels = exact["image_id"].map(frame.set_index("image_id")["label"])
    return int((labels.groupby(exact["copy_group"]).nunique() > 1).sum())


def _shares(column: pd.Series) -> str:
    """How often each value occurs, in words: "JPEG (9,800), PNG (200)"."""
    counts = column.where(column != "", "not told").value_counts()
    return ", ".join(f"{name} ({count:,})" for name, count in counts.items())


def _markdown(table: pd.DataFrame) -> str:
    """A table of counts in Markdown; "" where it has no row."""
    if table.empty:
        return ""
    head = [str(table.index.name or ""), *map(str, table.columns)]
    rows = [
        [str(name), *("" if pd.isna(cell) else f"{cell:,.0f}" for cell in row)] for name, *row in table.itertuples()
    ]
    rule = ["---", *("---:" for _ in table.columns)]
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in [head, rule, *rows])
