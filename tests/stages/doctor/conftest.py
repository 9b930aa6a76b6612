"""Real digits through a tiny ViT with random weights."""

from collections.abc import Callable
from pathlib import Path

import pytest

from egapipe.pipeline.config import load_config
from egapipe.stages import extract
from egapipe.stages.doctor.parts import Parts
from tests.stages.extract import models

MakeParts = Callable[..., Parts]


def small(teacher: Path, folder: Path) -> list[str]:
    """Overrides of the quickstart: 70 rows in 3 views, 5 shards; everything below one folder."""
    return [
        f"teacher.model={teacher}",
        "dataset.train.limit=70",
        "dataset.test.limit=20",
        "views.count=2",
        "store.shard_rows=16",
        f"store.url={folder / 'store'}",
        f"store.cache_dir={folder / 'cache'}",
        f"runs={folder / 'runs'}",
        "distill.labels_per_class=5",
    ]


@pytest.fixture(scope="session")
def vit_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved ViT of 16 dimensions for images of 16 x 16 pixels."""
    return models.vit(tmp_path_factory.mktemp("vit"))


@pytest.fixture(scope="session")
def extracted(vit_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Overrides of a configuration whose stores are complete."""
    sets = small(vit_folder, tmp_path_factory.mktemp("extracted"))
    config = load_config("quickstart", sets)
    for split in config.splits():
        extract.run(config, split=split, local=True)
    return sets


@pytest.fixture
def fresh(vit_folder: Path, tmp_path: Path) -> MakeParts:
    """The parts of a configuration without stores; further overrides as arguments."""

    def make(*further: str) -> Parts:
        return Parts(load_config("quickstart", [*small(vit_folder, tmp_path), *further]))

    return make


@pytest.fixture
def beside(extracted: list[str]) -> MakeParts:
    """The parts of a configuration over the complete stores; its differences as arguments."""

    def make(*further: str) -> Parts:
        return Parts(load_config("quickstart", [*extracted, *further]))

    return make
