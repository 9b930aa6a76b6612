"""Embeddings made elsewhere become a store like any other."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from egapipe.pipeline.config import Config, load_config
from egapipe.pipeline.datasets import open_dataset
from egapipe.pipeline.errors import StoreError, UsageError
from egapipe.pipeline.store import Features, FeatureStore
from egapipe.pipeline.store.commands.export import export_store
from egapipe.stages import distill, extract
from egapipe.stages.extract.importing import embeddings, import_command, spool
from egapipe.stages.extract.importing.tables import Columns
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


def test_a_limited_data_set_takes_its_rows(
    config: Config, tmp_path: Path, values: np.ndarray
) -> None:
    """Of any file, where it takes the first ones; else of one with all rows of the source."""
    path = saved(tmp_path, np.concatenate([values, values + 1]))
    with pytest.raises(UsageError, match="has 120 rows"):
        extract.import_embeddings(config, path, split="train")
    first = {"rows": ROWS, "choose": "first"}
    train = config.dataset.train.model_validate(
        {**config.dataset.train.model_dump(), "limit": first}
    )
    dataset = config.dataset.model_copy(update={"train": train})
    taking_first = config.model_copy(update={"dataset": dataset})
    extract.import_embeddings(taking_first, path, split="train")
    assert np.array_equal(read_back(taking_first), values)


def test_a_limited_data_set_finds_its_rows_among_all(config: Config, tmp_path: Path) -> None:
    whole = np.random.default_rng(1).standard_normal((1437, DIM)).astype(np.float32)
    extract.import_embeddings(config, saved(tmp_path, whole), split="train")
    rows = [int(key.partition("/")[2]) for key in open_dataset(config.dataset.train).keys]
    assert np.array_equal(read_back(config), whole[rows])


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


def with_views(config: Config, count: int) -> Config:
    return config.model_copy(update={"views": config.views.model_copy(update={"count": count})})


def three_views(values: np.ndarray) -> np.ndarray:
    """[N, 3, D], each number another one."""
    return np.stack([values, values + 1, values * 2], axis=1)


def matrices(values: np.ndarray) -> pa.Array:
    return pa.array(values.tolist(), pa.list_(pa.list_(pa.float32())))


def tensors(values: np.ndarray) -> pa.Array:
    return pa.FixedShapeTensorArray.from_numpy_ndarray(values)


def with_nulls(kind: str, values: np.ndarray) -> pa.Array:
    """Row 0, row 9 and the last are null, or have a null in them."""
    lists: list[Any] = values.tolist()
    if kind == "tensors":
        storage = pa.array(
            [None, *lists[1:9], None, *lists[10:-1], None], pa.list_(pa.float32(), DIM)
        )
        return pa.ExtensionArray.from_storage(pa.fixed_shape_tensor(pa.float32(), [DIM]), storage)
    if kind == "matrices":
        rows: list[Any] = [[row] for row in lists]
        rows[0], rows[9], rows[-1] = None, [None], [[None, *lists[-1][1:]]]
        return pa.array(rows, pa.list_(pa.list_(pa.float32())))
    lists[0], lists[9], lists[-1][3] = None, [None] * DIM, None
    return pa.array(lists, pa.list_(pa.float32(), DIM) if kind == "fixed" else None)


@pytest.mark.parametrize("kind", ["lists", "fixed", "matrices", "tensors"])
def test_nulls_are_failures(config: Config, tmp_path: Path, values: np.ndarray, kind: str) -> None:
    pq.write_table(pa.table({"embedding": with_nulls(kind, values)}), tmp_path / "e.parquet")
    report = extract.import_embeddings(config, str(tmp_path / "e.parquet"), split="train")
    store = FeatureStore.open(report.url)
    failed = [0, 9, ROWS - 1]
    assert [failure.row for failure in store.failures()] == failed
    assert {failure.reason for failure in store.failures()} == {
        "the table has null in place of numbers"
    }
    assert report.failures == 3
    expected = values.astype(np.float64 if kind == "lists" else np.float32)
    expected[failed] = np.nan
    np.testing.assert_array_equal(read_back(config), expected.astype(np.float32))


def test_nulls_before_the_first_numbers_and_in_one_view(
    config: Config, tmp_path: Path, values: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch has no numbers at all; one view of a row is missing."""
    monkeypatch.setattr(embeddings, "BATCH_ROWS", 4)
    keys = [key for key in open_dataset(config.dataset.train).keys for _ in range(2)]
    lists: list[Any] = np.repeat(values, 2, axis=0).tolist()
    lists[:9] = [None] * 9
    table = pa.table({"key": keys, "view": [0, 1] * ROWS, "embedding": lists})
    pq.write_table(table, tmp_path / "e.parquet")
    url = extract.import_embeddings(
        with_views(config, 1), str(tmp_path / "e.parquet"), split="train"
    ).url
    store = FeatureStore.open(url)
    assert [failure.row for failure in store.failures()] == [0, 1, 2, 3, 4]
    assert np.array_equal(store.read_shard(0)[5:, 1], values[5:16])
    pq.write_table(
        pa.table({"embedding": pa.nulls(ROWS, pa.list_(pa.float32()))}), tmp_path / "n.parquet"
    )
    with pytest.raises(UsageError, match="column 'embedding' has no numbers"):
        extract.import_embeddings(config, str(tmp_path / "n.parquet"), split="train")


def test_a_table_is_read_a_batch_at_a_time(
    config: Config, tmp_path: Path, values: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embeddings, "BATCH_ROWS", 7)
    lengths: list[int] = []

    def watched(array: pa.Array, where: str) -> Any:
        lengths.append(len(array))
        return plain(array, where)

    plain = spool.rows_of
    monkeypatch.setattr(spool, "rows_of", watched)
    pq.write_table(pa.table({"embedding": list(values)}), tmp_path / "e.parquet")
    extract.import_embeddings(config, str(tmp_path / "e.parquet"), split="train")
    assert lengths == [7] * 8 + [4]
    assert np.array_equal(read_back(config), values)


# Four gigabytes on the disk.
@pytest.mark.slow
def test_a_column_may_have_more_than_2_to_the_31_numbers() -> None:
    width, rows = 1 << 20, 2100
    row = np.arange(width, dtype=np.float16)
    batches = (pa.array([row] * 60) for _ in range(rows // 60))
    values, null = spool.spooled(batches, "here")
    assert values.shape == (rows, width)
    assert values.size > 2**31
    assert not null.any()
    assert np.array_equal(values[-1], row)


@pytest.mark.parametrize("column", [matrices, tensors])
def test_a_column_of_matrices_holds_several_views(
    config: Config, tmp_path: Path, values: np.ndarray, column: Callable[[np.ndarray], pa.Array]
) -> None:
    stacked = three_views(values)
    pq.write_table(pa.table({"vectors": column(stacked)}), tmp_path / "e.parquet")
    report = extract.import_embeddings(
        with_views(config, 2),
        str(tmp_path / "e.parquet"),
        split="train",
        columns=Columns("vectors"),
    )
    assert report.views == 3
    assert np.array_equal(FeatureStore.open(report.url).read_shard(0), stacked[:16])


def test_what_was_exported_is_imported_to_the_same_bytes(
    config: Config, tmp_path: Path, values: np.ndarray
) -> None:
    """All views of a table, a row an embedding, whatever the order of its rows."""
    config = with_views(config, 2)
    url = extract.import_embeddings(config, saved(tmp_path, three_views(values)), split="train").url
    [file] = export_store(url, str(tmp_path / "out.parquet"))
    table = pq.read_table(file)
    shuffled = table.take(np.random.default_rng(2).permutation(len(table)))
    pq.write_table(shuffled, file)
    moved = config.model_copy(
        update={"store": config.store.model_copy(update={"url": str(tmp_path / "again")})}
    )
    again = extract.import_embeddings(moved, str(file), split="train").url
    for shard in range(4):
        assert np.array_equal(
            FeatureStore.open(url).read_shard(shard), FeatureStore.open(again).read_shard(shard)
        )


@pytest.mark.parametrize("views", [[0, 0], [1, 2], [0, None], ["a", "b"]])
def test_views_that_are_not_numbered_are_refused(
    config: Config, tmp_path: Path, values: np.ndarray, views: list[object]
) -> None:
    keys = [key for key in open_dataset(config.dataset.train).keys for _ in views]
    column = pa.array(list(np.repeat(values, 2, axis=0)))
    table = pa.table({"key": keys, "view": views * ROWS, "embedding": column})
    pq.write_table(table, tmp_path / "e.parquet")
    with pytest.raises(UsageError, match="does not number the views of each key from 0"):
        extract.import_embeddings(config, str(tmp_path / "e.parquet"), split="train")


@pytest.mark.parametrize("several", [False, True], ids=["one", "splits"])
def test_a_data_set_that_datasets_has_saved(
    config: Config, tmp_path: Path, values: np.ndarray, several: bool
) -> None:
    """Its rows were shuffled: keys decide their order."""
    keys = list(open_dataset(config.dataset.train).keys)
    table = datasets.Dataset.from_dict(
        {"id": keys, "vector": values, "text": keys},
        features=datasets.Features(
            id=datasets.Value("string"),
            vector=datasets.List(datasets.Value("float32"), length=DIM),
            text=datasets.Value("string"),
        ),
    ).shuffle(seed=0)
    saved_as = datasets.DatasetDict(mine=table, train=table.select([0])) if several else table
    saved_as.save_to_disk(tmp_path / "hf")
    columns = Columns("vector", "id")
    report = extract.import_embeddings(
        config, str(tmp_path / "hf"), split="train", columns=columns, from_split="mine"
    )
    assert np.array_equal(read_back(config), values)
    assert len(FeatureStore.open(report.url).manifest.teacher["sha256"]) == 64
    changed = table.map(lambda row: {"vector": [x + 1 for x in row["vector"]]})
    changed.save_to_disk(tmp_path / "other")
    with pytest.raises(StoreError, match=r"teacher\.sha256"):
        extract.import_embeddings(config, str(tmp_path / "other"), split="train", columns=columns)


def test_a_data_set_of_matrices_in_the_layout_of_the_hub(
    config: Config, tmp_path: Path, values: np.ndarray
) -> None:
    """Without keys rows are in the data set's order."""
    stacked = three_views(values)
    matrix = datasets.Array2D(shape=(3, DIM), dtype="float32")
    table = datasets.Dataset.from_dict(
        {"embedding": stacked}, features=datasets.Features(embedding=matrix)
    )
    table.save_to_disk(tmp_path / "hf")
    (tmp_path / "repository").mkdir()
    pq.write_table(
        pa.table({"embedding": matrices(stacked)}), tmp_path / "repository" / "train-0.parquet"
    )
    for number, name in enumerate(("hf", "repository")):
        to = config.store.model_copy(update={"url": str(tmp_path / f"stores{number}")})
        placed = with_views(config, 2).model_copy(update={"store": to})
        url = extract.import_embeddings(placed, str(tmp_path / name), split="train").url
        assert np.array_equal(FeatureStore.open(url).read_shard(3), stacked[48:])


def test_what_is_no_table_of_embeddings_is_refused_in_one_line(
    config: Config, tmp_path: Path, values: np.ndarray
) -> None:
    datasets.DatasetDict(
        a=datasets.Dataset.from_dict({"vector": values, "name": ["x"] * ROWS})
    ).save_to_disk(tmp_path / "hf")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "state.json").write_text("{")
    (tmp_path / "e.csv").write_text("1,2")
    found = {}
    for name, columns, split in (
        ("hf", Columns(), "train"),
        ("hf", Columns(), "a"),
        ("hf", Columns("name"), "a"),
        ("hf", Columns("vector", "id"), "a"),
        ("broken", Columns(), "train"),
        ("e.csv", Columns(), "train"),
        ("none.npy", Columns(), "train"),
    ):
        with pytest.raises(UsageError) as refused:
            extract.import_embeddings(
                config, str(tmp_path / name), split="train", columns=columns, from_split=split
            )
        found[name, columns.embedding, columns.key, split] = str(refused.value)
    assert [message.count("\n") for message in found.values()] == [0] * 7
    for message, said in zip(
        found.values(),
        (
            "no split 'train': it has a, choose with --from-split",
            "no column 'embedding': it has vector, name, choose with --column",
            "embeddings are lists of floats",
            "no column 'id': it has vector, name, choose with --key-column",
            "cannot be read",
            "is no such file: give embeddings as",
            "is not there: give embeddings as",
        ),
        strict=True,
    ):
        assert said in message


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


def test_further_outputs_have_any_shape(config: Config, tmp_path: Path, values: np.ndarray) -> None:
    """Of one view an array may leave the views out, or have one."""
    rng = np.random.default_rng(2)
    frames = rng.standard_normal((ROWS, 5, 3)).astype(np.float32)
    maps = rng.standard_normal((ROWS, 1, 2, 4, 4)).astype(np.float32)
    frames[7] = np.nan
    np.save(tmp_path / "frames.npy", frames)
    np.save(tmp_path / "maps.npy", maps)
    path = saved(tmp_path, values)
    outputs = {name: str(tmp_path / f"{name}.npy") for name in ("frames", "maps")}
    report = extract.import_embeddings(config, path, split="train", outputs=outputs)
    store = FeatureStore.open(report.url)
    assert store.manifest.outputs == {"embedding": (DIM,), "frames": (5, 3), "maps": (2, 4, 4)}
    assert report.failures == 1
    found = [Features.open(store, n, config.store.cache_dir) for n in ("frames", "maps")]
    rows = np.flatnonzero(np.arange(ROWS) != 7)
    for features, expected in zip(found, (frames, maps[:, 0]), strict=True):
        assert np.array_equal(features.take(rows, 0).numpy(), expected[rows])
    assert extract.import_embeddings(config, path, split="train", outputs=outputs).extracted == 0
    with pytest.raises(StoreError, match="outputs"):
        extract.import_embeddings(config, path, split="train")
    np.save(tmp_path / "maps.npy", maps + 1)
    with pytest.raises(StoreError, match="sha256"):
        extract.import_embeddings(config, path, split="train", outputs=outputs)


def test_further_outputs_of_a_table_are_its_columns(
    config: Config, tmp_path: Path, values: np.ndarray
) -> None:
    keys = list(open_dataset(config.dataset.train).keys)
    order = np.random.default_rng(1).permutation(ROWS)
    frames = np.random.default_rng(2).standard_normal((ROWS, 2, 3)).astype(np.float32)
    columns = {
        "key": [keys[i] for i in order],
        "embedding": values[order].tolist(),
        "frames": frames[order].tolist(),
    }
    pq.write_table(pa.table(columns), tmp_path / "e.parquet")
    egapipe(
        *("store", "import", str(tmp_path / "e.parquet"), "--output", "heard=frames"),
        *(f"--set={s}" for s in imported_sets(config)),
    )
    store = FeatureStore.open(config.store_url("train"))
    heard = Features.open(store, "heard", config.store.cache_dir)
    assert np.array_equal(heard.take(np.arange(ROWS), 0).numpy(), frames)


def imported_sets(config: Config) -> list[str]:
    return [
        TEACHER,
        f"dataset.train.limit={ROWS}",
        f"store.url={config.store.url}",
        f"store.cache_dir={config.store.cache_dir}",
        "store.dtype=float32",
        "views.count=0",
    ]


@pytest.mark.parametrize(
    ("shape", "count", "message"),
    [
        ((ROWS - 1, 3), 0, "has 59 rows, the embeddings 60"),
        ((ROWS, 4, 3), 2, r"with 3 views it must be \[rows, 3, ...\]"),
        ((ROWS, 3), 2, r"with 3 views it must be"),
    ],
)
def test_further_outputs_that_do_not_fit_are_refused(
    config: Config, tmp_path: Path, shape: tuple[int, ...], count: int, message: str
) -> None:
    views = config.views.model_copy(update={"count": count})
    config = config.model_copy(update={"views": views})
    np.save(tmp_path / "other.npy", np.zeros(shape, np.float32))
    path = saved(tmp_path, np.zeros((ROWS, count + 1, DIM), np.float32))
    with pytest.raises(UsageError, match=message):
        extract.import_embeddings(
            config, path, split="train", outputs={"other": str(tmp_path / "other.npy")}
        )


@pytest.mark.parametrize("text", ["frames", "Frames=f.npy", "embedding=f.npy", "frames="])
def test_an_output_without_a_name_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="not of the form NAME=PLACE"):
        import_command._named([text])
