"""What GitHub runs."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).resolve().parents[1]
FILES = sorted((ROOT / ".github" / "workflows").glob("*.y*ml"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_actions_are_pinned_to_a_commit_and_say_which_version_it_is(path: Path) -> None:
    """A tag can be moved to other code; a commit cannot."""
    used = re.findall(r"uses: *(.+)", path.read_text())
    assert used
    assert [
        reference for reference in used if not re.fullmatch(r"[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", reference)
    ] == []


def test_every_python_that_is_supported_is_tested() -> None:
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
    tested = set(workflow["jobs"]["test"]["strategy"]["matrix"]["python"])
    supported = SpecifierSet(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"])
    assert tested == {f"3.{minor}" for minor in range(30) if f"3.{minor}" in supported}


def test_the_newest_dependencies_are_tested_every_week_and_by_hand() -> None:
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "newest.yml").read_text())
    triggers = workflow[True]  # what YAML 1.1 reads the key "on" as
    assert set(triggers) == {"schedule", "workflow_dispatch"}
    assert [re.fullmatch(r"\d+ \d+ \* \* [0-6]", plan["cron"]) is not None for plan in triggers["schedule"]] == [True]
    commands = [step["run"] for step in workflow["jobs"]["newest"]["steps"] if "run" in step]
    assert commands.index("make lock UPGRADE=--upgrade") < commands.index("make test")
    dry = ["make", "-n", "-C", str(ROOT), "lock", "UPGRADE=--upgrade"]
    shown = subprocess.run(dry, capture_output=True, text=True, check=True).stdout
    assert "pip compile --upgrade" in shown


def test_the_documentation_of_the_main_branch_alone_is_published() -> None:
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "docs.yml").read_text())
    publish = workflow["jobs"]["publish"]
    assert (publish["needs"], publish["if"]) == ("build", "github.ref == 'refs/heads/main'")
    assert publish["permissions"] == {"pages": "write", "id-token": "write"}
    [*_, docs, upload] = workflow["jobs"]["build"]["steps"]
    site = yaml.safe_load((ROOT / "mkdocs.yml").read_text())["site_dir"]
    assert docs["run"] == "make docs" and upload["with"]["path"] == site


def test_it_may_do_no_more_than_read_and_stops_in_the_end() -> None:
    for path in FILES:
        workflow = yaml.safe_load(path.read_text())
        assert workflow["permissions"] == {"contents": "read"}
        more = {name for name, job in workflow["jobs"].items() if "permissions" in job}
        assert more <= {"publish"}, "the one job that writes, and only to GitHub Pages"
        assert all(job["timeout-minutes"] <= 60 for job in workflow["jobs"].values())
