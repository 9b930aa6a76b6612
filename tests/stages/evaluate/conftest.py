"""A student trained for a few epochs on real digits, once for all tests of this folder."""

from collections.abc import Callable
from pathlib import Path

import pytest

from egapipe.pipeline.config import load_config
from egapipe.stages import distill
from tests.stages.copies import copy_with
from tests.stages.distill.conftest import MakeConfig, digits_store, quick

__all__ = ["CopyRun", "MakeConfig", "digits_store", "quick"]

CopyRun = Callable[..., Path]


@pytest.fixture(scope="session")
def finished(digits_store: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run folder. Evaluating it changes nothing but what it adds."""
    runs = tmp_path_factory.mktemp("runs")
    sets = [f"store.url={digits_store}", f"runs={runs}", "views.count=2"]
    config = load_config("quickstart", [*sets, "distill.epochs=8", "distill.threads=1"])
    return distill.run(config).run


@pytest.fixture
def copy_run(finished: Path, tmp_path: Path) -> CopyRun:
    """A copy of that folder whose configuration has other values, by dotted path."""

    def copy(**values: object) -> Path:
        return copy_with(finished, tmp_path / "copy", values, "evaluation.json")

    return copy
