"""The runner: which reports are stale, how a notebook runs and fails, and the report of both."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from helpers.projects import RECORD, make_project, write_notebook
from scanbook import cli, config, runtime
from scanbook.errors import DataError, RunError
from scanbook.reporting import suite
from scanbook.runner import execute, freshness, index, locks, planning, schedule
from scanbook.runner.freshness import Batch, CodeState, check_data
from scanbook.runtime import machine


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project of small notebooks, with reports and store of its own."""
    monkeypatch.setenv("SCANBOOK_HOME", str(make_project(tmp_path / "a project")))
    monkeypatch.setenv("SCANBOOK_REPORTS", str(tmp_path / "reports"))
    monkeypatch.setenv("SCANBOOK_STORE", str(tmp_path / "store"))
    return tmp_path / "a project"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory):
    """One notebook, run once, in a home where a broken kernel is registered as python3."""
    folder = tmp_path_factory.mktemp("whole")
    make_project(folder)
    show = """
import sys
from IPython.display import HTML, Markdown, display
display(HTML("<table border='1'><thead><tr><th>a</th></tr></thead><tbody><tr><td>1</td></tr></tbody></table>"))
display(Markdown("A *sentence*."))
block = bytearray(150 * 2**20)
print("to stdout"); print("to stderr", file=sys.stderr)
import time; time.sleep(0.6)
"""
    write_notebook(folder, "01_eda", show, RECORD.format(name="01_eda"))
    rogue = folder / "jupyter" / "kernels" / "python3"
    rogue.mkdir(parents=True)
    rogue.joinpath("kernel.json").write_text(
        json.dumps({"argv": ["/bin/false"], "display_name": "x", "language": "python"})
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SCANBOOK_HOME", str(folder))
        patch.setenv("SCANBOOK_REPORTS", str(folder / "reports"))
        patch.setenv("JUPYTER_PATH", str(folder / "jupyter"))
        patch.setenv("JUPYTER_PREFER_ENV_PATH", "0")
        batch = Batch(config.load("synthetic", "smoke", overrides="seed=3"), "seed=3")
        before = dict(os.environ)
        report = execute.run(batch, "01_eda")
        assert dict(os.environ) == before
        yield batch, report, json.loads(report.with_name("metrics.json").read_text())


def smoke() -> Batch:
    return Batch(config.load("synthetic", "smoke"))


# --- a whole run


def test_metrics_have_the_run_and_its_machine(whole) -> None:
    batch, report, metrics = whole
    assert metrics["results"] == {"headline": "answer <42>", "set": "seed=3"}
    assert metrics["fingerprints"] == batch.fingerprints("01_eda")
    assert metrics["study"]["seed"] == 3 and metrics["study"]["profile"] == "smoke"
    assert metrics["versions"]["python"] == ".".join(map(str, sys.version_info[:3]))
    assert metrics["hardware"]["cores"] >= 1
    assert metrics["hardware"]["networks were trained on"] == "CPU; GPU: Tesla T4"
    assert "<dt>Networks were trained on</dt><dd>CPU; GPU: Tesla T4</dd>" in report.read_text()
    assert 0.5 < metrics["seconds"] < 60
    assert 0.15 < metrics["peak memory (GiB)"] < 2
    assert report.with_name("notebook.ipynb").is_file()
    assert not report.with_name("failure.json").exists()


def test_the_kernel_is_this_interpreter_in_the_projects_root(whole) -> None:
    _, _, metrics = whole
    measured = metrics["measurements"]
    assert Path(measured["prefix"]) == Path(sys.prefix)
    assert Path(measured["cwd"]) == runtime.project_root()
    assert measured["headless"] == "1"


def test_the_report_opens_offline(whole) -> None:
    _, report, _ = whole
    page = report.read_text()
    loaded = re.findall(r"""<(?:script|link|img|iframe)\b[^>]*(?:src|href)=["'](?!data:)([^"']+)""", page)
    assert loaded == []
    assert "@import" not in page and not re.search(r"url\((?!data:)", page)
    assert "Open in Colab" in page


def test_the_report_has_contents_folded_code_and_its_origin(whole) -> None:
    _, report, metrics = whole
    page = report.read_text()
    assert '<html lang="en">' in page and "<title>Title of 01_eda · Synthetic dermoscopy" in page
    targets = re.findall(r'<a href="#([^"]+)">', page)
    assert len(targets) >= 3 and all(f'id="{target}"' in page for target in targets)
    assert page.count('<details class="code">') == 3  # of the parameters, and of each step
    assert '<details class="log"><summary>Messages</summary>' in page and "to stderr" in page
    assert page.count('class="scroll"') == 1 and "<table>" in page
    assert "<em>sentence</em>" in page
    assert metrics["fingerprints"]["study"] in page and "seed=3" in page and 'href="../../../index.html"' in page


def test_the_index_shows_the_key_figure_escaped(whole) -> None:
    page = index.write().read_text()
    assert "answer &lt;42&gt;" in page
    assert f"1 of {len(suite.NOTEBOOKS)} reports whole" in page
    assert page.count("– not run") == len(suite.NOTEBOOKS) - 1
    assert 'href="synthetic/smoke/01_eda/report.html"' in page


# --- freshness


def test_a_whole_run_is_fresh_until_what_it_depends_on_changes(whole) -> None:
    batch, report, _ = whole
    path = suite.path("01_eda")
    source = path.read_text()
    assert batch.fresh("01_eda")
    assert batch.stale() == [name for name in suite.NOTEBOOKS if name != "01_eda"]
    os.utime(path)
    assert batch.fresh("01_eda")
    content = json.loads(source)
    content["cells"][-1]["outputs"] = [{"output_type": "stream", "name": "stdout", "text": "x"}]
    path.write_text(json.dumps(content, indent=3))
    assert batch.fresh("01_eda"), "outputs and layout of the file are no content"
    path.write_text(source.replace("A question?", "Another question?"))
    assert not batch.fresh("01_eda")
    path.write_text(source)
    assert not Batch(config.load("synthetic", "smoke")).fresh("01_eda"), "without the override"
    assert not Batch(config.load("synthetic", "quick", overrides="seed=3"), "seed=3").fresh("01_eda")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(machine, "version", lambda name: "0")
        assert not Batch(config.load("synthetic", "smoke", overrides="seed=3"), "seed=3").fresh("01_eda")
    report.rename(report.with_suffix(".gone"))
    assert not batch.fresh("01_eda")
    report.with_suffix(".gone").rename(report)
    assert batch.fresh("01_eda")


def test_data_count_by_content(project: Path, tmp_path: Path) -> None:
    images = tmp_path / "images"
    (images / "a").mkdir(parents=True)
    (images / "a" / "1.png").write_bytes(b"one")
    prints = []
    for content in (b"one", b"one", b"two"):
        (images / "a" / "1.png").write_bytes(content)
        prints.append(Batch(config.load("folder", "smoke", str(images))).fingerprints("01_eda")["data"])
    assert prints[0] == prints[1] != prints[2]


def needs(runs: dict[str, planning.Run]) -> dict[str, set[str]]:
    """Return the notebooks that each notebook of one study waits for."""
    return {
        name.removeprefix("synthetic/"): {earlier.removeprefix("synthetic/") for earlier in run.after}
        for name, run in runs.items()
    }


def test_every_stale_notebook_is_planned_after_those_that_it_needs(project: Path) -> None:
    needs_of = needs(planning.plan([smoke()]))
    assert set(needs_of) == set(suite.NOTEBOOKS)
    assert needs_of["01_eda"] == set()
    for name in ("02_segmentation", "03_augmentation", "04_transfer_learning"):
        assert needs_of[name] == {"01_eda"}
    assert needs_of["05_fine_tuning"] >= {"02_segmentation", "03_augmentation", "04_transfer_learning"}
    # the benchmark keeps nobody from running where it fails; the machine is its own by a lock
    assert not any(suite.BENCHMARK in needs for needs in needs_of.values())
    assert needs_of["07_export_flask"] == needs_of[suite.BENCHMARK] == set(suite.NOTEBOOKS[:5])


def test_what_is_fresh_is_not_planned_and_the_order_holds_across_it(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Batch, "fresh", lambda self, name: name not in ("01_eda", "05_fine_tuning"))
    assert needs(planning.plan([smoke()])) == {"01_eda": set(), "05_fine_tuning": {"01_eda"}}
    monkeypatch.setattr(Batch, "fresh", lambda self, name: True)
    assert planning.plan([smoke()]) == {}


def test_what_is_planned_is_run_as_it_is(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """A folder with a space and a dollar sign reaches the command as it is."""
    odd = project / "my $HOME images"
    odd.mkdir()
    monkeypatch.setattr(sys, "executable", "echo")
    batch = Batch(config.load("folder", "smoke", str(odd), "seed=1 limit=9"), "seed=1 limit=9")
    schedule.run_all(planning.plan([batch], "env A='b c'"), 2, (), lambda: "")
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(suite.notebooks(False))
    assert all(f"--data {odd} --set seed=1 limit=9" in line for line in lines)
    assert "run 01_eda" in lines[0] and "run 05_fine_tuning" in lines[4]


def test_runs_wait_for_what_they_need_and_a_failure_stops_only_those_that_need_it(
    project: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    log = tmp_path / "log"

    def run(name: str, *after: str, status: int = 0) -> planning.Run:
        begin, end = (f'echo "{word} {name}" >> {log}' for word in ("start", "end"))
        other = {"a": "b", "b": "a"}.get(name, name)  # the first two wait for each other, so both must run
        wait = f'until grep -q "start {other}" {log}; do sleep 0.02; done'
        return planning.Run(["sh", "-c", f"{begin}; {wait}; {end}; echo {name} >&2; exit {status}"], after)

    runs = {"a": run("a"), "b": run("b"), "c": run("c", "a", status=3), "d": run("d", "b"), "e": run("e", "c", "d")}
    schedule.run_all(runs, 2, (), lambda: "")
    lines = log.read_text().splitlines()
    assert sorted(lines) == sorted(f"{word} {name}" for name in "abcd" for word in ("start", "end"))
    assert lines.index("end a") < lines.index("start c") and lines.index("end b") < lines.index("start d")
    running = [sum(1 if line.startswith("start") else -1 for line in lines[: number + 1]) for number in range(8)]
    assert max(running) == 2
    assert sorted(capsys.readouterr().err.split()) == ["a", "b", "c", "d"]
    log.unlink()
    schedule.run_all({name: run(name) for name in "edc"}, 1, (), lambda: "")
    assert log.read_text().split()[1::2] == ["e", "e", "d", "d", "c", "c"], "in their order, one at a time"


def test_the_check_is_a_quick_start(project: Path) -> None:
    heavy = "pandas keras tensorflow cv2 matplotlib sklearn scipy papermill nbconvert jupyter_client numpy"
    code = (
        "import sys; from scanbook import cli; status = cli.main(['status', '--profile', 'smoke']);"
        f"print('HEAVY', [name for name in '{heavy}'.split() if name in sys.modules]); sys.exit(status)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "HEAVY []"
    assert f"synthetic/smoke: {len(suite.NOTEBOOKS)} missing" in done.stdout


def test_a_page_is_rendered_again_without_a_kernel(whole, monkeypatch: pytest.MonkeyPatch) -> None:
    batch, report, before = whole
    ran = report.with_name("notebook.ipynb").stat().st_mtime_ns
    monkeypatch.setattr(freshness, "_RENDERING", "scanbook.reporting.failure")  # as if other code rendered pages
    reason = Batch(batch.study, batch.overrides).state("01_eda").reason
    assert reason == "changed since: page (will be rendered again, not run)"
    monkeypatch.setattr(execute, "_run", lambda *arguments: pytest.fail("a kernel is started"))
    report.write_text("of another style")
    assert execute.run(Batch(batch.study, batch.overrides), "01_eda", if_stale=True) == report
    assert "answer &lt;42&gt;" in index.write().read_text() and "Title of 01_eda" in report.read_text()
    metrics = json.loads(report.with_name("metrics.json").read_text())
    assert metrics == before | {"fingerprints": before["fingerprints"] | {"page": CodeState().page}}
    assert report.with_name("notebook.ipynb").stat().st_mtime_ns == ran
    assert Batch(batch.study, batch.overrides).fresh("01_eda")
    assert not batch.refreshed().fresh("01_eda"), "a process renders with the code that it has imported"
    monkeypatch.undo()
    assert execute.run(batch, "01_eda", if_stale=True) and batch.refreshed().fresh("01_eda")


def test_a_log_says_again_and_again_how_far_a_long_section_is(
    project: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(execute, "QUIET", 0.2)
    monkeypatch.setattr(execute, "INTERVAL", 0.1)
    work = """
import time
from scanbook.runtime import steps
with steps.step("stage fine_tuning"), steps.step("ResNet18", 12, "epoch") as training:
    training.started -= 4
    training.advance(2)
    time.sleep(3.5)
"""
    write_notebook(project, "01_eda", work, RECORD.format(name="01_eda"))
    execute.run(smoke(), "01_eda")
    lines = capsys.readouterr().out.splitlines()
    places = [line.split("] ")[1] for line in lines if "1. Step 1" in line]
    assert places[0] == "1. Step 1" and len(places) >= 3
    assert all(
        re.fullmatch(r"1\. Step 1 \(stage fine_tuning: ResNet18, epoch 3 of 12, about .+ left\)", place)
        for place in places[2:]
    )
    assert [line.split("] ")[1] for line in lines if "2. Step 2" in line] == ["2. Step 2"]


# --- failures


def fails(batch: Batch, name: str) -> tuple[str, str]:
    """Run a notebook that fails; return its message and report."""
    folder = batch.folder / name
    with pytest.raises(RunError) as caught:
        execute.run(batch, name)
    assert not (folder / "metrics.json").exists()
    assert (folder / "notebook.ipynb").is_file()
    assert not batch.fresh(name)
    assert "\n" not in str(caught.value)
    return str(caught.value), (folder / "report.html").read_text()


def test_an_expected_error_is_one_line_in_terminal_and_report(project: Path) -> None:
    raising = "from scanbook.errors import DataError\nraise DataError('no <column> dx in x.csv; expected one of a, b')"
    write_notebook(project, "02_segmentation", "print('before')", raising, "print('never')")
    batch = smoke()
    folder = batch.folder / "02_segmentation"
    (folder / "tables").mkdir(parents=True)
    for stale in ("metrics.json", "results.json", "report.html", "tables/old.csv"):
        (folder / stale).write_text("{}")
    line, page = fails(batch, "02_segmentation")
    assert "02_segmentation failed in section '2. Step 2', cell 4: no <column> dx in x.csv" in line
    assert "not run because of it: 05_fine_tuning, 06_hardware_benchmark, 07_export_flask" in line
    assert "This run failed" in page and "no &lt;column&gt; dx in x.csv" in page
    assert "Traceback (most recent" not in page
    assert "before" in page and "never" not in page and "Step 3" not in page
    assert not (folder / "tables").exists() and not (folder / "results.json").exists()
    assert "✗ failed" in (runtime.reports_dir() / "index.html").read_text()


def test_an_unexpected_error_shows_its_last_lines(project: Path) -> None:
    write_notebook(project, "03_augmentation", "def deep(n):\n    return 1 / n if n == 0 else deep(n - 1)\ndeep(30)")
    line, page = fails(smoke(), "03_augmentation")
    assert "section '1. Step 1', cell 3: ZeroDivisionError: division by zero" in line
    assert '<pre class="error"' in page
    shown = page.split('<pre class="error"')[1].split("</pre>")[0]
    assert "ZeroDivisionError" in shown and shown.count("\n") < 20 and "\x1b" not in page


def test_a_killed_kernel_is_named_as_such(project: Path) -> None:
    write_notebook(project, "04_transfer_learning", "1 + 1", "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)")
    line, page = fails(smoke(), "04_transfer_learning")
    message = r"the kernel was killed, as happens when memory runs out, at cell 4, peak \d+\.\d GiB; run one notebook"
    assert re.search(message, line) and re.search(message, page)
    assert "JOBS=1" in line and "image_size=32" in line and "fine_tuning.batch_size=" in line


def test_a_notebook_that_records_nothing_is_not_a_whole_run(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_notebook(project, "01_eda", "1 + 1")

    def without_a_kernel(batch: Batch, name: str, folder: Path, follower: execute.Follower) -> tuple[float, None]:
        (folder / "notebook.ipynb").write_bytes(path.read_bytes())
        return 0.1, None

    monkeypatch.setattr(execute, "_execute", without_a_kernel)
    line, _ = fails(smoke(), "01_eda")
    assert "must call finish()" in line


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["status", "--study", "nosuch"], "unknown study 'nosuch'; expected one of folder, synthetic"),
        (["status", "--profile", "fast"], "unknown profile 'fast'; expected one of smoke, quick, full"),
        (["status", "--set", "head.epoch=3"], "unknown key 'head.epoch'"),
        (["status", "--set", "backbones=[vgg99]"], "unknown backbone 'vgg99'"),
        (["reports", "--study", "folder", "--data", "/no/such/place"], "no data at /no/such/place"),
        (["run", "01_eda", "--study", "folder"], "study folder has no data at"),
        (["run", "08_more"], "unknown notebook '08_more'"),
        (["serve"], "no bundle at"),
    ],
)
def test_a_wrong_word_is_one_line_and_status_1(project: Path, capsys, arguments: list[str], says: str) -> None:
    assert cli.main(arguments) == 1
    out, error = capsys.readouterr()
    assert out == "" and error.startswith("scanbook: ") and says in error
    assert error.count("\n") == 1 and "Traceback" not in error
    assert not runtime.reports_dir().exists(), "nothing is written"


def test_the_traceback_is_there_when_asked(project: Path, capsys) -> None:
    assert cli.main(["status", "--study", "nosuch", "--traceback"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_a_broken_notebook_is_named(project: Path, capsys) -> None:
    suite.path("01_eda").write_text("{not json")
    assert cli.main(["run", "01_eda"]) == 1
    assert "01_eda.ipynb is not a Jupyter notebook" in capsys.readouterr().err


def test_a_study_that_downloads_its_data_needs_none_beforehand(project: Path) -> None:
    source = {"adapter": "medmnist", "flag": "retinamnist"}
    medmnist = config.load("synthetic").model_copy(update={"dataset": config.MedMnistData(**source), "study": "retina"})
    check_data(medmnist)
    with pytest.raises(DataError, match="check DATA"):
        check_data(medmnist.model_copy(update={"data": "/no/such.npz"}))


# --- locks


def enter(context, entered: threading.Event, leave: threading.Event) -> threading.Thread:
    def body() -> None:
        with context:
            entered.set()
            leave.wait(10)

    thread = threading.Thread(target=body, daemon=True)
    thread.start()
    return thread


def test_the_benchmark_has_the_machine_alone_and_is_not_starved(project: Path) -> None:
    leave, first, second, alone, late = (threading.Event() for _ in range(5))
    for event in (first, second):
        enter(locks.machine(alone=False), event, leave)
        assert event.wait(5), "notebooks share the machine"
    finished = threading.Event()
    waiting = threading.Event()
    enter(locks.machine(alone=True, on_wait=waiting.set), alone, finished)
    assert waiting.wait(5)
    enter(locks.machine(alone=False), late, finished)
    time.sleep(0.1)
    assert not alone.is_set() and not late.is_set(), "a later run queues behind the benchmark"
    leave.set()
    assert alone.wait(5)
    time.sleep(0.1)
    assert not late.is_set()
    finished.set()
    assert late.wait(5)


def test_a_run_that_waited_for_the_same_run_takes_its_report(project: Path, capsys) -> None:
    batch = smoke()
    entered, leave = threading.Event(), threading.Event()
    holder = enter(locks.hold(batch.folder / "01_eda" / ".lock"), entered, leave)
    assert entered.wait(5)
    folder = batch.folder / "01_eda"
    runner = threading.Thread(target=execute.run, args=(batch, "01_eda"))
    runner.start()
    (folder / "metrics.json").write_text(json.dumps({"fingerprints": batch.fingerprints("01_eda")}))
    (folder / "report.html").write_text("theirs")
    time.sleep(0.2)
    leave.set()
    holder.join(5)
    runner.join(20)
    assert (folder / "report.html").read_text() == "theirs"
    assert "waiting for another run" in capsys.readouterr().out


# --- all of it
