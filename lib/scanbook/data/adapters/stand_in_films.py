"""Stand-ins with findings: chest radiographs as files, and the tables and lists of splits of a dataset's layout."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score

from scanbook import runtime
from scanbook.config import StandIn, TableData
from scanbook.data.adapters.synthetic import chest, faults, films, findings
from scanbook.data.adapters.synthetic.films import Film, Share
from scanbook.data.adapters.synthetic.plan import Extras
from scanbook.data.adapters.synthetic.primitives import Rng
from scanbook.data.manifest import TEST, TRAIN, Manifest
from scanbook.store import atomic_write

_FOLDERS = 3  # a stand-in fills so many of a source's folders of images
_KIND = "xray_"


def write(folder: Path, block: StandIn, layout: TableData, extras: Extras) -> None:
    """Write the stand-in of a study of findings; the same arguments give the same bytes.

    The files lie in `dataset/`. `truth.json` states `faults` and `near_duplicate_kinds`, with paths relative to
    `dataset/`; `bayes_auroc_population` {finding: the AUROC that no model can pass, in the population};
    `odds_ratio` {finding: {another: value}}, in the population; `shares` of labels that are missing or uncertain; and
    by path `present` {finding: what the reader saw}, without gaps, and `posterior` {finding: its probability}.

    Args:
        folder: Where to write.
        block: The study's `stand_in`, with `findings`.
        layout: The study's `dataset`.
        extras: What the study does not state.
    """
    rng = np.random.default_rng([block.seed, 0])
    names = list(block.findings)
    kinds = [kind.removeprefix(_KIND) for kind in block.findings.values()]
    planned = films.plan(
        kinds,
        block.images,
        rng,
        share=Share(block.missing, block.uncertain),
        has_test=TEST in {*layout.tables.values(), *layout.split_lists},
        views=bool(layout.exam_columns),
        lateral=extras.lateral,
    )
    root = folder / "dataset"
    folders = layout.image_folders[:_FOLDERS]
    paths = [
        f"{folders[len(folders) * index // len(planned)]}/{_name(film, extras)}".removeprefix("./")
        for index, film in enumerate(planned)
    ]
    for path in {Path(path).parent for path in paths}:
        (root / path).mkdir(parents=True, exist_ok=True)
    _write_images(root, paths, planned, kinds, block)
    rows = [_row(film, path, names, layout=layout, extras=extras) for film, path in zip(planned, paths, strict=True)]
    _write_tables(root, rows, planned, layout=layout, extras=extras, rng=rng)
    for name, content in extras.other_files.items():
        (root / name).write_bytes(content)
    shown = [layout.finding_names.get(name, name) for name in names]
    truth = _truth(planned, paths, dict(zip(shown, kinds, strict=True)), block)
    atomic_write(folder / "truth.json", json.dumps(truth, indent=1) + "\n")


def synthetic_layout(block: StandIn, layout: TableData) -> TableData:
    """Return the layout with those of its findings that the stand-in has."""
    kept = {name: finding for name, finding in layout.finding_names.items() if name in block.findings}
    return layout.model_copy(update={"findings": kept})


def best_auroc(manifest: Manifest, truth: dict, ids: dict[str, str], unreadable: Collection[str]) -> dict[str, float]:
    """Return the AUROC of each finding's posterior on the test images: the best that a model can expect on them.

    Chance in the labels of so few images is the same for a model and for the posterior, so the two are better compared
    here than with the population's value. Without a test split in the source, all images count. Where a finding is
    never present or never absent, the population's value stands in.

    Args:
        manifest: The images, with the source's splits.
        truth: Content of `truth.json`.
        ids: Image id by path in the stand-in.
        unreadable: Ids of images that no model sees.
    """
    splits = manifest.frame.set_index("image_id")["split"]
    listed = [path for path, name in ids.items() if name not in unreadable]
    tested = [path for path in listed if splits[ids[path]] == TEST] or listed
    names = list(truth["bayes_auroc_population"])
    present, posterior = (
        np.array([[truth[key][path][name] for name in names] for path in tested], np.float64)
        for key in ("present", "posterior")
    )
    return {
        name: round(float(roc_auc_score(y, score)), 5) if 0 < y.mean() < 1 else truth["bayes_auroc_population"][name]
        for name, y, score in zip(names, present.T, posterior.T, strict=True)
    }


def _name(film: Film, extras: Extras) -> str:
    """Return the path of a film in its folder of images."""
    return extras.file.format(
        patient=film.patient,
        visit=film.visit,
        exam=film.visit + 1,
        view=film.view,
        side="lateral" if film.lateral else "frontal",
        split="valid" if film.test else "train",
    )


def _write_images(root: Path, paths: list[str], planned: list[Film], kinds: Sequence[str], block: StandIn) -> None:
    """Write the originals in threads, each with its copies."""
    copies: dict[int, list[int]] = {}
    for index, film in enumerate(planned):
        if film.source >= 0:
            copies.setdefault(film.source, []).append(index)

    def write_original(index: int) -> None:
        film = planned[index]
        draw: Callable = chest.render_lateral if film.lateral else chest.render
        patient_rng = np.random.default_rng([block.seed, 3, film.patient])
        severities = dict(zip(kinds, film.severities.tolist(), strict=True))
        pixels = draw(severities, patient_rng, np.random.default_rng([block.seed, 1, index]), block.size)
        data = faults.encode_with_fault(pixels, film.fault, Path(paths[index]).suffix)
        (root / paths[index]).write_bytes(data)
        for copy in copies.get(index, ()):
            copied = data
            if kind := planned[copy].near_duplicate:
                crop_rng = np.random.default_rng([block.seed, 2, copy])
                copied, _ = faults.make_near_duplicate(kind, pixels, None, crop_rng, Path(paths[copy]).suffix)
            (root / paths[copy]).write_bytes(copied)

    originals = [index for index, film in enumerate(planned) if film.source < 0]
    for _ in runtime.progress(runtime.in_threads(write_original, originals), "synthesising images", len(originals)):
        pass


def _row(film: Film, path: str, names: Sequence[str], *, layout: TableData, extras: Extras) -> dict[str, object]:
    """Return the cells of a film's row that are not empty, by column."""
    sex = {"M": "Male", "F": "Female"}[film.sex] if extras.long_sex else film.sex
    cells: dict[str, object] = {
        **dict.fromkeys(("Patient Age", "Age", "age"), film.age),
        **dict.fromkeys(("Patient Gender", "Patient Sex", "Sex", "sex"), sex),
        **{"View Position": film.position, "AP/PA": film.position, "Follow-up #": film.visit},
        "Frontal/Lateral": "Lateral" if film.lateral else "Frontal",
        **{"OriginalImage[Width": 2500, "Height]": 2048},
        **{"OriginalImagePixelSpacing[x": 0.168, "y]": 0.168},
    }
    exam = f"{film.patient}-{film.visit}"
    cells |= {name: exam for name in layout.exam_columns[:1] if name not in {*cells, layout.image_column}}
    cells |= {layout.group_column: film.patient} if layout.group_column else {}
    cells[layout.image_column] = layout.path_prefix + path if "/" in extras.file else Path(path).name
    if layout.label_separator:
        present = [name for name, value in zip(names, film.stated, strict=True) if value == 1]
        cells[layout.label_column] = layout.label_separator.join(present) or layout.no_finding
        return cells
    others = 0.0 if film.test else ""  # the test split is labelled completely
    cells |= {column: others for column in extras.columns if column not in cells and column in extras.other_findings}
    cells |= {name: "" if np.isnan(value) else value for name, value in zip(names, film.stated, strict=True)}
    if layout.no_finding:
        denied = [value == 0 or name in extras.no_disease for name, value in zip(names, film.stated, strict=True)]
        cells[layout.no_finding] = 1.0 if all(denied) and not np.isnan(film.stated).any() else others
    return cells


def _write_tables(
    root: Path,
    rows: list[dict[str, object]],
    planned: list[Film],
    *,
    layout: TableData,
    extras: Extras,
    rng: Rng,
) -> None:
    """Write the table or tables, and the lists of the images of each split."""
    table = pd.DataFrame(rows)
    columns = list(extras.columns) or list(dict.fromkeys(map(str, table)))
    table = table.reindex(columns=columns, fill_value="").fillna("")
    in_test = np.array([film.test for film in planned])
    of_split = {TRAIN: ~in_test, TEST: in_test}
    for path, split in layout.tables.items():
        rows_of_split = of_split.get(split, np.ones(len(table), bool))
        table[rows_of_split].to_csv(root / path, index=False, lineterminator="\n")
    for split, path in layout.split_lists.items():
        listed = table.loc[of_split[split], layout.image_column].to_numpy()
        (root / path).write_text("\n".join(rng.permutation(listed).tolist()), encoding="utf-8")


def _truth(planned: list[Film], paths: list[str], kinds: dict[str, str], block: StandIn) -> dict[str, object]:
    """Return what `truth.json` holds."""
    ratios: dict[str, dict[str, float]] = {name: {} for name in kinds}
    for first, second in combinations(kinds, 2):
        ratios[first][second] = ratios[second][first] = round(findings.odds_ratio(kinds[first], kinds[second]), 4)
    posterior = {
        name: findings.posterior(kind, np.array([film.severities[place] for film in planned]))
        for place, (name, kind) in enumerate(kinds.items())
    }
    conflicting = [film.source >= 0 and bool((film.present != planned[film.source].present).any()) for film in planned]
    return {
        **faults.summarise(planned, paths, conflicting),
        "tinted": [],
        "bayes_auroc_population": {name: round(findings.best_auroc(kind), 5) for name, kind in kinds.items()},
        "odds_ratio": ratios,
        "shares": {"missing": block.missing, "uncertain": block.uncertain},
        "present": {
            path: dict(zip(kinds, film.present.astype(int).tolist(), strict=True))
            for path, film in zip(paths, planned, strict=True)
        },
        "posterior": {
            path: {name: round(float(values[row]), 5) for name, values in posterior.items()}
            for row, path in enumerate(paths)
        },
    }
