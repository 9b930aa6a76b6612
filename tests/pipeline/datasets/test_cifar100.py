"""A real data set of the hub's layout, through the parquet and the hub kind."""

import os
from pathlib import Path

import numpy as np

from egapipe.pipeline.config import load_config
from egapipe.pipeline.config.data import HubSource
from egapipe.pipeline.datasets import open_dataset
from tests.pipeline.datasets.samples import parquet
from tests.shared import CIFAR100, needs_cifar100

pytestmark = needs_cifar100


def test_the_published_statistics() -> None:
    """50,000 images, 100 balanced classes, the pixel mean and deviation everybody normalises by."""
    dataset = open_dataset(parquet(CIFAR100 / "train.parquet"))
    assert len(dataset) == 50_000
    assert np.bincount(dataset.labels).tolist() == [500] * 100
    rows = np.random.default_rng(0).choice(50_000, 4000, replace=False)
    sample = np.stack([np.asarray(dataset.image(int(row))) for row in rows]) / 255
    assert sample.shape == (4000, 32, 32, 3)
    np.testing.assert_allclose(sample.mean(axis=(0, 1, 2)), (0.5071, 0.4865, 0.4409), atol=0.01)
    np.testing.assert_allclose(sample.std(axis=(0, 1, 2)), (0.2673, 0.2564, 0.2762), atol=0.01)


def test_the_shipped_configuration_opens_both_splits() -> None:
    files = [f"dataset.{split}.files={CIFAR100 / split}.parquet" for split in ("train", "test")]
    config = load_config("cifar100", files)
    train, test = open_dataset(config.dataset.train), open_dataset(config.dataset.test)
    assert (len(train), len(test)) == (50_000, 10_000)
    assert set(train.labels.tolist()) == set(test.labels.tolist()) == set(range(100))
    assert train.image(0).size == test.image(9_999).size == (32, 32)


def test_the_fingerprint_of_50_000_rows_stays(tmp_path: Path) -> None:
    (tmp_path / "train.parquet").symlink_to(CIFAR100 / "train.parquet")
    dataset = open_dataset(parquet(tmp_path / "train.parquet"))
    for file in dataset.files():  # type: ignore[attr-defined]
        os.utime(file, (1_600_000_000, 1_600_000_000))
    fingerprint = dataset.fingerprint()
    assert dataset.fingerprint() == fingerprint


def test_the_folder_as_a_hub_repository() -> None:
    dataset = open_dataset(HubSource(kind="hub", name=str(CIFAR100), split="test"))
    assert dataset.name == "cifar100/test"
    assert len(dataset) == 10_000
    assert np.bincount(dataset.labels).tolist() == [100] * 100
    assert dataset.keys[9_999] == "test/00009999"
    parts = open_dataset(parquet(CIFAR100 / "test.parquet", split="test"))
    assert parts.fingerprint() == dataset.fingerprint()
