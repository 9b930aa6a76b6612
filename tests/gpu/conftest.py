"""Tests of what runs on a GPU: `pytest -m gpu`, or `make gpu`. They need no Ray and no network.

`EGAPIPE_GPU_TESTS=cpu` runs the same code on the CPU, so that a slip of the pen need not wait for a
GPU to be found; what only a GPU has (recorded steps, waits for the device) is left out there.
"""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from egapipe.pipeline.config import Config, load_config
from egapipe.stages import extract

Make = Callable[..., Config]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Every test of this folder has the marker."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.gpu)


@pytest.fixture(scope="session")
def device() -> torch.device:
    """The GPU, or the CPU where it is asked for instead."""
    if torch.cuda.is_available():
        return torch.device("cuda", 0)
    if os.environ.get("EGAPIPE_GPU_TESTS") == "cpu":
        return torch.device("cpu")
    pytest.skip("there is no GPU here")


@pytest.fixture(scope="session")
def gpu(device: torch.device) -> torch.device:
    """The GPU alone."""
    if device.type != "cuda":
        pytest.skip("only a GPU has this")
    return device


@pytest.fixture(scope="session")
def store(device: torch.device, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Digits through the shipped teacher on the device: train.zarr with two views, test.zarr."""
    folder = str(tmp_path_factory.mktemp("stores"))
    sets = [f"store.url={folder}", "views.count=2", f"extract.device={device.type}"]
    config = load_config("quickstart", sets)
    for split in config.splits():
        extract.run(config, split=split, local=True)
    return folder


@pytest.fixture
def make(store: str, device: torch.device, tmp_path: Path) -> Make:
    """A short training over that store on the device; arguments as `--set` takes them."""

    def config(*sets: str) -> Config:
        small = ["views.count=2", "distill.epochs=3", f"distill.device={device.type}"]
        return load_config(
            "quickstart", [f"store.url={store}", f"runs={tmp_path / 'runs'}", *small, *sets]
        )

    return config
