"""A store that the tests of one file share: what one of them trained, the others find."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def shared_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of the store."""
    return tmp_path_factory.mktemp("store")


@pytest.fixture
def own_store(shared_store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Use the store of this file, without progress bars."""
    monkeypatch.setenv("SCANBOOK_STORE", str(shared_store))
    monkeypatch.setenv("SCANBOOK_HEADLESS", "1")
