"""The test table of a bundle: pictures, and the answers that the exported model gave to them.

The pictures are tiles of random colours in the size of the model's input. They show no patient, so they may leave with
the bundle, and nothing about them is left to a resize that could differ between machines. Who opens the bundle gives
them to the model again: other weights, another decoder or another order of the channels give other answers.

In float32 the answers are the same everywhere. In int8 they are not: a processor without instructions for it (VNNI)
saturates, and moved the logits of these pictures by 20 to 180 % of their spread, where float32 moved them by less than
a millionth. So int8 is compared only on a processor of the kind that exported it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from scanbook.bundle.answering import comparable_logits, find_answers, find_thresholds, log_odds
from scanbook.bundle.description import REMEDY, Bundle, export_command, list_files, load
from scanbook.data import images
from scanbook.errors import BundleError, ImageError
from scanbook.models import engines
from scanbook.store import write_json

FOLDER = "check"
ANSWERS = f"{FOLDER}/answers.json"
FIRST_FORMAT = 3
"""Version of the first bundles with a test table."""
PICTURES = 8
TOLERANCES = {"fp32": engines.PARITY, "int8": 0.1}
"""Largest difference from the stored logits, as a share of their spread, by precision. In int8 a difference of float32
in the last digit may become one of a whole level."""
_CANDIDATES = 64


@dataclass(frozen=True)
class Table:
    """The test table of a bundle.

    Attributes:
        pixels: The pictures, decoded as an upload is, uint8 `(n, h, w, 3)`.
        answers: Probabilities by precision, float64 `(n, k)`, of the precisions that can be compared here.
        decided: Whether the model decides all of them clearly, so that its classes and abstentions can be compared. Of
            findings: whether it decides any clearly; the other answers are excluded from the comparison.
        missing: Why int8 is not compared; "" where it is, or where the bundle has none.
    """

    pixels: np.ndarray
    answers: Mapping[str, np.ndarray]
    decided: bool = True
    missing: str = ""


def write_table(bundle: Bundle) -> None:
    """Write the test table of a bundle, with the answers of its models.

    A picture that a model finds hard to decide is not used: a small difference would give it another class. Where int8
    decides none clearly, the table is of float32 alone; where float32 decides none, only its logits are compared. Of
    many findings one is always hard to decide, so the first pictures are used, whatever the answers.
    """
    pixels = _pictures(bundle.image_size)
    answers = {name: engines.OpenVinoEngine(bundle.model_path(name)).predict(pixels)[0] for name in bundle.precisions}
    clear = {precision: _is_clear(bundle, precision, values) for precision, values in answers.items()}
    if bundle.findings:
        decided, rows = bool(clear["fp32"][:PICTURES].any()), np.arange(PICTURES)
    else:
        everywhere = np.all(list(clear.values()), axis=0)
        if not everywhere.any():
            answers, everywhere = {"fp32": answers["fp32"]}, clear["fp32"]
        decided = bool(everywhere.any())
        rows = np.flatnonzero(everywhere)[:PICTURES] if decided else np.arange(PICTURES)
    (bundle.folder / FOLDER).mkdir()
    for number, row in enumerate(rows):
        (bundle.folder / FOLDER / f"{number}.png").write_bytes(images.encode_png(pixels[row]))
    stored = {name: values[rows].tolist() for name, values in answers.items()}
    write_json(bundle.folder / ANSWERS, {"processor": _processor(), "decided": decided, "answers": stored})


def read_table(bundle: Bundle) -> Table | None:
    """Return the test table of a bundle; None where its format has none.

    Raises:
        BundleError: The table is missing, or does not fit the bundle.
    """
    if bundle.format < FIRST_FORMAT:
        return None
    folder = bundle.folder / FOLDER
    try:
        stored = json.loads((bundle.folder / ANSWERS).read_bytes())
        known = ["fp32", *(name for name in bundle.precisions if name in stored["answers"] and name != "fp32")]
        answers = {name: np.array(stored["answers"][name], np.float64) for name in known}
        pixels = np.stack([images.load(path, bundle.image_size) for path in sorted(folder.glob("*.png"))])
        if any(values.shape != (len(pixels), len(bundle.labels)) for values in answers.values()):
            raise ValueError("it does not have an answer for each picture and class or finding")
        missing = ""
        if "int8" in answers and stored["processor"] != _processor():
            del answers["int8"]
            missing = "int8 was exported on another kind of processor"
        elif "int8" in bundle.precisions and "int8" not in answers:
            missing = "int8 decides no test picture clearly"
    except (OSError, ValueError, LookupError, TypeError, ImageError) as error:
        raise BundleError(f"{folder} is not the test table of this bundle ({error}); {REMEDY}") from error
    return Table(pixels, answers, bool(stored.get("decided", True)), missing)


def compare(
    bundle: Bundle, precision: str, table: Table, probabilities: np.ndarray, rows: Sequence[int] | slice = slice(None)
) -> float:
    """Compare answers to pictures of a test table with the stored ones.

    Args:
        bundle: The bundle.
        precision: One of `Table.answers`.
        table: Its test table.
        probabilities: Answers of its model, `(m, k)`.
        rows: Pictures that they are for, m numbers; all by default.

    Returns:
        The largest difference of the logits, as a share of the spread of the stored ones.

    Raises:
        BundleError: It is beyond the tolerance, or a class or an abstention is not the stored one.
    """
    stored = table.answers[precision]
    answers = stored.copy()
    answers[rows] = probabilities
    with np.errstate(divide="ignore", invalid="ignore"):
        logits = (comparable_logits(values, exclusive=not bundle.findings) for values in (stored, answers))
        difference = engines.parity(*logits)
    if np.isnan(difference):  # the logits of a network that gives every class the same probability have no spread
        difference = float(np.abs(answers - stored).max())
    changed = _decisions(bundle, stored) != _decisions(bundle, answers)
    if bundle.findings:
        changed &= _is_clear(bundle, precision, stored)
    other = int(changed.sum()) if table.decided else 0
    if difference <= TOLERANCES[precision] and not other:
        return difference
    advice = "; or this processor computes int8 otherwise: serve fp32" if precision == "int8" else ""
    changes = "findings get another answer" if bundle.findings else "get another class or abstention"
    raise BundleError(
        f"bundle {bundle.name!r}: its {precision} model does not answer as at the export: on {len(stored)} test "
        f"pictures logits differ by {difference:.2g} of their spread, at most {TOLERANCES[precision]:g} is allowed, "
        f"and {other} {changes}; {REMEDY}{advice}"
    )


def check(folder: Path) -> str:
    """Verify the files of a bundle, and compare the answers of its models with its test table.

    Returns:
        One sentence: what was compared, and the largest difference.

    Raises:
        BundleError: A file or an answer is not that of the export, or the bundle has no test table.
    """
    bundle = load(folder)
    table = read_table(bundle)
    files = f"{bundle.folder} (format {bundle.format}): {len(list_files(bundle.folder))} files are as exported"
    if table is None:
        command = export_command(bundle.name, bundle.about.get("profile"))
        raise BundleError(f"{files}, but it has no test table, so no answer was compared; export it again: {command}")
    differences = {
        precision: compare(
            bundle, precision, table, engines.OpenVinoEngine(bundle.model_path(precision)).predict(table.pixels)[0]
        )
        for precision in table.answers
    }
    largest = ", ".join(f"{value:.1g} ({precision})" for precision, value in differences.items())
    other = f"; {table.missing}, so it was not compared" if table.missing else ""
    kind = "answers" if bundle.findings else "classes and abstentions"
    decisions = f"the {kind} of the export, and " if table.decided else ""
    return (
        f"{files}; {len(table.pixels)} test pictures get {decisions}logits that differ by at most {largest} of their "
        f"spread{other}"
    )


def _processor() -> str:
    """Return the name of this processor, and which of its instructions OpenCV knows."""
    import openvino as ov

    return f"{ov.Core().get_property('CPU', 'FULL_DEVICE_NAME')}; {cv2.getCPUFeaturesLine()}"


def _pictures(size: tuple[int, int]) -> np.ndarray:
    """Return tiles of random colours, uint8 `(n, h, w, 3)`; as PNG a picture has a few kilobytes."""
    draw, (height, width) = np.random.default_rng(0), size
    sides = [1 + number % 8 for number in range(_CANDIDATES)]
    tiles = [draw.integers(0, 256, (side, side, 3), np.uint8) for side in sides]
    return np.stack([cv2.resize(tile, (width, height), interpolation=cv2.INTER_NEAREST) for tile in tiles])


def _decisions(bundle: Bundle, probabilities: np.ndarray) -> np.ndarray:
    """Return the class of each picture, and -1 where the service abstains; of findings the answer for each."""
    if bundle.findings:
        return find_answers(bundle.operating_points, probabilities)
    return np.where(probabilities.max(1) < bundle.abstain_below, -1, probabilities.argmax(1))


def _is_clear(bundle: Bundle, precision: str, probabilities: np.ndarray) -> np.ndarray:
    """Return which answers keep their class and abstention if the logits move by the tolerance, bool `(n,)`.

    Of findings: which answers keep their state, bool `(n, k)`.
    """
    logits = comparable_logits(probabilities, exclusive=not bundle.findings)
    margin = 2 * TOLERANCES[precision] * logits.std()
    if bundle.findings:
        points = bundle.operating_points
        distance = np.abs(log_odds(probabilities) - log_odds(find_thresholds(points)))
        # a finding without a threshold has one answer, "not sure"
        return ~(np.abs(distance - [point["margin"] for point in points.values()]) <= margin)
    second, first = np.sort(logits, axis=1)[:, -2:].T
    with np.errstate(divide="ignore"):  # a probability of 1, or a threshold of 0 or 1, is infinitely far
        confidence, threshold = (_log_odds(value) for value in (probabilities.max(1), bundle.abstain_below))
    return (first - second > margin) & (np.abs(confidence - threshold) > margin)


def _log_odds(probability: Any) -> Any:
    return np.log(probability) - np.log1p(-np.asarray(probability, np.float64))
