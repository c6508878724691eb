"""The contents of the store by kind, as `scanbook cache` lists them."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator

from pydantic import ByteSize, TypeAdapter, ValidationError

from scanbook import runtime, store
from scanbook.errors import StoreError


def size(text: str) -> int:
    """Return the bytes of a size such as "2GiB".

    Raises:
        StoreError: It is not a size.
    """
    try:
        return TypeAdapter(ByteSize).validate_python(text)
    except ValidationError as error:
        raise StoreError(f"--to is {text!r}, expected a size such as 2GiB or 500MiB") from error


def prune(limit: int) -> str:
    """Prune the store to some bytes; return what was removed, in a few words."""
    sizes = {entry.folder: entry.size for entry in store.entries()}
    removed = store.prune(limit)
    return f"removed {len(removed)} stages, {_readable(sum(sizes.get(folder, 0) for folder in removed))}"


def lines() -> Iterator[str]:
    """Yield a line for each kind of stage, the largest first, and one for all."""
    kinds = defaultdict(list)
    for entry in store.entries():
        kinds[entry.kind if entry.whole else f"{entry.kind}, unfinished"].append(entry)
    yield f"{'kind':24}  {'stages':>6}  {'size':>9}  last used"
    sizes = {kind: sum(entry.size for entry in entries) for kind, entries in kinds.items()}
    for kind in sorted(kinds, key=lambda kind: -sizes[kind]):
        age = runtime.duration(max(0, time.time() - max(entry.used for entry in kinds[kind])))
        yield f"{kind:24}  {len(kinds[kind]):6}  {_readable(sizes[kind]):>9}  {age} ago"
    total, limit = _readable(sum(sizes.values())), _readable(runtime.store_limit())
    yield f"{runtime.store_dir()}: {total} of {limit} (SCANBOOK_STORE_GIB); stages used longest ago go first"


def _readable(count: int) -> str:
    return ByteSize(count).human_readable(separator=" ")
