"""Real digits through the shipped teacher, extracted once for all tests of this folder."""

from collections.abc import Callable
from pathlib import Path

import pytest

from egapipe.pipeline.config import Config, load_config
from egapipe.stages import extract

MakeConfig = Callable[..., Config]


@pytest.fixture(scope="session")
def digits_store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Folder of train.zarr and test.zarr with two augmented views of the training digits."""
    folder = str(tmp_path_factory.mktemp("stores"))
    config = load_config("quickstart", [f"store.url={folder}", "views.count=2"])
    for split in config.splits():
        extract.run(config, split=split, local=True)
    return folder


@pytest.fixture
def quick(digits_store: str, tmp_path: Path) -> MakeConfig:
    """A configuration over that store with few epochs; keyword `sets` as on the command line."""

    def make(*sets: str) -> Config:
        small = ["views.count=2", "distill.epochs=3", "distill.threads=1"]
        where = [f"store.url={digits_store}", f"runs={tmp_path / 'runs'}"]
        return load_config("quickstart", [*where, *small, *sets])

    return make
