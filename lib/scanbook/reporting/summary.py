"""`reports/<study>/<profile>/index.html`: the key results of a study on one page, from its notebooks' results."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from scanbook import bundle
from scanbook.reporting import suite
from scanbook.reporting.records import Report, Run
from scanbook.reporting.report import anchor, environment

EDA, _, _, TRANSFER, TUNING, HARDWARE, EXPORT, *_ = suite.NOTEBOOKS
METRICS = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "auroc": "macro AUROC",
    "kappa": "quadratic weighted kappa",
}
"""Metrics of the test report on the page, the first of them large, with their titles in `evaluation`."""


@dataclass(frozen=True)
class KeyResult:
    """One key result.

    Attributes:
        name: Its topic.
        report: The report that it is from, which is linked.
        heading: Section of the report with more details.
        figure: The result; empty where the notebook recorded none.
        details: Further lines.
        command: The next command; empty for none.
    """

    name: str
    report: Report
    heading: str
    figure: str = ""
    details: tuple[str, ...] = ()
    command: str = ""

    @property
    def link(self) -> str:
        """Address of the section, from the study's page."""
        return f"{self.report.name}/report.html" + (f"#{anchor(self.heading)}" if self.report.status == "done" else "")


@dataclass(frozen=True)
class Comparison:
    """A published table beside this run.

    Attributes:
        report: The report that shows it.
        caption: Its caption.
        rows: Name of the row, metric, published value, value of this run, and their difference.
    """

    report: Report
    caption: str
    rows: list[tuple[str, ...]]


def page(run: Run) -> str:
    """Return the page of a study."""
    content = {"results": key_results(run), "comparisons": comparisons(run)}
    return environment().get_template("summary.html.j2").render(run=run, **content)


def key_results(run: Run) -> list[KeyResult]:
    """Return the key results: data, best model, test result, cost, service, and another source where one is named."""
    return [_data(run), _model(run), _result(run), _cost(run), _service(run), *_external(run)]


def accuracy(run: Run) -> str:
    """Return the final model's accuracy on test, with its interval; empty where there is none."""
    return _result(run).figure


def interval(row: dict[str, Any], digits: int = 3) -> str:
    """Return a value and its interval: "0.713 (0.601 to 0.812)"."""
    value, low, high = (row.get(key) for key in ("value", "low", "high"))
    if value is None:
        return ""
    return f"{value:.{digits}f}" + (f" ({low:.{digits}f} to {high:.{digits}f})" if None not in (low, high) else "")


def number(value: float) -> str:
    """Return a number with three digits, or as a whole number: "0.0123", "1.87", "1,870"."""
    return f"{value:,.0f}" if abs(value) >= 999.5 else f"{value:.3g}"


def _data(run: Run) -> KeyResult:
    report = run.reports[EDA]
    results = report.results
    details = []
    if "splits" in results:
        counts = results["splits"]["all"]
        details.append(" · ".join(f"{split} {counts[split]:,}" for split in ("train", "validation", "test")))
        groups = results["splits"].get("groups", {}).get("all", counts["all"])
        if groups < counts["all"]:  # otherwise the source has no patients or lesions
            details.append(f"{groups:,} patients or lesions, each in one split only")
    if "exact_copies" in results:
        near = results["near_copies_across_splits"]
        details.append(f"{results['exact_copies']:,} byte-identical files, {near:,} near-duplicates across splits")
    return KeyResult("Data", report, "1. Images by label and split", report.headline, tuple(details))


def _model(run: Run) -> KeyResult:
    tuned, transfer = run.reports[TUNING], run.reports[TRANSFER]
    final, frozen = tuned.results.get("model", ""), transfer.results.get("best", "")
    details = [f"started from {frozen}, the best on validation"] if frozen not in ("", final) else []
    differences = tuned.results.get("differences", {})
    main = "accuracy" if "accuracy" in differences else "auroc"  # of findings there is no accuracy
    gain = differences.get(main)
    if gain and None not in gain:
        value, low, high = gain
        noise = ", within noise" if low <= 0 <= high else ""
        details.append(f"fine-tuning: {value:+.3f} {METRICS[main]} ({low:+.3f} to {high:+.3f}){noise}")
    if final or tuned.status:
        return KeyResult("Best model", tuned, "1. Training", final, tuple(details))
    heading = "7. Transfer learning compared with training from scratch"
    return KeyResult("Best model", transfer, heading, frozen, ("not fine-tuned yet",) if frozen else ())


def _result(run: Run) -> KeyResult:
    report = run.reports[TUNING]
    summary = report.results.get("summary", {})
    metrics = [f"{name} {interval(summary[key])}" for key, name in METRICS.items() if interval(summary.get(key, {}))]
    if not metrics:  # the headline has the reason
        return KeyResult("Test result", report, "4. Test report", report.headline)
    first, *others = metrics
    bounds = {
        "most frequent class": run.reports[EDA].results.get("majority_accuracy"),
        "highest possible": report.results.get("bayes_accuracy"),
    }
    references = [f"{name} {value:.3f}" for name, value in bounds.items() if value is not None]
    details = (*others, *([f"accuracies to compare with: {', '.join(references)}"] if references else []))
    return KeyResult("Test result", report, "4. Test report", first, tuple(details))


def _cost(run: Run) -> KeyResult:
    report = run.reports[HARDWARE]
    here = [row for row in report.results.get("cost", {}).values() if row["kind"] != "published"]
    prices = sorted(row["usd_per_million"] for row in here if row.get("usd_per_million") is not None)
    if not prices:
        return KeyResult("Cost", report, "7. Cost", report.headline)
    low, high = number(prices[0]), number(prices[-1])
    figure = f"USD {low if low == high else f'{low} to {high}'} per million predictions"
    engine, milliseconds = here[0]["engine"], here[0]["milliseconds"]
    details = [f"{number(milliseconds)} ms per prediction with {engine}", report.headline]
    if here[0]["kind"] == "what-if":
        details.append("at the prices of other machines in the price table")
    return KeyResult("Cost", report, "7. Cost", figure, tuple(details))


def _service(run: Run) -> KeyResult:
    report = run.reports[EXPORT]
    milliseconds = report.results.get("milliseconds_per_request")
    details = [f"{number(milliseconds)} ms per request over HTTP"] if milliseconds is not None else []
    threshold = report.results.get("abstain_below")
    if threshold is not None:
        details.append(f"abstains below a confidence of {threshold:.2f}")
    command = run.command("serve") if (run.folder / bundle.SUBFOLDER).is_dir() else ""
    return KeyResult("Deploy", report, "4. Parity", report.headline, tuple(details), command)


def _external(run: Run) -> list[KeyResult]:
    report = run.reports.get(suite.EXTERNAL)
    if report is None:
        return []
    details = report.results.get("shifts_in_words", "")
    return [
        KeyResult("Another source", report, "2. Internal and external", report.headline, (details,) if details else ())
    ]


def comparisons(run: Run) -> list[Comparison]:
    """Return the published tables that a notebook has values for; none on a stand-in."""
    tables = []
    for report in run.done:
        for key, table in report.results.get("published", {}).items():
            rows = [
                (name, metric.replace("_", " "), *_both(pair))
                for name, row in table.items()
                for metric, pair in row.items()
            ]
            tables.append(Comparison(report, report.facts["study"]["published"][key]["caption"], rows))
    return tables


def _both(pair: dict[str, Any]) -> tuple[str, str, str]:
    """Return a published value, this run's, and the difference as texts; empty where there is none."""
    values = [pair[key] if isinstance(pair[key], int | float) else None for key in ("published", "this run")]
    published, here = ("" if value is None else f"{value:.4g}" for value in values)
    return published, here, "" if None in values else f"{values[1] - values[0]:+.3g}"
