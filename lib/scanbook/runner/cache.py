"""What the store holds, kind by kind, as `scanbook cache` lists it."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator

from pydantic import ByteSize, TypeAdapter, ValidationError

from scanbook import runtime, store
from scanbook.errors import StoreError
from scanbook.reporting.records import duration


def size(text: str) -> int:
    """Bytes of a size such as "2GiB".

    Raises:
        StoreError: It is none.
    """
    try:
        return TypeAdapter(ByteSize).validate_python(text)
    except ValidationError as error:
        raise StoreError(f"--to is {text!r}, expected a size such as 2GiB or 500MiB") from error


def prune(limit: int) -> str:
    """Makes the store smaller, and says what went."""
    before = {each.folder: each.size for each in store.entries()}
    removed = store.prune(limit)
    return f"removed {len(removed)} stages, {_said(sum(before.get(each, 0) for each in removed))}"


def lines() -> Iterator[str]:
    """A line for each kind of stage, the largest first, and one for all."""
    kinds = defaultdict(list)
    for each in store.entries():
        kinds[each.kind if each.whole else f"{each.kind}, unfinished"].append(each)
    yield f"{'kind':24}  {'stages':>6}  {'size':>9}  last used"
    for kind, found in sorted(kinds.items(), key=lambda pair: -sum(each.size for each in pair[1])):
        used = max(each.used for each in found)
        total = _said(sum(each.size for each in found))
        yield f"{kind:24}  {len(found):6}  {total:>9}  {duration(max(0, time.time() - used))} ago"
    whole = sum(each.size for found in kinds.values() for each in found)
    limit = _said(runtime.store_limit())
    yield f"{runtime.store_dir()}: {_said(whole)} of {limit} (SCANBOOK_STORE_GIB); what was used longest ago goes first"


def _said(count: int) -> str:
    return ByteSize(count).human_readable(separator=" ")
