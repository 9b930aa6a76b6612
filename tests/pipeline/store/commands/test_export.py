"""`egapipe store export`: the stored numbers, exactly, in files that other programs read."""

import tracemalloc
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from egapipe.pipeline.config import Config, load_config
from egapipe.pipeline.datasets import open_dataset
from egapipe.pipeline.errors import StoreError, UsageError
from egapipe.pipeline.store import Failure, FeatureStore
from egapipe.pipeline.store.commands.diff import diff_stores
from egapipe.pipeline.store.commands.export import export_store
from egapipe.pipeline.store.format.dtypes import to_floats
from egapipe.stages import extract
from tests.pipeline.store.samples import (
    complete,
    create,
    finished,
    make_arrays,
    make_index,
    make_manifest,
    write,
)
from tests.pipeline.store.test_command import app

DTYPES = ["float16", "bfloat16", "float32"]


def stored(store: FeatureStore, name: str = "embedding") -> np.ndarray:
    shards = [store.read_shard(shard, name) for shard in range(len(store.shards))]
    return to_floats(np.concatenate(shards), store.manifest.dtype)


def with_failure(url: str, dtype: str) -> FeatureStore:
    store = create(url, make_manifest(dtype=dtype))
    arrays = make_arrays(store.manifest, store.shards[1])
    store.write_shard(1, arrays, failures=[Failure(5, "train/5", "no image")])
    return complete(store)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_table_has_a_row_for_every_view_of_every_row(
    url: str, tmp_path: Path, dtype: str
) -> None:
    store = with_failure(url, dtype)
    (file,) = export_store(url, str(tmp_path / "new" / "e.parquet"))
    table = pq.read_table(file)
    assert table.column_names == ["key", "label", "view", "embedding"]
    assert table["key"].to_pylist() == [f"train/{row}" for row in range(10) for _ in range(2)]
    labels = make_index()["label"].to_pylist()
    assert table["label"].to_pylist() == [label for label in labels for _ in range(2)]
    assert table["view"].to_pylist() == [0, 1] * 10
    kind = table.schema.field("embedding").type
    assert kind.list_size == 3
    assert kind.value_type == (pa.float16() if dtype == "float16" else pa.float32())
    values = table["embedding"].combine_chunks().flatten().to_numpy().reshape(10, 2, 3)
    np.testing.assert_array_equal(values.astype(np.float32), stored(store))
    assert np.isnan(values[5]).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_an_array_is_that_of_the_store_with_its_keys_beside_it(tmp_path: Path, dtype: str) -> None:
    store = with_failure(str(tmp_path / "s.zarr"), dtype)
    array, keys = export_store(store.url, str(tmp_path / "e.npy"))
    values = np.load(array, mmap_mode="r", allow_pickle=False)
    assert values.dtype == (np.float16 if dtype == "float16" else np.float32)
    np.testing.assert_array_equal(values.astype(np.float32), stored(store))
    assert keys.read_text().splitlines() == [f"train/{row}" for row in range(10)]
    logits, _ = export_store(store.url, str(tmp_path / "l.npy"), name="logits", view=1)
    np.testing.assert_array_equal(np.load(logits).astype(np.float32), stored(store, "logits")[:, 1])
    assert sorted(path.name for path in tmp_path.glob("*.*")) == [
        "e.npy",
        "e.txt",
        "l.npy",
        "l.txt",
        "s.zarr",
    ]


@pytest.fixture
def config(tmp_path: Path) -> Config:
    sets = [
        "teacher={backend: imported, model: somewhere}",
        "dataset.train.limit=40",
        f"store.url={tmp_path / 'stores'}",
        "store.dtype=bfloat16",
        "store.shard_rows=16",
        "views.count=1",
    ]
    return load_config("quickstart", sets)


@pytest.mark.parametrize(("kind", "view"), [("npy", None), ("npy", 0), ("parquet", 0)])
def test_what_is_exported_can_be_imported_again(
    config: Config, tmp_path: Path, kind: str, view: int | None
) -> None:
    values = np.random.default_rng(0).standard_normal((40, 2, 6), dtype=np.float32)
    values[7, 0, 2] = np.inf
    np.save(tmp_path / "first.npy", values)
    first = extract.import_embeddings(config, str(tmp_path / "first.npy"), split="train").url
    file, *_ = export_store(first, str(tmp_path / f"again.{kind}"), view=view)
    changed = config.model_copy(
        update={
            "store": config.store.model_copy(update={"url": str(tmp_path / "again")}),
            "views": config.views.model_copy(update={"count": 1 if view is None else 0}),
        }
    )
    again = extract.import_embeddings(changed, str(file), split="train")
    assert (again.rows, again.failures) == (40, 1)
    old, new = stored(FeatureStore.open(first)), stored(FeatureStore.open(again.url))
    np.testing.assert_array_equal(old if view is None else old[:, :1], new)
    if view is None:
        # Where the embeddings came from is another file; nothing else differs.
        found = diff_stores(first, again.url)
        assert [line.partition(":")[0] for line in found.manifest] == ["teacher.sha256"]
        assert found.rows == []
        assert all(array.equal for array in found.arrays)
    assert list(open_dataset(config.dataset.train).keys)[7] in (
        failure.key for failure in FeatureStore.open(again.url).failures()
    )


@pytest.mark.parametrize("kind", ["npy", "parquet"])
def test_memory_does_not_grow_with_the_number_of_shards(tmp_path: Path, kind: str) -> None:
    peaks = []
    for shards in (4, 32):
        manifest = make_manifest(rows=shards * 64, shard_rows=64, outputs={"embedding": (1024,)})
        url = finished(str(tmp_path / f"{shards}.zarr"), manifest).url
        export_store(url, str(tmp_path / f"warm-{shards}.{kind}"))
        arrow = pa.total_allocated_bytes()
        tracemalloc.start()
        export_store(url, str(tmp_path / f"{shards}.{kind}"))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert pa.total_allocated_bytes() - arrow < 1 << 20
    chunk = 64 * 2 * 1024 * 2
    assert peaks[1] < peaks[0] + chunk


def test_a_damaged_or_unfinished_store_leaves_no_file(tmp_path: Path) -> None:
    broken = finished(str(tmp_path / "broken.zarr"))
    chunk = tmp_path / "broken.zarr" / "embedding" / "c" / "2" / "0" / "0"
    chunk.write_bytes(chunk.read_bytes()[::-1])
    half = create(str(tmp_path / "half.zarr"))
    write(half, 0)
    for url, said in ((broken.url, "shard 2 .* is damaged"), (half.url, "is not complete")):
        for kind in ("npy", "parquet"):
            with pytest.raises(StoreError, match=said):
                export_store(url, str(tmp_path / "out" / f"e.{kind}"))
    assert list((tmp_path / "out").iterdir()) == []


MISTAKES = {
    "another format": ("e.csv", {}, "must end in .parquet or .npy"),
    "another place": ("s3://bucket/e.npy", {}, "give a local file"),
    "no such view": ("e.npy", {"view": 2}, "it has 0 to 1"),
    "a file that exists": ("taken.npy", {}, "taken.npy exists"),
    "keys that exist": ("beside.npy", {}, "beside.txt exists"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_named_and_nothing_written(tmp_path: Path, mistake: str) -> None:
    out, options, said = MISTAKES[mistake]
    url = finished(str(tmp_path / "s.zarr")).url
    for name in ("taken.npy", "beside.txt"):
        (tmp_path / name).write_text("mine")
    with pytest.raises(UsageError, match=said):
        export_store(url, out if "://" in out else str(tmp_path / out), **options)
    assert (tmp_path / "taken.npy").read_text() == (tmp_path / "beside.txt").read_text() == "mine"


def test_no_such_array(tmp_path: Path) -> None:
    url = finished(str(tmp_path / "s.zarr")).url
    with pytest.raises(StoreError, match="has no array 'tokens': it has embedding, logits"):
        export_store(url, str(tmp_path / "e.npy"), name="tokens")


def test_keys_with_line_breaks_need_a_table(tmp_path: Path) -> None:
    index = make_index().set_column(1, "key", [[f"a\n{row}" for row in range(10)]])
    store = FeatureStore.create(str(tmp_path / "s.zarr"), make_manifest(), index)
    complete(store)
    with pytest.raises(UsageError, match=r"has a line break: export to .parquet"):
        export_store(store.url, str(tmp_path / "e.npy"))
    (file,) = export_store(store.url, str(tmp_path / "e.parquet"), view=0)
    assert pq.read_table(file)["key"].to_pylist() == index["key"].to_pylist()


def test_the_command_names_the_files(tmp_path: Path) -> None:
    store = finished(str(tmp_path / "s.zarr"))
    out = tmp_path / "e.npy"
    shown = CliRunner().invoke(app, ["store", "export", store.url, str(out), "--view", "0"])
    assert shown.exit_code == 0
    assert shown.stdout == f"{store.url}: exported to {out} and {tmp_path / 'e.txt'}\n"
    assert np.load(out).shape == (10, 3)
