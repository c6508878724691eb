"""How a process imports what it computes with."""

from __future__ import annotations

import gc

import pytest

from scanbook import runtime


@pytest.mark.parametrize("enabled", [True, False])
def test_garbage_is_collected_after_an_import_as_it_was_before(enabled: bool) -> None:
    frozen = gc.get_freeze_count()
    (gc.enable if enabled else gc.disable)()
    try:
        with pytest.raises(ImportError), runtime.without_garbage_collection():
            assert not gc.isenabled()
            import no_such_package  # noqa: F401
        assert gc.isenabled() == enabled and gc.get_freeze_count() > frozen
    finally:
        gc.enable()
