"""Figures of labels: what is stated of findings, which occur together or are predicted, and which labels conflict."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from scanbook.reporting.plots import style
from scanbook.reporting.plots.names import name_of

_MOST_PAIRED = 24
"""Findings beyond which the matrix of pairs shows the most frequent ones."""
_MOST_LARGE = 12
"""Columns beyond which the letters of a matrix are small."""
_HALF = 0.55
"""Depth of a square's colour from which its letters are white."""


@style.styled
def label_states(table: pd.DataFrame) -> Figure:
    """Draw of which share of the images each finding is present, uncertain, absent or not labelled.

    Args:
        table: As `counts.finding_counts` gives: index finding; columns split, present, absent, uncertain, not labelled,
            and the groups with it.
    """
    states = ["present", "uncertain", "absent", "not labelled"]
    # no group is in two splits
    totals = table[[*states, "present, in groups"]].groupby(level=0, sort=False).sum()
    images = int(totals[states].iloc[0].sum()) if len(totals) else 0
    shown, note = style.extremes(totals["present"], "findings", ("most frequent", "rarest"))
    totals = totals.loc[shown]
    figure, axis = style.subplots(figsize=(style.WIDTH, 1.1 + 0.34 * len(shown)))
    left = np.zeros(len(shown))
    for index, state in enumerate(state for state in states if totals[state].any()):
        share = totals[state].to_numpy() / max(images, 1)
        axis.barh(range(len(shown)), share, 0.7, left=left, label=state, **style.bar(index))
        left += share
    for row, (count, groups) in enumerate(totals[["present", "present, in groups"]].to_numpy()):
        style.label_row(axis, f"{count:,} present, in {style.count_of(groups, 'group')}", row)
    style.row_labels(axis, [name_of(name) for name in shown])
    style.split_extremes(axis, len(shown), note)
    axis.set(xlabel="share of the images in a split", ylabel="finding", xlim=(0, 1))
    axis.xaxis.set_major_formatter(PercentFormatter(1))
    axis.set_title(f"What is stated of each finding ({style.count_of(images, 'image')})\n{note}".strip())
    figure.legend(loc="outside lower center", ncols=4)
    return figure


@style.styled
def findings_per_image(table: pd.DataFrame) -> Figure:
    """Draw how many images have no finding known to be present, one, two, ...

    Args:
        table: As `counts.findings_per_image` gives: index the number of findings; columns images and groups.
    """
    if table.empty:
        return style.note("Findings per image: no image is labelled")
    figure, axis = style.subplots(figsize=(min(style.WIDTH, 2.6 + 0.7 * len(table)), 3.2))
    bars = axis.bar(table.index, table["images"], 0.7, **style.bar(0))
    axis.bar_label(bars, fmt="{:,.0f}", padding=2, fontsize=8)
    axis.set_xticks(table.index)
    axis.grid(visible=False, axis="x")
    axis.margins(y=0.1)
    axis.set(xlabel="findings known to be present", ylabel="images")
    axis.set_title(f"Findings per image ({style.count_of(int(table['images'].sum()), 'image')})")
    return figure


@style.styled
def co_occurrence(table: pd.DataFrame, counts: pd.Series) -> Figure:
    """Draw how often an image with one finding has another one; of many findings, of the most frequent ones.

    Args:
        table: Shares `(k, k)`, as `counts.co_occurrence` gives: of the images with the row's finding, those with the
            column's.
        counts: Images with each finding.
    """
    names, note = list(table.index), ""
    if len(names) > _MOST_PAIRED:
        frequent = counts.reindex(names).sort_values(ascending=False, kind="stable").index[:_MOST_PAIRED]
        note = f"the {_MOST_PAIRED} most frequent findings; all are in the table"
        names = [name for name in names if name in set(frequent)]
    shares = table.loc[names, names].to_numpy(float, copy=True)
    np.fill_diagonal(shares, np.nan)
    rows = [f"{name_of(name, 28)} (n = {counts[name]:,})" for name in names]
    labels = (rows, [name_of(name, 28) for name in names])
    figure = _squares(shares, labels, "{:.0%}")
    axis = figure.axes[0]
    axis.set(xlabel="has this finding, too", ylabel="images with this finding")
    title = f"Findings that occur together ({style.count_of(len(table), 'finding')})\nshare of the row's images"
    axis.set_title(f"{title}; {note}" if note else title)
    return figure


@style.styled
def areas_by_finding(table: pd.DataFrame, columns: str, above: Sequence[bool], title: str, label: str = "") -> Figure:
    """Draw how well each finding is predicted by what is no sign of it; a star marks what is better than chance.

    Of many findings, those that are predicted best and worst are shown.

    Args:
        table: Index finding; columns auc, and the one that names what predicts.
        columns: Name of that column.
        above: For each row of the table, whether it is better than chance.
        title: What is shown.
        label: What the columns are; "" for the name of their column.
    """
    if table.empty:
        return style.note(f"{title}: too few images")
    kinds = list(dict.fromkeys(table[columns]))
    index = [table.index, table[columns]]
    areas = pd.Series(table["auc"].to_numpy(), index).unstack(sort=False)[kinds]
    marks = pd.Series(np.asarray(above, bool), index).unstack(sort=False)[kinds].reindex(areas.index)
    shown, note = style.extremes(areas.max(axis=1), "findings", ("predicted best", "predicted worst"))
    values, stars = areas.loc[shown].to_numpy(float), marks.loc[shown].to_numpy(bool)
    labels = ([name_of(name) for name in shown], [style.readable(name) for name in kinds])
    figure = _squares(values, labels, "{:.2f}", lowest=0.5, stars=stars)
    axis = figure.axes[0]
    axis.set(xlabel=label or style.readable(columns), ylabel="finding")
    counted = style.count_of(len(areas), "finding")
    stars_mean = "AUC; *: above one half, with Holm's correction"
    axis.set_title(f"{title} ({counted})\n{stars_mean}\n{note}".strip())
    return figure


@style.styled
def suspected_labels(table: pd.DataFrame, kind: str = "class") -> Figure:
    """Draw the share of the labels of each class, or of each finding, that look wrong, with intervals.

    Of many, those with the highest and the lowest shares are shown.

    Args:
        table: Index the classes or findings; columns value, low and high, and the number of labels, `labels`.
        kind: "class" or "finding".
    """
    if table.empty:
        return style.note("Labels that look wrong: no label was checked")
    plural = {"class": "classes", "finding": "findings"}[kind]
    shown, note = style.extremes(table["value"], plural, ("with the most", "with the fewest"))
    rows = table.loc[shown]
    figure, axis = style.subplots(figsize=(style.WIDTH, 1.2 + 0.36 * len(rows)))
    places = np.arange(len(rows))
    axis.barh(places, rows["value"], 0.6, **style.bar(0))
    style.whiskers(axis, places, rows["low"], rows["high"], vertical=False)
    ends = np.fmax(rows["high"].to_numpy(float), rows["value"].to_numpy(float))
    for place, end, value in zip(places, ends, rows["value"], strict=True):
        style.label_bar(axis, f"{value:.1%}", end, place)
    style.row_labels(axis, [f"{name_of(name)} (n = {count:,})" for name, count in rows["labels"].items()])
    style.split_extremes(axis, len(rows), note)
    axis.xaxis.set_major_formatter(PercentFormatter(1))
    given = "given label" if kind == "class" else "finding"
    axis.set(
        xlabel="labels that look wrong (95 % interval)", ylabel=given, xlim=(0, min(1.15 * max(ends.max(), 0.01), 1.1))
    )
    counted = style.count_of(int(table["labels"].sum()), "label")
    axis.set_title(f"Labels that confident learning suspects ({counted})\n{note}".strip())
    return figure


@style.styled
def copied_classes(table: pd.DataFrame) -> Figure:
    """Draw how many images of each class are byte-identical to an image of each other class; of many, the most copied.

    Args:
        table: As `presence.copied_classes` gives: counts `(k, k)`.
    """
    images = table.sum(axis=1)
    shown, note = style.extremes(images, "classes", ("most", "fewest copies"), _MOST_PAIRED, _MOST_PAIRED // 2)
    counts = table.loc[shown, shown].to_numpy(float)
    values = np.where(counts > 0, counts, np.nan)
    names = [name_of(name, 28) for name in shown]
    figure = _squares(values, (names, names), "{:,.0f}", highest=max(float(np.nanmax(counts)), 1))
    axis = figure.axes[0]
    axis.set(xlabel="class of the copy", ylabel="class of the image")
    title = f"Byte-identical images under different labels ({len(table)} classes)"
    axis.set_title(f"{title}\nimages of the row's class with a copy in the column's\n{note}".strip())
    return figure


def _squares(
    values: np.ndarray,
    labels: tuple[Sequence[str], Sequence[str]],
    text: str,
    *,
    lowest: float = 0.0,
    highest: float = 1.0,
    stars: np.ndarray | None = None,
) -> Figure:
    """Return a matrix of squares, dark where a value is high, each with its number; an empty one where it is NaN."""
    (rows, columns), (height, width) = labels, values.shape
    small = width > _MOST_LARGE
    side = 0.44 if small else 0.62
    margin, below = 0.085 * max(map(len, rows)), 0.065 * max(map(len, columns))
    figure, axis = style.subplots(figsize=(max(side * width + margin + 0.7, 6), 0.4 * height + below + 1.4))
    axis.imshow(values, cmap="Blues", vmin=lowest, vmax=highest, aspect="auto")
    for (row, column), value in np.ndenumerate(values):
        if np.isfinite(value):
            deep = (value - lowest) / (highest - lowest) > _HALF
            shown = text.format(value) + ("*" if stars is not None and stars[row, column] else "")
            look = {"ha": "center", "va": "center", "color": "white" if deep else style.INK}
            axis.text(column, row, shown, fontsize=7 if small else 8.5, **look)
    axis.set_xticks(range(width), columns, rotation=40, ha="right", rotation_mode="anchor")
    axis.set_yticks(range(height), rows)
    axis.grid(visible=False)
    axis.spines[:].set_visible(False)
    return figure
