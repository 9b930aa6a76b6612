"""What a shard was computed on is recorded, and a store continued on something else says so."""

from pathlib import Path

import pyarrow as pa
import pytest

from egapipe.pipeline.config import Config, load_config
from egapipe.pipeline.errors import StoreError, UsageError
from egapipe.pipeline.store import Commit, FeatureStore, check_store
from egapipe.pipeline.store.format.layout import commit_key
from egapipe.pipeline.store.records import commits
from egapipe.stages import extract
from tests.golden_copy import golden
from tests.stages.extract.conftest import MakeConfig
from tests.stages.extract.workers.test_pooled import Watching

__all__ = ["golden"]

BATCH = {"device", "precision", "batch"}


def half_done(config: Config) -> str:
    """A store of which two shards are missing."""
    url = extract.run(config, split="train", local=True).url
    for shard in (1, 3):
        Path(url, commit_key(shard)).unlink()
    return url


def batches(url: str) -> dict[int, str]:
    return {shard: c.computed["batch"] for shard, c in FeatureStore.open(url).commits().items()}


def test_another_batch_size_continues_a_store_with_a_warning(quick: MakeConfig) -> None:
    url = half_done(quick())
    watching = Watching(lambda: None)
    extract.run(quick("extract.batch_size=7"), split="train", local=True, progress=watching)
    [note] = watching.notes
    assert note.startswith(f"store {url} has shards that were computed on cpu ")
    assert "20 x 3 x 16 x 16 at once, others now on cpu " in note
    assert note.endswith(" in float32, 7 x 3 x 16 x 16 at once")
    assert batches(url) == {
        shard: f"{7 if shard in (1, 3) else 20} x 3 x 16 x 16" for shard in range(5)
    }
    assert check_store(url).ok


def test_the_same_continues_it_without_a_word(quick: MakeConfig) -> None:
    config = quick("extract.same_device=true")
    url = half_done(config)
    watching = Watching(lambda: None)
    extract.run(config, split="train", local=True, progress=watching)
    assert watching.notes == []
    assert {frozenset(c.computed) for c in FeatureStore.open(url).commits().values()} == {
        frozenset(BATCH)
    }


def test_another_one_is_refused_where_that_is_asked(quick: MakeConfig) -> None:
    url = half_done(quick())
    with pytest.raises(UsageError, match=r"set extract\.same_device=false") as error:
        extract.run(
            quick("extract.same_device=true", "extract.batch_size=7"), split="train", local=True
        )
    assert "\n" not in str(error.value)
    assert FeatureStore.open(url).snapshot().pending == [1, 3]


def test_what_an_older_record_does_not_say_is_no_difference(golden: Path) -> None:
    config = load_config("golden.yaml", ["store.url=stores/half", "extract.same_device=true"])
    watching = Watching(lambda: None)
    assert extract.run(config, split="train", local=True, progress=watching).extracted == 4
    assert watching.notes == []
    found = FeatureStore.open("stores/half/train.zarr").commits()
    assert [set(found[shard].computed) for shard in range(3)] == [set(), BATCH, set()]


def test_tables_of_records_with_a_column_less_or_more(monkeypatch: pytest.MonkeyPatch) -> None:
    record = Commit(
        shard=0,
        start=0,
        stop=1,
        sha256={"embedding": "ab" * 32},
        nonfinite=0,
        failures=[],
        seconds={},
        host="here",
        computed={"device": "cpu AVX2"},
    )
    known = commits._SCHEMA
    assert commits.decode_commits(commits.encode_commits({0: record}), [], "x")[0] == record
    monkeypatch.setattr(commits, "_SCHEMA", pa.schema(list(known)[:-1]))
    older = commits.encode_commits({0: record})
    monkeypatch.setattr(commits, "_SCHEMA", pa.schema([*known, pa.field("more", pa.int64())]))
    newer = commits.encode_commits({0: record})
    monkeypatch.undo()
    assert commits.decode_commits(older, [], "x")[0].computed == {}
    with pytest.raises(StoreError, match=r"x was written by a newer egapipe .more is not known"):
        commits.decode_commits(newer, [], "x")
