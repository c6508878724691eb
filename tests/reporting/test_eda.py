"""The exploratory analysis of findings: its figures can be read, and its sections run."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from helpers import figures
from helpers.findings import FINDINGS, ward
from scanbook.config import Splits
from scanbook.data import counts, presence, quality, splits
from scanbook.data.manifest import Manifest, finding_column
from scanbook.reporting import eda, notebook, plots


def many(k: int) -> Manifest:
    """A split dataset of k findings, some with long names, with labels missing and uncertain."""
    draw, n = np.random.default_rng(k), 600
    names = tuple(
        f"{'age-related macular degeneration ' if number % 7 == 3 else 'finding '}{number}" for number in range(k)
    )
    values = (draw.random((n, k)) < draw.uniform(0.02, 0.4, k)).astype(float)
    values[draw.random((n, k)) < 0.1], values[draw.random((n, k)) < 0.03] = np.nan, -1
    frame = pd.DataFrame({"image_id": [f"i{number}" for number in range(n)]}).assign(path="", mask_path="")
    frame = frame.assign(group=[f"p{number // 2}" for number in range(n)], split=draw.choice(["train", "test"], n))
    table = pd.DataFrame(values, columns=[finding_column(name) for name in names])
    return Manifest.of_findings("many", pd.concat([frame, table], axis=1), names)


@pytest.mark.parametrize("k", [1, 3, 40])
def test_figures_of_few_and_of_many_findings_can_be_read(k: int) -> None:
    manifest = many(k)
    images = counts.image_counts(manifest)["all"].iloc[:k]
    table, names = counts.by_label(manifest)
    areas = pd.DataFrame(
        [(name, view, 0.9 if view == "size" else 0.5) for name in manifest.findings for view in ("size", "light")],
        columns=["finding", "seen", "auc"],
    ).set_index("finding")
    drawn = {
        "counts": plots.class_counts(table, names, "finding"),
        "states": plots.label_states(counts.finding_counts(manifest)),
        "number": plots.findings_per_image(counts.findings_per_image(manifest)),
        "pairs": plots.co_occurrence(counts.co_occurrence(manifest), images),
        "areas": plots.areas_by_finding(areas, "seen", areas["auc"] > 0.6, "Shortcuts"),
    }
    for figure in drawn.values():
        figures.check(figure)
        assert max(figure.get_size_inches()) < 17
    assert "600 images" in figures.title(drawn["counts"]), "an image of several findings counts once"
    assert figures.texts(drawn["areas"])[:2] == ["0.90*", "0.50"]
    shown = len(figures.texts(drawn["pairs"]))
    assert shown == min(k, 24) * (min(k, 24) - 1), "each pair has its number; a finding has none with itself"
    assert (k > 24) == ("the 24 most frequent" in figures.title(drawn["pairs"]))


def test_empty_tables_are_a_sentence() -> None:
    empty = pd.DataFrame({"auc": [], "seen": []})
    assert "too few images" in figures.texts(plots.areas_by_finding(empty, "seen", [], "Shortcuts"))[0]
    assert "no image is labelled" in figures.texts(plots.findings_per_image(pd.DataFrame({"images": []})))[0]


def test_the_sections_of_findings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[str] = []
    monkeypatch.setattr(notebook, "_display", lambda forms: shown.append(forms["text/plain"]))
    manifest = ward(tmp_path / "images", 240, bayes_auroc={"Nodule": 0.93, "Effusion": 0.98})
    session = notebook.start("01_eda", "synthetic", "smoke")
    session.folder = tmp_path / "report"
    dataset = splits.assign(manifest, quality.scan(manifest), Splits(test_folds=3, validation_folds=5))
    exact = quality.exact_copies(dataset.quality)
    eda.show_counts(session, dataset)
    eda.show_metadata(session, dataset.manifest)
    eda.show_properties(session, dataset)
    eda.show_copies(session, dataset, exact)
    shortcuts = eda.show_shortcuts(session, dataset)
    eda.show_references(session, dataset.manifest)
    session.result("shortcuts", eda.areas(shortcuts))
    session.finish()
    results = json.loads((session.folder / "results.json").read_text())
    assert list(results["shortcuts"]) == list(FINDINGS)
    stated = manifest.stated[dataset.manifest.rows("test"), 0]
    assert results["findings"]["Nodule"]["test"]["present"] == (stated == 1).sum()
    assert results["references"]["Nodule"]["best AUROC"] == 0.93
    names = {path.stem for path in (session.folder / "figures").iterdir()}
    assert {"co_occurrence", "findings", "findings_per_image", "metadata_sex", "differences", "shortcuts"} <= names
    assert any("of the labels of training images are missing, which is not absent" in text for text in shown)


@pytest.mark.parametrize("k", [2, 5, 60])
def test_copies_under_other_labels_are_a_matrix_that_can_be_read(k: int) -> None:
    names = tuple(f"class {number}" for number in range(k))
    labels = [*names, names[0], names[0], names[1]]
    frame = pd.DataFrame({"image_id": [f"i{n}" for n in range(k + 3)], "label": labels, "path": "", "mask_path": ""})
    frame = frame.assign(group=frame["image_id"], split="train")
    # the first image of class 0 is one of class 1, too; two further images of class 0 are copies of each other
    copies = pd.Series([1.0, *[np.nan] * (k - 1), 2.0, 2.0, 1.0])
    table = presence.copied_classes(Manifest("many", frame, names), copies)
    assert list(table.index) == list(table.columns) == ["class 0", "class 1"]
    assert table.to_numpy().tolist() == [[0, 1], [1, 0]]
    none = presence.copied_classes(Manifest("many", frame, names), pd.Series(np.nan, frame.index))
    assert none.empty
    every = pd.DataFrame(np.ones((k, k), int) - np.eye(k, dtype=int), names, names)
    for figure in (plots.copied_classes(table), plots.copied_classes(every)):
        figures.check(figure)
    assert figures.texts(plots.copied_classes(table)).count("1") == 2
    shares = pd.DataFrame({"value": 0.1, "low": 0.05, "high": 0.2, "labels": 50}, pd.Index(names))
    figures.check(plots.suspected_labels(shares))
    figures.check(plots.suspected_labels(shares.assign(value=0.0, low=np.nan, high=np.nan), "finding"))
    assert "no label was checked" in figures.texts(plots.suspected_labels(shares.head(0)))[0]
