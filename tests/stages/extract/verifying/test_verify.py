"""`egapipe store verify`: the stored embeddings are those the teacher gives, or it says so."""

import re

import numpy as np
import pytest

from egapipe.pipeline.config import Config
from egapipe.pipeline.errors import StoreError, UsageError
from egapipe.pipeline.store import FeatureStore
from egapipe.pipeline.store.format.dtypes import to_floats
from egapipe.stages import extract
from egapipe.stages.extract.verifying.verify import VerifyReport, verify_store
from tests.command import egapipe
from tests.pipeline.store.samples import digests_of
from tests.stages.extract.conftest import MakeConfig, Sets, as_options


def extracted(config: Config) -> Config:
    extract.run(config, split="train", local=True)
    return config


def rewritten(config: Config, url: str, order: np.ndarray) -> None:
    """A store that says the same of itself, with the embeddings of other rows or views.

    order: int [N, V, 2], the row and the view that each embedding is taken from.
    """
    old = FeatureStore.open(config.store_url("train"))
    shards = [old.read_shard(shard) for shard in range(len(old.shards))]
    values = to_floats(np.concatenate(shards), old.manifest.dtype)[order[..., 0], order[..., 1]]
    new = FeatureStore.create(url, old.manifest, old.index())
    for shard, rows in enumerate(new.shards):
        part = {"embedding": values[rows.start : rows.stop]}
        new.write_shard(shard, part, images=digests_of(old, shard))
    new.finish()


def every(rows: int, views: int) -> np.ndarray:
    return np.stack(np.meshgrid(np.arange(rows), np.arange(views), indexing="ij"), axis=-1)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_what_was_extracted_agrees(quick: MakeConfig, dtype: str) -> None:
    report = verify_store(extracted(quick(f"store.dtype={dtype}")), split="train", count=40)
    assert report.ok
    assert len(report.pairs) == 40
    assert len({tuple(pair) for pair in report.pairs}) == 40
    assert set(report.pairs[:, 1]) == {0, 1, 2}
    (embedding,) = report.outputs
    # Rounding is seen, and nothing else.
    assert embedding.cosine_max < {"float16": 2e-7, "bfloat16": 1e-5, "float32": 1e-11}[dtype]
    assert embedding.cosine_mean <= embedding.cosine_max < embedding.cosine_allowed
    assert embedding.correlation < embedding.correlation_allowed < 0.1
    assert report.software == []


def test_the_seed_decides_which_are_drawn(quick: MakeConfig) -> None:
    config = extracted(quick())
    first, same, other = (verify_store(config, split="train", seed=s).pairs for s in (3, 3, 4))
    assert np.array_equal(first, same)
    assert not np.array_equal(first, other)
    assert len(verify_store(config, split="train", count=1000).pairs) == 70 * 3


def swapped(quick: MakeConfig, axis: int) -> VerifyReport:
    """The report of a store whose neighbouring rows (0) or augmented views (1) are exchanged."""
    config = extracted(quick())
    order = every(70, 3)
    if axis == 0:
        order = order.reshape(35, 2, 3, 2)[:, ::-1].reshape(70, 3, 2)
    else:
        order = order[:, [0, 2, 1]]
    wrong = quick("store.url=" + config.store_url("train") + "-wrong")
    rewritten(config, wrong.store_url("train"), order)
    return verify_store(wrong, split="train", count=64)


@pytest.mark.parametrize("axis", [0, 1])
def test_exchanged_rows_or_views_are_found(quick: MakeConfig, axis: int) -> None:
    report = swapped(quick, axis)
    assert not report.ok
    assert report.outputs[0].cosine_max > 10 * report.outputs[0].cosine_allowed
    assert report.outputs[0].correlation > report.outputs[0].correlation_allowed
    assert "DIFFERS" in report.lines()[1]
    assert re.search(r"least similar: view [012] of ", report.lines()[2])
    if axis == 1:
        assert report.worst[1] in (1, 2)


def test_failed_rows_and_missing_shards_are_not_drawn(quick: MakeConfig) -> None:
    config = extracted(quick())
    store = FeatureStore.open(config.store_url("train"))
    for shard in (0, 2, 3, 4):
        store.objects.delete(f"commits/{shard:06d}.json")
    report = verify_store(config, split="train", count=1000)
    assert report.ok
    assert sorted(set(report.pairs[:, 0])) == list(range(16, 32))
    store.objects.delete("commits/000001.json")
    with pytest.raises(StoreError, match="has no embeddings yet"):
        verify_store(config, split="train")


def test_software_of_another_version_is_named(quick: MakeConfig) -> None:
    config = extracted(quick())
    old = FeatureStore.open(config.store_url("train"))
    versions = {**old.manifest.versions, "torch": "1.0", "tensorflow": "2.0"}
    older = quick("store.url=" + config.store_url("train") + "-older")
    manifest = old.manifest.model_copy(update={"versions": versions})
    new = FeatureStore.create(older.store_url("train"), manifest, old.index())
    part = {"embedding": old.read_shard(0).astype(np.float32)}
    new.write_shard(0, part, images=digests_of(old, 0))
    report = verify_store(older, split="train")
    assert report.ok
    assert [line.partition(" -> ")[0] for line in report.software] == [
        "tensorflow 2.0",
        "torch 1.0",
    ]


def test_a_store_of_something_else_is_refused(quick: MakeConfig) -> None:
    extracted(quick())
    for change, said in (
        ("views.seed=5", r"views\.seed is 0"),
        ("dataset.train.limit=60", r"dataset\.rows is 70"),
        ("teacher.pooling=mean", r"teacher\.pooling is"),
    ):
        with pytest.raises(StoreError, match=said):
            verify_store(quick(change), split="train")
    with pytest.raises(UsageError, match="no teacher to run again"):
        verify_store(quick("teacher={backend: imported, model: m}"), split="train")
    with pytest.raises(UsageError, match=r"no dataset\.test"):
        verify_store(quick("dataset.test=null"), split="test")


def test_the_command_says_how_well_it_agrees(sets: Sets, quick: MakeConfig) -> None:
    extracted(quick())
    done = egapipe("store", "verify", "-n", "5", *as_options(sets()))
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()
    assert first.endswith("train.zarr: 5 embeddings computed again")
    assert second.endswith("agrees")
    missing = egapipe("store", "verify", "--split", "test", *as_options(sets()))
    assert missing.returncode == 1
    (line,) = missing.stderr.splitlines()
    assert line.startswith("error: no store at ")
