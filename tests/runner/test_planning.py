"""The runs of a command, the states of reports and of the store, and the live lines of running notebooks."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rich.console import Console

from scanbook import cli, config, store
from scanbook.errors import StudyError
from scanbook.reporting import suite
from scanbook.reporting.failure import Failure
from scanbook.reporting.records import FAILURE, METRICS, NOTEBOOK, REPORT
from scanbook.runner import memory, planning, progress
from scanbook.runner.freshness import Batch, study_fingerprint
from scanbook.runtime import machine
from scanbook.store import stages

ONE = "05_fine_tuning"


def make_fresh(batch: Batch) -> None:
    """Make all reports of a study look fresh."""
    for name in suite.NOTEBOOKS:
        store.write_json(batch.folder / name / METRICS, {"fingerprints": batch.fingerprints(name)})
        (batch.folder / name / REPORT).write_text("")


def synthetic() -> Batch:
    return Batch(config.load("synthetic"))


def edit(project: Path, name: str, old: str, new: str) -> None:
    path = project / "notebooks" / f"{name}.ipynb"
    path.write_text(path.read_text().replace(old, new))


# --- what is stale, and why


def test_after_a_touch_nothing_is_stale_and_after_a_sentence_one_notebook_is(project: Path) -> None:
    make_fresh(synthetic())
    for path in project.rglob("*"):
        os.utime(path)
    assert synthetic().stale() == [] and planning.plan([synthetic()]) == {}
    edit(project, ONE, "A question?", "Another one?")
    assert synthetic().stale() == [ONE]


def test_a_changed_file_of_a_preset_s_folder_makes_a_study_stale(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    study = config.load("synthetic", overrides=f"backbones=[hub:{tmp_path}]")
    before = study_fingerprint(study)
    assert study_fingerprint(study) == before
    (tmp_path / "config.json").write_text("[]")
    assert study_fingerprint(study) != before


def test_status_says_in_a_line_how_each_report_stands(
    project: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = synthetic()
    make_fresh(batch)
    edit(project, ONE, "A question?", "Another one?")
    monkeypatch.setattr(machine.platform, "python_version", lambda: "3.99.0")
    failure = Failure("DataError", "no column", "2. Data", 4)
    facts = {"fingerprints": synthetic().fingerprints("02_segmentation"), "failure": vars(failure)}
    (batch.folder / "02_segmentation" / METRICS).unlink()
    store.write_json(batch.folder / "02_segmentation" / FAILURE, facts)
    for name in ("03_augmentation", "04_transfer_learning", "07_export_flask"):
        (batch.folder / name / METRICS).unlink()
    (batch.folder / "03_augmentation" / NOTEBOOK).write_text("{}")
    at = progress.Progress("synthetic/smoke/07_export_flask", section="3. Export", started=time.time() - 65)
    at.write(batch.folder / "07_export_flask")
    assert cli.main(["status"]) == 0
    out, error = capsys.readouterr()
    assert error == ""
    lines = {line.split()[0]: " ".join(line.split()[1:]) for line in out.splitlines()}
    assert re.fullmatch(r"running 3\. Export, since 1 min \d\d s", lines.pop("07_export_flask"))
    assert lines == {
        "synthetic/smoke:": "5 stale, 1 failed, 3 missing",
        "01_eda": "stale changed since: packages",
        "02_segmentation": "failed section '2. Data', cell 4: no column",
        "03_augmentation": "missing its run was stopped, or overwritten since",
        "04_transfer_learning": "missing",
        "05_fine_tuning": "stale changed since: notebook, packages",
        "06_hardware_benchmark": "stale changed since: packages",
        "08_external_validation": "stale changed since: packages",
        "09_pitfalls": "stale changed since: packages",
    }


@pytest.mark.parametrize("jobs", ["0", "-2"])
def test_no_notebook_at_a_time_is_none(jobs: str, project: Path, capsys: pytest.CaptureFixture) -> None:
    assert cli.main(["reports", "--jobs", jobs]) == 1
    assert f"scanbook: JOBS={jobs}; expected 1 or more runs side by side" in capsys.readouterr().err


def test_a_mistake_in_the_price_table_concerns_the_notebook_that_reads_it(project: Path) -> None:
    make_fresh(synthetic())
    (project / "notebooks" / "prices.yaml").write_text("a: {usd_per_our: 1}\n")
    assert synthetic().stale() == [suite.BENCHMARK]


# --- several studies


def test_several_studies_are_one_graph(project: Path, tmp_path: Path) -> None:
    text = (project / "notebooks" / "studies" / "synthetic.yaml").read_text()
    (project / "notebooks" / "studies" / "other.yaml").write_text(text.replace("study: synthetic\n", "study: other\n"))
    batches, excluded = planning.load_batches("synthetic, other,synthetic")
    assert [batch.label for batch in batches] == ["synthetic/smoke", "other/smoke"] and excluded == {}
    runs = planning.plan(batches, "nice -n 1")
    assert len(runs) == 2 * len(suite.NOTEBOOKS)
    assert all(run.command[:3] == ["nice", "-n", "1"] for run in runs.values())
    assert runs[f"other/{ONE}"].after[:2] == ["other/01_eda", "other/02_segmentation"]
    with pytest.raises(StudyError, match="names several; name one"):
        planning.load_batches("synthetic,other", data="somewhere")
    with pytest.raises(StudyError, match="quote"):
        planning.plan(batches, "srun '-n1")
    with pytest.raises(StudyError, match="'srum', which is no program on this machine"):
        planning.plan(batches, "srum -n1")


def test_each_fold_is_a_run_of_its_own_before_the_notebook_that_evaluates_them(project: Path) -> None:
    keys = "splits.folds=3 seed=4"
    batch = Batch(config.load("synthetic", overrides=keys), keys)
    runs = planning.plan([batch])
    folds = [f"synthetic/fold {number}" for number in (1, 2, 3)]
    assert set(folds) < set(runs) and len(runs) == len(suite.notebooks()) + 3
    for number, name in enumerate(folds, 1):
        assert list(runs[name].command[-4:]) == ["--set", f"{keys} splits.fold={number}", "--distribute", "none"]
        assert runs[name].command[3:5] == ["train", "synthetic"] and set(runs[name].after) == {
            f"synthetic/{earlier}" for earlier in suite.before(ONE)
        }
    assert set(folds) < set(runs[f"synthetic/{ONE}"].after)
    launched = planning.plan([batch], "nice -n 1")[folds[0]].command
    assert launched[:3] == ["nice", "-n", "1"] and "--distribute" not in launched, "a launcher may start several"
    one = Batch(config.load("synthetic", overrides=f"{keys} splits.fold=2"), f"{keys} splits.fold=2")
    assert not set(folds) & set(planning.plan([one]))


def test_all_excludes_studies_without_data_and_prints_them(project: Path, capsys: pytest.CaptureFixture) -> None:
    (project / "notebooks" / "studies" / "broken.yaml").write_text("study: broken\n")
    assert cli.main(["status", "--study", "all"]) == 0
    out, error = capsys.readouterr()
    assert f"synthetic/smoke: {len(suite.NOTEBOOKS)} missing" in out and "folder" not in out
    assert f"excluded: folder (no data at {project / 'data' / 'folder'})" in error
    assert "excluded: broken (study broken: key" in error
    with pytest.raises(StudyError, match="unknown profile 'fast'"):
        planning.load_batches("all", profile="fast")


# --- the store


def test_the_cache_is_listed_and_pruned(project: Path, capsys: pytest.CaptureFixture) -> None:
    for number, kind in enumerate(("pixels", "pixels", "features")):
        store.stage(
            kind, {"n": number}, lambda work: (work / "a").write_bytes(bytes(2**20)) and None, "scanbook.errors"
        )
    stages._visited.clear()
    assert cli.main(["cache"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"pixels +2 +2\.0 MiB +\d s ago", lines[1]) and lines[2].startswith("features ")
    assert "3.0 MiB of 20.0 GiB" in lines[3]
    assert cli.main(["cache", "--to", "1.5MiB"]) == 0
    assert "removed 2 stages, 2.0 MiB" in capsys.readouterr().out
    assert cli.main(["cache", "--all"]) == 0
    assert "removed 1 stages" in capsys.readouterr().out and not list((project / "store").glob("*/*"))
    assert cli.main(["cache", "--to", "much"]) == 1
    assert "--to is 'much', expected a size such as 2GiB" in capsys.readouterr().err


# --- progress


def live_lines(*notebooks: progress.Progress, foot: str = "") -> list[str]:
    console = Console(file=io.StringIO(), width=100)
    console.print(progress.table(notebooks, foot))
    return [" ".join(line.split()) for line in console.file.getvalue().splitlines()]


def test_a_live_line_says_where_a_notebook_is_and_how_long_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time()
    monkeypatch.setattr(progress.time, "time", lambda: now)
    first = progress.Progress("synthetic/smoke/01_eda", expected=130, started=now - 65, section="2. [x] y", memory=1.25)
    second = progress.Progress("synthetic/smoke/05_fine_tuning", started=now)
    assert live_lines(first, second, foot="1 of 3 done") == [
        "synthetic/smoke/01_eda 2. [x] y 1 min 05 s of about 2 min 10 s 1.2 GiB",
        "synthetic/smoke/05_fine_tuning starting 0 s 0.0 GiB",
        "1 of 3 done",
    ]


def test_progress_is_read_as_long_as_somebody_writes_it(tmp_path: Path) -> None:
    assert progress.running(tmp_path) is None
    at = progress.Progress("a", kernel_folder="/x", section="1.")
    at.write(tmp_path)
    assert progress.running(tmp_path) == at
    os.utime(tmp_path / progress.RUNNING, (0, 0))
    assert progress.running(tmp_path) is None and progress.read(tmp_path) == at
    (tmp_path / progress.RUNNING).write_text('{"colour": 1}')
    assert progress.read(tmp_path) is None
    at.write(tmp_path / progress.RUNNING / "below a file")  # nothing shows it, and the run goes on


@pytest.mark.skipif(
    not Path("/proc/self/statm").is_file(), reason="this system does not tell pages of files from others"
)
def test_memory_that_processes_map_from_one_file_counts_once(tmp_path: Path) -> None:
    size = 64 * 2**20
    (tmp_path / "mapped").write_bytes(b"x" * size)
    child = f"""
import mmap, sys
with open({str(tmp_path / "mapped")!r}, "rb") as file:
    seen = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    own = bytearray({size // 2}), sum(seen[::4096])
    print("ready", flush=True)
    sys.stdin.read()
"""
    # in a process of its own: other children of this one would count too
    parent = f"""
import subprocess, sys
from scanbook.runner import memory
pipes = {{"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}}
children = [subprocess.Popen([sys.executable, "-S", "-c", {child!r}], **pipes) for _ in range(2)]
assert all(process.stdout.readline() == b"ready\\n" for process in children)
print(memory.memory_below() * 2**30)
for process in children:
    process.communicate()
"""
    done = subprocess.run([sys.executable, "-c", parent], capture_output=True, text=True, check=True)
    grown = float(done.stdout)
    assert 2 * size < grown < 2.75 * size, "one file and two halves, beside two interpreters"


def test_kills_for_memory_are_counted_where_the_system_counts_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = tmp_path / "memory.events"
    monkeypatch.setattr(memory, "_group_files", lambda: [tmp_path / "none", counts])
    for text, expected in (("low 0\noom 3\noom_kill 2\n", 2), ("oom_kill_disable 0\nunder_oom 0\noom_kill 7\n", 7)):
        counts.write_text(text)
        assert memory.kills() == expected
