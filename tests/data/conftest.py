"""A cache of the test's own, and package clients that only pretend."""

from __future__ import annotations

from pathlib import Path

import pytest
from data_toys import FakeClient

from rheobase.data.fetch import cache_folder


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the test's own; no offline folder."""
    monkeypatch.setenv("RHEOBASE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("RHEOBASE_DATA", raising=False)
    return cache_folder()


@pytest.fixture
def client(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeClient:
    """The fake clients, first on PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    return FakeClient(folder)
