"""The pages: reports, studies, checklists and the index, as files and as people see them in Chromium."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pandas as pd
import pytest
from bs4 import BeautifulSoup
from playwright.sync_api import Browser, Page, expect

from helpers import pages
from scanbook import bundle, evaluation
from scanbook.config import Study
from scanbook.errors import NotebookError
from scanbook.reporting import checklist, notebook, records, report, suite, summary
from scanbook.reporting.failure import Failure
from scanbook.reporting.plots import writing
from scanbook.runner import index

DRAW = np.random.default_rng(0)
CODE = "x = 1\nsession.table('splits', x, 'Splits')"
SUMMARY = {
    "accuracy": {"value": 0.8125, "low": 0.75, "high": 0.87},
    "balanced_accuracy": {"value": 0.7, "low": 0.6, "high": 0.8},
    "auroc": {"value": 0.91, "low": None, "high": None},
}
COST = {"where": "this machine", "engine": "OpenVINO float32", "milliseconds": 1.234, "kind": "what-if"}
RESULTS: dict[str, dict[str, Any]] = {
    "01_eda": {
        "headline": "1,800 images, 3 classes, 12 with faults",
        "splits": {"all": {"train": 1200, "validation": 200, "test": 400, "all": 1800}, "groups": {"all": 900}},
        "majority_accuracy": 0.45,
        "exact_copies": 7,
        "near_copies_across_splits": 0,
    },
    "02_segmentation": {"headline": "noise"},
    "03_augmentation": {"headline": "baseline_cnn: +0.010"},
    "04_transfer_learning": {"headline": "frozen: accuracy 0.800", "best": "small, frozen"},
    "05_fine_tuning": {
        "headline": "small, fine-tuned: accuracy 0.812",
        "model": "small, fine-tuned",
        "summary": SUMMARY,
        "differences": {"accuracy": [0.0125, -0.01, 0.03]},
        "bayes_accuracy": 0.93,
    },
    "06_hardware_benchmark": {
        "headline": "1,234 images/s with OpenVINO int8",
        "cost": {str(place): COST | {"usd_per_million": usd} for place, usd in enumerate((0.021, 0.5))},
    },
    "07_export_flask": {
        "headline": "7 of 7 places agree with the notebook",
        "milliseconds_per_request": 12.4,
        "abstain_below": 0.41,
    },
    "09_pitfalls": {"headline": "worth most: BGR served as RGB +0.503"},
}


def study_of(**changes: Any) -> Study:
    values = {
        "study": "planted",
        "title": "Planted colours",
        "question": "Is it blue?",
        "dataset": {"adapter": "folder", "source": "generated for a test"},
        "backbones": ["baseline_cnn"],
    }
    return Study.model_validate(values | changes)


def facts(name: str, of: Study, results: dict[str, Any], **more: Any) -> dict[str, Any]:
    """What the runner writes into metrics.json."""
    return {
        "notebook": name,
        "title": suite.title(name),
        "study": of.resolved(),
        "overrides": "",
        "fingerprints": {"notebook": name, "study": "s", "data": "d", "library": "l", "packages": "p"},
        "versions": {"python": "3.12.1", "numpy": "2.1.0"},
        "hardware": {"processor": "a processor", "cores": 2},
        "commit": "abc1234",
        "seconds": 83.0,
        "peak memory (GiB)": 1.5,
        "finished": "2026-01-02T03:04:05+00:00",
        "results": results,
        "measurements": {},
        **more,
    }


def lines() -> plt.Figure:
    figure, axis = plt.subplots(figsize=(8, 3))
    plt.close(figure)
    axis.plot([1, 2, 3], label="a line")
    axis.set_title("Three points of 1 line")
    return figure


def noise() -> plt.Figure:
    figure, axis = plt.subplots(figsize=(5, 4))
    plt.close(figure)
    axis.imshow(DRAW.integers(0, 255, (220, 275, 3), dtype=np.uint8))
    return figure


@pytest.fixture
def reports_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SCANBOOK_REPORTS", str(tmp_path))
    return tmp_path


class Notebook:
    """A notebook that was executed without a kernel: what its session displays becomes outputs.

    Its headings are those of the real one, so that the links of the other pages lead somewhere.
    """

    def __init__(self, name: str, of: Study, monkeypatch: pytest.MonkeyPatch) -> None:
        self.shown: list[dict[str, str]] = []
        monkeypatch.setattr(notebook, "_display", self.shown.append)
        self.session = notebook.Session(name, of)
        self.of, self.name = of, name

    def write(self, results: dict[str, Any], failure: Any = None, **more: Any) -> Path:
        sources = [cell["source"] for cell in suite.cells(self.name) if cell["cell_type"] == "markdown"]
        cells = [nbformat.v4.new_markdown_cell(source) for source in sources]
        code = nbformat.v4.new_code_cell(CODE, execution_count=1)
        code.outputs = [nbformat.v4.new_output("display_data", data=data) for data in self.shown]
        code.outputs += [nbformat.v4.new_output("stream", name=name, text="printed\n") for name in ("stderr", "stdout")]
        content = nbformat.v4.new_notebook(cells=[*cells[:2], code, *cells[2:]])
        metrics = facts(self.name, self.of, results, **more)
        folder = record(self.session.folder, metrics, failure)
        nbformat.write(content, folder / "notebook.ipynb")
        (folder / "report.html").write_text(report.render(folder / "notebook.ipynb", metrics, failure))
        return folder / "report.html"


def record(folder: Path, metrics: dict[str, Any], failure: Any = None) -> Path:
    """What the runner leaves beside a report, which is empty here."""
    folder.mkdir(parents=True, exist_ok=True)
    for file in ("results", "measurements"):
        (folder / f"{file}.json").write_text(json.dumps(metrics[file]))
    (folder / f"{'failure' if failure else 'metrics'}.json").write_text(json.dumps(metrics))
    (folder / "report.html").write_text("")
    return folder


def fill(session: notebook.Session) -> None:
    """Every kind of thing that a notebook shows."""
    frame = pd.DataFrame(
        {"images": [1200, 30, 9], "share": [0.96855, 0.0242, np.nan], "note": ["b", "a", "a long note " * 8]},
        index=pd.Index(["nevus", "melanoma <1>", "other"], name="class"),
    )
    session.table("splits", frame, "Images & splits")
    wide = pd.DataFrame(DRAW.random((3, 30)), columns=[f"column number {place}" for place in range(30)])
    session.table("wide", wide, "A wide table")
    session.figure("curve", lines(), 'A "curve"')
    session.figure("noise", noise(), "Noise")
    session.say("A *sentence*.")


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report with one of everything, which tests only read."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SCANBOOK_REPORTS", str(tmp_path_factory.mktemp("reports")))
        executed = Notebook("01_eda", study_of(), patch)
        fill(executed.session)
        return executed.write({"headline": "3 images"})


@pytest.fixture(scope="module")
def page(example: Path) -> BeautifulSoup:
    """The same, parsed; tests only read it."""
    return BeautifulSoup(example.read_text(), "html.parser")


def make(reports_folder: Path, *without: str) -> records.Run:
    """What a whole study recorded, but for some notebooks, and the pages above its reports."""
    folder, of = reports_folder / "planted" / "quick", study_of(profile="quick")
    for name, results in RESULTS.items():
        if name not in without:
            record(folder / name, facts(name, of, results))
    (folder / bundle.SUBFOLDER).mkdir(parents=True, exist_ok=True)
    index.write()
    return records.Run(folder)


def make_whole(reports_folder: Path, monkeypatch: pytest.MonkeyPatch, *without: str) -> records.Run:
    """The same with reports in which there is one of everything."""
    for name, results in RESULTS.items():
        if name not in without:
            made = Notebook(name, study_of(profile="quick"), monkeypatch)
            fill(made.session)
            made.write(results)
    (reports_folder / "planted" / "quick" / bundle.SUBFOLDER).mkdir(parents=True, exist_ok=True)
    index.write()
    return records.Run(reports_folder / "planted" / "quick")


# --- reports


def test_a_report_is_one_file_with_contents_and_what_it_ran_on(example: Path, page: BeautifulSoup) -> None:
    for above in (example.parents[1], example.parents[3]):
        (above / "index.html").write_text("")
    for name in ("tables", "figures"):
        assert (example.parent / name).is_dir()
    pages.check_file(example)
    headings = [heading.get_text() for heading in page.select("main h2")]
    assert [link.get_text() for link in page.select("nav a")] == headings
    assert headings[0] == "1. Images by label and split" and headings[-1] == "This run"
    assert page.select_one("details.code pre").get_text().strip() == CODE
    assert not page.select("details[open]")
    foot = page.footer.get_text(" ")
    for text in (
        "1 min 23 s",
        "1.50 GiB",
        "a processor",
        "python 3.12.1",
        "abc1234",
        "image_size",
        "fine_tuning.epochs",
    ):
        assert text in foot, text


def test_a_table_has_a_name_a_file_and_tells_numbers_from_words(page: BeautifulSoup) -> None:
    table = page.select_one("table[data-name=splits]")
    caption = page.find(id=table["aria-labelledby"])
    assert caption.contents[0] == "Images & splits" and caption.a["href"] == "tables/splits.csv"
    assert [cell["class"] for cell in table.select("thead tr > *")] == [["word"], ["number"], ["number"], ["word"]]
    rows = [[cell.get_text() for cell in row.select("th, td")] for row in table.select("tbody tr")]
    assert rows[1] == ["melanoma <1>", "30", "0.0242", "a"] and rows[2][2] == "–"
    assert table.select("tbody tr")[2].select("td")[2]["class"] == ["long"]
    assert page.select_one("table[data-name=wide] thead tr").find().name == "td", "a heading without words is none"


def test_a_long_table_is_cut_and_says_so(reports_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = Notebook("01_eda", study_of(), monkeypatch)
    made.session.table("many", pd.DataFrame({"n": range(1234)}), "Many")
    [shown] = made.shown
    assert shown["text/html"].count("<tr>") == notebook.ROWS
    assert "the first 60 of 1,234 rows; all of them: tables/many.csv" in shown["text/html"]
    assert len(pd.read_csv(made.session.folder / "tables" / "many.csv")) == 1234


def test_a_table_without_rows_is_a_sentence(reports_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = Notebook("01_eda", study_of(), monkeypatch)
    made.session.table("none", pd.DataFrame({"n": []}), "Excluded images")
    assert [output["text/markdown"] for output in made.shown] == ["Excluded images: none."]
    assert (made.session.folder / "tables" / "none.csv").is_file()


def test_figures_are_vectors_where_these_are_small(example: Path, page: BeautifulSoup) -> None:
    curve, image = (page.select_one(f"#figure-{name} img") for name in ("curve", "noise"))
    assert curve["src"].startswith("data:image/svg+xml") and image["src"].startswith("data:image/webp")
    assert curve["alt"] == 'A "curve". Three points of 1 line' and image["alt"] == "Noise"
    assert (curve["width"], curve["height"]) == ("768", "288")
    files = sorted(path.name for path in (example.parent / "figures").iterdir())
    assert files == ["curve.svg", "noise.png"]
    assert page.select_one("#figure-noise figcaption a")["href"] == "figures/noise.png"


def test_a_figure_is_written_the_same_twice_and_leaves_no_other_form(
    reports_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert writing.write(lines()) == writing.write(lines())
    made = Notebook("01_eda", study_of(), monkeypatch)
    made.session.figure("one", noise(), "Noise")
    made.session.figure("one", lines(), "Line")
    assert [path.name for path in (made.session.folder / "figures").iterdir()] == ["one.svg"]


def test_a_failure_says_where_and_what_to_do(reports_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = Notebook("01_eda", study_of(), monkeypatch)
    failure = Failure("RunError", "out of <memory>; set SET='limit=9'", "1. Images by label and split", 1)
    soup = BeautifulSoup(made.write({}, failure).read_text(), "html.parser")
    text = soup.select_one(".failure").get_text()
    assert "out of <memory>; set SET='limit=9'" in text and "section '1. Images by label and split', cell 1" in text
    assert soup.select("main h2")[-2].get_text() == "1. Images by label and split", "what was not run is not shown"


def test_a_page_opens_with_its_answer_its_figure_and_its_warnings(
    reports_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Notebook("01_eda", study_of(), monkeypatch)
    made.session.warning("The images are synthetic <b>.")
    made.session.figure("curve", lines(), "A curve")
    made.session.answer(["A `first` figure: 0.673 (0.559–0.770).", "A **second** <one>."], "curve")
    made.session.finish()
    measured = json.loads((made.session.folder / "measurements.json").read_text())
    assert measured["answer"][0].startswith("A `first`") and measured["warnings"] == ["The images are synthetic <b>."]
    path = made.write({})
    for above in (path.parents[1], path.parents[3]):
        (above / "index.html").write_text("")
    pages.check_file(path)
    soup = BeautifulSoup(path.read_text(), "html.parser")
    assert soup.select_one("main h2").get_text() == "Answer" == soup.select_one("nav a").get_text()
    answer, warnings = soup.select_one("section.answer"), soup.select_one("ul.warnings")
    assert [p.get_text() for p in answer.select("p")] == ["A first figure: 0.673 (0.559–0.770).", "A second <one>."]
    assert answer.code.get_text() == "first" and answer.strong.get_text() == "second"
    assert answer.img["src"] == soup.select_one("#figure-curve img")["src"], "its section shows it, too"
    assert [item.get_text() for item in warnings.select("li")] == ["The images are synthetic <b>."]
    assert len(soup.select("section.answer")) == len(soup.select("#figure-curve")) == 1
    order = [tag.name for tag in soup.select("main h1, main section.answer, main ul.warnings, main .markdown h2")]
    assert order[:4] == ["h1", "section", "ul", "h2"]


def test_key_results_are_a_list_with_how_serious_each_is(reports_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = Notebook("01_eda", study_of(), monkeypatch)
    made.session.answer(["Three images."], ranked=[("Serious", "A <leak> of `2` pairs."), ("Note", "No fault.")])
    made.session.finish()
    measured = json.loads((made.session.folder / "measurements.json").read_text())
    assert measured["answer"] == ["Three images.", "Serious: A <leak> of `2` pairs.", "Note: No fault."]
    soup = BeautifulSoup(made.write({}).read_text(), "html.parser")
    assert soup.select_one("main h2").get_text() == "Key results" == soup.select_one("nav a").get_text()
    items = soup.select("section.answer ol li")
    assert [item.get_text() for item in items] == ["Serious A <leak> of 2 pairs.", "Note No fault."]
    assert [item["data-severity"] for item in items] == ["serious", "note"]


@pytest.mark.parametrize("count", [0, 6])
def test_an_answer_is_short(count: int, reports_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = Notebook("01_eda", study_of(), monkeypatch)
    with pytest.raises(NotebookError, match=f"an answer of {count} sentences; expected 1 to 5"):
        made.session.answer(["A sentence."] * count)


def test_the_code_of_a_section_is_folded_at_its_end(reports_folder: Path) -> None:
    folder = reports_folder / "planted" / "quick" / "01_eda"
    folder.mkdir(parents=True)
    cells = [nbformat.v4.new_markdown_cell("# Title"), nbformat.v4.new_code_cell("STUDY = 1", execution_count=1)]
    for section in (1, 2):
        cells.append(nbformat.v4.new_markdown_cell(f"## {section}. Section"))
        for number in (2 * section, 2 * section + 1):
            cell = nbformat.v4.new_code_cell(f"show({number})", execution_count=number)
            cell.outputs = [nbformat.v4.new_output("display_data", data={"text/markdown": f"shown {number}"})]
            cells.append(cell)
    nbformat.write(nbformat.v4.new_notebook(cells=cells), folder / "notebook.ipynb")
    page = report.render(folder / "notebook.ipynb", facts("01_eda", study_of(), {}), None)
    main = BeautifulSoup(page, "html.parser").main
    texts = [" ".join(tag.get_text().split()) for tag in main.select("h1, h2, .output, details.code")]
    assert texts[:9] == [
        *("Title", "Code of this section (cell 1) STUDY = 1"),
        *("1. Section", "shown 2", "shown 3", "Code of this section (cells 2 to 3) show(2) show(3)"),
        *("2. Section", "shown 4", "shown 5"),
    ]


def test_a_value_and_its_interval_are_one_column(reports_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = Notebook("05_fine_tuning", study_of(), monkeypatch)
    frame = pd.DataFrame(
        {"value": [0.6731, 0.9], "low": [0.5591, 0.8], "high": [0.7702, 1.0], "p_value": [0.01, 0.5]},
        index=pd.Index(["balanced_accuracy", "auroc"], name="metric"),
    )
    made.session.table("summary", frame, "Results")
    soup = BeautifulSoup(made.write({}).read_text(), "html.parser")
    table = soup.select_one("table[data-name=summary]")
    assert [cell.get_text() for cell in table.select("thead th")] == ["metric", "value", "p"]
    rows = [[cell.get_text() for cell in row.select("th, td")] for row in table.select("tbody tr")]
    assert rows == [
        ["balanced accuracy", "0.673 (0.559–0.770)", "0.01"],
        ["macro AUROC", "0.900 (0.800–1.000)", "0.50"],
    ]
    assert soup.find(id="table-summary").contents[0] == "Results, with 95 % intervals"
    assert [cell["class"] for cell in table.select("tbody tr")[0].select("td")] == [["number"], ["number"]]
    kept = pd.read_csv(made.session.folder / "tables" / "summary.csv", index_col=0)
    pd.testing.assert_frame_equal(kept, frame)


# --- the study's page


def shown_results(run: records.Run) -> list[dict[str, str]]:
    soup = BeautifulSoup((run.folder / "index.html").read_text(), "html.parser")
    return [
        {
            "name": result.h2.get_text(),
            "figure": result.select_one(".figure").get_text(),
            "link": result.a["href"] if result.a else "",
            "text": result.get_text(" ", strip=True),
        }
        for result in soup.select(".summary li")
    ]


def test_a_study_has_five_key_results(reports_folder: Path) -> None:
    run = make(reports_folder)
    data, model, result, cost, service = shown_results(run)
    assert data["figure"] == "1,800 images, 3 classes, 12 with faults" and "test 400" in data["text"]
    assert "900 patients or lesions" in data["text"]
    assert "7 byte-identical files, 0 near-duplicates across splits" in data["text"]
    assert (
        model["figure"] == "small, fine-tuned" and "+0.013 accuracy (-0.010 to +0.030), within noise" in model["text"]
    )
    assert result["figure"] == "accuracy 0.812 (0.750 to 0.870)"
    assert "most frequent class 0.450, highest possible 0.930" in result["text"]
    assert cost["figure"] == "USD 0.021 to 0.5 per million predictions" and "1.23 ms" in cost["text"]
    assert "at the prices of other machines" in cost["text"]
    assert service["figure"].startswith("7 of 7") and "make serve STUDY=planted PROFILE=quick" in service["text"]
    assert result["link"] == "05_fine_tuning/report.html#4-test-report"


def test_ordered_classes_show_their_kappa(reports_folder: Path) -> None:
    run = make(reports_folder)
    metrics_file = run.folder / "05_fine_tuning" / "metrics.json"
    content = json.loads(metrics_file.read_text())
    assert {name: evaluation.METRICS[name].title for name in summary.METRICS} == summary.METRICS
    content["results"]["summary"] = SUMMARY | {"kappa": {"value": 0.6, "low": 0.5, "high": 0.7}}
    metrics_file.write_text(json.dumps(content))
    assert "quadratic weighted kappa 0.600 (0.500 to 0.700)" in summary.key_results(records.Run(run.folder))[2].details


def test_where_test_lacks_a_class_the_key_result_says_so(reports_folder: Path) -> None:
    run = make(reports_folder)
    metrics_file = run.folder / "05_fine_tuning" / "metrics.json"
    content = json.loads(metrics_file.read_text())
    none = {"value": None, "low": None, "high": None}
    content["results"]["summary"] = dict.fromkeys(("accuracy", "balanced_accuracy", "auroc"), none)
    content["results"]["differences"] = {"accuracy": [None, None, None]}
    content["results"]["headline"] = "net: accuracy is not defined: the test split has no image of class 'c'"
    metrics_file.write_text(json.dumps(content))
    run = records.Run(run.folder)
    _, model, result, *_ = summary.key_results(run)
    assert result.figure == summary.accuracy(run) == content["results"]["headline"] and not result.details
    assert not any("fine-tuning:" in line for line in model.details)


def test_missing_reports_are_listed_with_the_command(reports_folder: Path) -> None:
    run = make(reports_folder, "05_fine_tuning", "06_hardware_benchmark")
    problem = Failure("DataError", "no such thing", "2. Training", 1)
    more = {"sentence": problem.sentence, "overrides": "seed=1 limit=9", "finished": "2026-01-02T04:00:00+00:00"}
    name = "06_hardware_benchmark"
    record(run.folder / name, facts(name, study_of(profile="quick"), {}, **more), problem)
    index.write()
    run = records.Run(run.folder)
    _, model, result, cost, service = shown_results(run)
    assert model["figure"] == "small, frozen" and "not fine-tuned yet" in model["text"]
    assert result["figure"] == "Not run yet" and result["link"] == ""
    assert cost["figure"] == "Failed" and "no such thing" in cost["text"]
    assert cost["link"] == "06_hardware_benchmark/report.html"
    assert service["figure"].startswith("7 of 7")
    text = (run.folder / "index.html").read_text()
    assert f"{len(suite.notebooks(False)) - 2} of {len(suite.notebooks(False))} reports are whole" in text
    assert "make reports STUDY=planted PROFILE=quick SET=&#39;seed=1 limit=9&#39;" in text
    assert run.folder.joinpath("checklist.html").read_text().count("(failed)") >= 1


def test_reports_of_different_states_are_marked(reports_folder: Path) -> None:
    run = make(reports_folder)
    assert not run.mixed and "from different versions of" not in (run.folder / "index.html").read_text()
    metrics_file = run.folder / "04_transfer_learning" / "metrics.json"
    content = json.loads(metrics_file.read_text())
    metrics_file.write_text(json.dumps(content | {"fingerprints": content["fingerprints"] | {"data": "other"}}))
    index.write()
    assert "from different versions of" in (run.folder / "index.html").read_text()


PUBLISHED = {
    "test": {"notebook": "05_fine_tuning", "caption": "of 1999", "rows": {"small": {"accuracy": 0.75, "x": "?"}}}
}


@pytest.mark.parametrize("stand_in", [False, True])
def test_published_figures_are_compared_with_real_images_alone(
    stand_in: bool, reports_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    of = study_of(published=PUBLISHED, profile="quick").model_copy(update={"on_stand_in": stand_in})
    made = Notebook("05_fine_tuning", of, monkeypatch)
    made.session.published(pd.DataFrame({"accuracy": [0.8125], "f1": [0.5]}, index=["small"]))
    made.session.result("headline", "h")
    made.session.finish()
    results = json.loads((made.session.folder / "results.json").read_text())
    made.write(results)
    index.write()
    soup = BeautifulSoup((made.session.folder.parent / "index.html").read_text(), "html.parser")
    section = soup.select_one("[aria-labelledby=published]")
    if stand_in:
        assert "published" not in results and "Not compared" in section.get_text()
        assert not section.select("table")
    else:
        assert results["published"] == {"test": {"small": {"accuracy": {"published": 0.75, "this run": 0.8125}}}}
        assert [cell.get_text() for cell in section.select("td")] == [*("accuracy", "0.75", "0.8125", "+0.0625")]


# --- checklists


def test_checklists_are_whole_and_name_headings_that_exist() -> None:
    headings = {
        name: {
            line.lstrip("# ") for cell in suite.cells(name) for line in cell["source"].splitlines() if line[:2] == "##"
        }
        | {"This run"}  # the section at the foot of every report, which no notebook has
        for name in suite.NOTEBOOKS
    }
    counts = {}
    for guideline in checklist.guidelines():
        items = [item for topic in guideline.topics for item in topic.items]
        counts[guideline.name] = len(items)
        assert len({item.number for item in items}) == len(items)
        for item in items:
            assert item.answers or item.open, f"{guideline.name} {item.number} has neither an answer nor what is open"
            for name, named in item.answers.items():
                assert set(named) <= headings[name], f"{guideline.name} {item.number}: {name} has no such heading"
    assert counts == {"CLAIM 2024": 44, "TRIPOD+AI": 52}


def test_checklist_items_are_linked_or_marked_open(reports_folder: Path) -> None:
    run = make(reports_folder, "07_export_flask")
    soup = BeautifulSoup((run.folder / "checklist.html").read_text(), "html.parser")
    claim = {row.th.get_text(): row for row in soup.select_one("table.items").select("tr") if row.select("td")}
    states = {number: row.select("td")[1].get_text() for number, row in claim.items()}
    assert (states["28"], states["21"], states["44"], states["41"]) == (
        "✓ answered",
        "◐ partly answered",
        "○ open",
        "– not run",
    )
    assert claim["28"].a["href"] == "05_fine_tuning/report.html#4-test-report"
    assert not claim["41"].select("a") and "(not run)" in claim["41"].get_text()


# --- the index


def test_the_index_lists_every_study_with_its_test_result(reports_folder: Path) -> None:
    run = make(reports_folder)
    shutil.copytree(run.folder, reports_folder / "planted" / "smoke")
    for path in (reports_folder / "planted" / "smoke").glob("*/metrics.json"):
        content = json.loads(path.read_text())
        path.write_text(json.dumps(content | {"study": content["study"] | {"profile": "smoke"}}))
    shutil.rmtree(reports_folder / "planted" / "smoke" / "05_fine_tuning")
    soup = BeautifulSoup(index.write().read_text(), "html.parser")
    rows = [
        [cell.get_text(strip=True) for cell in row.select("th, td")] for row in soup.select("table")[0].select("tr")
    ]
    assert rows[1] == [
        "Planted colours",
        "quick",
        "real",
        f"{len(suite.notebooks(False))} of {len(suite.notebooks(False))}",
        "accuracy 0.812 (0.750 to 0.870)",
        "2026-01-02 03:04",
    ]
    assert rows[2][3:5] == [f"{len(suite.notebooks(False)) - 1} of {len(suite.notebooks(False))}", "–"]
    assert [link["href"] for link in soup.select("section h2 a")] == [
        "planted/quick/index.html",
        "planted/smoke/index.html",
    ]
    assert soup.select(".runs")[1].get_text().count("– not run") == 1


def test_a_study_of_another_version_does_not_break_the_index(reports_folder: Path) -> None:
    run = make(reports_folder)
    metrics_file = run.folder / "01_eda" / "metrics.json"
    content = json.loads(metrics_file.read_text())
    metrics_file.write_text(
        json.dumps(content | {"study": content["study"] | {"gone": 1}, "finished": "2027-01-01T00:00:00"})
    )
    index.write()
    assert "Planted colours" in (run.folder / "index.html").read_text()
    metrics_file.write_text(json.dumps({"seconds": 3}))
    assert records.Run(run.folder).reports["01_eda"].status == ""


def test_results_that_nobody_expected_cost_one_study_its_pages_and_no_other(
    reports_folder: Path, capsys: pytest.CaptureFixture
) -> None:
    run = make(reports_folder)
    strange = reports_folder / "strange" / "quick"
    shutil.copytree(run.folder, strange)
    metrics_file = strange / "01_eda" / "metrics.json"
    content = json.loads(metrics_file.read_text())
    metrics_file.write_text(json.dumps(content | {"results": {"splits": ["train", "test"]}}))
    page = index.write().read_text()
    assert "planted/quick/index.html" in page and "strange/quick" not in page
    assert "strange/quick: excluded from the index" in capsys.readouterr().err


# --- in Chromium


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with pages.browser() as started:
        yield started


def shown(chromium: Browser, path: Path, **options: Any) -> Page:
    page = chromium.new_context(offline=True, viewport={"width": 1000, "height": 800}, **options).new_page()
    page.set_default_timeout(10_000)
    page.goto(path.as_uri())
    return page


@pytest.mark.slow
@pages.needs_chromium
def test_every_kind_of_page_can_be_read_everywhere(
    reports_folder: Path, monkeypatch: pytest.MonkeyPatch, chromium: Browser
) -> None:
    run = make_whole(reports_folder, monkeypatch, "05_fine_tuning", "06_hardware_benchmark")
    failed = Notebook("06_hardware_benchmark", study_of(profile="quick"), monkeypatch)
    fill(failed.session)
    problem = Failure("DataError", "no column dx; expected one of a, b", "2. Training", 1)
    failed.write({}, problem, sentence=problem.sentence)
    index.write()
    reports = [run.folder / "01_eda" / "report.html", run.folder / "06_hardware_benchmark" / "report.html"]
    views = [("light", 360), ("dark", 1440)]  # both schemes, the narrowest and the widest
    for path in (reports_folder / "index.html", run.folder / "index.html", run.folder / "checklist.html", *reports):
        pages.check_file(path)
        pages.check_shown(chromium, path, views)


@pytest.mark.slow
@pages.needs_chromium
def test_tables_sort_by_mouse_and_keyboard_and_do_without(example: Path, chromium: Browser) -> None:
    page = shown(chromium, example)
    table = page.locator("table[data-name=splits]")
    names, shares = table.locator("tbody th"), table.locator("thead th").nth(2)
    expect(names).to_have_text(["nevus", "melanoma <1>", "other"])
    shares.get_by_role("button", name="share").click()
    expect(shares).to_have_attribute("aria-sort", "ascending")
    expect(names).to_have_text(["melanoma <1>", "nevus", "other"])  # what is not known comes last
    page.keyboard.press("Enter")
    expect(shares).to_have_attribute("aria-sort", "descending")
    expect(names).to_have_text(["nevus", "melanoma <1>", "other"])
    page.keyboard.press("Tab")
    page.keyboard.press("Space")
    expect(shares).not_to_have_attribute("aria-sort", "descending")
    expect(table.locator("tbody td:last-child")).to_have_text([r"a", "a long note " * 8, "b"])
    page.keyboard.press("Space")
    page.keyboard.press("Space")
    expect(names).to_have_text(["nevus", "melanoma <1>", "other"])
    without = shown(chromium, example, java_script_enabled=False)
    expect(without.locator("table[data-name=splits] tbody th")).to_have_text(["nevus", "melanoma <1>", "other"])
    expect(without.locator("table[data-name=splits] button")).to_have_count(0)


@pytest.mark.slow
@pages.needs_chromium
def test_a_report_prints_dark_on_white_with_its_parameters(example: Path, chromium: Browser) -> None:
    page = shown(chromium, example, color_scheme="dark")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != "rgb(255, 255, 255)"
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    expect(page.locator("nav")).to_be_hidden()
    expect(page.locator("details.code").first).to_be_hidden()
    assert len(page.pdf(format="A4")) > 10_000
    expect(page.get_by_text("fine_tuning.epochs")).to_be_visible()
