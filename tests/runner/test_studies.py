"""The published studies, their notebooks in smoke: each on its stand-in, and one on real images."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from queue import SimpleQueue

import psutil
import pytest
from bs4 import BeautifulSoup

from helpers import pages, settings
from helpers.layouts import write_image
from helpers.studies import (
    ROOT,
    Done,
    check_all_classes,
    environment,
    keras_home,
    pinned,
    results,
    run,
    unpack_images,
)
from scanbook.reporting.suite import BENCHMARK

pytestmark = pytest.mark.slow
Job = Callable[[Path, int], Done]
"""What runs in a folder, on a core; returns how its last command ended."""


def notebooks(names: Iterable[str], study: str, *options: str) -> list[list[str]]:
    """Return the commands that run some notebooks of a study in smoke, one after the other."""
    command = [str(ROOT / ".venv" / "bin" / "scanbook"), "run"]
    return [[*command, name, "--study", study, "--profile", "smoke", *options] for name in names]


def run_in_turn(commands: Sequence[Sequence[str]], folder: Path, core: int, **variables: str) -> Done:
    """Run commands that follow each other until one fails."""
    for words in commands:
        done = run(*words, folder=folder, core=core, **variables)
        if done.returncode:
            break
    return done


def run_side_by_side(jobs: dict[str, Job], folders: dict[str, Path]) -> dict[str, Done]:
    """Run two jobs at a time, each on a core of its own: side by side on all cores they would be slower."""
    cores = sorted(os.sched_getaffinity(0))[:2] if hasattr(os, "sched_getaffinity") else [0, 1]
    free: SimpleQueue[int] = SimpleQueue()
    for core in cores:
        free.put(core)

    def work(name: str) -> Done:
        core = free.get()
        try:
            return jobs[name](folders[name], core)
        finally:
            free.put(core)

    with ThreadPoolExecutor(len(cores)) as pool:
        return dict(zip(jobs, pool.map(work, jobs), strict=True))


STAND_INS = {
    "dermnet": ("01_eda",),  # after 07, which runs alone
    "melanoma": ("01_eda", "02_segmentation", "05_fine_tuning", "07_export_flask"),
    "chest_xray": ("01_eda", "07_export_flask"),
    "retinopathy": ("01_eda", "05_fine_tuning", BENCHMARK, "07_export_flask"),
    "skin11": ("01_eda", "04_transfer_learning", "05_fine_tuning"),
    "chestxray14": ("01_eda", "05_fine_tuning", "07_export_flask", "09_pitfalls"),
    "chexpert": ("01_eda", "05_fine_tuning", "07_export_flask"),
}
"""Notebooks of each published study; the default study, and class folders of real images, give all reports."""
ALONE, REPEATED = "dermnet", "skin11"
AGAIN = f"{REPEATED} again"
TRAINS = "05_fine_tuning"
"""The notebook that is killed and repeated; other tests repeat a U-Net (test_unet.py) and a sweep (test_cluster.py)."""
SIX_EPOCHS = ("--set", "fine_tuning.epochs=6")
TABLE = "ham10000"
ON_A_TABLE = ("01_eda", "05_fine_tuning")
"""Notebooks that see what a table has and class folders have not: groups and metadata; test_ham10000.py sees masks."""


KNOWN = "chestxray14 in quick"
"""The study whose best possible AUROCs are known, trained long enough to reach them."""

DEFAULT, OTHER_SETTINGS = "synthetic", "synthetic with settings"
SENSITIVE = ("04_transfer_learning",)
"""Notebooks of the default study that a user with settings of nearly every library runs, too."""


def run_with_settings(folder: Path, core: int) -> Done:
    """Run what trains and draws in the home of such a user."""
    variables = settings.all_at_once(folder / "home")
    return run_in_turn(notebooks(SENSITIVE, DEFAULT), folder, core, **variables)


ODD = "folder"
ODD_CLASSES = (
    *(
        "cost $\\frac$",
        "$x_1$ 5$",
        "<b>|*_`q`",
        "two\nlines",
        "日本 病変",
        "ورم",
        "n" * 200,
        "nan",
        "1e3",
        "all",
        "groups",
    ),
    *(f"species {number}" for number in range(40)),
)


def run_on_odd_names(folder: Path, core: int) -> Done:
    """Run notebooks on many classes of odd names, one with a file whose name is not UTF-8, in a locale without it."""
    for number, name in enumerate(ODD_CLASSES):
        for image in range(10):
            write_image(folder / "images" / name / f"{image}.png", 10 * number + image)
    os.rename(folder / "images" / "nan" / "0.png", os.fsencode(folder / "images" / "nan") + b"/caf\xe9.png")
    commands = notebooks(("01_eda", "05_fine_tuning"), ODD, "--data", str(folder / "images"))
    return run_in_turn(commands, folder, core, LC_ALL="C", PYTHONIOENCODING="ascii")


def run_until_known(folder: Path, core: int) -> Done:
    """Run fine-tuning on synthetic findings in quick, with smaller images and fewer epochs."""
    words = [str(ROOT / ".venv" / "bin" / "scanbook"), "run", TRAINS, "--study", "chestxray14", "--profile", "quick"]
    shorter = "image_size=96 fine_tuning.epochs=14 evaluation.robustness_images=24"
    return run(*words, "--set", shorter, folder=folder, core=core)


def run_alone(folder: Path, core: int) -> Done:
    """Run a copy of notebook 07 in another folder, with an empty store, as Jupyter does; then the other notebooks."""
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir()
    copy = elsewhere / "07_export_flask.ipynb"
    source = (ROOT / "notebooks" / copy.name).read_text(encoding="utf-8")
    copy.write_text(source.replace('STUDY = \\"synthetic\\"', f'STUDY = \\"{ALONE}\\"'), encoding="utf-8")
    words = [str(ROOT / ".venv/bin/python"), "-m", "nbconvert", "--to", "notebook", "--execute", "--inplace", str(copy)]
    done = run(*words, folder=folder, core=core, cwd=elsewhere, SCANBOOK_PROFILE="smoke")
    return done if done.returncode else run_in_turn(notebooks(STAND_INS[ALONE], ALONE), folder, core)


def run_again(folder: Path, core: int) -> Done:
    """Run what trains once more; all its processes are killed in the middle of fine-tuning, and it goes on."""
    [tuning] = notebooks([TRAINS], REPEATED, *SIX_EPOCHS)
    words, pipes = [*pinned(core), *tuning], {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    killed = subprocess.Popen(words, cwd=ROOT, env=environment(folder), **pipes)
    tuned, until = folder / "store" / "fine_tuning", time.monotonic() + 600
    while not list(tuned.glob(".*-checkpoint/all.npz")) and time.monotonic() < until:
        assert killed.poll() is None, killed.stdout.read()
        time.sleep(0.01)
    kill_all(killed)
    assert list(tuned.glob(".*-checkpoint/all.npz")), "it was to be killed in the middle"
    assert [path for path in tuned.iterdir() if path.is_dir() and not path.name.startswith(".")] == []
    return run(*tuning, folder=folder, core=core)


def kill_all(process: subprocess.Popen[str]) -> None:
    """Kill a command and every kernel below it, as when a machine loses power."""
    family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    for member in family:
        member.send_signal(signal.SIGKILL)
    psutil.wait_procs(family)
    process.communicate()


@pytest.fixture(scope="module")
def side_by_side(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Done]]:
    """Every published study on its stand-in, what one of them trains again, and a real dataset where there is one.

    And the default study, with and without settings of a user.

    The folder of each, and how its last command ended.
    """
    jobs: dict[str, Job] = {}
    for study, names in STAND_INS.items():
        options = SIX_EPOCHS if study == REPEATED else ()
        jobs[study] = partial(run_in_turn, notebooks(names, study, *options))
    jobs |= {ALONE: run_alone, AGAIN: run_again}
    jobs |= {DEFAULT: partial(run_in_turn, notebooks(SENSITIVE, DEFAULT)), OTHER_SETTINGS: run_with_settings}
    jobs |= {ODD: run_on_odd_names, KNOWN: run_until_known}
    folders = {name: tmp_path_factory.mktemp(name.replace(" ", "_")) for name in (*jobs, TABLE)}
    if os.environ.get("SCANBOOK_REAL_DATA"):
        images = unpack_images("ham10000_200x150.zip", folders[TABLE] / "images")
        commands = notebooks(ON_A_TABLE, TABLE, "--data", str(images))
        jobs[TABLE] = partial(run_in_turn, commands, KERAS_HOME=keras_home(folders[TABLE]))
    return {name: (folders[name], done) for name, done in run_side_by_side(jobs, folders).items()}


@pytest.mark.parametrize("study", STAND_INS)
def test_a_published_study_runs_on_its_stand_in(study: str, side_by_side: dict[str, tuple[Path, Done]]) -> None:
    folder, done = side_by_side[study]
    assert done.returncode == 0, done.stdout + done.stderr
    by_notebook = results(folder, study, "smoke", STAND_INS[study])
    if "07_export_flask" in by_notebook:
        assert by_notebook["07_export_flask"]["parity"]["HTTP"] is True
    faults = by_notebook["01_eda"]["planted_faults"]
    for kind in ("unreadable", "exact duplicates", "near duplicates"):
        assert faults[kind]["found"] == faults[kind]["planted"] > 0, kind
    reports = folder / "reports" / study / "smoke"
    for name in STAND_INS[study]:
        assert "synthetic images that stand in for the real ones" in (reports / name / "report.html").read_text()
    assert (reports / "01_eda" / "dataset_card.md").is_file()
    assert "this run uses synthetic ones" in (reports / "index.html").read_text()
    pages.check_reports(folder / "reports", len(STAND_INS[study]), axe=study == "chexpert")


def test_a_notebook_runs_alone_from_any_directory(side_by_side: dict[str, tuple[Path, Done]]) -> None:
    folder, done = side_by_side[ALONE]
    assert done.returncode == 0, done.stderr
    run_notebook = json.loads((folder / "elsewhere" / "07_export_flask.ipynb").read_text())
    assert any(cell.get("outputs") for cell in run_notebook["cells"])
    assert results(folder, ALONE, "smoke", ["07_export_flask"])["07_export_flask"]["parity"]["HTTP"] is True


def test_training_that_was_killed_goes_on_to_identical_results(side_by_side: dict[str, tuple[Path, Done]]) -> None:
    """Two runs with one seed give identical results, though one of them was killed while it fine-tuned."""
    folder, done = side_by_side[AGAIN]
    assert done.returncode == 0, done.stdout + done.stderr
    report = (folder / "reports" / REPEATED / "smoke" / TRAINS / "report.html").read_text()
    assert "fine-tuned: continues after epoch" in report and "epoch 6/6" in report
    assert "epoch 1/6" not in report, "trained again"
    assert not list((folder / "store" / "fine_tuning").glob(".*-checkpoint"))
    folders = [side_by_side[name][0] / "reports" / REPEATED / "smoke" / TRAINS for name in (REPEATED, AGAIN)]
    first, second = ((run_folder / "results.json").read_bytes() for run_folder in folders)
    assert first == second


def test_runs_are_compared(side_by_side: dict[str, tuple[Path, Done]], tmp_path: Path) -> None:
    """Of one seed, which differ by nothing; and a study of findings, of which AUROC alone is shared."""
    places = [side_by_side[name][0] / "reports" / REPEATED / "smoke" / TRAINS for name in (REPEATED, AGAIN)]
    places.append(side_by_side["chexpert"][0] / "reports" / "chexpert" / "smoke" / TRAINS)
    command = [str(ROOT / ".venv" / "bin" / "scanbook"), "compare", *map(str, places)]
    done = run(*command, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    page = Path(done.stdout.strip())
    content = json.loads(page.with_name("results.json").read_text())
    again, other = content["differences"].values()
    assert again["paired"] and not other["paired"], (again["why"], other["why"])
    assert {tuple(gap) for gap in (again["brier"], again["ece"])} == {(0, 0, 0)}
    assert "predicts classes" in other["why"] and other["auroc"][0] is not None
    assert {file.stem for file in page.parent.glob("*.svg")} >= {"learning_curves", "roc", "reliability"}
    pages.check_file(page)
    assert "NaN" not in page.with_name("results.json").read_text()


def test_no_setting_of_a_user_changes_a_result(side_by_side: dict[str, tuple[Path, Done]]) -> None:
    """Nor a figure, where it shows no measured time."""
    for name in (DEFAULT, OTHER_SETTINGS):
        assert side_by_side[name][1].returncode == 0, side_by_side[name][1].stdout + side_by_side[name][1].stderr
    first, second = (side_by_side[name][0] / "reports" / DEFAULT / "smoke" for name in (DEFAULT, OTHER_SETTINGS))
    for name in SENSITIVE:
        files = ["results.json", *(f"figures/{path.name}" for path in (first / name / "figures").iterdir())]
        assert len(files) > 3
        for file in files:
            same = (first / name / file).read_bytes() == (second / name / file).read_bytes()
            assert same or file == "figures/by_time.svg", file


def test_many_classes_of_any_name_go_all_the_way(side_by_side: dict[str, tuple[Path, Done]]) -> None:
    folder, done = side_by_side[ODD]
    assert done.returncode == 0, done.stdout + done.stderr
    counted, tuned = results(folder, ODD, "smoke", ["01_eda", "05_fine_tuning"]).values()
    assert counted["splits"]["all"]["all"] == 10 * len(ODD_CLASSES)
    assert len(tuned["per_class"]) == len(ODD_CLASSES) + 2
    reports = folder / "reports" / ODD / "smoke"
    page = BeautifulSoup((reports / "01_eda" / "report.html").read_bytes(), "html.parser")
    rows = [cell.get_text() for cell in page.select("table[data-name=splits] tbody th")]
    assert {name.replace("\n", "\\n") for name in ODD_CLASSES} <= set(rows)
    key = page.select_one("#figure-examples .key")  # none where a font has the characters
    assert key is None or "日本 病変" in key.get_text()
    assert (reports / "05_fine_tuning" / "tables" / "confusions.csv").is_file()
    pages.check_reports(folder / "reports", 2)


def test_the_best_possible_auroc_of_each_finding_is_nearly_reached(side_by_side: dict[str, tuple[Path, Done]]) -> None:
    """It lies in the interval of the network's AUROC, or .015 above: this training is shorter than that of quick."""
    folder, done = side_by_side[KNOWN]
    assert done.returncode == 0, done.stdout + done.stderr
    tuned = results(folder, "chestxray14", "quick", [TRAINS])[TRAINS]
    known = tuned["bayes_auroc"]
    assert len(known) == 8 and all(0.9 < area < 1 for area in known.values())
    for finding, area in known.items():
        row = tuned["per_finding"][finding]
        assert row["auroc_low"] <= area <= row["auroc_high"] + 0.015, (finding, area, row)


def test_an_exam_has_an_answer_of_its_own(side_by_side: dict[str, tuple[Path, Done]]) -> None:
    folder, done = side_by_side["chexpert"]
    assert done.returncode == 0, done.stdout + done.stderr
    counted, tuned, exported = results(folder, "chexpert", "smoke", STAND_INS["chexpert"]).values()
    exams = tuned["exams"]["counts"]
    assert 0 < exams["exams"] < exams["images"] == counted["splits"]["all"]["test"]
    assert tuned["exams"]["rule"] in ("mean", "maximum")
    described = json.loads((folder / "reports/chexpert/smoke/07_export_flask/bundle/bundle.json").read_text())
    assert described["exam"]["rule"] == tuned["exams"]["rule"]
    assert list(described["findings"]) == list(tuned["operating_points"])
    for finding, point in described["operating_points"].items():
        assert point["threshold"] == pytest.approx(tuned["operating_points"][finding]["threshold"], abs=1e-4)
    assert all(agrees for place, agrees in exported["parity"].items() if place != "OpenVINO int8"), exported["parity"]


@pytest.mark.usefixtures("real_data")
def test_a_table_of_real_images_goes_all_the_way(side_by_side: dict[str, tuple[Path, Done]]) -> None:
    folder, done = side_by_side[TABLE]
    assert done.returncode == 0, done.stdout + done.stderr
    check_all_classes(folder, TABLE, 7)
