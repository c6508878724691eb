"""Figures of findings, each of which is present, absent or not labelled: one row or panel per finding."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator, PercentFormatter

from scanbook.evaluation import LEAST_IMAGES, MACRO, METRICS, FindingPredictions, finding_reliability
from scanbook.reporting.plots import style
from scanbook.reporting.plots.names import name_of

MOST_PANELS = 12
"""Findings beyond which a figure of panels shows the most frequent ones."""
_MOST_SQUARES = 40
"""Findings beyond which the matrix shows the first ones."""
_MOST_NUMBERS = 14
"""Findings up to which the squares of the matrix have numbers."""


@style.styled
def finding_bars(report: pd.DataFrame, title: str) -> Figure:
    """Draw AUROC and AUPRC of each finding with their 95 % intervals, and what chance would reach.

    Of more than 30 findings, those with the highest and the lowest AUROC are shown; the macro average always is.

    Args:
        report: Of `evaluation.finding_report`.
        title: Of which model, and on how many images.
    """
    rows = report.iloc[:-1]  # a finding may have the name of the mean
    findings, note = style.extremes(rows["auroc"], "findings", ("highest", "lowest AUROCs"))
    table = pd.concat([rows.loc[findings], report.iloc[-1:]])
    size = (style.WIDTH + 2, 1.5 + 0.32 * len(table))
    figure, axes = style.subplots(1, 2, figsize=size, sharey=True)
    prevalence = table["positives"] / (table["positives"] + table["negatives"])
    for axis, (name, quantity) in zip(axes, {"auroc": "AUROC", "auprc": "AUPRC"}.items(), strict=True):
        style.whiskers(axis, range(len(table)), table[f"{name}_low"], table[f"{name}_high"], vertical=False)
        axis.plot(table[name], range(len(table)), "o", color=style.COLOURS[0], markersize=6)
        for row, value in enumerate(table[name]):
            style.label_row(axis, f"{value:.3f}" if np.isfinite(value) else "not defined", row)
        axis.set_xlabel(f"{quantity} (whiskers: 95 % interval)")
        axis.xaxis.set_major_locator(MaxNLocator(5))
    axes[0].axvline(0.5, color=style.QUIET, linestyle=":", linewidth=1.2, label="chance")
    look = {"color": style.COLOURS[3], "markersize": 11, "markeredgewidth": 2}
    axes[1].plot(prevalence[:-1], range(len(findings)), "|", label="chance: share that has it", **look)
    for axis in axes:
        axis.legend(loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0.2, fontsize=8.5)
    counts = zip(findings, table["positives"], strict=False)
    names = [f"{name_of(name)} (n = {count:,.0f})" for name, count in counts]
    style.row_labels(axes[0], [*names, MACRO])
    for axis in axes:
        style.split_extremes(axis, len(findings), note)
        axis.axhline(len(findings) - 0.5, color=style.INK, linewidth=1)
        axis.grid(visible=False, axis="y")
    axes[0].set_ylabel("finding (n: positives)" if len(findings) > 6 else "finding")
    style.headline(figure, f"{title}\n{note}".strip())
    return figure


@style.styled
def finding_reliability_diagrams(before: FindingPredictions, after: FindingPredictions) -> Figure:
    """Draw the share of images that have a finding over the stated probability, one panel per finding.

    Of more than 12 findings, those that most images have are shown. Each panel has its own scale, since probabilities
    of a rare finding are small.

    Args:
        before: The model's own probabilities.
        after: Calibrated ones, of the same images.
    """
    labelled = ~np.isnan(after.y_true).all(axis=0)
    findings, note = _most_frequent(pd.Series((after.y_true == 1).sum(axis=0), list(after.findings))[labelled])
    if not findings:
        return style.note("Reliability: no finding is labelled")
    figure, _, axes = style.panels(len(findings), 4, 2.5, 2.5)
    for axis, finding in zip(axes, findings, strict=True):
        largest = 0.0
        for index, (name, predictions) in enumerate({"before": before, "after": after}.items()):
            table, look = finding_reliability(predictions, finding), style.line(index)
            style.whiskers(axis, table["probability"], table["low"], table["high"], colour=style.COLOURS[index])
            axis.plot(table["probability"], table["share"], label=f"{name} calibration", **look)
            largest = max(largest, table["probability"].max(), table["high"].max())
        reach = min(1.02, 1.05 * largest)
        axis.plot([0, 1], [0, 1], color=style.QUIET, linestyle=":", linewidth=1.2, label="perfectly calibrated")
        axis.set(xlim=(0, reach), ylim=(0, reach))
        axis.set_xlabel("stated probability", fontsize=8)
        axis.set_ylabel("share that has it", fontsize=8)
        axis.set_title(name_of(finding, 28), fontsize=9)
        for scale in (axis.xaxis, axis.yaxis):
            scale.set_major_locator(MaxNLocator(4))
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    title = f"Reliability ({style.count_of(len(after), 'image')}; whiskers: 95 % interval)"
    style.headline(figure, f"{title}\n{note}".strip())
    return figure


@style.styled
def finding_answers(errors: pd.DataFrame, title: str) -> Figure:
    """Draw what is answered where a finding is present, and where it is absent: two bars of 100 % per finding.

    Of more than 30 findings, those with the highest and the lowest sensitivity are shown.

    Args:
        errors: Of `evaluation.finding_errors`.
        title: Of which model, and on how many images.
    """
    positives = errors["true_positives"] + errors["false_negatives"]
    findings, note = style.extremes(
        errors["true_positives"] / positives.where(positives > 0), "findings", ("highest", "lowest sensitivities")
    )
    table = errors.loc[findings]
    figure, axes = style.subplots(1, 2, figsize=(style.WIDTH + 1.5, 1.6 + 0.34 * len(table)), sharey=True)
    sides = {
        "present": ("true_positives", "false_negatives"),
        "absent": ("false_positives", "true_negatives"),
    }
    for axis, (side, names) in zip(axes, sides.items(), strict=True):
        _stacked(axis, table, names, side)
        axis.set_xlabel(f"images in which it is {side}")
        axis.xaxis.set_major_formatter(PercentFormatter(1))
        style.split_extremes(axis, len(findings), note)
    style.row_labels(axes[0], [name_of(name) for name in findings])
    axes[0].set_ylabel("finding")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    style.headline(figure, f"{title}\n{note}".strip())
    return figure


def _stacked(axis: Axes, table: pd.DataFrame, names: tuple[str, str], side: str) -> None:
    """Draw the shares of two answers, with the number of images in each."""
    counts = table[list(names)].to_numpy(float)
    totals = counts.sum(axis=1)
    shares = np.divide(counts, totals[:, None], out=np.zeros_like(counts), where=totals[:, None] > 0)
    start = np.zeros(len(table))
    for column, (answer, series) in enumerate((("present", 0), ("absent", 1))):
        axis.barh(range(len(table)), shares[:, column], 0.7, start, label=f"called {answer}", **style.bar(series))
        for row, (count, share) in enumerate(zip(counts[:, column], shares[:, column], strict=True)):
            if share > 0.09:
                look = {"ha": "center", "va": "center", "fontsize": 8, "color": style.INK, "bbox": style.WHITE}
                axis.text(start[row] + share / 2, row, f"{count:,.0f}", **look)
        start = start + shares[:, column]
    for row in np.flatnonzero(totals == 0):
        axis.text(0.02, row, f"no image in which it is {side}, or no threshold", va="center", fontsize=8)
    axis.set_xlim(0, 1)


@style.styled
def co_errors(table: pd.DataFrame, images: int) -> Figure:
    """Draw which finding is called present where another one is: a matrix of shares, with sensitivity on its diagonal.

    Of more than 40 findings, the first 40 are shown.

    Args:
        table: Of `evaluation.co_errors`.
        images: Number of test images.
    """
    import seaborn as sns  # slow to import

    shown = table.iloc[:_MOST_SQUARES, :_MOST_SQUARES]
    names, k = [name_of(name, 28) for name in shown.columns], len(shown)
    side, margin = float(np.clip(0.62 * k, 2.6, max(8, 0.3 * k))), 0.08 * max(map(len, names))
    figure, axis = style.subplots(figsize=(side + margin + 2, side + margin + 0.9))
    scale = {"label": "share of images", "format": PercentFormatter(1), "shrink": 0.6}
    letters = {"annot": k <= _MOST_NUMBERS, "fmt": ".0%", "annot_kws": {"fontsize": 8}}
    look = {"cmap": "Blues", "vmin": 0, "vmax": 1, "square": True, "cbar_kws": scale}
    sns.heatmap(shown.to_numpy(), ax=axis, **look, **letters, rasterized=k > _MOST_NUMBERS)
    places = np.arange(k) + 0.5
    axis.set_xticks(places, names, rotation=40 if k > 2 else 0, ha="right" if k > 2 else "center")
    axis.set_yticks(places, names, rotation=0)
    for place in range(k):  # the diagonal is another quantity
        axis.add_patch(_frame(place))
    axis.set(xlabel="called present", ylabel="present")
    first = f"\nthe first {k} of {len(table)} findings" if k < len(table) else ""
    title = "Findings called present where they are absent and another is present"
    axis.set_title(f"{title}, {style.count_of(images, 'image')}{first}\nframed: the finding's own sensitivity")
    return figure


def _frame(place: int) -> Rectangle:
    return Rectangle((place, place), 1, 1, fill=False, edgecolor=style.COLOURS[3], linewidth=1.5)


@style.styled
def finding_coverage(table: pd.DataFrame, title: str, chosen: pd.Series) -> Figure:
    """Draw macro sensitivity and specificity of what is answered over the share of images answered.

    Args:
        table: Of `evaluation.finding_coverage_curve`.
        title: Of which model, and on how many images.
        chosen: The row "macro average" of `evaluation.finding_abstention`, to be marked.
    """
    figure, axis = style.subplots(figsize=(style.WIDTH * 0.8, 4.4))
    for index, name in enumerate(("sensitivity", "specificity")):
        look = style.line(index)
        style.band(axis, table.index, table[f"{name}_low"], table[f"{name}_high"], style.COLOURS[index])
        axis.plot(table.index, table[name], label=f"{name} (band: 95 % interval)", **look)
        if np.isfinite(chosen[name]):
            label = f"{name} at the margins from validation: {chosen[name]:.1%} of {chosen['coverage']:.1%} answered"
            mark = {"color": style.COLOURS[3], "markersize": 9, "label": label}
            axis.plot(chosen["coverage"], chosen[name], look["marker"], **mark)
    axis.set(xlabel="share of labelled images answered, farthest from the threshold first", xlim=(1.02, 0.0))
    axis.set_ylabel("mean over findings")
    for scale in (axis.xaxis, axis.yaxis):
        scale.set_major_formatter(PercentFormatter(1))
    axis.set_title(title)
    figure.legend(loc="outside lower center", fontsize=8.5)
    return figure


@style.styled
def finding_subgroup_bars(table: pd.DataFrame, title: str) -> Figure:
    """Draw the AUROC of each finding in each subgroup, with its 95 % interval; one panel per finding.

    Of more than 12 findings, those with most positive images are shown.

    Args:
        table: Of `evaluation.finding_subgroups`.
        title: By which attribute, and on how many images.
    """
    findings, note = _most_frequent(table["positives"].groupby(level="finding", sort=False).sum())
    subgroups = [str(name) for name in table.index.unique("subgroup")][: style.MOST_ROWS]
    figure, grid, axes = style.panels(len(findings), 4, 2.6, 0.9 + 0.3 * len(subgroups), sharey=True)
    for axis, finding in zip(axes, findings, strict=True):
        rows = table.xs(finding, level="finding").loc[subgroups]
        style.whiskers(axis, range(len(rows)), rows["auroc_low"], rows["auroc_high"], vertical=False)
        axis.plot(rows["auroc"], range(len(rows)), "o", color=style.COLOURS[0])
        for row in np.flatnonzero(rows["auroc"].isna()):
            look = {"ha": "center", "va": "center", "fontsize": 8, "bbox": style.WHITE}
            few = rows["positives"].iloc[row] + rows["negatives"].iloc[row] < LEAST_IMAGES
            text = "too few images" if few else "not defined"
            axis.text(0.5, row, text, transform=axis.get_yaxis_transform(), **look)
        axis.set_title(name_of(finding, 28), fontsize=9)
        if rows["auroc"].isna().all():
            axis.set_xlim(0, 1)
        axis.xaxis.set_major_locator(MaxNLocator(4))
        axis.set_xlabel("AUROC", fontsize=8)
    for axis in grid[:, 0]:
        style.row_labels(axis, [name_of(name, 24) for name in subgroups])
        axis.set_ylabel("subgroup", fontsize=8)
    style.headline(figure, f"{title} (whiskers: 95 % interval)\n{note}".strip())
    return figure


@style.styled
def finding_robustness(frame: pd.DataFrame) -> Figure:
    """Draw macro AUROC over the severity of each corruption, with its 95 % interval, and each finding as a thin line.

    Args:
        frame: Of `robustness.curves`, of findings.
    """
    kinds, prefix = frame["kind"].unique(), "auroc: "
    figure, axes = style.subplots(1, len(kinds), figsize=(style.WIDTH + 1.5, 3.1), sharey=True, squeeze=False)
    for axis, kind in zip(axes[0], kinds, strict=True):
        rows = frame[frame["kind"] == kind].sort_values("severity")
        for index, name in enumerate(name for name in frame if name.startswith(prefix)):
            look = {"color": style.QUIET, "linewidth": 0.8, "label": "" if index else "one finding"}
            axis.plot(rows["severity"], rows[name], **look)
        style.band(axis, rows["severity"], rows["low"], rows["high"], style.COLOURS[0])
        axis.plot(rows["severity"], rows["auroc"], color=style.COLOURS[0], marker="o", label=METRICS["auroc"].title)
        axis.axhline(rows["auroc"].iloc[0], color=style.INK, linestyle="--", linewidth=1)
        axis.set_title("JPEG" if kind == "jpeg" else style.readable(kind).capitalize())
        axis.set(xlabel="severity", xticks=rows["severity"].tolist())
    axes[0, 0].set_ylabel("AUROC")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    count = style.count_of(int(frame["images"].iloc[0]), "image")
    style.headline(figure, f"AUROC by severity of corruption ({count}; band: 95 % interval; dashed: original images)")
    return figure


def _most_frequent(positives: pd.Series) -> tuple[list[str], str]:
    """Return the findings that have a panel, in order, and a line of the title where some have none."""
    frequent = positives.sort_values(ascending=False, kind="stable").index[:MOST_PANELS]
    names = [name for name in positives.index if name in frequent]
    few = f"the {len(names)} most frequent of {len(positives)} findings" if len(names) < len(positives) else ""
    return names, few
