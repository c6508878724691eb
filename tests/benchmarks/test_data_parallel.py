"""One process against two: turns, arithmetic, cores of their own, and real trainings."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from bs4 import BeautifulSoup

from benchmarks import __main__ as command
from benchmarks import parallel, report, runner, table
from helpers import pages
from scanbook.errors import RunError
from scanbook.reporting.records import read_json
from scanbook.store import write_json

CASE = parallel.Case("baseline_cnn", "from scratch", True, 3)
RUN = {"cores": [0, 1], "command": "scanbook train synthetic", "description": "96 px"}
needs_affinity = pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="processes cannot be bound here")


def trained(seconds: float, off: float = 0.0) -> parallel.Trained:
    """A hundred images, 30 s for the first epoch and then so many seconds each."""
    epochs = range(4)
    history = pd.DataFrame(
        {
            "epoch": [epoch + 1 for epoch in epochs],
            "loss": [1.0 + off, 0.5, 0.4, 0.3 + off],
            "validation_loss": [2.0, 1.0 - off, 0.9, 0.8],
            "seconds": [30 + epoch * seconds for epoch in epochs],
        }
    )
    return parallel.Trained(100, history)


def planted() -> dict[str, object]:
    one = [trained(10.0), trained(20.0), trained(10.0)]
    two = [trained(5.0, 0.001), trained(12.5, 0.001), trained(6.25, 0.001)]
    return parallel.summary(CASE, {1: one, 2: two})


def test_the_first_epoch_which_compiles_does_not_count() -> None:
    assert trained(10.0).rate == 10.0


def test_rates_ratios_and_curves_of_planted_trainings() -> None:
    results = planted()
    assert results["rates"] == {"1": [10.0, 5.0, 10.0], "2": [20.0, 8.0, 16.0]}
    assert results["ratios"] == [2.0, 1.6, 1.6] and (results["ratio"], results["low"], results["high"]) == (
        1.6,
        1.6,
        2.0,
    )
    assert results["medians"] == {"1": 10.0, "2": 16.0}
    assert (results["images"], results["epochs"], results["rounds"]) == (100, 4, 3)
    assert results["curves"]["2"]["loss"] == [1.001, 0.5, 0.4, 0.301]
    # of the first two epochs, relative: 0.001 of 1 for both losses; the last epoch does not count
    assert results["difference"] == pytest.approx(0.001)


def test_who_was_last_is_first_in_the_next_round(tmp_path: Path) -> None:
    asked = []

    def train(case: parallel.Case, count: int, prepared: Path) -> parallel.Trained:
        asked.append(count)
        return trained(1.0)

    parallel._train_in_turn(CASE, tmp_path, train)
    assert asked == [1, 2, 2, 1, 1, 2]


@needs_affinity
def test_each_case_is_kept_as_soon_as_it_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def prepare(commands: list[list[str]], cores: list[int], environment: dict[str, str]) -> list[str]:
        Path(environment["SCANBOOK_STORE"]).mkdir()
        return [""]

    monkeypatch.setattr(parallel, "unable", lambda: "")
    monkeypatch.setattr(parallel, "run", prepare)
    monkeypatch.setattr(parallel, "_train", lambda *_: trained(1.0))
    counts = []
    results = parallel.measure(tmp_path, table.Sizes(), {}, lambda so_far: counts.append(len(so_far["networks"])))
    assert counts == [1, 2, 3] and [network["rounds"] for network in results["networks"]] == [2, 2, 1]
    assert not list(tmp_path.iterdir())


def test_processors_that_share_a_core_count_once(tmp_path: Path) -> None:
    for number, siblings in enumerate(("0,2", "1,3", "0,2", "1,3")):
        folder = tmp_path / f"cpu{number}" / "topology"
        folder.mkdir(parents=True)
        (folder / "thread_siblings_list").write_text(f"{siblings}\n")
    assert parallel.separate_cores({0, 1, 2, 3}, tmp_path) == [0, 1]
    assert parallel.separate_cores({2, 3}, tmp_path) == [2, 3]
    assert parallel.separate_cores({4, 5}, tmp_path) == [4, 5], "the system says nothing of these"


def test_where_it_cannot_be_measured_the_page_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_setaffinity", raising=False)
    results = parallel.measure(tmp_path, table.QUICK, {})
    assert "does not let a process be bound to a core" in results["unable"]
    run = runner.Run(tmp_path / "bench", tmp_path / "work", table.QUICK, None)
    run.results[parallel.NAME] = results
    text = BeautifulSoup(report.render(run.results), "html.parser").get_text(" ")
    assert "Not run: " in text and "does not let a process be bound to a core" in text


@needs_affinity
def test_one_core_cannot_be_compared_with_two(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scanbook.runtime.distribution.find_spec", lambda name: object())
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3})
    assert parallel.unable() == "it takes 2 cores, and this process may use 1"
    monkeypatch.setattr("scanbook.runtime.distribution.find_spec", lambda name: None)
    assert "JAX, which is not installed; pip install 'scanbook[jax]'" in parallel.unable()


@needs_affinity
def test_what_is_started_while_pinned_stays_there_and_this_process_does_not() -> None:
    before = os.sched_getaffinity(0)
    core = max(before)
    with parallel.bind_to_core(core):
        code = "import os; print(os.sched_getaffinity(0))"
        child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert child.stdout.strip() == str({core}) and os.sched_getaffinity(0) == before


@needs_affinity
def test_a_training_that_fails_is_its_last_line(tmp_path: Path) -> None:
    core = min(os.sched_getaffinity(0))
    with pytest.raises(RunError, match=r"failed: scanbook: unknown study 'nobody'") as caught:
        parallel.run([["train", "nobody"]], [core], {"SCANBOOK_STORE": str(tmp_path)})
    assert "\n" not in str(caught.value)


def test_the_page_shows_ratios_and_curves(tmp_path: Path) -> None:
    run = runner.Run(tmp_path / "bench", tmp_path / "work", table.QUICK, None)
    run.results[parallel.NAME] = {"networks": [planted()], **RUN}
    html = report.render(run.results)
    text = " ".join(BeautifulSoup(html, "html.parser").get_text(" ").split())
    assert "1.6× (1.6 to 2)" in text and "1.0e-03" in text and html.count("data:image/svg+xml;base64,") == 1


def test_both_curves_are_drawn_and_told_apart_without_colour() -> None:
    from benchmarks import plots

    figure = plots.curves([planted(), planted()])
    assert len(figure.axes) == 2
    for axis in figure.axes:
        assert axis.get_xlabel() == "epoch" and "loss" in axis.get_ylabel()
        looks = {(line.get_linestyle(), line.get_linewidth(), line.get_marker()) for line in axis.lines}
        assert len(looks) == 4 and [len(line.get_xdata()) for line in axis.lines] == [4] * 4


@pytest.mark.slow
@pages.needs_chromium
def test_the_page_can_be_read_everywhere(tmp_path: Path) -> None:
    run = runner.Run(tmp_path, tmp_path / "work", table.QUICK, None)
    run.results[parallel.NAME] = {"networks": [planted()] * 3, **RUN}
    (tmp_path / "performance.html").write_text(report.render(run.results))
    write_json(tmp_path / "performance.json", run.results)
    with pages.browser() as chromium:
        pages.check_shown(chromium, tmp_path / "performance.html", [("light", 360), ("dark", 1440)])


@pytest.mark.cluster
@needs_affinity
def test_real_trainings_in_tiny_sizes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if reason := parallel.unable():
        pytest.skip(reason)
    monkeypatch.setenv("SCANBOOK_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("SCANBOOK_REPORTS", str(tmp_path / "reports"))
    assert command.main(["--quick", "--rows", parallel.NAME]) == 0
    results = read_json(tmp_path / "reports" / "bench" / runner.RESULTS)[parallel.NAME]
    [network] = results["networks"]
    assert network["backbone"] == "baseline_cnn" and network["images"] > 20 and network["epochs"] == 3
    # rounding grows in so many steps; test_distributed.py holds fewer to 1e-4
    assert network["difference"] < 0.02, "two processes trained something else than one"
