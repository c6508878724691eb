"""The options of the `scanbook` command, each written once for all subcommands that take it."""

from __future__ import annotations

import os
from typing import Any

from scanbook import config, runtime

Option = tuple[str, dict[str, Any]]
"""Name of an option or argument, and what argparse takes for it."""


def option(name: str, text: str, default: Any = "", **values: Any) -> Option:
    """Return an option; `values` are further ones for argparse."""
    return name, {"help": text, "default": default, **values}


def flag(name: str, text: str) -> Option:
    """Return an option without a value, which is false where it is not given."""
    return option(name, text, False, action="store_true")


PROFILE = option("--profile", f"{', '.join(config.PROFILES)} (default: SCANBOOK_PROFILE, else quick)")
STUDY = option("--study", "a file of notebooks/studies, without .yaml (default: synthetic)", "synthetic")
STUDIES = option("--study", "such files, as in a,b,c, or all (default: synthetic)", "synthetic")
DATA = option("--data", "folder or file of the dataset (default: its folder in data/)")
SET = option("--set", "overrides, such as fine_tuning.epochs=3", metavar="'KEY=VALUE …'")
LAUNCH = option(
    "--launch",
    "what starts each run, such as 'srun -n1' (default: SCANBOOK_LAUNCH, else nothing)",
    os.environ.get("SCANBOOK_LAUNCH", ""),
    metavar="COMMAND",
)
JOBS = option("--jobs", "runs side by side (default: one per processor)", runtime.cores(), type=int)
BUNDLE = option("bundle", "folder of the bundle (default: that of the study and profile)", nargs="?")
EMBED = (
    *(PROFILE, DATA, SET),
    option("study", "a file of notebooks/studies, without .yaml"),
    option("--backbone", "pretrained network: a name, hub:PRESET or file:PATH", required=True),
    option("--to", "file of the vectors; where a process was killed, the same command continues", required=True),
    option("--dtype", "of the vectors (default: float32)", "float32", choices=("float32", "float16")),
)
ONE, SEVERAL = (PROFILE, STUDY, DATA, SET), (PROFILE, STUDIES, DATA, SET)
