"""Real digits through the shipped teacher, extracted once for all sweeps."""

from collections.abc import Callable
from pathlib import Path

import pytest

from egapipe.pipeline.config import Config, load_config
from egapipe.stages import extract

MakeConfig = Callable[..., Config]


@pytest.fixture(scope="session")
def digits_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of train.zarr with the clean view alone."""
    folder = tmp_path_factory.mktemp("sweep-stores")
    config = load_config("quickstart", [f"store.url={folder}", "views.count=1"])
    extract.run(config, split="train", local=True)
    return folder


@pytest.fixture
def small(digits_store: Path, tmp_path: Path) -> MakeConfig:
    """A configuration over that store with few epochs; keyword `sets` as on the command line."""

    def make(*sets: str) -> Config:
        where = [f"store.url={digits_store}", f"runs={tmp_path / 'runs'}"]
        few = ["views.count=1", "distill.epochs=4", "distill.threads=1", "distill.objective={}"]
        labels = "distill.labels_per_class=null"
        return load_config("quickstart", [*where, *few, labels, *sets])

    return make
