"""The session of a notebook: it resolves the study, and records tables, figures and results.

A notebook calls `start`, then `table`, `figure`, `result` and `measure`, and ends with `finish`. All files are in
`reports/<study>/<profile>/<notebook>/`; no notebook reads the folder of another.
"""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from scanbook import config, runtime
from scanbook.data import presence
from scanbook.data.manifest import TEST, Manifest
from scanbook.errors import NotebookError
from scanbook.evaluation import AnyPredictions, Calibration, pseudonymous
from scanbook.reporting import stopping, tables
from scanbook.reporting.plots import writing
from scanbook.reporting.records import HISTORY, PREDICTIONS, TRAINED_ON, join_histories
from scanbook.store import atomic_write, fingerprint, visited, write_json

if TYPE_CHECKING:
    from scanbook.training import SplitModels, TrainedModel  # which imports Keras

ROWS = 60
"""Most rows of a table that a page shows at once."""
FOLDED_ROWS, FOLDED_CELLS = 1200, 15_000
"""Most rows and cells of a table of classes that a page shows folded, so that none is missing."""
_OF_CLASSES = ("class", "true class", "target", "finding", "subgroup", "comparison")
"""Names of the index of such tables."""
_LONGEST_NAME = 80
"""Most characters of the name of a file."""
_NO_FORMULAS = "tex2jax_ignore mathjax_ignore"
"""Classes of HTML in which Jupyter looks for no formula: a name may hold two dollars."""
MOST_SENTENCES = 5
"""Most sentences of an answer."""
_PANDAS = ("display.float_format", None, "display.precision", 6, "display.max_colwidth", None)
"""pandas' own settings of what a table shows; a user of JupyterLab may have others."""


class Session:
    """One notebook's run of one study.

    Attributes:
        name: The notebook's file name without `.ipynb`.
        study: The study, resolved.
        folder: Folder of the tables, figures and results.
    """

    def __init__(self, name: str, resolved: config.Study) -> None:
        self.name = name
        self.study = resolved
        self.folder = runtime.reports_dir() / resolved.study / resolved.profile / name
        # a notebook run by hand changes these files, so an earlier report no longer describes them
        (self.folder / "metrics.json").unlink(missing_ok=True)
        self._results: dict[str, Any] = {}
        self._measurements: dict[str, Any] = {}
        self._test_evaluations: Counter[str] = Counter()
        self._numbers: dict[str, int] = {}  # that stand for texts in figures

    def say(self, sentence: str) -> None:
        """Show a sentence under the cell, with Markdown's `code`, **strong** and *emphasis*.

        HTML, formulas, links and other Markdown in a name from the data have no effect.
        """
        sentence = runtime.legible(sentence)
        escaped = re.sub(r"(`[^`]*`)|([&<_$\[|~\\])", lambda match: match[1] or _entity(match[2]), sentence)
        _display({"text/markdown": escaped, "text/plain": sentence})

    def answer(self, sentences: Sequence[str], figure: str = "", ranked: Sequence[tuple[str, str]] = ()) -> None:
        """Show the answer to the notebook's question; a page opens with it.

        Args:
            sentences: One to five, with the figures that answer it and their intervals.
            figure: Name of the one figure that shows it; a page shows it there, too, where the notebook drew it.
            ranked: Key results below the sentences, the most serious first: how serious each is, and its sentence.

        Raises:
            NotebookError: There is no sentence, or there are more than five.
        """
        if not 1 <= len(sentences) <= MOST_SENTENCES:
            raise NotebookError(
                f"{self.name} gives an answer of {len(sentences)} sentences; expected 1 to {MOST_SENTENCES}: "
                "name what answers the question, and leave the rest to the sections"
            )
        plain = [*sentences, *(f"{severity}: {sentence}" for severity, sentence in ranked)]
        self.measure("answer", plain)
        page = "".join(f"<p>{_inline(sentence)}</p>" for sentence in sentences)
        items = [
            f'<li data-severity="{severity.lower()}"><strong>{severity}</strong> {_inline(sentence)}</li>'
            for severity, sentence in ranked
        ]
        title = "Key results" if items else "Answer"
        page += f"<ol>{''.join(items)}</ol>" if items else ""
        opening = f'<section class="answer {_NO_FORMULAS}" data-title="{title}" data-figure="{escape(figure)}">'
        _display({"text/html": f"{opening}{page}</section>", "text/plain": "\n".join(plain)})

    def warning(self, sentence: str) -> None:
        """Show what a reader must know before using the figures; a page lists it below its answer."""
        self._measurements.setdefault("warnings", []).append(sentence)
        _display(
            {
                "text/html": f'<p class="warning {_NO_FORMULAS}">{_inline(sentence)}</p>',
                "text/plain": f"Note: {sentence}",
            }
        )

    def note_splits(self, manifest: Manifest) -> None:
        """Show, as warnings, what a reader must know of the splits: classes that one lacks, or that are copies."""
        for sentence in presence.notes(manifest):
            self.warning(sentence)

    def table(self, name: str, frame: pd.DataFrame, caption: str, *, ends: str = "95 % intervals") -> None:
        """Show a table, or the first `ROWS` of a long one, with its caption, and keep it as `tables/<name>.csv`.

        A long table of classes is shown whole, but folded.

        Names are shown in words, and a value in one cell with its interval, as `tables.readable` has them.

        Args:
            name: Name of the file; characters that no file may have are replaced.
            frame: The table.
            caption: What it shows.
            ends: What the ends of its intervals are, where it has any; added to the caption.
        """
        name = _file_name(name)
        file = f"tables/{name}.csv"
        atomic_write(self.folder / file, frame.to_csv())
        if frame.empty:
            self.say(f"{caption}: none.")
            return
        flat = frame.reset_index(level=list(range(1, frame.index.nlevels))) if frame.index.nlevels > 1 else frame
        of_classes = flat.index.name in _OF_CLASSES and len(flat) <= FOLDED_ROWS and flat.size <= FOLDED_CELLS
        folded = of_classes and len(flat) > ROWS
        visible, intervals = tables.readable(flat if folded else flat.head(ROWS))
        caption += f", with {ends}" if intervals and "interval" not in caption else ""
        visible = visible.round(4).rename_axis(index=None, columns=flat.index.name and tables.words(flat.index.name))
        remark = f" (the first {ROWS} of {len(flat):,} rows; all of them: {file})" if len(flat) > len(visible) else ""
        opening = f'<table class="{_NO_FORMULAS}" data-name="{name}" data-file="{file}">'
        opening += f"<caption>{escape(caption + remark)}</caption>"
        with pd.option_context(*_PANDAS):
            shown, plain = visible.to_html(na_rep="–"), f"{caption}{remark}\n{visible}"
        page = re.sub("<table[^>]*>", lambda _: opening, runtime.legible(shown), count=1)
        if folded:
            page = f'<details class="rows"><summary>{escape(caption)}: all {len(flat):,} rows</summary>{page}</details>'
        _display({"text/html": page, "text/plain": plain})

    def figure(self, name: str, figure: Figure, alt: str) -> None:
        """Show a figure and keep it as `figures/<name>.svg`, or as `.png` where that is smaller.

        Args:
            name: Name of the file; characters that no file may have are replaced.
            figure: A figure of `scanbook.reporting.plots`.
            alt: Its caption; with the figure's title, also the text for readers who cannot see it.
        """
        name, title = _file_name(name), writing.title(figure)
        written = writing.write(figure, self._numbers)
        file = f"figures/{name}.{written.suffix}"
        for suffix in ("svg", "png"):  # an earlier run may have written the other
            (self.folder / "figures" / f"{name}.{suffix}").unlink(missing_ok=True)
        atomic_write(self.folder / file, written.file)
        text = escape(f"{alt}. {title}" if title not in alt else alt)
        width, height = (round(96 * inches) for inches in figure.get_size_inches())  # CSS pixels
        image = f'<img src="{written.uri}" alt="{text}" width="{width}" height="{height}">'
        caption = escape(alt)
        if written.key:
            texts = ", ".join(f"{number} <bdi>{escape(text)}</bdi>" for number, text in written.key.items())
            caption += f' <span class="key">No font of this machine draws what stands for these numbers: {texts}</span>'
        page = f'<figure class="{_NO_FORMULAS}" data-name="{name}" data-file="{file}">'
        page = runtime.legible(f"{page}{image}<figcaption>{caption}</figcaption></figure>")
        _display({"text/html": page, "text/plain": f"{alt} ({file})"})

    def machine(self) -> None:
        """Show processor, memory and versions of the machine, and on which device its networks are trained."""
        trains = {"networks are trained on": runtime.device()}
        values = pd.Series(runtime.describe_machine() | trains | runtime.versions(), name="value")
        self.table("machine", values.to_frame(), "Machine and versions")

    def document(self, name: str, text: str, caption: str) -> None:
        """Keep a text as a file beside the report, and show its path."""
        atomic_write(self.folder / name, text)
        self.say(f"{caption}: `{self.name}/{name}`.")

    def published(self, *measured: pd.DataFrame, backbone: str = "") -> None:
        """Show the published tables of this notebook, with this run's values beside them.

        Values that can be recomputed from a table's own raw values stand beside the printed ones.

        Args:
            measured: This run's values: rows named as the published ones, one column per metric. Each table is joined
                to the published tables whose rows and columns it shares, but not on synthetic stand-in images.
            backbone: Backbone of the values; "" where the rows are backbones.
        """
        shown = {key: table for key, table in self.study.published.items() if table.notebook == self.name}
        comparisons: dict[str, Any] = {}
        if shown and self.study.on_stand_in:
            self.say(
                "Published values were measured on the real images, and this run uses synthetic ones. "
                "The two are not compared."
            )
        for key, published in shown.items():
            table = pd.DataFrame(list(published.rows.values()), index=list(published.rows), dtype=object)
            if published.recompute:
                from scanbook.benchmark import cost  # here, since few notebooks show such tables

                table = cost.recompute(key, self.study.published)
            names = [values.index.name for values in measured if table.index.isin(values.index).any()]
            table = table.rename_axis(names[0] if names else None)  # an AUROC of one finding is not a mean
            comparable = not self.study.on_stand_in and published.backbone in ("", backbone)
            for values in measured if comparable else ():
                shared = values.loc[values.index.isin(table.index), values.columns.isin(table.columns)]
                if shared.size:
                    comparisons[key] = {
                        row: {
                            metric: {"published": table.at[row, metric], "this run": shared.at[row, metric]}
                            for metric in shared
                        }
                        for row in shared.index
                    }
                    table = table.join(shared.round(4).add_suffix(" in this run"))
            self.table(f"published_{key}", table.astype(object).fillna(""), f"Published: {published.caption}")
            if published.note:
                self.say(published.note)
        if comparisons:
            self.result("published", comparisons)

    def on_test(
        self, trained: TrainedModel, manifest: Manifest, *, calibration: float | Calibration = 1.0, arm: str = ""
    ) -> AnyPredictions:
        """Return a trained network's predictions for the test images, and count this evaluation in `results.json`.

        Args:
            trained: The network.
            manifest: The dataset, split.
            calibration: As in `Manifest.predictions`.
            arm: Name that distinguishes it from other networks, where its own name does not.
        """
        self._test_evaluations[arm or trained.label] += 1
        return manifest.predictions(TEST, trained.logits(TEST), calibration)

    def on_test_of(self, split: SplitModels, trained: TrainedModel) -> AnyPredictions:
        """Return the predictions of one of a split's networks for its test images, counted as `on_test` does."""
        return self.on_test(trained, split.manifest, arm=split.label_of(trained))

    def keep(self, test: AnyPredictions, histories: Mapping[str, pd.DataFrame] | None = None) -> None:
        """Keep the predictions of the notebook's model, and its training, by which `scanbook compare` compares runs.

        The images have pseudonyms and the patients numbers: a report names neither.

        Args:
            test: The predictions for the test images, as the notebook's figures are of them.
            histories: One row per epoch of each training of the model, by a name such as "seed 0".
        """
        pseudonymous(test).save(self.folder / PREDICTIONS)
        if histories:
            atomic_write(self.folder / HISTORY, join_histories(histories).to_csv(index=False))

    def count_test_evaluation(self, name: str) -> None:
        """Count one more evaluation on test images; of a network of the store, `on_test` does."""
        self._test_evaluations[name] += 1

    def result(self, key: str, value: Any) -> None:
        """Record a value that is identical in two runs with one seed."""
        self._results[key] = _plain(value)

    def results(self, values: Mapping[str, Any]) -> None:
        """Record several values, as `result` does."""
        for key, value in values.items():
            self.result(key, value)

    def measure(self, key: str, value: Any) -> None:
        """Record a value that differs between runs: seconds, images per second, memory."""
        self._measurements[key] = _plain(value)

    def finish(self) -> None:
        """Write `results.json` and `measurements.json`."""
        counts = {"test_evaluations": dict(self._test_evaluations)} if self._test_evaluations else {}
        if devices := _training_devices():
            self.measure(TRAINED_ON, devices)
            self.say(f"The networks were trained on: {'; '.join(devices)}.")
        write_json(self.folder / "results.json", self._results | counts)
        write_json(self.folder / "measurements.json", self._measurements)
        self.say(f"Results are in `{self.name}/results.json`, with tables and figures in the same folder.")


def start(name: str, study_name: str, profile: str = "", data: str = "", overrides: str = "") -> Session:
    """Resolve the study, and show its title, profile and images in one line.

    Args:
        name: The notebook's file name without `.ipynb`.
        study_name: A study of `notebooks/studies/`.
        profile: "smoke", "quick", "full", or "" for the variable `SCANBOOK_PROFILE`, else "quick".
        data: Folder or file of the dataset, or "" for the study's folder in `data/`.
        overrides: Space-separated `key=value` pairs.

    Raises:
        NotebookError: The runner runs another notebook, a copy of this one.
        StudyError: The study, the profile or an override is wrong.
    """
    running = os.environ.get(runtime.NOTEBOOK, name)
    if running != name:  # before anything of the other report is overwritten
        raise NotebookError(f"{running} starts the session of {name}; write notebook.start({running!r}, …) in it")
    resolved = config.load(study_name, profile, data, overrides)
    _show_figures()
    session = Session(name, resolved)
    session.say(f"**{resolved.title}**, profile `{resolved.profile}`, on {resolved.runs_on}. {resolved.question}")
    session.warning(_of_images(resolved))
    if resolved.profile == "smoke":
        session.warning("The profile `smoke` only checks that the programs run: its figures say nothing.")
    stopping.begin(session)
    return session


def _of_images(study: config.Study) -> str:
    """Return what the images of a study are."""
    if study.on_stand_in or study.dataset.adapter == "synthetic":
        return "The images are synthetic: the results show that the methods work, and say nothing about patients."
    return f"The images are real: {study.runs_on}."


def _file_name(name: str) -> str:
    """Return a name as that of a file on every system; one that had to be changed ends with its fingerprint."""
    possible = re.sub(r"[^\w .+-]", "_", name)[:_LONGEST_NAME].strip()
    return possible if possible == name else f"{possible}-{fingerprint(name)[:6]}"


def _entity(character: str) -> str:
    return {"<": "&lt;", "&": "&amp;"}.get(character, f"&#{ord(character)};")


def _inline(sentence: str) -> str:
    """Return a sentence as HTML; code in backticks and words in asterisks are marked."""
    sentence = runtime.legible(sentence)
    marked = re.sub(r"`([^`]*)`", r"<code>\1</code>", escape(sentence, quote=False))
    marked = re.sub(r"\*\*(.+?)\*\*", r"<strong>\1</strong>", marked)
    return re.sub(r"\*(.+?)\*", r"<em>\1</em>", marked)


def _training_devices() -> list[str]:
    """Return the devices on which the networks that this process requested were trained, now or in an earlier run."""
    histories = [visit.folder / "history.csv" for visit in visited()]
    columns = [pd.read_csv(path).get("device", pd.Series(dtype=str)) for path in histories if path.is_file()]
    return sorted(set().union(*(column.dropna().astype(str) for column in columns)))


def _show_figures() -> None:
    """Show a figure that is a cell's value as an image, as `%matplotlib inline` does, unless another way is chosen."""
    from IPython import get_ipython
    from IPython.core.pylabtools import select_figure_formats

    shell = get_ipython()
    formatters = shell.display_formatter.formatters.values() if shell else ()
    if shell and not any(Figure in formatter.type_printers for formatter in formatters):
        select_figure_formats(shell, {"png"})


def _display(forms: dict[str, str]) -> None:
    """Show an output of the cell in the form that the reader's program prefers."""
    from IPython.display import display

    display(forms, raw=True)


def _distinct(names: pd.Index) -> pd.Index:
    """Return the names of rows, each once: a class that is called as a total, "all", becomes "all (1)"."""
    repeated = names.duplicated(keep="last")
    if not repeated.any():
        return names
    rows = zip(names, repeated, pd.Series(names).groupby(names).cumcount() + 1, strict=True)
    return pd.Index([f"{name} ({count})" if others else name for name, others, count in rows])


def _plain(value: Any) -> Any:
    """Return a value for JSON: tables as mappings by row, arrays as lists, floats with 6 digits, and NaN as null."""
    if isinstance(value, pd.DataFrame):
        return json.loads(value.round(6).set_axis(_distinct(value.index)).to_json(orient="index"))
    if isinstance(value, pd.Series | dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, float):
        return round(value, 6) if np.isfinite(value) else None
    return value
