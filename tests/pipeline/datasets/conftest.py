from pathlib import Path

import datasets
import pytest


@pytest.fixture(autouse=True)
def caches(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory, settled: None
) -> Path:
    """Empty cache folders: nothing is found that another test or the user's own runs left."""
    root = tmp_path_factory.mktemp("caches")
    monkeypatch.setenv("EGAPIPE_CACHE", str(root / "egapipe"))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", root / "datasets")
    return root
