"""Embeddings made elsewhere become a store like any other."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from egapipe.pipeline.config import Config, load_config
from egapipe.pipeline.datasets import open_dataset
from egapipe.pipeline.errors import StoreError, UsageError
from egapipe.pipeline.store import Features, FeatureStore
from egapipe.stages import distill, extract
from tests.command import egapipe

ROWS, DIM = 60, 24
TEACHER = "teacher={backend: imported, model: somewhere}"


@pytest.fixture
def config(tmp_path: Path) -> Config:
    sets = [
        TEACHER,
        f"dataset.train.limit={ROWS}",
        f"store.url={tmp_path / 'stores'}",
        f"store.cache_dir={tmp_path / 'cache'}",
        f"runs={tmp_path / 'runs'}",
        "store.dtype=float32",
        "store.shard_rows=16",
        "views.count=0",
        "distill.epochs=1",
        "distill.labels_per_class=null",
    ]
    return load_config("quickstart", sets)


@pytest.fixture
def values() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((ROWS, DIM)).astype(np.float32)


def saved(tmp_path: Path, values: np.ndarray) -> str:
    np.save(tmp_path / "e.npy", values)
    return str(tmp_path / "e.npy")


def read_back(config: Config) -> np.ndarray:
    store = FeatureStore.open(config.store_url("train"))
    features = Features.open(store, cache_dir=config.store.cache_dir)
    taken: np.ndarray = features.take(np.arange(ROWS), 0).numpy()
    return taken


def test_an_array_becomes_a_store_that_students_learn_from(
    config: Config, tmp_path: Path, values: np.ndarray
) -> None:
    path = saved(tmp_path, values)
    report = extract.import_embeddings(config, path, split="train")
    assert (report.extracted, report.failures) == (ROWS, 0)
    assert np.array_equal(read_back(config), values)
    store = FeatureStore.open(report.url)
    assert store.manifest.teacher["backend"] == "imported"
    assert len(store.manifest.teacher["sha256"]) == 64
    assert distill.run(config).summary["train_rows"] == ROWS
    assert extract.import_embeddings(config, path, split="train").extracted == 0


def test_keys_decide_the_order_of_a_table(
    config: Config, tmp_path: Path, values: np.ndarray
) -> None:
    keys = list(open_dataset(config.dataset.train).keys)
    order = np.random.default_rng(1).permutation(ROWS)
    column = pa.FixedSizeListArray.from_arrays(pa.array(values[order].ravel()), DIM)
    table = pa.table({"key": [keys[i] for i in order], "embedding": column})
    pq.write_table(table, tmp_path / "e.parquet")
    extract.import_embeddings(config, str(tmp_path / "e.parquet"), split="train")
    assert np.array_equal(read_back(config), values)


def test_a_limited_data_set_takes_the_first_rows(
    config: Config, tmp_path: Path, values: np.ndarray
) -> None:
    path = saved(tmp_path, np.concatenate([values, values + 1]))
    extract.import_embeddings(config, path, split="train")
    assert np.array_equal(read_back(config), values)


def test_rows_that_are_not_finite_are_failures(
    config: Config, tmp_path: Path, values: np.ndarray
) -> None:
    values[7, 3] = np.inf
    report = extract.import_embeddings(config, saved(tmp_path, values), split="train")
    assert report.failures == 1
    assert distill.run(config).summary["train_rows"] == ROWS - 1


def test_views_lie_side_by_side(config: Config, tmp_path: Path, values: np.ndarray) -> None:
    two = config.model_copy(update={"views": config.views.model_copy(update={"count": 1})})
    stacked = np.stack([values, values + 1], axis=1)
    report = extract.import_embeddings(two, saved(tmp_path, stacked), split="train")
    assert report.views == 2
    assert np.array_equal(FeatureStore.open(report.url).read_shard(0), stacked[:16])


def test_other_embeddings_do_not_mix(config: Config, tmp_path: Path, values: np.ndarray) -> None:
    extract.import_embeddings(config, saved(tmp_path, values), split="train")
    with pytest.raises(StoreError, match=r"teacher\.sha256"):
        extract.import_embeddings(config, saved(tmp_path, values * 2), split="train")


BAD = {
    "too few rows": (lambda v: v[:50], "50 rows"),
    "not floats": (lambda v: v.astype(np.int32), "int32"),
    "flat": (lambda v: v.ravel(), "embeddings are floats"),
    "too many views": (lambda v: np.stack([v, v], axis=1), r"views\.count=1"),
    "objects": (lambda v: v.astype(object), "cannot be read"),
}


@pytest.mark.parametrize("bad", BAD)
def test_an_array_of_another_kind_is_refused(
    config: Config, tmp_path: Path, values: np.ndarray, bad: str
) -> None:
    change, said = BAD[bad]
    np.save(tmp_path / "e.npy", change(values), allow_pickle=True)
    with pytest.raises(UsageError, match=said) as raised:
        extract.import_embeddings(config, str(tmp_path / "e.npy"), split="train")
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "stores").exists()


def test_missing_and_doubled_keys_are_named(
    config: Config, tmp_path: Path, values: np.ndarray
) -> None:
    keys = list(open_dataset(config.dataset.train).keys)
    for changed, said in ((["x", *keys[1:]], "keys must agree"), ([keys[1], *keys[1:]], "once")):
        table = pa.table({"key": changed, "embedding": list(values)})
        pq.write_table(table, tmp_path / "e.parquet")
        with pytest.raises(UsageError, match=said):
            extract.import_embeddings(config, str(tmp_path / "e.parquet"), split="train")


def test_the_command_imports_and_extraction_explains_itself(tmp_path: Path) -> None:
    values = np.random.default_rng(0).standard_normal((ROWS, DIM)).astype(np.float32)
    saved(tmp_path, values)
    sets = ["--set", TEACHER, "--set", f"dataset.train.limit={ROWS}", "--set", "views.count=0"]
    done = egapipe("store", "import", "e.npy", *sets, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("train: 60 rows x 1 views")
    refused = egapipe("extract", "--local", *sets, cwd=tmp_path)
    assert refused.returncode == 2
    assert "egapipe store import" in refused.stderr
    assert len(refused.stderr.strip().splitlines()) == 1
