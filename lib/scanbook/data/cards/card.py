"""The dataset card, in the format of Hugging Face: YAML front matter, then Markdown."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from scanbook import runtime
from scanbook.config import Study
from scanbook.data import adapters, presence, quality, splits
from scanbook.data.cards.claims import claimed_splits, claims, comparison_note
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


def of_study(study: Study, dataset: splits.SplitDataset) -> str:
    """Return the dataset card of a study; measurements that the store holds are not repeated.

    Args:
        study: The study.
        dataset: Its images with their splits, as its notebooks use them.
    """
    listed = adapters.load(study)
    scanned, manifest = dataset.quality, dataset.manifest
    return dataset_card(
        study,
        listed,
        dataset,
        flagged=quality.flags(scanned),
        exact=quality.exact_copies(scanned),
        near=quality.across_splits(quality.near_copies(listed), manifest),
        differing=quality.label_differences(quality.properties(scanned, manifest), manifest),
        shortcuts=quality.label_shortcuts(scanned, manifest, study.seed),
    )


def dataset_card(
    study: Study,
    listed: Manifest,
    dataset: splits.SplitDataset,
    *,
    flagged: pd.DataFrame,
    exact: pd.DataFrame,
    near: pd.DataFrame,
    differing: pd.DataFrame,
    shortcuts: pd.DataFrame,
) -> str:
    """Return the dataset card of a study's images.

    Args:
        study: The study.
        listed: Its images as the adapter listed them.
        dataset: The images with their splits.
        flagged: The result of `quality.flags`.
        exact: The result of `quality.exact_copies`.
        near: The result of `quality.across_splits`.
        differing: The result of `quality.label_differences`.
        shortcuts: The result of `quality.label_shortcuts`.

    Returns:
        Markdown with YAML front matter (`pretty_name`, `license`, `task_categories`, `task_ids`, `size_categories`,
        `tags`), as https://huggingface.co/docs/hub/datasets-cards describes.
    """
    manifest, readable = dataset.manifest, dataset.quality[dataset.quality["error"] == ""]
    frame, source = manifest.frame, study.dataset
    tints = quality.label_tints(quality.properties(dataset.quality, manifest), manifest)
    bias = (
        quality.label_difference_sentences(differing, manifest, small=False),
        quality.tint_sentences(tints),
        quality.label_shortcut_sentences(shortcuts, manifest),
    )
    layout = f", in the layout of {source.source}" if source.source else ""
    values = {
        "front": _front_matter(study, len(frame), "label" if manifest.findings else "class"),
        "name": _name(study),
        "study": study,
        "source": f"synthetic, by scanbook{layout}" if study.on_stand_in else source.source or "not stated",
        "licence": study.licence or "not stated",
        "synthetic": study.on_stand_in or source.adapter == "synthetic",
        "images": len(frame),
        "kind": "findings" if manifest.findings else "classes",
        "names": list(map(runtime.as_markdown, manifest.names)),
        "stated": _markdown(splits.finding_counts(manifest)) if manifest.findings else "",
        "grouped": manifest.facts.get("grouped", False),
        "groups": frame["group"].nunique(),
        "notes": [*presence.notes(manifest), *manifest.facts.get("notes", ())],
        "counts": _markdown(splits.image_counts(manifest)),
        "balance": splits.balance(manifest),
        "claims": _markdown(claims(study, listed)),
        "claimed_splits": _markdown(claimed_splits(study, listed)),
        "note": comparison_note(study, listed),
        "sizes": {name: readable[name].agg(["min", "median", "max"]).astype(int) for name in ("width", "height")}
        if len(readable)
        else {},
        "formats": _frequencies(readable["format"]),
        "modes": _frequencies(readable["mode"]),
        "rules": flagged["rule"].value_counts(sort=False).to_dict(),
        "copied": len(exact),
        "copy_groups": exact["copy_group"].nunique(),
        "copy_conflicts": _conflicts(exact, manifest),
        "near": len(near),
        "near_across": int(near["across"].sum()),
        "near_conflicts": int(near["conflict"].sum()),
        "bias": [paragraph for paragraph in bias if paragraph],
        "source_splits": (listed.frame["split"] != "").any(),
        "excluded": dataset.excluded["reason"].map(_general_reason).value_counts(sort=False).to_dict(),
        "drop": study.quality.drop,
    }
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,
    )
    text = environment.get_template("dataset_card.md.j2").render(values)
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def _front_matter(study: Study, images: int, kind: str) -> str:
    """Return the metadata that Hugging Face reads, as YAML; `kind` is "class" or "label"."""
    from huggingface_hub import DatasetCardData

    values = {
        "pretty_name": _name(study),
        **licence(study),
        "task_categories": ["image-classification"],
        "task_ids": [f"multi-{kind}-image-classification"],
        "size_categories": [next((name for most, name in _SIZES if images < most), "n>10M")],
        "tags": tags(study),
    }
    return DatasetCardData(**values).to_yaml(original_order=list(values))


def licence(study: Study) -> dict[str, object]:
    """Return the licence of a study's images in the spelling of Hugging Face; an unlisted one has more keys."""
    identifier = re.sub(r"[^a-z0-9.]+", "-", study.licence.lower()).strip("-")
    if identifier in _LICENCES:
        return {"license": identifier}
    if not study.licence:
        return {"license": "unknown"}
    other = {"license": "other", "license_name": identifier[:60].strip("-")}
    return other | ({"license_link": study.dataset.source} if study.dataset.source.startswith("http") else {})


def tags(study: Study) -> list[str]:
    """Return search words of the hub for the images, or for a model that was trained on them."""
    return ["medical", *([study.modality] if study.modality else [])]


def _name(study: Study) -> str:
    return f"{study.title} (synthetic images that stand in for it)" if study.on_stand_in else study.title


def _general_reason(reason: str) -> str:
    """Return the reason without the part that applies to one image only."""
    rule, _, rest = reason.partition(":")
    return rule.replace("_", " ") if rest else reason


def _conflicts(exact: pd.DataFrame, manifest: Manifest) -> int:
    """Return the number of groups of exact copies whose labels differ."""
    copy_group = quality.copy_groups(manifest.frame, exact)
    return copy_group[presence.conflicts(manifest, copy_group).any(axis=1)].nunique()


def _frequencies(column: pd.Series) -> str:
    """Return how often each value occurs, in words: "JPEG (9,800), PNG (200)"."""
    counts = column.replace("", "unknown").value_counts()
    return ", ".join(f"{name} ({count:,})" for name, count in counts.items())


def _markdown(table: pd.DataFrame) -> str:
    """Return a table of counts, and of names, in Markdown; "" where it has no row."""
    if table.empty:
        return ""
    head = [runtime.as_markdown(str(name)) for name in (table.index.name or "", *table.columns)]
    rows = [[runtime.as_markdown(str(name)), *map(_cell, row)] for name, *row in table.itertuples()]
    rule = ["---", *("---:" for _ in table.columns)]
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, rule, *rows])


def _cell(value: object) -> str:
    if isinstance(value, str):
        return runtime.as_markdown(value)
    return "" if pd.isna(value) else f"{value:,.0f}"
