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
    return extracted(tmp_path_factory.mktemp("stores"), "views.count=2")


@pytest.fixture
def quick(digits_store: str, tmp_path: Path) -> MakeConfig:
    """A configuration over that store with few epochs; keyword `sets` as on the command line."""

    small = ("views.count=2", "distill.epochs=3", "distill.threads=1")
    return configured(digits_store, tmp_path, *small)


def extracted(folder: Path, *sets: str) -> str:
    """A folder with the stores of all splits of the quickstart with these settings."""
    config = load_config("quickstart", [f"store.url={folder}", *sets])
    for split in config.splits():
        extract.run(config, split=split, local=True)
    return str(folder)


def configured(stores: str, folder: Path, *small: str) -> MakeConfig:
    """Configurations over such stores, whose runs lie in a folder, with `small` and what is given
    besides."""

    def make(*sets: str) -> Config:
        where = [f"store.url={stores}", f"runs={folder / 'runs'}"]
        return load_config("quickstart", [*where, *small, *sets])

    return make
