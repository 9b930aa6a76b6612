"""Real digits through a tiny ViT with random weights."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from egapipe.pipeline.config import Config, load_config
from tests.stages.extract import models

Sets = Callable[..., list[str]]
MakeConfig = Callable[..., Config]


@pytest.fixture(scope="session")
def teacher_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved ViT of 16 dimensions for images of 16 x 16 pixels."""
    return models.vit(tmp_path_factory.mktemp("teacher"))


@pytest.fixture
def sets(teacher_folder: Path, tmp_path: Path) -> Sets:
    """Overrides of the quickstart: 70 rows in 3 views, 5 shards; further ones as arguments."""
    small = [
        f"teacher.model={teacher_folder}",
        "dataset.train.limit=70",
        "dataset.test.limit=20",
        "views.count=2",
        "store.shard_rows=16",
        f"store.url={tmp_path / 'store'}",
        "extract.batch_size=20",
    ]

    def make(*further: str) -> list[str]:
        return [*small, *further]

    return make


@pytest.fixture
def quick(sets: Sets) -> MakeConfig:
    """The configuration of those overrides."""

    def make(*further: str) -> Config:
        return load_config("quickstart", sets(*further))

    return make


def as_options(sets: Sequence[str]) -> list[str]:
    """Overrides as arguments of a command."""
    return [argument for item in sets for argument in ("--set", item)]
