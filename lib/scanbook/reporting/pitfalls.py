"""How notebook 09 shows what mistakes are worth: a sentence for each, one table, and the answer."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from scanbook.evaluation import with_interval
from scanbook.inspection.pitfalls import Row, negative_control
from scanbook.inspection.pitfalls.negative_control import CONTROL
from scanbook.inspection.pitfalls.subject import Subject
from scanbook.reporting import plots
from scanbook.reporting.answers import MOST_SENTENCES
from scanbook.reporting.notebook import Session

_MOST_NAMED = 3
"""Mistakes that a sentence of the answer names."""
_NOT_MEASURED = "not measured"


def show(session: Session, rows: Sequence[Row]) -> list[Row]:
    """Show a sentence for each row, count its use of test images, and return the rows."""
    for row in rows:
        session.say(sentence(row))
        if row.measured:
            session.count_test_evaluation(row.mistake)
    return list(rows)


def show_painted_out(session: Session, subject: Subject) -> None:
    """Show the images of the negative control, which a study of vectors has not."""
    if not subject.of_vectors:
        figure = plots.painted_out(*negative_control.examples(subject))
        session.figure("painted_out", figure, "Test images with the object painted out")


def sentence(row: Row) -> str:
    """Return a row in words."""
    name = f"**{row.mistake[0].upper()}{row.mistake[1:]}**"
    if not row.measured:
        return f"{name}: not measured, since {row.reason}."
    change = _with_ends(row)
    values = f"{row.figure} {row.published:.3f} where {row.honest:.3f} is honest, {change}"
    return f"{name}: {values}: {row.verdict}. {row.note}".strip()


def table(rows: Sequence[Row]) -> pd.DataFrame:
    """Return the table of mistakes, as texts: a row that is not measured says why.

    Args:
        rows: Of every mistake.

    Returns:
        Index `mistake`; columns published, honest, difference with its 95 % interval, verdict, the study that made it,
        the name of the figure, test images, and their patients or lesions.
    """
    shown = [
        {
            "mistake": row.mistake,
            "published": f"{row.published:.3f}" if row.measured else _NOT_MEASURED,
            "honest": f"{row.honest:.3f}" if row.measured else _NOT_MEASURED,
            "difference (95 % interval)": _with_ends(row) if row.measured else _NOT_MEASURED,
            "verdict": row.verdict,
            "made by": row.made_by,
            "figure": row.figure or _NOT_MEASURED,
            "test images": row.images,
            "patients or lesions": row.groups,
        }
        for row in rows
    ]
    return pd.DataFrame(shown).set_index("mistake")


def results(rows: Sequence[Row]) -> dict[str, dict[str, float | str]]:
    """Return the rows for `results.json`."""
    values: dict[str, dict[str, float | str]] = {}
    for row in rows:
        numbers = {name: getattr(row, name) for name in ("published", "honest", "difference", "low", "high")}
        counts = {"images": row.images, "groups": row.groups}
        measured = {"figure": row.figure} | numbers | counts | row.more if row.measured else {}
        values[row.key] = measured | {"verdict": row.verdict}
    return values


def answer(rows: Sequence[Row]) -> list[str]:
    """Return the conclusion of all rows: how many mistakes matter here, which most, and which do not.

    Args:
        rows: Of every mistake, and of the negative control.
    """
    mistakes = [row for row in rows if row.key != CONTROL.key]
    measured = [row for row in mistakes if row.measured]
    if not measured:
        return [f"No mistake can be measured on these images: {mistakes[0].reason}."]
    high = sorted((row for row in measured if row.inflated), key=lambda row: -row.difference)
    noise = [row for row in measured if not row.clear]
    sentences = [
        f"{len(high)} of {len(measured)} comparisons with a mistake give a figure that is too high by more than "
        "the noise of these test images."
    ]
    if high:
        worst = high[0]
        change = _with_ends(worst)
        others = [f"{row.mistake} ({_change(row)})" for row in high[1 : 1 + _MOST_NAMED]]
        more = f"; then {', '.join(others)}" if others else ""
        sentences.append(
            f"Worth most: {worst.mistake}, {worst.figure} {worst.published:.3f} where {worst.honest:.3f} is honest, "
            f"{change}{more}."
        )
    if noise:
        named = ", ".join(f"{row.mistake} ({_change(row)})" for row in noise[:_MOST_NAMED])
        more = f", and {len(noise) - _MOST_NAMED} others" if len(noise) > _MOST_NAMED else ""
        sentences.append(f"Within noise on these images: {named}{more}.")
    sentences += [_of_control(row) for row in rows if row.key == CONTROL.key]
    if missing := [row for row in mistakes if not row.measured]:
        reasons = "; ".join(f"{row.mistake} ({row.reason})" for row in missing[:_MOST_NAMED])
        more = f"; and {len(missing) - _MOST_NAMED} others" if len(missing) > _MOST_NAMED else ""
        sentences.append(f"Not measured: {reasons}{more}.")
    return sentences[:MOST_SENTENCES]


def headline(rows: Sequence[Row]) -> str:
    """Return the mistakes that are worth most, for the index."""
    high = sorted((row for row in rows if row.inflated and row.key != CONTROL.key), key=lambda row: -row.difference)
    if not high:
        return "no mistake makes a figure too high by more than noise"
    return "worth most: " + "; ".join(f"{row.mistake} {_change(row)}" for row in high[:2])


def _of_control(row: Row) -> str:
    if not row.measured:
        return f"The negative control is not measured: {row.reason}."
    return (
        f"With the object painted out, {row.figure} is {row.published:.3f}, where a constant answer has "
        f"{row.honest:.3f}, {_with_ends(row)}: {row.verdict}."
    )


def _with_ends(row: Row) -> str:
    return with_interval(row.difference, row.low, row.high, signed=True)


def _change(row: Row) -> str:
    return f"{row.difference:+.3f}".replace("-", "−")
