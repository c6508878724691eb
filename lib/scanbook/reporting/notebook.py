"""What a notebook does beside computing: resolve its study, and record its tables, figures and results.

A notebook calls `start`, then `table`, `figure`, `result` and `measure`, and ends with `finish`. Everything lies in
`reports/<study>/<profile>/<notebook>/`; nothing reads another notebook's folder.
"""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from scanbook import config, runtime
from scanbook.data.manifest import TEST, Manifest
from scanbook.errors import NotebookError
from scanbook.evaluation import Predictions
from scanbook.reporting.plots import writing
from scanbook.store import atomic_write, write_json

if TYPE_CHECKING:
    from scanbook.training import Trained  # which imports Keras; notebooks that train nothing do without

ROWS = 60
"""Most rows of a table that a page shows."""


class Session:
    """One notebook's run of one study.

    Attributes:
        name: The notebook's file name without `.ipynb`.
        study: The study, resolved.
        folder: Where tables, figures and results go.
    """

    def __init__(self, name: str, resolved: config.Study) -> None:
        self.name = name
        self.study = resolved
        self.folder = runtime.reports_dir() / resolved.study / resolved.profile / name
        # run by hand, the notebook changes what lies here: an earlier report stands for it no more
        (self.folder / "metrics.json").unlink(missing_ok=True)
        self._results: dict[str, Any] = {}
        self._measurements: dict[str, Any] = {}
        self._test_evaluations: Counter[str] = Counter()

    def say(self, sentence: str) -> None:
        """Shows a sentence under the cell, in Markdown; a name from the data in it is no HTML."""
        plain = re.sub(r"(`[^`]*`)|<", lambda found: found[1] or "&lt;", sentence)
        _display({"text/markdown": plain, "text/plain": sentence})

    def table(self, name: str, frame: pd.DataFrame, caption: str) -> None:
        """Shows a table, or the first `ROWS` of a long one, under its caption and keeps it as `tables/<name>.csv`."""
        file = f"tables/{name}.csv"
        atomic_write(self.folder / file, frame.to_csv())
        if frame.empty:
            self.say(f"{caption}: none.")
            return
        flat = frame.reset_index(level=list(range(1, frame.index.nlevels))) if frame.index.nlevels > 1 else frame
        shown = flat.head(ROWS).round(4).rename_axis(index=None, columns=flat.index.name)
        first = f" (the first {ROWS} of {len(flat):,} rows; all of them: {file})" if len(flat) > ROWS else ""
        opening = f'<table data-name="{name}" data-file="{file}"><caption>{escape(caption + first)}</caption>'
        page = re.sub("<table[^>]*>", lambda _: opening, shown.to_html(na_rep="–"), count=1)
        _display({"text/html": page, "text/plain": f"{caption}{first}\n{shown}"})

    def figure(self, name: str, figure: Figure, alt: str) -> None:
        """Shows a figure and keeps it as `figures/<name>.svg`, or `.png` where that is smaller.

        Args:
            name: Of the file.
            figure: As `scanbook.reporting.plots` draws it.
            alt: Its caption; with the title that is drawn in it, what those read who do not see it.
        """
        written = writing.write(figure)
        file = f"figures/{name}.{written.suffix}"
        for suffix in ("svg", "png"):  # an earlier run by hand may have left the other
            (self.folder / "figures" / f"{name}.{suffix}").unlink(missing_ok=True)
        atomic_write(self.folder / file, written.file)
        drawn = writing.title(figure)
        text = escape(f"{alt}. {drawn}" if drawn not in alt else alt)
        width, height = (round(96 * inches) for inches in figure.get_size_inches())  # CSS's pixels
        image = f'<img src="{written.uri}" alt="{text}" width="{width}" height="{height}">'
        page = f'<figure data-name="{name}" data-file="{file}">{image}<figcaption>{escape(alt)}</figcaption></figure>'
        _display({"text/html": page, "text/plain": f"{alt} ({file})"})

    def machine(self) -> None:
        """Shows what the notebook runs on: processor, memory and versions."""
        described = pd.Series(runtime.describe_machine() | runtime.versions(), name="value")
        self.table("machine", described.to_frame(), "Machine and versions")

    def document(self, name: str, text: str, caption: str) -> None:
        """Keeps a text as a file beside the report and says where."""
        atomic_write(self.folder / name, text)
        self.say(f"{caption}: `{self.name}/{name}`.")

    def published(self, *measured: pd.DataFrame, backbone: str = "") -> None:
        """Shows the tables that the published study has for this notebook, and this run's figures beside them.

        What a table can be checked by, its own raw figures, is computed anew and stands beside what was printed.

        Args:
            measured: This run's figures: rows named as published ones, one metric a column. Each stands beside the
                tables whose rows and columns it shares. None does on a stand-in: its images are synthetic.
            backbone: The one that they are of; "" where the rows are backbones.
        """
        shown = {key: each for key, each in self.study.published.items() if each.notebook == self.name}
        compared: dict[str, Any] = {}
        if shown and self.study.on_stand_in:
            self.say(
                "Published figures are of the real images. This run is on synthetic ones: the two are not compared."
            )
        for key, each in shown.items():
            table = pd.DataFrame(list(each.rows.values()), index=list(each.rows), dtype=object)
            if each.recompute:
                from scanbook.benchmark import cost  # here, since few notebooks show such tables

                table = cost.recompute(key, self.study.published)
            alike = not self.study.on_stand_in and each.backbone in ("", backbone)
            for figures in measured if alike else ():
                both = figures.loc[figures.index.isin(table.index), figures.columns.isin(table.columns)]
                if both.size:
                    compared[key] = {
                        row: {each: {"published": table.at[row, each], "this run": both.at[row, each]} for each in both}
                        for row in both.index
                    }
                    table = table.join(both.round(4).add_suffix(" in this run"))
            self.table(f"published_{key}", table.astype(object).fillna(""), f"Published: {each.caption}")
            if each.note:
                self.say(each.note)
        if compared:
            self.result("published", compared)

    def on_test(self, trained: Trained, manifest: Manifest, *, temperature: float = 1.0, arm: str = "") -> Predictions:
        """A trained network's predictions for the test images; `results.json` counts how often each was asked for.

        Args:
            trained: The network.
            manifest: The dataset, split.
            temperature: What its logits are divided by before the softmax.
            arm: What tells it from other networks, where its own name does not.
        """
        self._test_evaluations[arm or trained.arm] += 1
        return manifest.predictions(TEST, trained.logits(TEST), temperature)

    def result(self, key: str, value: Any) -> None:
        """Records what two runs with one seed agree on, to the last digit."""
        self._results[key] = _plain(value)

    def measure(self, key: str, value: Any) -> None:
        """Records what differs from run to run: seconds, images a second, memory."""
        self._measurements[key] = _plain(value)

    def finish(self) -> None:
        """Writes `results.json` and `measurements.json`."""
        counted = {"test_evaluations": dict(self._test_evaluations)} if self._test_evaluations else {}
        write_json(self.folder / "results.json", self._results | counted)
        write_json(self.folder / "measurements.json", self._measurements)
        self.say(f"Results are in `{self.name}/results.json`, tables and figures beside it.")


def start(name: str, study_name: str, profile: str = "", data: str = "", overrides: str = "") -> Session:
    """Resolves the study and shows in a line what this notebook runs on.

    Args:
        name: The notebook's file name without `.ipynb`.
        study_name: A study of `notebooks/studies/`.
        profile: "smoke", "quick", "full", or "" for the variable `SCANBOOK_PROFILE`, else "quick".
        data: Folder or file of the dataset, or "" for its place in `data/`.
        overrides: Space-separated `key=value` pairs.

    Raises:
        NotebookError: The runner runs another notebook, a copy of this one.
        StudyError: The study, the profile or an override is wrong.
    """
    runs = os.environ.get(runtime.NOTEBOOK, name)
    if runs != name:  # before anything of the other report is overwritten
        raise NotebookError(f"{runs} starts the session of {name}; write notebook.start({runs!r}, …) in it")
    resolved = config.load(study_name, profile, data, overrides)
    session = Session(name, resolved)
    session.say(f"**{resolved.title}**, profile `{resolved.profile}`, on {resolved.runs_on}. {resolved.question}")
    return session


def _display(forms: dict[str, str]) -> None:
    """Shows what a cell found, in the form that the reader's program likes best."""
    from IPython.display import display

    display(forms, raw=True)


def _plain(value: Any) -> Any:
    """A value as JSON keeps it: tables become mappings by row, arrays lists, and floats keep 6 digits; NaN is null."""
    if isinstance(value, pd.DataFrame):
        return json.loads(value.round(6).to_json(orient="index"))
    if isinstance(value, pd.Series | dict):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [_plain(each) for each in value]
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, float):
        return round(value, 6) if np.isfinite(value) else None
    return value
