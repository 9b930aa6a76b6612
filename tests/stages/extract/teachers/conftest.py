"""Digests of weights are remembered: not from one test to the next."""

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def cache(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch, settled: None
) -> Path:
    """The node's cache folder."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("EGAPIPE_CACHE", str(folder))
    return folder
