"""The benchmark: fair turns, plain arithmetic, a line for what fails, and the baseline doing the same work."""

import dataclasses
import io
import json
import re
from contextlib import contextmanager
from itertools import pairwise, repeat
from pathlib import Path

import cv2
import nbformat
import numpy as np
import pandas as pd
import pytest
from bs4 import BeautifulSoup
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks import (
    baseline,
    comparisons,
    growth,
    inputs,
    overhead,
    pipeline,
    report,
    requests,
    runner,
    scanbook_side,
    table,
    worker,
)
from benchmarks.sides import Side, compare, environment_of, interleave, start_side
from helpers import pages
from scanbook.data import images
from scanbook.errors import RunError
from scanbook.reporting import suite
from scanbook.runtime.processes import MALLOC, Peak
from scanbook.store import write_json

HERE = "helpers.sides"
VALUES = st.lists(st.floats(0.01, 1e4), min_size=1, max_size=7)


# --- arithmetic


def test_the_ratio_is_the_median_of_the_pairs_not_the_ratio_of_the_medians():
    figures = compare([1.0, 2.0, 10.0], [2.0, 40.0, 30.0], "baseline / scanbook")
    assert figures["ratios"] == [2.0, 20.0, 3.0]
    assert (figures["ratio"], figures["low"], figures["high"]) == (3.0, 2.0, 20.0)
    assert figures["medians"] == {"scanbook": 2.0, "baseline": 30.0}


@settings(deadline=None, max_examples=25)
@given(VALUES, st.floats(0.1, 100))
def test_a_side_that_is_always_so_much_faster_has_that_ratio_whatever_the_noise(seconds, factor):
    slower = [factor * value for value in seconds]
    assert compare(seconds, slower, "baseline / scanbook")["ratio"] == pytest.approx(factor)
    assert compare(seconds, slower, "scanbook / baseline")["ratio"] == pytest.approx(1 / factor)


def row(**changes):
    values = {
        "name": "r",
        "what": "w",
        "scanbook": "a",
        "baseline": "b",
        "unit": "s",
        "n": 4,
        "order": "baseline / scanbook",
    }
    return comparisons.Row(**values | {"goal": 25.0} | changes)


def test_goals_have_a_direction_and_may_ask_for_accuracy():
    assert row().reached(25.0) and not row().reached(24.9)
    assert row(goal=1 / 6, direction="≤").reached(0.15) and not row(goal=1 / 6, direction="≤").reached(0.17)
    assert row(goal=None).reached(3.0) is None
    careful = row(accuracy=True)
    assert careful.reached(30.0, (0.79, 0.80)) and careful.reached(30.0, (0.9, 0.8))
    assert not careful.reached(30.0, (0.78, 0.80)) and not careful.reached(20.0, (0.9, 0.8))


@settings(deadline=None, max_examples=25)
@given(st.floats(0.5, 2), st.floats(0.1, 10))
def test_growth_finds_the_exponent(power, factor):
    counts = [1000, 3000, 10_000]
    assert growth.exponent(counts, [factor * n**power for n in counts]) == pytest.approx(power)


# --- turns


class FakeSides:
    """Sides that note when they are asked and answer from a list."""

    def __init__(self, seconds):
        self.seconds = {name: iter(values) for name, values in seconds.items()}
        self.asked, self.running = [], set()

    @contextmanager
    def __call__(self, side, environment):
        self.running.add(side.name)
        yield self.Worker(self, side.name)
        self.running.discard(side.name)

    class Worker:
        def __init__(self, sides, name):
            self.sides, self.name = sides, name

        def measure(self):
            self.sides.asked.append(self.name)
            value = next(self.sides.seconds.get(self.name, repeat(0.0)))  # what makes the inputs says nothing
            if isinstance(value, Exception):
                raise value
            return {"value": value, "memory": 0.5 + value}


def side(name, **options):
    return Side(name, f"{HERE}:{name}", f"does {name}", **options)


@pytest.mark.parametrize("seed", range(3))
def test_whoever_was_last_is_first_in_the_next_round(seed):
    fake = FakeSides({"a": range(9), "b": range(9)})
    interleave({name: side(name) for name in "ab"}, 3, start=fake, seed=seed)
    assert "".join(fake.asked[2:]) in ("abbaab", "baabba")


def test_sides_take_turns():
    fake = FakeSides({"a": range(99), "b": range(99), "c": range(99)})
    measurements = interleave({name: side(name) for name in "abc"}, 12, start=fake)
    warm_up, turns = fake.asked[:3], fake.asked[3:]
    assert warm_up == ["a", "b", "c"]
    rounds = ["".join(turns[start : start + 3]) for start in range(0, len(turns), 3)]
    assert len(rounds) == 12 and all(sorted(names) == ["a", "b", "c"] for names in rounds)
    assert all(one == other[::-1] for one, other in pairwise(rounds))
    assert [measurement["value"] for measurement in measurements["b"]] == list(
        range(1, 13)
    )  # the first call does not count
    assert not fake.running


def test_a_side_that_warms_itself_is_not_asked_in_vain():
    fake = FakeSides({"a": range(9), "b": range(9)})
    interleave({"a": side("a", warms_itself=True), "b": side("b")}, 2, start=fake)
    assert (fake.asked.count("a"), fake.asked.count("b")) == (2, 3)


# --- a run


@pytest.fixture
def run(tmp_path):
    return runner.Run(tmp_path / "bench", tmp_path / "work", table.QUICK, None)


def planted(run, name="augmentation"):
    [comparison] = [
        selected for candidate in run.comparisons if (selected := comparisons.select_rows(candidate, {name}))
    ]
    return comparison


def result(run, name="augmentation"):
    results = json.loads((run.folder / runner.RESULTS).read_text())
    [matching] = [entry for entry in results["rows"] if entry["name"] == name]
    return matching


def test_a_measured_row_says_all_that_it_should(run, capsys):
    run.compare(planted(run), FakeSides({"scanbook": [9, 400.0, 500.0], "baseline": [9, 10.0, 20.0]}))
    figures = result(run)
    assert {"name", "ratio", "goal", "medians", "pairs", "n", "low", "high", "unit", "direction", "reached"} <= set(
        figures
    )
    assert (
        figures["ratio"] == 32.5
        and figures["reached"] is True
        and figures["pairs"] == 2
        and figures["status"] == "measured"
    )
    assert figures["medians"] == {"scanbook": 450.0, "baseline": 15.0}
    assert figures["scanbook"]["memory"] == 500.5 and figures["baseline"]["memory"] == 20.5
    assert "ImageDataGenerator" in figures["baseline"]["description"]
    [line] = capsys.readouterr().out.splitlines()
    assert line == "augmentation: 32.5× (25 to 40; 450 and 15 images/s), goal ≥ 20×: reached"


def test_a_missed_goal_is_a_result(run, capsys):
    run.compare(planted(run), FakeSides({"scanbook": [9, 50.0, 50.0], "baseline": [9, 10.0, 20.0]}))
    assert result(run)["reached"] is False
    assert capsys.readouterr().out.endswith("goal ≥ 20×: missed\n")


def test_accuracy_counts_where_a_row_asks_for_it(run):
    class Less(FakeSides):
        class Worker(FakeSides.Worker):
            def measure(self):
                ours = self.name == "scanbook"
                steps = {"features": 0.7, "head": 0.3} if ours else {}
                return super().measure() | {"accuracy": 0.78 if ours else 0.8} | steps

    comparison = planted(run, "transfer-mobilenet")
    run.compare(comparison, Less({"scanbook": [1.0] * 3, "baseline": [90.0] * 3}))
    figures = result(run, "transfer-mobilenet")
    assert figures["ratio"] == 90 and figures["reached"] is False
    assert (figures["scanbook"]["accuracy"], figures["baseline"]["accuracy"]) == (0.78, 0.8)
    assert figures["scanbook"]["steps"] == {"features": 0.7, "head": 0.3} and "steps" not in figures["baseline"]


def test_a_failing_side_is_a_line_and_a_failed_row(run, capsys):
    broken = {"scanbook": [1.0, 2.0, 3.0], "baseline": [1.0, RunError("baseline: ValueError: no")]}
    run.compare(planted(run), FakeSides({**broken}))
    figures = result(run)
    assert (figures["status"], figures["reason"], figures["ratio"]) == ("failed", "baseline: ValueError: no", None)
    assert capsys.readouterr().out == "augmentation: failed: baseline: ValueError: no\n"


def test_a_folder_without_jpegs_is_refused_at_once(monkeypatch, tmp_path):
    monkeypatch.setenv("SCANBOOK_REPORTS", str(tmp_path / "reports"))
    (tmp_path / "data.zip").write_bytes(b"PK")
    with pytest.raises(RunError, match=r"no JPEG files below .*data.zip; name a folder that holds some"):
        runner.bench(quick=True, data=tmp_path / "data.zip")
    assert not (tmp_path / "reports").exists()


def test_too_few_jpegs_show_no_growth(tmp_path):
    (tmp_path / "one.jpg").write_bytes(b"")
    pipeline = growth.pipeline_of_files(tmp_path, table.QUICK, tmp_path)
    assert "1 JPEG files are too few" in growth.measure(pipeline, {})["unable"]


def test_the_baseline_alone_runs_without_the_settings_of_malloc():
    for module, removed in (("baseline", set(MALLOC)), ("scanbook_side", set())):
        variables = environment_of(Side("a", f"benchmarks.{module}:decode", "decodes"))
        assert {name for name, value in variables.items() if value is None} == removed


def test_too_small_a_disk_is_reported_before_any_image_is_made(tmp_path):
    pipeline = growth.pipeline_of_synthetic_images(
        tmp_path / "none" / "yet", dataclasses.replace(table.QUICK, streaming=(2000, 10**12))
    )
    assert re.search(r"[\d]+ GB of disk are needed, \d+ are free", growth.measure(pipeline, {})["unable"])
    assert not growth.pipeline_of_synthetic_images(tmp_path, table.QUICK).unable


def test_an_unknown_row_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv("SCANBOOK_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("SCANBOOK_REPORTS", str(tmp_path / "reports"))
    with pytest.raises(RunError, match=r"unknown row 'speed'; expected some of transfer-resnet50, .*growth"):
        runner.bench(["speed"], quick=True)
    assert not (tmp_path / ".scanbook-bench").exists()


def test_the_table_has_the_goals_of_the_project(tmp_path):
    comparisons = table.make_comparisons(tmp_path, tmp_path / "weights.npz")
    every = [entry for comparison in comparisons for entry in comparison.rows] + [overhead.ROW]
    assert len({entry.name for entry in every}) == len(every)
    goals = {entry.name: (entry.direction, entry.goal) for entry in every}
    assert goals == {
        "transfer-resnet50": ("≥", 25),
        "transfer-mobilenet": ("≥", 25),
        "features": ("≥", 5),
        "features-traced": ("≥", None),
        "augmentation": ("≥", 20),
        "decode": ("≥", 1.6),
        "decode-cached": ("≥", 20),
        "fine-tuning": ("≥", 0.95),
        "int8-mobilenet_v2_0.35": ("≥", 1.8),
        **{f"int8-{name}": ("≥", 2.5) for name in ("mobilenet_1.0", "resnet50", "vgg19")},
        "http": ("≤", 1 / 6),
        "http-engine": ("≤", 2),
        "reports": ("≤", 0.35),
    }
    assert all(
        comparison.pairs >= 3 and {entry.scanbook, entry.baseline} <= set(comparison.sides)
        for comparison in comparisons
        for entry in comparison.rows
    )
    for comparison in comparisons:
        for call in [*comparison.prepare, *comparison.sides.values()]:
            assert callable(worker.resolve(call.function)), call.function
            json.dumps(call.options)


# --- processes


@pytest.fixture
def environment():
    return {"PYTHONPATH": str(Path(__file__).parents[1])}


def test_a_side_answers_from_a_process_of_its_own(environment):
    with start_side(side("add", options={"one": 1, "two": 2.5}), environment) as running_side:
        first, second = running_side.measure(), running_side.measure()
    assert first["value"] == second["value"] == 3.5
    assert 0.005 < first["memory"] < 4


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("fail", "fail failed: KeyError: 'missing'"),
        ("refuse", "refuse failed: ValueError: cannot"),
        ("die", "signal 9"),
    ],
)
def test_what_a_side_dies_of_is_one_line(name, message, environment):
    with pytest.raises(RunError, match=message) as caught, start_side(side(name), environment) as running_side:
        running_side.measure()
    assert "\n" not in str(caught.value)


def test_a_worker_answers_every_line_and_then_ends():
    answers = []
    worker.serve(
        {"function": f"{HERE}:add", "options": {"one": 1, "two": 1}}, io.StringIO("measure\nmeasure\n"), answers.append
    )
    assert [answer.get("value") for answer in answers] == [None, 2.0, 2.0]


def test_memory_of_a_block_is_seen():
    with Peak(worker.own_memory, 0.001) as memory:
        before = memory.value
        filled = np.ones(2**25)  # 256 MiB
        filled += 1
    assert memory.value - before == pytest.approx(0.25, abs=0.1)


# --- both sides do the same work


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    for what, name, options in (
        ("lesions", "lesions.npz", {"count": 20, "size": 64}),
        ("jpegs", "jpegs", {"count": 12, "height": 90, "width": 120, "distinct": 3}),
        ("photograph", "photo.jpg", {"height": 48, "width": 64}),
    ):
        with inputs.write(what, str(folder / name), **options) as once:
            once()
    return folder


def test_inputs_are_what_it_says(made):
    pictures, labels = inputs.photos(made / "lesions.npz", 32, 5, 10)
    assert pictures.shape == (10, 32, 32, 3) and pictures.dtype == np.uint8 and labels.shape == (10,)
    files = inputs.jpeg_paths(made / "jpegs")
    decoded = [images.read(path) for path in files]
    assert len(files) == 12 and {image.shape for image in decoded} == {(90, 120, 3)}
    assert len({image.tobytes() for image in decoded}) == 12
    assert images.read(made / "photo.jpg").shape == (48, 64, 3)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the generator, in SciPy
def test_both_augmentations_give_batches_of_one_shape_and_range(made):
    pictures, labels = inputs.photos(made / "lesions.npz", 64, 0, 20)
    theirs, their_labels = baseline.generator(pictures, labels)[0]
    ours, our_labels = scanbook_side.batches(pictures, labels, "skin11")[0]
    assert theirs.shape == ours.shape == (20, 64, 64, 3)
    assert len(their_labels) == len(our_labels) == 20
    for batch in (theirs, ours):
        assert batch.min() >= 0 and batch.max() <= 255 and batch.max() > 1
        assert batch.mean() == pytest.approx(pictures.mean(), abs=8)
        assert not np.array_equal(np.sort(batch.reshape(20, -1).sum(1)), np.sort(pictures.reshape(20, -1).sum(1)))
    with (
        scanbook_side.augment(str(made / "lesions.npz"), 64, 20, 2) as mine,
        baseline.augment(str(made / "lesions.npz"), 64, 20) as other,
    ):
        assert mine() > 0 and other() > 0


def test_both_ways_of_decoding_give_the_same_images_up_to_resampling(made, tmp_path, monkeypatch):
    monkeypatch.setenv("SCANBOOK_STORE", str(tmp_path / "store"))
    paths = inputs.jpeg_paths(made / "jpegs")
    theirs = baseline.read_all([str(path) for path in paths], 64)[..., ::-1]
    own = np.stack([images.load(path, (64, 64)) for path in paths])
    assert theirs.shape == own.shape and np.abs(theirs.astype(int) - own).mean() < 4
    options = {"folder": str(made / "jpegs"), "size": 64, "count": 12}
    with (
        scanbook_side.decode(**options) as cold,
        scanbook_side.from_cache(**options) as cached,
        baseline.decode(**options) as loop,
    ):
        assert min(cold(), cached(), loop()) > 0
    assert not list(tmp_path.glob("store-*"))


def test_files_in_folders_become_a_dataset(made, tmp_path):
    manifest = scanbook_side.list_files(str(made / "jpegs"), 8, {"train": 60, "validation": 20, "test": 20})
    assert len(manifest.frame) == 8 and all(
        Path(p).parent.name == c for p, c in manifest.frame[["path", "label"]].to_numpy()
    )
    for index in range(4):
        cv2.imwrite(str(tmp_path / f"{index}.jpg"), np.zeros((8, 8, 3), np.uint8))
    alone = scanbook_side.list_files(str(tmp_path), 4, {"train": 50, "test": 50})
    assert alone.classes == ("class 0", "class 1") and sorted(alone.frame["split"]) == [
        "test",
        "test",
        "train",
        "train",
    ]


def test_a_form_is_one_that_flask_reads():
    from flask import Flask
    from flask import request as received

    app = Flask(__name__)
    app.post("/")(lambda: received.files["file"].filename.encode() + received.files["file"].read())
    body, headers = requests.form("file", b"\xff\xd8 bytes \r\n")
    answer = app.test_client().post("/", data=body, headers=headers)
    assert answer.data == b"photo.jpg\xff\xd8 bytes \r\n"


# --- growth, overhead, page

POINTS = [
    {
        "n": n,
        "seconds": 0.01 * n,
        "decode": 0.007 * n,
        "features": 0.002 * n,
        "head": 0.001 * n,
        "own memory": 0.5 + n / 1e6,
        "memory": 1.0,
    }
    for n in (1000, 3000, 10_000)
]


@pytest.fixture
def files(tmp_path):
    return growth.pipeline_of_files(tmp_path, table.Sizes(), None)


def test_linear_growth_and_flat_memory_are_recognised(files):
    figures = growth.summary(files, POINTS)
    assert figures["linear"] and figures["flat"] and figures["exponents"]["decode"] == pytest.approx(1)
    squared = [point | {"seconds": point["n"] ** 2, "own memory": point["n"] / 1000} for point in POINTS]
    figures = growth.summary(files, squared)
    assert not figures["linear"] and not figures["flat"] and "more than linearly" in report.describe_growth(figures)
    assert "within" not in figures


def streamed(pipeline, gib):
    """Points of a pipeline, each step at 100 images a second."""
    points = []
    for n in pipeline.counts:
        memories = dict.fromkeys(pipeline.steps, 0.5) | {"head": gib}
        shown = {"own memory": gib, "own memories": memories, "memory": 2 * gib, "recall": 1.0, "precision": 0.96}
        seconds = dict.fromkeys(pipeline.steps, n / 100)
        points.append({"n": n, "seconds": n / 100 * len(seconds), **seconds, **shown, "pixels": n * 3 * 128**2})
    return points


@pytest.mark.parametrize(("gib", "within"), [(2.79, True), (2.8, False)])
def test_memory_is_compared_with_three_gigabytes_not_gibibytes(tmp_path, gib, within):
    pipeline = growth.pipeline_of_synthetic_images(tmp_path, table.Sizes())
    assert pipeline.counts == (2000, 20_000, 200_000) and pipeline.options["size"] == 128 and pipeline.within == 3
    figures = growth.summary(pipeline, streamed(pipeline, gib))
    assert figures["kept within"] is within
    assert [point["rates"]["scan"] for point in figures["points"]] == [pytest.approx(100)] * 3
    text = report.describe_growth(figures)
    assert f"{'within' if within else 'beyond'} the limit of 3 GB" in text and "no more than linearly" in text


def executed(folder, cells, seconds):
    folder.mkdir(parents=True)
    book = nbformat.v4.new_notebook()
    for taken in cells:
        book.cells.append(nbformat.v4.new_code_cell("1", metadata={"papermill": {"duration": taken}}))
    book.cells.append(nbformat.v4.new_markdown_cell("# text", metadata={"papermill": {"duration": 50.0}}))
    nbformat.write(book, folder / "notebook.ipynb")
    write_json(folder / "metrics.json", {"seconds": seconds, "peak memory (GiB)": 1.5})


def test_overhead_is_all_time_outside_the_cells_over_that_inside(tmp_path):
    for name in suite.NOTEBOOKS:
        executed(tmp_path / name, [4.0, None, 6.0], 12.0)
    count = len(suite.NOTEBOOKS)
    figures = overhead.summary(tmp_path, count * 13.0)
    assert figures["ratio"] == figures["low"] == figures["high"] == pytest.approx(0.3)
    assert figures["notebooks"][suite.NOTEBOOKS[0]] == {"cells": 10.0, "seconds": 12.0}
    assert figures["medians"] == {"scanbook": pytest.approx(3 * count), "baseline": pytest.approx(10 * count)}


def test_overhead_of_a_run_that_is_not_whole_is_refused(tmp_path):
    with pytest.raises(RunError, match="left no whole report"):
        overhead.summary(tmp_path, 1.0)


@pytest.fixture
def page(run, tmp_path):
    run.compare(planted(run), FakeSides({"scanbook": [9, 400.0, 500.0], "baseline": [9, 10.0, 20.0]}))
    run.compare(planted(run, "fine-tuning"), FakeSides({"scanbook": [9, 8.0, 9.0], "bare step": [10.0, 10.0]}))
    run.compare(planted(run, "http"), FakeSides({"scanbook": [RunError("it did not start")]}))
    run.results["growth"] = growth.summary(growth.pipeline_of_files(tmp_path, table.Sizes(), None), POINTS)
    pipeline = growth.pipeline_of_synthetic_images(tmp_path, table.Sizes())
    run.results["streaming"] = growth.summary(pipeline, streamed(pipeline, 2.0))
    return run.results


def test_the_page_shows_reached_missed_failed_and_not_run_and_needs_nothing_else(page):
    html = report.render(page)
    text = " ".join(BeautifulSoup(html, "html.parser").get_text(" ").split())
    for words in ("✓ reached", "✗ missed", "✗ failed", "– not run", "≤ 1/6", "tiny"):
        assert words in text, words
    assert "1 reached, 1 missed, 1 failed" in text
    assert "prefers-color-scheme: dark" in html and "@media print" in html
    assert not re.search(r"""(?:src|href)=["'](?:https?:)?//""", html)
    assert html.count("data:image/svg+xml;base64,") == 3
    rows = BeautifulSoup(html, "html.parser").select("#streaming ~ .scroll tr")
    cells = [[" ".join(cell.get_text(" ").split()) for cell in row.select("th, td")] for row in rows]
    beyond = {name: last for name, *_, last in cells}
    assert beyond["Images"] == "200,000" and beyond["Near copies"] == "100 images/s 2,000 s, 0.54 GB"
    assert beyond["In total"].endswith("14,000 s, 2.15 GB") and beyond["Pixel cache on disk"] == "9.83 GB"
    assert beyond["Planted near-duplicates found"] == "100.0 % precision 96.0 %"


@pytest.mark.slow
@pages.needs_chromium
def test_the_page_can_be_read_everywhere(page, tmp_path):
    (tmp_path / "performance.html").write_text(report.render(page))
    write_json(tmp_path / "performance.json", page)
    pages.check_file(tmp_path / "performance.html")
    with pages.browser() as chromium:
        pages.check_shown(chromium, tmp_path / "performance.html", [("light", 360), ("dark", 1440)])


def test_a_page_without_any_figure_is_still_a_page(run):
    html = report.render(run.results)
    assert "data:image/" not in html and "not requested in this run" in html


def test_words_of_numbers():
    assert [report.format_number(value) for value in (0.01234, 1.869, 24.96, 999.6, 12345.0)] == [
        "0.0123",
        "1.87",
        "25",
        "1,000",
        "12,345",
    ]
    assert report.format_goal({"goal": 1 / 6, "direction": "≤"}) == "≤ 1/6"
    assert report.format_goal({"goal": 0.35, "direction": "≤"}) == "≤ 0.35×"


def test_a_share_of_the_goal_is_drawn_for_both_directions():
    from benchmarks import plots

    common = {"low": 2.0, "high": 8.0, "ratio": 4.0, "reached": True}
    figure = plots.ratios(
        [
            {"name": "more", "goal": 2.0, "direction": "≥", **common},
            {"name": "less", "goal": 8.0, "direction": "≤", **common},
            {"name": "open", "goal": None, "direction": "≥", **common},
        ]
    )
    widths = [bar.get_width() for bar in figure.axes[0].patches]
    assert widths == [1.0, 1.0]  # from 1 to twice as good as the goal


# --- everything, tiny


def test_the_first_of_several_synthetic_datasets_are_one(tmp_path):
    for seed in range(2):
        inputs._dataset(tmp_path / "sets" / inputs.dataset_name(seed), 60, seed, 48)
    one, both = (pipeline.merge_datasets(tmp_path / "sets", 60, count) for count in (60, 120))
    pd.testing.assert_frame_equal(one.frame, both.frame.iloc[:60])
    assert len(both.frame) == 120 and all(Path(path).is_file() for path in both.frame["path"])
    assert not set(both.frame["group"][:60]) & set(both.frame["group"][60:])
    listed = set(both.frame["image_id"])
    for members in both.facts["faults"].values():
        assert members and all(listed.issuperset([member] if isinstance(member, str) else member) for member in members)


def test_a_pipeline_says_what_each_step_took(monkeypatch):
    memory = []
    monkeypatch.setattr(pipeline, "own_memory", lambda: memory[-1])
    steps = pipeline.Steps()
    for name, gib in (("scan", 1.0), ("head", 5.0)):
        memory.append(gib)
        with steps.step(name):
            pass
    figures = steps.figures()
    assert figures["value"] == pytest.approx(figures["scan"] + figures["head"]) and figures["own memory"] == 5.0
    assert figures["own memories"] == {"scan": 1.0, "head": 5.0}


@pytest.mark.cluster
def test_streaming_runs_in_tiny_sizes(run, capsys):
    run.measure({"streaming"})
    figures = json.loads((run.folder / runner.RESULTS).read_text())["streaming"]
    assert [point["n"] for point in figures["points"]] == list(table.QUICK.streaming), figures
    assert all(point["recall"] >= 0.5 and point["pixels"] == point["n"] * 64 * 64 * 3 for point in figures["points"])
    assert "near-duplicates found" in (run.folder / runner.PAGE).read_text()


@pytest.mark.slow
def test_rows_run_from_the_command_line_in_tiny_sizes(tmp_path, monkeypatch, capsys):
    from benchmarks import __main__ as command

    monkeypatch.setenv("SCANBOOK_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("SCANBOOK_REPORTS", str(tmp_path / "reports"))
    names = "augmentation,decode"
    assert command.main(["--quick", "--pairs", "1", "--rows", names]) == 0
    results = json.loads((tmp_path / "reports" / "bench" / "performance.json").read_text())
    status = {entry["name"]: entry["status"] for entry in results["rows"]}
    assert {name for name, word in status.items() if word == "measured"} == set(names.split(","))
    assert results["machine"] and results["versions"]["keras"] and results["quick"] is True
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3 and lines[-1].endswith("performance.html")
    assert not (tmp_path / "bench").exists()
