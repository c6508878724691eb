"""`reports/<study>/<profile>/index.html`: a study in one screen, from what its notebooks recorded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from scanbook import bundle
from scanbook.reporting import suite
from scanbook.reporting.records import Report, Run
from scanbook.reporting.report import anchor, environment

EDA, _, _, TRANSFER, TUNING, HARDWARE, EXPORT = suite.NOTEBOOKS
METRICS = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "auroc": "macro AUROC",
    "kappa": "quadratic weighted kappa",
}
"""Metrics of the test report that the story tells, the first of them large, with the titles that `evaluation` gives."""


@dataclass(frozen=True)
class Step:
    """One step of the story.

    Attributes:
        name: What it is about.
        reports: Those that it is told from; the first is linked.
        heading: Section of the first that says more.
        figure: What it comes to; empty where the notebook did not say.
        details: What else belongs to it, a line each.
        command: What to type next; empty for nothing.
    """

    name: str
    reports: tuple[Report, ...]
    heading: str
    figure: str = ""
    details: tuple[str, ...] = ()
    command: str = ""

    @property
    def report(self) -> Report:
        """The one that says more."""
        return self.reports[0]

    @property
    def link(self) -> str:
        """Address of the section, from the study's page."""
        return f"{self.report.name}/report.html" + (f"#{anchor(self.heading)}" if self.report.status == "done" else "")


@dataclass(frozen=True)
class Comparison:
    """A published table beside this run.

    Attributes:
        report: Where it stands.
        caption: What it shows.
        rows: Name of the row, metric, what was published, what this run gave, and by how much that is higher.
    """

    report: Report
    caption: str
    rows: list[tuple[str, ...]]


def page(run: Run) -> str:
    """The page of a study."""
    return environment().get_template("story.html.j2").render(run=run, steps=steps(run), comparisons=comparisons(run))


def steps(run: Run) -> list[Step]:
    """The story: data, best model, test result, cost, service."""
    return [_data(run), _model(run), _result(run), _cost(run), _service(run)]


def accuracy(run: Run) -> str:
    """The final model's accuracy on test, with its interval; empty where there is none."""
    return _result(run).figure


def interval(row: dict[str, Any], digits: int = 3) -> str:
    """A value and its interval: "0.713 (0.601 to 0.812)"."""
    value, low, high = (row.get(key) for key in ("value", "low", "high"))
    if value is None:
        return ""
    return f"{value:.{digits}f}" + (f" ({low:.{digits}f} to {high:.{digits}f})" if None not in (low, high) else "")


def number(value: float) -> str:
    """Three digits, or the whole number: "0.0123", "1.87", "1,870"."""
    return f"{value:,.0f}" if abs(value) >= 999.5 else f"{value:.3g}"


def _data(run: Run) -> Step:
    report = run.reports[EDA]
    found = report.recorded
    details = []
    if "splits" in found:
        every = found["splits"]["all"]
        details.append(" · ".join(f"{split} {every[split]:,}" for split in ("train", "validation", "test")))
        groups = found["splits"].get("groups", {}).get("all", every["all"])
        if groups < every["all"]:  # otherwise the source does not say whose the images are
            details.append(f"{groups:,} patients or lesions, none in two parts")
    if "exact_copies" in found:
        near = found["near_copies_across_splits"]
        details.append(f"{found['exact_copies']:,} byte-identical files, {near:,} near-duplicates across parts")
    return Step("Data", (report,), "1. Images by class and split", report.headline, tuple(details))


def _model(run: Run) -> Step:
    tuned, transfer = run.reports[TUNING], run.reports[TRANSFER]
    final, frozen = tuned.recorded.get("model", ""), transfer.recorded.get("best", "")
    details = [f"started from {frozen}, the best on validation"] if frozen else []
    gain = tuned.recorded.get("differences", {}).get("accuracy")
    if gain:
        value, low, high = gain
        noise = " (noise)" if low <= 0 <= high else ""
        details.append(f"fine-tuning: {value:+.3f} accuracy ({low:+.3f} to {high:+.3f}){noise}")
    if final or tuned.status:
        return Step("Best model", (tuned, transfer), "1. Training", final, tuple(details))
    heading = "6. Transfer learning compared with training from scratch"
    return Step("Best model", (transfer, tuned), heading, frozen, ("not fine-tuned yet",) if frozen else ())


def _result(run: Run) -> Step:
    report = run.reports[TUNING]
    summary = report.recorded.get("summary", {})
    said = {name: interval(summary[key]) for key, name in METRICS.items() if key in summary}
    first, *others = [f"{name} {text}" for name, text in said.items()] or [""]
    bounds = {
        "most frequent class": run.reports[EDA].recorded.get("majority_accuracy"),
        "best possible": report.recorded.get("bayes_accuracy"),
    }
    known = [f"{name} {value:.3f}" for name, value in bounds.items() if value is not None]
    details = (*others, *([f"accuracy of the {', of the '.join(known)}"] if known else []))
    return Step("Test result", (report,), "4. Test report", first, tuple(details))


def _cost(run: Run) -> Step:
    report = run.reports[HARDWARE]
    here = [row for row in report.recorded.get("cost", {}).values() if row["kind"] != "published"]
    prices = sorted(row["usd_per_million"] for row in here if row.get("usd_per_million") is not None)
    if not prices:
        return Step("Cost", (report,), "7. Cost", report.headline)
    low, high = number(prices[0]), number(prices[-1])
    figure = f"USD {low if low == high else f'{low} to {high}'} per million predictions"
    engine, milliseconds = here[0]["engine"], here[0]["milliseconds"]
    details = [f"{number(milliseconds)} ms a prediction with {engine}", report.headline]
    if here[0]["kind"] == "what-if":
        details.append("if this machine cost what those of the price table do")
    return Step("Cost", (report,), "7. Cost", figure, tuple(details))


def _service(run: Run) -> Step:
    report = run.reports[EXPORT]
    took = report.recorded.get("milliseconds_per_request")
    details = [f"{number(took)} ms a request over HTTP"] if took is not None else []
    below = report.recorded.get("abstain_below")
    if below is not None:
        details.append(f"says “not sure” below a confidence of {below:.2f}")
    command = run.command("serve") if (run.folder / bundle.SUBFOLDER).is_dir() else ""
    return Step("Deploy", (report,), "4. Parity", report.headline, tuple(details), command)


def comparisons(run: Run) -> list[Comparison]:
    """Published tables that a notebook has figures of its own for; none on a stand-in."""
    found = []
    for report in run.done:
        for key, table in report.recorded.get("published", {}).items():
            rows = [
                (name, metric.replace("_", " "), *_both(pair))
                for name, row in table.items()
                for metric, pair in row.items()
            ]
            found.append(Comparison(report, report.facts["study"]["published"][key]["caption"], rows))
    return found


def _both(pair: dict[str, Any]) -> tuple[str, str, str]:
    """A published figure, this run's, and by how much this run's is higher; empty where there is none."""
    figures = [pair[key] if isinstance(pair[key], int | float) else None for key in ("published", "this run")]
    published, here = ("" if value is None else f"{value:.4g}" for value in figures)
    return published, here, "" if None in figures else f"{figures[1] - figures[0]:+.3g}"
