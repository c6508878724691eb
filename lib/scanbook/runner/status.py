"""How every report of a study stands, a line each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from scanbook.reporting import suite
from scanbook.reporting.records import duration
from scanbook.runner import progress
from scanbook.runner.freshness import Batch


def lines(batch: Batch) -> Iterator[str]:
    """The study and how many of its reports are fresh; then each notebook: what it is, and why."""
    states = {name: batch.state(name) for name in suite.notebooks()}
    counts = Counter(state.word for state in states.values())
    yield f"{batch.label}: {', '.join(f'{count} {word}' for word, count in counts.items())}"
    width = max(map(len, suite.notebooks()))
    for name, state in states.items():
        at = progress.running(batch.folder / name)
        if at:
            word, why = "running", f"{at.section or 'starting'}, since {duration(at.elapsed)}"
        else:
            word, why = state.word, state.why
        yield f"  {name:{width}}  {word:7}  {why}".rstrip()
