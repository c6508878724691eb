"""README, CONTRIBUTING and the pages of docs/: every command runs, every example works, every link leads somewhere.

`HOW` names the test that runs each command; test_reports.py runs the first of all, `make reports`, on real notebooks.
What needs a container engine, a cloud or another package manager meets the programs of `programs.py`, which check what
they are asked for.
"""

from __future__ import annotations

import argparse
import base64
import io
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from benchmarks import __main__ as benchmarks_command
from helpers import documents, finding_bundles, programs, uploads
from helpers.bundles import write as write_bundle
from helpers.documents import DOCUMENTS, ROOT
from helpers.latencies import fine, serving
from helpers.projects import shipped, write_notebook
from helpers.services import Service, free_port
from scanbook import cli, config, evaluation, runtime
from scanbook.data import embeddings, images
from scanbook.reporting import suite
from scanbook.runner import embed, index, planning, sweeps, train
from scanbook.runner.authoring import notebooks
from scanbook.runtime import distribution
from scanbook.serving import settings
from scanbook.serving.app import create_app

HOW = (
    (r".*\bpractice\b.*|make serve STUDY=folder", "test_the_tutorial_is_followed"),
    (r"git clone \S+ && cd scanbook", "test_the_first_commands"),
    (r"make (setup|reports DATA=path/to/images|test|check)", "test_the_first_commands"),
    (r"make (status|lab|docs).*", "test_the_other_commands_of_a_clone"),
    (r"\.venv/bin/(pre-commit install|scanbook (studies|cache) ?.*)", "test_the_other_commands_of_a_clone"),
    (r"(conda|pip) .*(environment.yml|\].)", "test_the_other_commands_of_a_clone"),
    (r"make (new-notebook .*|lint)", "test_a_notebook_is_added"),
    (r"\.venv/bin/scanbook run .*", "test_a_notebook_is_added"),
    (r"git apply backbone.diff", "test_a_backbone_is_added"),
    (r".* pytest tests/models/test_backbones.py .*", "test_a_backbone_is_added"),
    (r"make reports .*mobilenet_v3_small.*", "test_a_backbone_is_added"),
    (r"\.venv/bin/scanbook new-study .*", "test_a_table_is_added"),
    (r"make reports .*DATA=path/to/ward", "test_a_table_is_added"),
    (r"git apply adapter.diff", "test_an_adapter_is_added"),
    (r"make reports .*dataset.adapter=listed.*", "test_an_adapter_is_added"),
    (r"make validate .*", "test_make_gives_the_command_what_it_asks_for"),
    (r"(make|\.venv/bin/scanbook) compare .*", "test_runs_are_compared"),
    (r"make (reports.*|sweep.*|bench.*)", "test_make_gives_the_command_what_it_asks_for"),
    (r"sbatch .*", "test_jobs_ask_make_for_what_it_makes"),
    (r"(srun .* )?\.venv/bin/scanbook train .*", "test_one_network_is_trained_by_several"),
    (r"\.venv/bin/scanbook embed .*", "test_images_are_embedded"),
    (r"\.venv/bin/scanbook export .*", "test_a_model_is_exported_and_packed"),
    (r"docker .*scanbook", "test_a_model_is_exported_and_packed"),
    (r"(export AWS|REGISTRY=|ENDPOINT=|aws |docker ).*", "test_a_model_goes_to_aws"),
    (r"make serve STUDY=ward", "test_make_gives_the_command_what_it_asks_for"),
    (r"curl .*f0000.png.*", "test_a_service_of_findings_answers"),
    (r"(make serve|curl .*|pip install -r .*|.* latency .*)", "test_a_service_answers"),
)
"""How each command is run: the first pattern that it matches."""
srun = argparse.ArgumentParser(allow_abbrev=False)
"""Options of Slurm's `srun` that the documents use."""
for option in ("--nodes", "--ntasks", "--ntasks-per-node", "--gpus-per-node", "--cpus-per-task", "--kill-on-bad-exit"):
    srun.add_argument(option, default="1")
TINY = """import pytest


def test_fast():
    assert True


@pytest.mark.slow
def test_slow():
    assert True
"""


def commands(test: str) -> list[str]:
    """The commands that a test runs, in the order of the documents, each once."""
    listed = dict.fromkeys(command for document in DOCUMENTS for command in documents.commands(document))
    return [command for command in listed if runs(command) == test]


def runs(command: str) -> str | None:
    return next((test for pattern, test in HOW if re.fullmatch(pattern, command)), None)


# --- the documents themselves


def test_every_command_is_run_by_a_test() -> None:
    every = [command for document in DOCUMENTS for command in documents.commands(document)]
    assert len(every) > 40
    assert [command for command in every if runs(command) is None] == []
    for pattern, test in HOW:
        assert callable(globals()[test])
        assert any(re.fullmatch(pattern, command) and runs(command) == test for command in every), (
            f"no command for {pattern}"
        )


def test_every_fenced_block_says_what_it_is() -> None:
    known = {"sh", "yaml", "python", "diff", "text"}
    for document in DOCUMENTS:
        opened = re.findall(r"^```(.*)$", documents.text(document), re.MULTILINE)
        assert set(opened[::2]) <= known and set(opened[1::2]) <= {""}


def test_targets_and_subcommands_in_sentences_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.search(r"^\.PHONY: (.+)$", makefile, re.MULTILINE).group(1).split())
    variables = set(re.findall(r"^([A-Z]+) =", makefile, re.MULTILINE))
    for document in (*DOCUMENTS, *documents.generated()):
        prose = documents.prose(document)
        assert set(re.findall(r"`make ([a-z-]+)", prose)) <= targets
        assert set(re.findall(r"`make [^`]*?\b([A-Z]+)=", prose)) <= variables
        for name in re.findall(r"`(?:\.venv/bin/)?scanbook ([a-z-]+)", prose):
            with pytest.raises(SystemExit, match="0"):
                cli.main([name, "--help"])


def test_links_lead_somewhere() -> None:
    """Links between files; test_docs.py follows those of the built pages, and those to them."""
    for document in (*DOCUMENTS, "CHANGELOG.md"):
        links = re.findall(r"\]\((?!https?:)([^)\s]+)\)", documents.prose(document))
        for link in links:
            path, _, anchor = link.partition("#")
            target = ((ROOT / document).parent / path).resolve() if path else ROOT / document
            name = str(target.relative_to(ROOT))
            assert target.is_file() or name in documents.generated(), f"{document}: {link}"
            if anchor:
                assert anchor in documents.anchors(name), f"{document}: {link}"


def test_paths_in_sentences_exist() -> None:
    made = ("reports/", "data/")  # by a run
    for document in DOCUMENTS:
        for path in re.findall(r"`((?:lib|tests|docs|notebooks|\.github|\.ci)/[\w./-]*)`", documents.prose(document)):
            assert (ROOT / path).exists(), f"{document}: {path}"
        for path in re.findall(r"`([a-z]+/)`", documents.prose(document)):
            assert path in made or (ROOT / path).is_dir(), f"{document}: {path}"


def test_the_tables_are_whole() -> None:
    listed = re.findall(r"^\| ((?:`\w+`(?:, )?)+)", documents.text("docs/reference/studies.md"), re.MULTILINE)
    named = {name for row in listed for name in re.findall(r"`(\w+)`", row)}
    assert set(shipped()) <= named, "the table of studies"
    readme = documents.text("README.md")
    for name in suite.NOTEBOOKS:
        [row] = [line for line in readme.splitlines() if line.startswith(f"| [`{name}`]")]
        question = " ".join("".join(cell["source"]) for cell in suite.cells(name)[:1]).split("\n\n")[1]
        assert row.split(" | ")[1:] == [question, f"{notebooks.badge(name)} |"]
    used = {
        variable
        for path in (ROOT / "lib").rglob("*.py")
        for variable in re.findall(r"""["'](SCANBOOK_[A-Z_]+[A-Z])["']""", path.read_text())
    }
    # what the runner tells its own processes
    internal = {"SCANBOOK_HEADLESS", "SCANBOOK_LIVE", "SCANBOOK_STEPS", runtime.NOTEBOOK}
    explained = {
        variable for document in DOCUMENTS for variable in re.findall(r"`(SCANBOOK_\w+)", documents.text(document))
    }
    assert used - settings.VARIABLES - internal <= explained
    assert explained >= settings.VARIABLES


def test_the_citation_is_of_this_software() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert {"cff-version", "message", "title", "authors"} <= set(citation), "the keys that CFF 1.2 asks for"
    assert citation["cff-version"] == "1.2.0" and citation["type"] == "software"
    assert all({"name"} <= set(author) or {"family-names"} <= set(author) for author in citation["authors"])
    assert (citation["version"], citation["license"]) == (project["version"], project["license"])
    assert citation["repository-code"] == project["urls"]["Repository"]


@pytest.mark.parametrize("name", ["report", "service"])
def test_the_pictures_are_small(name: str) -> None:
    assert 20_000 < (documents.DOCS / "assets" / f"{name}.webp").stat().st_size < 200_000


def test_the_readme_is_short() -> None:
    assert len(documents.text("README.md").splitlines()) <= 150


# --- examples that need no clone


@pytest.mark.parametrize("block", documents.all_blocks("yaml"))
def test_every_example_of_a_study_is_valid(block: str) -> None:
    given = yaml.safe_load(block)
    plain = {"study": "mine", "title": "Mine", "question": "Any?", "backbones": ["baseline_cnn"]}
    given["dataset"] = {"adapter": "folder"} | given.get("dataset", {})
    assert config.Study.model_validate(plain | given).resolved()


def test_the_example_of_evaluation_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    draw = np.random.default_rng(0)
    names = [f"i{index}" for index in range(60)]
    truth = draw.integers(0, 2, 60)
    for name, noise in (("predictions", 0.3), ("other", 0.6)):
        ill = np.clip(0.2 + 0.6 * truth + draw.normal(0, noise, 60), 0.01, 0.99)
        table = evaluation.Predictions(names, names, truth, np.stack([1 - ill, ill], 1), ("normal", "ill"))
        table.save(tmp_path / f"{name}.csv")
    labels, shares = draw.choice([0, 1, np.nan], (60, 2)), draw.random((60, 2))
    findings = evaluation.FindingPredictions(names, names, labels, shares, ("edema", "mass"))
    findings.save(tmp_path / "findings.csv")
    block, of_findings = documents.blocks("docs/how-to/evaluation.md", "python")
    made: dict[str, Any] = {}
    exec(block, made)
    assert len(made["test"]) == 60 and made["other"].classes == ("normal", "ill")
    exec(of_findings, made)
    assert made["test"].findings == ("edema", "mass")


@pytest.mark.parametrize("command", commands("test_a_service_of_findings_answers"))
def test_a_service_of_findings_answers(command: str, tmp_path: Path) -> None:
    findings = finding_bundles.names(3)
    bundle = finding_bundles.write(tmp_path / "bundle", exam=finding_bundles.exam(findings))
    *forms, address = shlex.split(command)[1:]
    files = [(io.BytesIO(uploads.RED), form.partition("@")[2]) for form in forms if form != "-F"]
    path = address.removeprefix("http://127.0.0.1:8080")
    answer = create_app(bundle.folder).test_client().post(path, data={"image": files}).get_json()
    assert len(answer["predictions"]) == len(files) and ("exam" in answer) == ("exam=1" in path)
    [shown] = [text for text in documents.blocks("docs/how-to/findings.md", "text") if text.startswith("{")]
    prediction = answer["predictions"][0]
    assert list(json.loads(shown)) == list(prediction) == ["findings", "present"]
    assert {tuple(finding) for finding in json.loads(shown)["findings"].values()} == {
        tuple(prediction["findings"][findings[0]])
    }


def made_by(*words: str, module: str = "scanbook.cli") -> list[str]:
    """The words that `make` gives a module's command, with none of it run."""
    done = subprocess.run(["make", "-n", "-C", str(ROOT), *words], capture_output=True, text=True, check=True)
    [line] = [line for line in done.stdout.splitlines() if f"-m {module}" in line]
    return shlex.split(line.partition(f"-m {module}")[2])


@pytest.mark.parametrize("command", commands("test_make_gives_the_command_what_it_asks_for"))
def test_make_gives_the_command_what_it_asks_for(command: str) -> None:
    make, target, *variables = shlex.split(command)
    given = dict(variable.split("=", 1) for variable in variables)
    assert make == "make"
    if target == "bench":
        options = benchmarks_command.make_parser().parse_args(made_by(target, *variables, module="benchmarks"))
        assert set(options.rows.split(",")) <= {"", "data-parallel", "streaming"}
        return
    options = cli._parser().parse_args(made_by(target, *variables))
    if target == "reports":
        batches, _ = planning.load_batches(options.study, options.profile, options.data, options.set)
        default = "folder" if "DATA" in given else "synthetic"
        assert [batch.study.study for batch in batches] == given.get("STUDY", default).split(",")
        assert {batch.study.profile for batch in batches} == {given.get("PROFILE", "quick")}
        assert options.data == given.get("DATA", "") and options.set == given.get("SET", "")
        assert options.launch == given.get("LAUNCH", "") and options.jobs == int(given.get("JOBS", options.jobs))
    if target == "validate":
        chosen = config.load(options.study, options.profile, options.data, options.set)
        assert chosen.study == given["STUDY"] and options.bundle == given["BUNDLE"]
        assert chosen.external.classes in ({}, {"normal": "normal", "pneumonia": "viral pneumonia"})
    if target == "serve":
        assert (options.study, options.profile) == (given["STUDY"], given.get("PROFILE", ""))
    if target == "sweep":
        chosen = config.load(options.study, options.profile, options.data, options.set)
        assert chosen.study == given["STUDY"] and options.launch == given.get("LAUNCH", "")
        grid = sweeps.trials(chosen)
        assert len(grid) == len({trial.configuration for trial in grid}) * chosen.sweep.seeds > chosen.sweep.seeds


@pytest.mark.parametrize("command", commands("test_runs_are_compared"))
def test_runs_are_compared(command: str) -> None:
    """Runs themselves are compared in test_comparing.py."""
    program, _, *words = shlex.split(command)
    options = cli._parser().parse_args(made_by("compare", *words) if program == "make" else ["compare", *words])
    runs_named = [Path(word.removeprefix("path/to/reports/")).parts for word in options.runs]
    assert len(runs_named) > 1 or runs_named[0][-1] == index.SWEEP
    for study, profile, *notebook in runs_named:
        assert config.load(study, profile) and {*notebook} <= {*suite.notebooks(), index.SWEEP}


@pytest.mark.parametrize("command", commands("test_jobs_ask_make_for_what_it_makes"))
def test_jobs_ask_make_for_what_it_makes(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A real Slurm does in test_cluster.py what such a job asks for."""
    sbatch, requeue, nodes, exclusive, wrap = shlex.split(command)
    assert (sbatch, requeue, exclusive) == ("sbatch", "--requeue", "--exclusive") and nodes.startswith("--nodes=")
    # the job's shell knows the variable
    make, train, target, *variables = shlex.split(wrap.removeprefix("--wrap=").replace("$SLURM_CPUS_ON_NODE", "4"))
    options = cli._parser().parse_args(made_by(target, *variables))
    assert (make, train) == ("make", nodes.replace("--nodes=", "-j"))
    launcher, *words = options.launch.split()
    assert launcher == "srun" and srun.parse_known_args(words)[1] == [], "one task for each run, on one node"
    batches, _ = planning.load_batches(options.study, options.profile, options.data, options.set)
    monkeypatch.setattr(planning.shutil, "which", lambda name: name)  # Slurm is not on every machine
    assert batches and shlex.split(options.launch) == planning.launcher(options.launch)


@pytest.mark.parametrize("command", commands("test_one_network_is_trained_by_several"))
def test_one_network_is_trained_by_several(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Real processes do in test_distributed.py, and a real Slurm in test_cluster.py, what is asked for here."""
    launcher, _, words = command.partition(".venv/bin/scanbook ")
    options = cli._parser().parse_args(shlex.split(words))
    assert config.load(options.study, options.profile).profile == "full"
    asked, rest = srun.parse_known_args(shlex.split(launcher)[1:])
    # JAX takes the GPU of a process's number on its node, so each must see all of them
    assert not launcher or asked.gpus_per_node == asked.ntasks_per_node
    addresses = [address for address in options.addresses.split(",") if address]
    assert rest == [] and (not addresses or 0 <= options.process < len(addresses))
    monkeypatch.setenv(distribution.TASKS, str(int(asked.nodes) * int(asked.ntasks_per_node)))
    monkeypatch.setattr(distribution, "gpus", lambda: 0)
    together = bool(launcher or addresses)
    assert train.choose_distribution(options.distribute, addresses) == ("data-parallel" if together else "none")


@pytest.mark.parametrize("command", commands("test_images_are_embedded"))
def test_images_are_embedded(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Real images are in tests/runner/test_embed.py."""
    written: list[embed.Task] = []
    monkeypatch.setattr(embed, "run", lambda task: str(written.append(task)))
    assert cli.main(shlex.split(command)[1:]) == 0
    assert written[0].backbone in config.load(written[0].study.study).backbones and written[0].path.suffix == ".npz"


def test_vectors_of_another_program_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    [block] = documents.blocks("docs/how-to/embeddings.md", "python")
    exec(block, {})
    [keys] = documents.blocks("docs/how-to/embeddings.md", "yaml")
    assert yaml.safe_load(keys)["dataset"].keys() == {"embeddings"}
    study = config.load("ham10000", overrides=f"dataset.embeddings={tmp_path / 'vectors.npz'}")
    assert list(embeddings.read(study).ids) == ["ISIC_0027419", "ISIC_0025030"]


# --- a clone


class Clone:
    """A clone of the project as it stands, in which commands run as a reader types them."""

    def __init__(self, place: Path) -> None:
        origin = place / "origin"
        apart = {line.strip("/") for line in (ROOT / ".gitignore").read_text().split()} | {".git"}
        own = {entry.name for entry in ROOT.iterdir()} & apart
        skipped = shutil.ignore_patterns("__pycache__", "*.egg-info")
        shutil.copytree(ROOT, origin, ignore=lambda at, names: {*skipped(at, names), *(own if at == str(ROOT) else ())})
        git = ["git", "-c", "user.name=t", "-c", "user.email=t@example.org", "-C", str(origin)]
        for words in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "all"]):
            subprocess.run([*git, *words], check=True)
        self.folder = place
        address = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["urls"]["Repository"]
        environment = {
            key: value for key, value in os.environ.items() if not key.startswith(("PYTEST", "SCANBOOK", "MAKE"))
        }
        self.environment = environment | {
            "PATH": f"{programs.install(place / 'programs')}:{Path(sys.executable).parent}:{environment['PATH']}",
            "PYTHONPATH": str(place / "scanbook" / "lib"),
            "SCANBOOK_REPORTS": str(place / "reports"),
            "SCANBOOK_STORE": str(place / "store"),
            "SCANBOOK_DATA": str(place / "data"),
            "GIT_CONFIG_COUNT": "1",
            "GIT_CONFIG_KEY_0": f"url.{origin.as_uri()}.insteadOf",
            "GIT_CONFIG_VALUE_0": address,
        }
        [command, *_] = commands("test_the_first_commands")
        assert command.startswith("git clone")
        self.run(command)
        self.folder = place / "scanbook"
        # the environment of these tests is the clone's: set up for this folder, with its packages
        (self.folder / ".venv").mkdir()
        for path in Path(sys.prefix).iterdir():
            if path.name != "installed":
                (self.folder / ".venv" / path.name).symlink_to(path)
        wanted = [self.folder / "requirements.lock", self.folder / "pyproject.toml"]
        stamp = f"{self.folder}\n" + "".join(path.read_text() for path in wanted)
        (self.folder / ".venv" / "installed").write_text(stamp)

    def run(self, *lines: str, at: str = ".", **variables: str) -> str:
        """Runs lines of a shell, in one shell, and gives what they print."""
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", "\n".join(lines)],
            cwd=self.folder / at,
            env=self.environment | variables,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{lines}\n{done.stdout}\n{done.stderr}"
        return done.stdout + done.stderr

    def status(self, command: str, **variables: str) -> str:
        """What `make status` says of the reports that a command would make."""
        assert command.startswith("make reports")
        return self.run(command.replace("make reports", "make status", 1), **variables)

    def restore(self) -> None:
        """Takes back what a test changed."""
        self.run("git reset -q --hard", "git clean -qfd")
        for name in ("REPORTS", "STORE", "DATA"):
            shutil.rmtree(self.environment[f"SCANBOOK_{name}"], ignore_errors=True)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    return Clone(tmp_path_factory.mktemp("readme"))


@pytest.fixture
def clone(whole: Clone) -> Iterator[Clone]:
    yield whole
    whole.restore()


def draw(path: Path, seed: int) -> None:
    """A photograph of the class that the seed's parity is: light or dark, with noise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).normal(0, 20, (32, 32, 3))
    path.write_bytes(images.encode_png(np.clip(90 + 80 * (seed % 2) + noise, 0, 255).astype(np.uint8)))


@pytest.mark.slow
def test_the_first_commands(clone: Clone) -> None:
    """In a clone with one test file and one notebook; runner/test_reports.py takes `make reports DATA=` all the way."""
    for seed in range(8):
        draw(clone.folder / "path/to/images" / ("normal", "ill")[seed % 2] / f"{seed}.png", seed)
    assert "Targets:" in clone.run("make")
    asked = [line for line in commands("test_the_first_commands") if not line.startswith("git clone")]
    [reports] = [line for line in asked if line.startswith("make reports")]
    assert f"{len(suite.notebooks(False))} missing" in clone.status(reports)
    shutil.rmtree(clone.folder / "tests")
    for path in (clone.folder / "notebooks").glob("*.ipynb"):
        path.unlink()
    write_notebook(clone.folder, "01_eda", "assert True")
    (clone.folder / "tests").mkdir()
    (clone.folder / "tests" / "test_one.py").write_text(TINY)
    for command in asked:
        if command != reports:
            output = clone.run(command)
            passed = {"make test": "3 passed", "make check": "1 passed"}.get(command, "")
            assert passed in output, output


@pytest.mark.slow
def test_the_other_commands_of_a_clone(clone: Clone) -> None:
    for command in commands("test_the_other_commands_of_a_clone"):
        if command == "make lab":  # JupyterLab itself reads the words, and stops at the help
            words = re.search(r"-m (jupyterlab .*)", clone.run("make -n lab")).group(1)
            assert "JupyterLab" in clone.run(f".venv/bin/python -m {words} --help")
            continue
        output = clone.run(command)
        if "studies" in command:
            assert all(name in output for name in config.studies())
        if command.startswith("make status"):
            assert re.search(f"({len(suite.NOTEBOOKS)}|{len(suite.notebooks(False))}) missing", output)


# --- the examples of how scanbook is extended


@pytest.mark.slow
def test_a_notebook_is_added(clone: Clone) -> None:
    for command in commands("test_a_notebook_is_added"):
        clone.run(command)
    made = clone.folder / "notebooks" / "10_my_question.ipynb"
    recorded = Path(clone.environment["SCANBOOK_REPORTS"]) / "synthetic" / "smoke" / made.stem
    assert json.loads((recorded / "metrics.json").read_text())["results"]["headline"]


def save(clone: Clone, name: str) -> None:
    """Saves the documents' difference of that name where their reader would."""
    blocks = documents.all_blocks("diff")
    [block] = [diff for diff in blocks if {"backbone": "registry", "adapter": "adapters"}[name] in diff]
    (clone.folder / f"{name}.diff").write_text(block)


@pytest.mark.slow
def test_a_backbone_is_added(clone: Clone) -> None:
    save(clone, "backbone")
    apply, check, reports = commands("test_a_backbone_is_added")
    clone.run(apply)
    assert "`mobilenet_v3_small`" in clone.run(".venv/bin/scanbook reference")
    assert "2 passed" in clone.run(check)
    assert f"{len(suite.NOTEBOOKS)} missing" in clone.status(reports)


@pytest.mark.slow
def test_a_table_is_added(clone: Clone) -> None:
    rows = []
    for seed in range(60):
        draw(clone.folder / "path/to/ward/photos" / f"{seed}.png", seed)
        rows.append((f"{seed}.png", ("healing", "infected")[seed % 2], f"p{seed // 4}", 40 + seed % 30))
    table = pd.DataFrame(rows, columns=["image", "diagnosis", "patient", "age"])
    table.to_csv(clone.folder / "path/to/ward/photos.csv", index=False)
    new, reports = commands("test_a_table_is_added")
    clone.run(new)
    written = clone.folder / "notebooks/studies/ward.yaml"
    dataset = yaml.safe_load(written.read_text())["dataset"]
    [block] = [text for text in documents.all_blocks("yaml") if text.startswith("study: ward")]
    shown = yaml.safe_load(block)["dataset"]
    layout = ("adapter", "csv", "label_column", "group_column", "image_folders")
    assert {key: dataset[key] for key in layout} == {key: shown[key] for key in layout}
    written.write_text(block)
    assert f"{len(suite.notebooks(False))} missing" in clone.status(reports)
    frame = prepared(clone, "'ward', data='path/to/ward'")
    assert len(frame) == 60 and set(frame["split"]) == {"train", "validation", "test"}
    assert frame.groupby("group")["split"].nunique().max() == 1 and frame["age"].between(40, 70).all()


def prepared(clone: Clone, arguments: str) -> pd.DataFrame:
    """The images of a study and their splits, as the clone's library prepares them."""
    code = (
        f"from scanbook import config; from scanbook.data import splits; m = splits.prepare(config.load({arguments}))"
    )
    clone.run(f'python -c "{code}; m.frame.to_csv({str(clone.folder / "frame.csv")!r})"')
    return pd.read_csv(clone.folder / "frame.csv", keep_default_na=False)


@pytest.mark.slow
def test_an_adapter_is_added(clone: Clone) -> None:
    save(clone, "adapter")
    for split, count in (("train", 24), ("test", 12)):
        for seed in range(count):
            draw(clone.folder / "path/to/lists" / split / f"{seed}.png", seed)
        lines = [f"{split}/{seed}.png {('normal', 'ill')[seed % 2]}\n" for seed in range(count)]
        (clone.folder / "path/to/lists" / f"{split}.txt").write_text("".join(lines))
    apply, reports = commands("test_an_adapter_is_added")  # in the order of the document, each once
    clone.run(apply)
    assert "dataset, adapter: listed" in clone.run(".venv/bin/scanbook reference")
    clone.run(".venv/bin/python -m ruff check lib", ".venv/bin/python -m ruff format --check lib")
    assert f"{len(suite.notebooks(False))} missing" in clone.status(reports)
    frame = prepared(clone, "'folder', data='path/to/lists', overrides='dataset.adapter=listed'")
    assert (frame["split"] == "test").sum() == 12 and set(frame["label"]) == {"normal", "ill"}


# --- deploying


@pytest.fixture
def bundle(clone: Clone) -> Path:
    """A bundle where `make serve` looks for the default study's."""
    folder = Path(clone.environment["SCANBOOK_REPORTS"]) / "synthetic" / "quick" / "07_export_flask" / "bundle"
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    draw(folder.parent / "photo.jpg", 0)
    draw(clone.folder / "photo.jpg", 0)
    return write_bundle(folder).folder


@pytest.mark.slow
def test_a_model_is_exported_and_packed(clone: Clone, bundle: Path) -> None:
    export, *others = commands("test_a_model_is_exported_and_packed")
    words, _, move = export.partition("; ")
    options = cli._parser().parse_args(shlex.split(words)[1:])  # test_export.py runs it
    assert (options.do, options.study) == (cli._export, "dermnet") and move == f"cd {options.to}"
    clone.run(*others, at=os.path.relpath(bundle, clone.folder))


@pytest.mark.slow
def test_a_model_goes_to_aws(clone: Clone, bundle: Path) -> None:
    """The blocks of the page, one after the other, in one shell."""
    asked = commands("test_a_model_goes_to_aws")
    output = clone.run(*asked, 'echo "$REGISTRY" "$ENDPOINT"', at=os.path.relpath(bundle, clone.folder))
    registry = f"{programs.ACCOUNT}.dkr.ecr.eu-central-1.amazonaws.com"
    assert output.splitlines()[-1].split() == [registry, "the-EndpointName"]
    assert (bundle.parent / "answer.json").is_file()


@contextmanager
def started(clone: Clone, command: str, at: Path) -> Iterator[int]:
    """A service that a command of the shell starts; its port."""
    port = free_port()
    log = clone.folder.parent / "service.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            ["bash", "-c", command],
            cwd=at,
            env=clone.environment | {"SCANBOOK_PORT": str(port)},
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        while not Service(process, port, log).ready():
            assert process.poll() is None, log.read_text()
        yield port
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait()


@pytest.mark.slow
def test_a_service_answers(clone: Clone, bundle: Path) -> None:
    asked = commands("test_a_service_answers")
    serve, install = (next(line for line in asked if line.startswith(word)) for word in ("make serve", "pip"))
    with started(clone, install, bundle) as port:
        assert f":{port}" in clone.run(f"curl -sf http://127.0.0.1:{port}/openapi.json && echo :{port}")
    image = base64.b64encode((clone.folder / "photo.jpg").read_bytes()).decode()
    with started(clone, serve, clone.folder) as port, serving(fine) as other:
        place = f"http://127.0.0.1:{port}"
        for command in (line for line in asked if line not in (serve, install)):
            given = command.replace("http://127.0.0.1:8080", place).replace("https://host/page", other)
            if "curl" in command:
                given = given.replace("curl ", "curl -sf ").replace("…", "'\"$IMAGE\"'")  # out of the quotes and back
                answer = json.loads(clone.run(given, IMAGE=image))
                assert "openapi" in answer or len(answer["predictions"]) == 1
            else:  # the documents' numbers take minutes
                short = " --seconds 0.1" if "--concurrency" in given else " --requests 2 --interval 0 --warm-up 0"
                assert "p95" in clone.run(given.replace("…", "x") + short)


@pytest.mark.slow
def test_the_tutorial_is_followed(clone: Clone) -> None:
    """Its commands, in order; of the notebooks only that whose bundle it serves. test_reports.py runs all of them."""
    practice, look, smoke, quick, serve, ask = commands("test_the_tutorial_is_followed")
    [block] = [block for block in documents.all_blocks("python") if "practice" in block]
    (clone.folder / "practice.py").write_text(block)
    clone.run(practice)
    names = clone.run(look).split()
    page = documents.text("docs/tutorials/images-to-service.md")
    assert len(names) == 5 and all(f"`{name}`" in page for name in names)
    for command in (smoke, quick):
        assert f"{len(suite.notebooks(False))} missing" in clone.status(command)
    options = cli._parser().parse_args(made_by(*shlex.split(smoke)[1:]))
    words = [f"--{name}={getattr(options, name)}" for name in ("study", "data", "profile")]
    clone.run(shlex.join([".venv/bin/scanbook", "run", "07_export_flask", *words]))
    with started(clone, f"SCANBOOK_PROFILE=smoke {serve}", clone.folder) as port:
        answer = json.loads(clone.run(ask.replace("curl ", "curl -sf ").replace(":8080", f":{port}")))
    assert answer["predictions"][0]["probabilities"].keys() == set(names)
