"""Figures of the images: how many, of what kind, with which faults, and what reveals their class."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from scanbook.reporting.plots import style
from scanbook.reporting.plots.names import name_of

_SPLITS = ("train", "validation", "test", "")
_LEVELS = ", levels of 0 to 255"
_UNITS = dict.fromkeys(("brightness", "contrast", "saturation", "red_minus_blue", "green_minus_magenta"), _LEVELS)
_UNITS["sharpness"] = ", log10 of the Laplacian's variance"
_PLURAL = {"class": "classes", "finding": "labels"}
_MOST_CLASSES = 12
_MOST_VALUES = 30
"""Different texts beyond which a column of metadata has no figure."""
_MOST_VIOLINS = 20
"""Classes beyond which a panel of `image_statistics` shows those with the extreme medians."""
_EXTREME_VIOLINS = 8
"""Number of classes that it then shows of each end."""
_MOST_IMAGES = 72
"""Images beyond which a montage shows the first ones."""


@style.styled
def class_counts(frame: pd.DataFrame, classes: Sequence[str], kind: str = "class") -> Figure:
    """Draw the number of images of each class in each split; of many classes, of the largest and the smallest.

    Args:
        frame: A manifest's frame, or the one of `counts.by_label`: rows of one image share its index; columns label,
            split and group.
        classes: Names of the classes or findings in their order.
        kind: "class" or "finding".
    """
    counts = pd.crosstab(frame["label"], frame["split"]).reindex(index=list(classes), fill_value=0)
    splits = [split for split in _SPLITS if split in counts.columns]
    images = _each_once(frame)
    totals = images["split"].value_counts()
    shown, note = style.extremes(counts.sum(axis=1), _PLURAL[kind], ("largest", "smallest"))
    counts = counts.loc[shown]
    height = 0.8 / max(len(splits), 1)
    figure, axis = style.subplots(figsize=(style.WIDTH, 0.8 + len(shown) * max(0.34, 0.22 * len(splits))))
    for index, split in enumerate(splits):
        rows = np.arange(len(shown)) - 0.4 + height * (index + 0.5)
        label = f"{split or 'in no split'} ({totals[split]:,})"
        bars = axis.barh(rows, counts[split], height, label=label, **style.bar(index))
        axis.bar_label(bars, fmt="{:,.0f}", padding=3, fontsize=8)
    style.row_labels(axis, [name_of(label) for label in shown])
    style.split_extremes(axis, len(shown), note)
    axis.margins(x=0.1)
    axis.set(xlabel="images", ylabel=kind)
    groups = style.count_of(images["group"].nunique(), "group")
    title = f"Images per {kind} and split ({style.count_of(len(images), 'image')} in {groups})"
    axis.set_title(f"{title}\n{note}".strip())
    if splits != [""]:
        axis.legend(title="split", loc="upper left", bbox_to_anchor=(1.02, 1))  # bars may fill the whole chart
    return figure


@style.styled
def montage(
    images: Sequence[NDArray[np.uint8]], titles: Sequence[str], columns: int = 6, title: str = "Examples"
) -> Figure:
    """Draw images side by side, each with its caption; of many, the first ones.

    Args:
        images: RGB images `(h, w, 3)`, uint8.
        titles: A caption per image.
        columns: Images per row.
        title: What the images have in common.
    """
    if len(images) == 0:
        return style.note(f"{title}: no image")
    count = f"{f'the first {_MOST_IMAGES} of ' if len(images) > _MOST_IMAGES else ''}"
    count += style.count_of(len(images), "image")
    images, titles = images[:_MOST_IMAGES], titles[:_MOST_IMAGES]
    lines = max(style.in_brief(text).count("\n") + 1 for text in titles)
    figure, axes = style.image_grid(len(images), columns, extra=0.16 + 0.1 * lines)
    for axis, image, text in zip(axes, images, titles, strict=True):
        axis.imshow(image)
        style.caption(axis, text)
    style.headline(figure, f"{title} ({count})")
    return figure


@style.styled
def image_statistics(
    frame: pd.DataFrame, columns: Sequence[str], classes: Sequence[str], kind: str = "class"
) -> Figure:
    """Draw the distributions of measured properties of the images by class, one panel per property.

    Of many classes each panel shows those with the highest and the lowest medians of its property.

    Args:
        frame: One row per image, with column label and the numeric `columns`; a name ends with its unit, "width_px".
        columns: Properties to show.
        classes: Names of the classes or findings in their order.
        kind: "class" or "finding", as in `class_counts`.
    """
    limits = (_MOST_VIOLINS, _EXTREME_VIOLINS)
    shown = {column: _extreme_medians(frame, column, classes, kind, *limits) for column in columns}
    height = 0.9 + 0.32 * max(len(names) for names, _ in shown.values())
    alike = len(classes) <= _MOST_VIOLINS
    figure, grid, axes = style.panels(len(columns), 2, style.WIDTH / 2 + 0.5, height, sharey=alike)
    for axis, (column, (names, note)) in zip(axes, shown.items(), strict=True):
        _violins(axis, frame, column, names, kind)
        style.row_labels(axis, [name_of(label, 40 if alike else 24) for label in names])
        style.split_extremes(axis, len(names), note)
        axis.set_xlabel(style.readable(column) + _UNITS.get(column, ""))
    for axis in grid[:, 1:].flat:
        axis.set_ylabel("")
    title = f"Image statistics by {kind} ({style.count_of(len(_each_once(frame)), 'image')}; dashes: quartiles)"
    note = next((f"\nin each panel {note.split(';')[0]}" for _, note in shown.values() if note), "")
    style.headline(figure, title + note)
    return figure


def metadata_by_class(
    frame: pd.DataFrame, columns: Sequence[str], classes: Sequence[str], kind: str = "class"
) -> Iterator[tuple[str, Figure]]:
    """Yield the name and the figure of each column of metadata; none of a column with many different texts.

    Args:
        frame: The manifest's table, or that of `counts.by_label`.
        columns: Its columns of metadata.
        classes: Names of the classes or findings in their order.
        kind: "class" or "finding", as in `class_counts`.
    """
    for column in columns:
        if pd.api.types.is_numeric_dtype(frame[column]):
            yield column, numeric_by_class(frame, column, classes, kind)
        elif frame[column].nunique() <= _MOST_VALUES:
            yield column, category_by_class(frame, column, classes, kind)


@style.styled
def numeric_by_class(frame: pd.DataFrame, column: str, classes: Sequence[str], kind: str = "class") -> Figure:
    """Draw the distribution of one number, such as age, in each class, with how many images have it.

    Of many classes, those with the highest and the lowest medians are shown.

    Args:
        frame: One row per image, with columns label and `column` (numeric, NaN where missing).
        column: What to show; its name ends with its unit, "age_years".
        classes: Names of the classes or findings in their order.
        kind: "class" or "finding", as in `class_counts`.
    """
    rows = frame[frame[column].notna()]
    shown, note = _extreme_medians(rows, column, classes, kind)
    figure, axis = style.subplots(figsize=(style.WIDTH, 1 + 0.42 * len(shown)))
    _violins(axis, rows, column, shown, kind)
    counts = rows["label"].value_counts()
    style.row_labels(axis, [f"{name_of(label)} (n = {counts.get(label, 0):,})" for label in shown])
    style.split_extremes(axis, len(shown), note)
    recorded = f"recorded: {len(_each_once(rows)):,} of {style.count_of(len(_each_once(frame)), 'image')}"
    title = f"{_capital(column)} by {kind} ({recorded}; dashes: quartiles)"
    axis.set_title(f"{title}\n{note.split(';')[0]}".strip())
    return figure


@style.styled
def category_by_class(frame: pd.DataFrame, column: str, classes: Sequence[str], kind: str = "class") -> Figure:
    """Draw the shares of the values of one attribute, such as sex or camera, in each class.

    Of many classes, those with the most and the least of the most frequent value are shown.

    Args:
        frame: One row per image, with columns label and `column`; a missing value is shown as "not recorded".
        column: The attribute.
        classes: Names of the classes or findings in their order.
        kind: "class" or "finding", as in `class_counts`.
    """
    values = frame[column].astype(object).fillna("not recorded").astype(str)
    counts = pd.crosstab(frame["label"], values).reindex(index=list(classes), fill_value=0)
    counts = counts[counts.sum().sort_values(ascending=False, kind="stable").index]
    totals = counts.sum(axis=1)
    shares = counts.div(totals.clip(lower=1), axis=0) * 100
    most = name_of(shares.columns[0])
    first = shares.iloc[:, 0].where(totals > 0)
    shown, note = style.extremes(first, _PLURAL[kind], (f"with the most “{most}”", "with the least"))
    shares = shares.loc[shown]
    figure, axis = style.subplots(figsize=(style.WIDTH, 1.1 + 0.42 * len(shown)))
    left = np.zeros(len(shown))
    for index, value in enumerate(counts.columns):
        bars = axis.barh(range(len(shown)), shares[value], left=left, height=0.7, **style.bar(index))
        bars.set_label(name_of(value))
        labels = [f"{share:.0f}" if share >= 6 else "" for share in shares[value]]
        for text in axis.bar_label(bars, labels, label_type="center", fontsize=8):
            if text.get_text():
                text.set_bbox(style.WHITE)
        left += shares[value].to_numpy()
    style.row_labels(axis, [f"{name_of(label)} (n = {totals[label]:,})" for label in shown])
    style.split_extremes(axis, len(shown), note)
    axis.set(xlabel=f"share of the {kind}'s images, %", ylabel=kind, xlim=(0, 100))
    title = f"{_capital(column)} by {kind} ({style.count_of(len(_each_once(frame)), 'image')})"
    axis.set_title(f"{title}\n{note.split(';')[0]}".strip())
    axis.legend(title=name_of(column), loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def _extreme_medians(
    frame: pd.DataFrame, column: str, classes: Sequence[str], kind: str, *limits: int
) -> tuple[list[str], str]:
    """Return the classes that a chart of one number shows, and a line of its title that says so."""
    medians = frame.groupby("label")[column].median().reindex(list(classes))
    return style.extremes(medians, _PLURAL[kind], ("with the highest", "with the lowest medians"), *limits)


def _capital(column: str) -> str:
    text = name_of(column)
    return text[:1].upper() + text[1:]


def _each_once(frame: pd.DataFrame) -> pd.DataFrame:
    """Return one row per image of a table in which an image has a row for each of its findings."""
    return frame[~frame.index.duplicated()]


def _violins(axis: Axes, frame: pd.DataFrame, column: str, classes: Sequence[str], kind: str) -> None:
    import seaborn as sns  # slow to import, and only violins need it

    shape = {"orient": "h", "cut": 0, "density_norm": "width", "inner": "quart"}
    look = {"color": style.COLOURS[5], "linecolor": style.INK, "linewidth": 1}
    sns.violinplot(frame.reset_index(drop=True), x=column, y="label", order=list(classes), ax=axis, **shape, **look)
    style.row_labels(axis, [name_of(label) for label in classes])
    axis.set(xlabel=name_of(column), ylabel=kind)


@style.styled
def image_sizes(frame: pd.DataFrame, classes: Sequence[str], kind: str = "class") -> Figure:
    """Draw the widths and heights of the images, one marker per class; markers grow with the number of images.

    Args:
        frame: One row per image, with columns label, width_px and height_px.
        classes: Class names in their order; where there are more than 12, all images are one series.
        kind: "class" or "finding", as in `class_counts`.
    """
    if frame.empty:
        return style.note("Image sizes: no image")
    distinct = frame.groupby(["width_px", "height_px"]).ngroups
    if distinct == 1:
        width, height = frame[["width_px", "height_px"]].iloc[0]
        return style.note(f"All {len(_each_once(frame)):,} images: {width:.0f} × {height:.0f} pixels")
    figure, axis = style.subplots(figsize=(style.WIDTH, 4))
    series = {name: frame[frame["label"] == name] for name in classes}
    if len(classes) > _MOST_CLASSES:
        series = {f"all {_PLURAL[kind]}": _each_once(frame)}
    for index, (label, rows) in enumerate(series.items()):
        sizes = rows.groupby(["width_px", "height_px"]).size().reset_index(name="images")
        areas = 24 + 260 * sizes["images"] / len(frame)
        look = {"marker": style.line(index)["marker"], "edgecolors": style.line(index)["color"], "facecolors": "none"}
        text = f"{name_of(label)} ({len(sizes):,})"
        axis.scatter(sizes["width_px"], sizes["height_px"], areas, linewidths=1.4, label=text, **look)
    for values, set_limits in ((frame["width_px"], axis.set_xlim), (frame["height_px"], axis.set_ylim)):
        low, high = float(values.min()), float(values.max())
        margin = max(0.08 * (high - low), 0.05 * high)
        set_limits(low - margin, high + margin)
    axis.set(xlabel="width, pixels", ylabel="height, pixels")
    counts = f"{style.count_of(distinct, 'size')} in {style.count_of(len(_each_once(frame)), 'image')}"
    axis.set_title(f"Image sizes ({counts}; larger marker: more images)")
    axis.legend(title=f"{kind} (sizes)", loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


@style.styled
def shortcut_bars(table: pd.DataFrame) -> Figure:
    """Draw how well models that see no image separate the classes, with intervals, compared with chance.

    Args:
        table: One row per model, named by its input, with columns auc, low, high, images and `above chance`.
    """
    if table.empty:
        return style.note("Shortcuts: too few images")
    figure, axis = style.subplots(figsize=(style.WIDTH, 1.2 + 0.5 * len(table)))
    rows = np.arange(len(table))
    above = table["above chance"].to_numpy(bool)
    for index, (chosen, label) in enumerate(((above, "above chance"), (~above, "not above chance"))):
        if chosen.any():
            axis.barh(rows[chosen], table["auc"][chosen], 0.6, label=label, **style.bar(index))
    style.whiskers(axis, rows, table["low"], table["high"], vertical=False)
    for row, end, value in zip(rows, np.fmax(table["high"], table["auc"]), table["auc"], strict=True):
        style.label_bar(axis, f"{value:.2f}", end, row)
    axis.axvline(0.5, color=style.INK, linestyle="--", linewidth=1.2)
    axis.text(0.5, 1.01, "chance", transform=axis.get_xaxis_transform(), ha="center", va="bottom", fontsize=8)
    style.row_labels(axis, table.index)
    axis.set(xlabel="AUC, mean over classes (95 % interval)", ylabel="input of the model", xlim=(0, 1.08))
    images = style.count_of(int(table["images"].max()), "training image")
    axis.set_title(f"Source shortcuts, cross-validated ({images})", pad=16)
    axis.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure
