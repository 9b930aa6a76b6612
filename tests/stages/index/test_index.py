"""Indexes find what comparing every pair finds, and know what they were built from."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from egapipe.pipeline.errors import EgapipeError, StoreError, UsageError
from egapipe.pipeline.mathematics.nearest import nearest, unit_directions
from egapipe.pipeline.store import Features, FeatureStore
from egapipe.stages import index
from egapipe.stages.index.embedding_index import _claim
from egapipe.stages.index.faiss_index import (
    FLAT_ROWS,
    HNSW_ROWS,
    Chunks,
    build_index,
    kind_for,
    read_index,
    write_index,
)
from tests.command import egapipe

Floats = np.ndarray


def clustered(rows: int, dim: int) -> Floats:
    """Rows around a few hundred centres, as embeddings lie."""
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((300, dim))
    drawn = centres[rng.integers(0, 300, rows)] + 0.5 * rng.standard_normal((rows, dim))
    return unit_directions(drawn.astype(np.float32))


def in_chunks(vectors: Floats, length: int = 999) -> Chunks:
    def chunks() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for start in range(0, len(vectors), length):
            part = vectors[start : start + length]
            yield np.arange(start, start + len(part)), part

    return chunks


def test_the_kind_follows_from_the_number_of_rows() -> None:
    sizes = [1, FLAT_ROWS, FLAT_ROWS + 1, HNSW_ROWS, HNSW_ROWS + 1]
    assert [kind_for(rows) for rows in sizes] == ["flat", "flat", "hnsw", "hnsw", "ivf"]


@pytest.mark.parametrize(("kind", "recall"), [("flat", 1.0), ("hnsw", 0.9), ("ivf", 0.9)])
def test_every_kind_finds_the_nearest(kind: str, recall: float, tmp_path: Path) -> None:
    vectors = clustered(6000, 32)
    write_index(build_index(kind, len(vectors), 32, in_chunks(vectors)), tmp_path / "index")
    found = read_index(tmp_path / "index")
    queries = vectors[::60]
    _, expected = nearest(vectors, queries, 10)
    _, rows = found.search(queries, 10)
    hits = [len(np.intersect1d(a, b)) for a, b in zip(expected, rows, strict=True)]
    assert np.mean(hits) / 10 >= recall
    assert (rows[:, 0] == np.arange(len(vectors))[::60]).mean() >= recall


def test_few_rows_make_an_index_of_every_kind() -> None:
    vectors = clustered(3, 8)
    for kind in index.KINDS:
        _, rows = build_index(kind, 3, 8, in_chunks(vectors)).search(vectors, 2)
        assert rows[:, 0].tolist() == [0, 1, 2]


def test_an_index_is_built_once_for_a_store(
    digits_store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EGAPIPE_CACHE", str(tmp_path))
    url = f"{digits_store}/train.zarr"
    first = index.build(url)
    assert (first.report.kind, first.report.rows, first.report.dim) == ("flat", 1437, 128)
    assert Path(first.report.file).stat().st_size == first.report.bytes
    assert index.build(url).report == first.report
    features = Features.open(FeatureStore.open(url))
    vectors = features.take(np.array([3, 700]), 0).float().numpy()
    cosines, rows = first.search(7 * vectors, 2)
    assert rows[:, 0].tolist() == [3, 700]
    assert cosines[:, 0] == pytest.approx(1.0, abs=1e-5)


def test_an_index_of_another_store_or_kind_is_not_taken_for_this_one(
    digits_store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EGAPIPE_CACHE", str(tmp_path / "cache"))
    file = tmp_path / "my.faiss"
    first = index.build(f"{digits_store}/train.zarr", to=file).report
    other = index.build(f"{digits_store}/test.zarr", to=file).report
    assert (first.rows, other.rows) == (1437, 360)
    approximate = index.build(f"{digits_store}/test.zarr", to=file, kind="hnsw").report
    assert approximate.kind == "hnsw"
    assert approximate.recall > 0.9
    record = Path(f"{file}.json")
    assert json.loads(record.read_text("utf-8"))["content"] == other.content
    # Killed while it is made anew.
    _claim(file, "flat")
    assert index.build(f"{digits_store}/test.zarr", to=file).report.kind == "flat"


@pytest.mark.parametrize("mine", ["my", "my.json"])
def test_files_of_somebody_else_are_no_index_to_replace(
    mine: str, digits_store: str, tmp_path: Path
) -> None:
    (tmp_path / mine).write_text("{}")
    with pytest.raises(UsageError, match=rf"{tmp_path}/{mine} is there, and no index"):
        index.build(f"{digits_store}/test.zarr", to=tmp_path / "my")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["{}"]


def test_bad_input_is_one_line(digits_store: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="choose auto, flat, hnsw, ivf"):
        index.build(f"{digits_store}/train.zarr", kind="tree")
    with pytest.raises(StoreError):
        index.build(str(tmp_path / "none.zarr"))
    (tmp_path / "broken").write_bytes(b"IxF2 and no more")
    with pytest.raises(EgapipeError, match="is damaged") as raised:
        read_index(tmp_path / "broken")
    assert "\n" not in str(raised.value)


def test_the_command_says_what_was_built(digits_store: str, tmp_path: Path) -> None:
    file = tmp_path / "digits.faiss"
    done = egapipe("index", f"{digits_store}/test.zarr", "--kind", "ivf", "--to", str(file))
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("ivf: 360 rows x 128")
    assert done.stdout.splitlines()[-1] == f"index: {file}"
