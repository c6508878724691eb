"""Ends a notebook before its last cell, where the study cannot answer its question: it says why, and is whole."""

from __future__ import annotations

import re
from typing import Any

from scanbook.config import Study
from scanbook.errors import StudyError
from scanbook.reporting import suite

MARK = "stopped"
"""Class of the element after which a page shows nothing."""
_NO_BUNDLE = (
    "No bundle is exported: it needs the network that computes the vectors of new images, and the study has their "
    "vectors alone (`dataset.embeddings`). To export a model, name that network in `backbones` and leave "
    "`dataset.embeddings` out."
)
_WHY_NOT = {
    suite.BENCHMARK: (
        "Nothing is measured: training and inference of an image network need that network, and the study has vectors "
        "alone (`dataset.embeddings`). A head on vectors takes seconds; notebook 04 states how many."
    ),
    suite.EXPORT: _NO_BUNDLE,
    suite.EXTERNAL: (
        "The model is not validated on the other source: its images need the network that computes their vectors, and "
        "the study has vectors alone (`dataset.embeddings`)."
    ),
}
_REST = "The other sections are not run."
_USES_SESSION = re.compile(r"\bsession\b")
_STARTS = re.compile(r"\bnotebook\.start\(")


def why_not(study: Study, name: str) -> str:
    """Return why a notebook is not run for a study; "" where it is."""
    return _WHY_NOT.get(name, "") if study.embeddings else ""


def begin(session: Any) -> None:
    """Let every cell run again, and end the notebook where it needs a network and the study has vectors alone.

    Args:
        session: The notebook's `Session`, which has just started.
    """
    _resume()
    reason = "" if session.name == suite.EXTERNAL else why_not(session.study, session.name)
    if reason:  # notebook 08 may have a bundle, whose images are pixels
        stop(session, reason)


def stop(session: Any, reason: str) -> None:
    """Answer the notebook's question with a reason; later cells that use the session do nothing.

    Args:
        session: The notebook's `Session`.
        reason: Why the question has no other answer.

    Raises:
        StudyError: No notebook runs whose cells could be passed over.
    """
    from IPython import get_ipython
    from IPython.display import display

    shell = get_ipython()
    if shell is None:
        raise StudyError(f"study {session.study.study}: {reason[0].lower()}{reason[1:]}")
    session.answer([reason])
    session.result("headline", reason.partition(":")[0].rstrip(".").lower())
    session.finish()
    display({"text/html": f'<p class="{MARK}">{_REST}</p>', "text/plain": _REST}, raw=True)
    shell.input_transformers_cleanup.append(_pass_over)


def _pass_over(lines: list[str]) -> list[str]:
    """Return the lines of a cell, none of one that uses a session which ended; a new session may start."""
    text = "".join(lines)
    return [] if _USES_SESSION.search(text) and not _STARTS.search(text) else lines


def _resume() -> None:
    from IPython import get_ipython

    shell = get_ipython()
    if shell is not None and _pass_over in shell.input_transformers_cleanup:
        shell.input_transformers_cleanup.remove(_pass_over)
