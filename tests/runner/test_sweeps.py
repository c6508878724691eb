"""Sweeps: the trials of a grid, each run once, and their results."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from helpers import pages
from helpers.models import findings
from scanbook import cli, config, evaluation
from scanbook.errors import DataError
from scanbook.evaluation import Predictions
from scanbook.runner import sweeps
from scanbook.runner.freshness import Batch
from scanbook.runner.sweeps import page, running, table
from scanbook.runner.sweeps.grid import Grid, Result, Trial
from scanbook.runtime import machine

ROOT = Path(__file__).resolve().parents[2]
GRID = "sweep.backbones=[baseline_cnn,small_cnn] sweep.policies=[none,dihedral] sweep.seeds=2"
# what carries a trial out in place of `scanbook train`: it notes that it ran, and leaves a planted record, or fails
TRIAL = """
import csv, json, pathlib, random, sys
folder, backbone, policy, seed, record = sys.argv[1:]
with open(folder + "/ran", "a") as file:
    file.write(f"{backbone} {policy} {seed}\\n")
if pathlib.Path(folder, "broken").exists() and (backbone, policy, seed) == ("small_cnn", "none", "1"):
    sys.exit("scanbook: planted failure")
draw = random.Random(f"{backbone} {policy} {seed}")
strength = 1.5 if backbone == "small_cnn" else 0.3
with open(record[:-4] + "csv", "w") as file:
    lines = csv.writer(file)
    lines.writerow(["image_id", "group", "true", "p_a", "p_b"])
    for image in range(120):
        p = 1 / (1 + 2.718 ** -(draw.gauss(0, 1) + (strength if image % 2 else -strength)))
        lines.writerow([image, image, "ab"[image % 2], 1 - p, p])
facts = {"network": backbone + ", from scratch", "backbone": backbone, "policy": policy, "seed": int(seed)}
pathlib.Path(record).write_text(json.dumps(facts | {"epochs": 3, "log loss": 0.5, "seconds": draw.random()}))
"""


def predictions(strength: float, seed: int, count: int = 80, draw: np.random.Generator | None = None) -> Predictions:
    """A model of two classes that tells them apart by `strength`; images are the same whatever the seed."""
    images, own = draw or np.random.default_rng(0), np.random.default_rng([1, seed])
    hard = images.normal(size=count)
    y = np.arange(count) % 2
    p = 1 / (1 + np.exp(-(strength * (2 * y - 1) + hard + 0.5 * own.normal(size=count))))
    names = np.arange(count).astype(str)
    return Predictions(names, names, y, np.stack([1 - p, p], 1), ("a", "b"))


# --- differences over seeds


def test_a_difference_of_one_seed_each_is_the_paired_one() -> None:
    a, b = predictions(1.0, 1), predictions(0.3, 2)
    difference = evaluation.difference_over_seeds([a], [b], rounds=4000)
    paired = evaluation.paired_difference(a, b, "auroc", rounds=4000)
    assert difference.value == paired.value
    assert (difference.low, difference.high) == pytest.approx((paired.low, paired.high), abs=0.01)


def test_the_scatter_of_seeds_counts() -> None:
    """Two models of one quality whose seeds scatter: the interval holds 0 in about 95 of 100 cases, and not in 60."""
    held, by_patients_alone = 0, 0
    for case in range(60):
        draw = np.random.default_rng([2, case])
        both = [
            [
                predictions(strength, 1000 * case + 10 * side + seed, 200, np.random.default_rng([3, case]))
                for seed, strength in enumerate(0.8 + 0.35 * draw.normal(size=3))
            ]
            for side in range(2)
        ]
        difference = evaluation.difference_over_seeds(*both, metric="auroc", rounds=100)
        held += not difference.clear
        one = evaluation.paired_difference(both[0][0], both[1][0], "auroc", rounds=100)
        by_patients_alone += not one.clear
    assert 0.90 <= held / 60 <= 1.0
    assert by_patients_alone / 60 < 0.75


def test_a_lone_seed_is_taken_to_scatter_as_the_others_do() -> None:
    many, one = [predictions(strength, seed) for seed, strength in enumerate((0.2, 1.0, 1.8))], [predictions(2.2, 9)]
    difference = evaluation.difference_over_seeds(one, many, rounds=200)
    values = [evaluation.METRICS["auroc"].point(model) for model in many]
    assert (difference.high - difference.low) / 2 > 2 * np.std(values, ddof=1) * np.sqrt(1 + 1 / 3)
    assert not difference.clear


def test_a_clear_difference_is_found_and_its_sign_is_that_of_a() -> None:
    better, worse = ([predictions(strength, seed) for seed in range(3)] for strength in (2.5, 0.2))
    assert evaluation.difference_over_seeds(better, worse).low > 0
    back = evaluation.difference_over_seeds(worse, better)
    assert back.high < 0 and back.p_value < 0.01
    same = evaluation.difference_over_seeds(better[:1], better[:1])
    assert (same.value, same.low, same.high, same.p_value) == (0, 0, 0, 1)


def test_models_of_other_images_are_refused() -> None:
    with pytest.raises(DataError, match="no model to compare"):
        evaluation.difference_over_seeds([], [predictions(1, 1)])
    with pytest.raises(DataError):
        evaluation.difference_over_seeds([predictions(1, 1)], [predictions(1, 1, count=60)])


# --- the grid


def batch(overrides: str = GRID) -> Batch:
    return Batch(config.load("synthetic", overrides=overrides), overrides)


def test_the_grid_is_the_studys(project: Path) -> None:
    assert [(trial.backbone, trial.policy, trial.seed) for trial in Grid(batch()).records] == [
        *[("baseline_cnn", "none", 0), ("baseline_cnn", "none", 1)],
        *[("baseline_cnn", "dihedral", 0), ("baseline_cnn", "dihedral", 1)],
        *[("small_cnn", "none", 0), ("small_cnn", "none", 1)],
        *[("small_cnn", "dihedral", 0), ("small_cnn", "dihedral", 1)],
    ]
    default = Grid(batch("seed=5"))
    study = default.batch.study
    assert {trial.backbone for trial in default.records} == set(study.backbones)
    assert {trial.policy for trial in default.records} == {"none", study.augmentation}
    assert {trial.seed for trial in default.records} == {5, 6}


def test_a_trial_is_one_process_unless_a_launcher_says_otherwise(project: Path) -> None:
    grid, trial = Grid(batch()), Trial("small_cnn", "none", 1)
    here, launched = (cli._parser().parse_args(grid.command(trial, launched)[3:]) for launched in (False, True))
    assert (here.distribute, launched.distribute) == ("none", "auto")
    for options in (here, launched):
        assert (options.backbone, options.policy, options.seed) == ("small_cnn", "none", 1)
        assert options.record == str(grid.records[trial]) and options.set == GRID


def test_a_record_is_of_one_trial_and_of_what_it_depends_on(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trial, other = Trial("small_cnn", "none", 0), Trial("small_cnn", "none", 1)
    record = Grid(batch()).records[trial]
    assert Grid(batch()).records[other] != record
    assert Grid(batch(f"{GRID} sweep.seeds=7 augmentation=xray backbones=[vgg16] seeds=2")).records[trial] == record
    assert Grid(batch(f"{GRID} image_size=80")).records[trial] != record
    assert Grid(batch(f"{GRID} scratch.epochs=9")).records[trial] != record
    monkeypatch.setattr(machine, "version", lambda name: "0")
    assert Grid(batch()).records[trial] != record


def test_every_trial_runs_once_and_a_failed_one_again(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    (project / "trial.py").write_text(TRIAL)

    def command(grid: Grid, trial: Trial, launched: bool) -> list[str]:
        grid.records[trial].parent.mkdir(parents=True, exist_ok=True)
        words = (trial.backbone, trial.policy, str(trial.seed), str(grid.records[trial]))
        return [sys.executable, str(project / "trial.py"), str(project), *words]

    monkeypatch.setattr(Grid, "command", command)
    monkeypatch.setattr(running, "_without_weights", lambda study, trials: {})  # asks a process that imports Keras
    launcher = project / "launcher"
    launcher.write_text(f'#!/bin/sh\necho x >> "{project}/launched"\nexec "$@"\n')
    launcher.chmod(0o755)
    (project / "broken").touch()

    assert not sweeps.run(batch(), 2, str(launcher))
    errors = capsys.readouterr().err
    assert "synthetic/smoke: 8 of 8 trials to run" in errors and "scanbook: planted failure" in errors
    assert (
        "7 of 8 trials run in" in errors
        and "not done: small_cnn, none, seed 1. The lines above have the reasons" in errors
    )
    ran = (project / "ran").read_text().split("\n")[:-1]
    assert len(ran) == len(set(ran)) == 8 == len((project / "launched").read_text().split())
    seeds = [name.split()[-1] for name in running._plan(Grid(batch()), list(Grid(batch()).records), "")]
    assert seeds == ["0"] * 4 + ["1"] * 4, "each configuration is trained once before any is repeated"
    folder = Grid(batch()).folder
    shown = (folder / "index.html").read_text()
    assert "1 trials are not done" in shown and "small_cnn, none, seed 1" in shown

    (project / "broken").unlink()
    assert sweeps.run(batch(), 2)
    assert "1 of 8 trials to run" in capsys.readouterr().err
    assert (project / "ran").read_text().split("\n")[8:-1] == ["small_cnn none 1"]
    results = json.loads((folder / "results.json").read_text())
    assert (
        results["failed"] == []
        and [configuration["backbone"] for configuration in results["configurations"][:2]] == ["small_cnn"] * 2
    )
    best, _, third, _ = results["configurations"]
    assert best["behind"] is None and third["behind"][1] > 0, "planted: baseline_cnn is behind"
    assert "Not clearly different from it: 1 of the 3 others (small_cnn" in (folder / "index.html").read_text()
    assert len(pd.read_csv(folder / "trials.csv")) == 8
    before = (folder / "results.json").read_bytes()

    assert sweeps.run(batch(f"{GRID} sweep.seeds=3"), 2)
    assert len((project / "ran").read_text().split("\n")) == 8 + 1 + 4 + 1, "a grid that grows keeps what it has"
    assert sweeps.run(batch(), 2) and (folder / "results.json").read_bytes() == before
    assert len(list((folder / "trials").glob("*.json"))) == 12, "and may shrink and grow again"
    damaged = Grid(batch()).records[Trial("small_cnn", "none", 0)]
    damaged.with_suffix(".csv").write_text("nothing")
    Grid(batch()).records[Trial("small_cnn", "none", 1)].write_text("")
    assert sweeps.run(batch(), 2) and (folder / "results.json").read_bytes() == before
    assert sorted((project / "ran").read_text().split("\n")[-3:-1]) == ["small_cnn none 0", "small_cnn none 1"]
    index = (project / "reports" / "index.html").read_text()
    assert '<a href="synthetic/smoke/sweep/index.html">synthetic, smoke</a>' in index
    pages.check_file(folder / "index.html")


@pytest.mark.cluster
def test_backbones_without_weights_are_excluded(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(Grid, "command", lambda grid, trial, launched: pytest.fail("no trial may run"))
    assert sweeps.run(batch("sweep.backbones=[vgg16] weights=none"), 1)
    assert "excluded: no pretrained weights for vgg16: the study sets weights to none" in capsys.readouterr().err
    shown = (Grid(batch()).folder / "index.html").read_text()
    assert "No trial is done." in shown and "Excluded: no pretrained weights for vgg16" in shown
    pages.check_file(Grid(batch()).folder / "index.html")


def test_the_key_result_of_one_configuration_and_of_grades(project: Path) -> None:
    ordered = config.load("synthetic", overrides="evaluation.ordered=true")
    assert table.metrics(ordered, [])[0] == "kappa"
    facts = {"network": "small_cnn, from scratch", "seconds": 1.0}
    results = [Result(Trial("small_cnn", "none", seed), facts, predictions(1, seed)) for seed in range(2)]
    [only] = table.standings(ordered, results)
    assert only.behind is None and only.sd("kappa") > 0
    assert table.key_result([only]).startswith("Best on validation: small_cnn, from scratch, augmentation none, qua")
    assert np.isnan(table.standings(ordered, results[:1])[0].sd("kappa"))


def test_without_validation_images_of_a_class_no_configuration_is_the_best(project: Path) -> None:
    facts = {"network": "small_cnn, from scratch", "seconds": 1.0, "log loss": 0.5, "epochs": 2, "policy": "none"}
    results = []
    for seed in range(2):
        for backbone in ("small_cnn", "baseline_cnn"):
            whole = predictions(1, seed)
            of = facts | {"backbone": backbone, "seed": seed}
            results.append(Result(Trial(backbone, "none", seed), of, whole.subset(whole.y_true != 0)))
    grid = Grid(batch())
    standings = table.standings(grid.batch.study, results)
    assert "No configuration is best: macro AUROC is not defined" in table.key_result(standings)
    shown = page.write(grid, results, [], {}).read_text()
    assert "not defined" in shown and ">nan" not in shown and " nan" not in shown


def test_findings_are_swept_by_macro_auroc(project: Path) -> None:
    facts = {"network": "net", "seconds": 1.0, "log loss": 0.5, "epochs": 2, "policy": "none"}
    results = []
    for backbone, skill in (("baseline_cnn", 0.5), ("small_cnn", 2.0)):
        for seed in range(2):
            path = project / f"{backbone}{seed}.csv"
            findings(skill=skill, seed=seed).save(path)
            of = facts | {"backbone": backbone, "seed": seed}
            results.append(Result(Trial(backbone, "none", seed), of, evaluation.load_predictions(path)))
    grid = Grid(batch())
    standings = table.standings(grid.batch.study, results)
    assert [standing.configuration[0] for standing in standings] == ["small_cnn", "baseline_cnn"]
    assert list(standings[0].values) == ["auroc", "auprc"] and standings[1].behind.low > 0
    assert "Best on validation: net, augmentation none, macro AUROC 0.9" in table.key_result(standings)
    assert "Macro AUPRC" in page.write(grid, results, [], {}).read_text()
