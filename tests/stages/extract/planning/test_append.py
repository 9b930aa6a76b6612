"""Rows that a data set has got since its store was finished, appended to the store."""

from pathlib import Path

import numpy as np
import pytest

from egapipe.pipeline.config import Config
from egapipe.pipeline.errors import StoreError
from egapipe.pipeline.results.learned import features_record, require_features
from egapipe.pipeline.results.pairing import open_pair
from egapipe.pipeline.results.runs import RunFolder
from egapipe.pipeline.store import Features, FeatureStore, check_store
from egapipe.pipeline.store.commands.diff import diff_stores
from egapipe.stages.extract import prepare
from tests.command import egapipe
from tests.stages.extract.verifying.test_identity import image, make_config, open_split, png, run

ROWS, SHARD_ROWS = 10, 4


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """Of ten images, and their finished store."""
    made = make_config(tmp_path)
    (tmp_path / "images").mkdir()
    grow(made, 0, ROWS)
    run(made)
    return made


def grow(config: Config, start: int, stop: int) -> None:
    for row in range(start, stop):
        image(config, row).write_bytes(png(row))


def append(config: Config) -> FeatureStore:
    [extraction] = prepare(config, ["train"], append=True)
    extraction.run(local=True)
    return FeatureStore.open(config.store_url("train"))


def every_byte(url: str) -> dict[str, bytes]:
    return {str(p.relative_to(url)): p.read_bytes() for p in Path(url).rglob("*") if p.is_file()}


def embeddings(store: FeatureStore) -> np.ndarray:
    return np.concatenate([store.read_shard(shard) for shard in range(len(store.shards))])


def test_a_grown_store_is_one_of_all_rows(config: Config, tmp_path: Path) -> None:
    url = config.store_url("train")
    before, old = every_byte(url), FeatureStore.open(url)
    content = old.content_hash()
    for rows in (14, 15, 20):
        grow(config, ROWS, rows)
        with pytest.raises(StoreError, match=r"asks for .*: `egapipe extract --append` adds rows"):
            run(config)
        [extraction] = prepare(config, ["train"], append=True)
        # As long as it is not finished, the store is what it was.
        assert FeatureStore.open(url).content_hash() == content
        report = extraction.run(local=True)
        store = FeatureStore.open(url)
        parent = store.manifest.dataset.parent
        assert parent is not None
        assert parent.content == content
        # The last shard is done again where it was not full, and no other one.
        assert report.extracted == rows - parent.rows + parent.rows % SHARD_ROWS
        assert (store.complete, store.manifest.rows) == (True, rows)
        assert check_store(url).problems == []
        assert append(config).content_hash() == run(config).content_hash()
        content = store.content_hash()
    assert before.items() <= every_byte(url).items()
    at_once = run(make_config(tmp_path, store={"url": str(tmp_path / "once"), "shard_rows": 4}))
    assert np.array_equal(embeddings(store), embeddings(at_once))
    assert store.index().equals(at_once.index())
    assert store.snapshot().image_digests() == at_once.snapshot().image_digests()
    assert all(array.equal for array in diff_stores(url, at_once.url).arrays)
    rows_of = np.arange(20)
    features = Features.open(store, cache_dir=str(tmp_path / "cache"))
    assert np.array_equal(features.take(rows_of, 0).numpy(), embeddings(at_once)[:, 0])
    # What it was is there still, also for who opened it then.
    assert np.array_equal(embeddings(old), embeddings(at_once)[:ROWS])
    assert FeatureStore.open(url, rows=14).snapshot().complete


def test_what_is_not_a_continuation_is_refused_by_its_first_key(config: Config) -> None:
    url = config.store_url("train")
    before = every_byte(url)
    grow(config, ROWS, 12)

    def refused(said: str) -> None:
        with pytest.raises(StoreError, match=said) as error:
            prepare(config, ["train"], append=True)
        assert "\n" not in str(error.value)
        assert every_byte(url) == before

    image(config, 6).rename(image(config, 6).with_name("06b.png"))
    refused("key of row 6 is '06.png', the data set has '06b.png'")
    image(config, 6).with_name("06b.png").rename(image(config, 6))
    between = image(config, 3).with_name("03a.png")
    between.write_bytes(png(3))
    refused("key of row 4 is '04.png', the data set has '03a.png'")
    between.unlink()
    image(config, 5).write_bytes(png(50))
    refused(r"image 05.png \(row 5\) on .* is another one")
    image(config, 5).write_bytes(png(5))
    for row in (9, 10, 11):
        image(config, row).unlink()
    refused("it has 10 rows, the data set 9")


def test_a_store_of_one_fingerprint_grows_by_its_own_rule(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from egapipe.stages.extract.planning import plan

    def older(*arguments: object, **named: object) -> object:
        return manifest_for(*arguments, **{"whole": True, **named})  # type: ignore[arg-type]

    manifest_for = plan.manifest_for  # type: ignore[attr-defined]
    old = make_config(tmp_path, store={"url": str(tmp_path / "old"), "shard_rows": 4})
    with monkeypatch.context() as patch:
        patch.setattr(plan, "manifest_for", older)
        assert run(old).manifest.dataset.images is None
    grow(config, ROWS, 12)
    image(config, 1).write_bytes(png(11))
    with pytest.raises(StoreError, match="images of its 10 rows have changed"):
        append(old)
    image(config, 1).write_bytes(png(1))
    store = append(old)
    assert store.manifest.dataset.fingerprint == open_split(old, "train").fingerprint()
    assert np.array_equal(embeddings(store), embeddings(append(config)))
    assert check_store(store.url).problems == []


def test_an_append_goes_on_with_its_own_rows_only(config: Config) -> None:
    url = config.store_url("train")
    grow(config, ROWS, 14)
    [begun] = prepare(config, ["train"], append=True)
    with (
        begun.job.store.exclusive(),
        pytest.raises(StoreError, match="another process extracts into"),
    ):
        append(config)
    grow(config, 14, 16)
    with pytest.raises(StoreError, match=r"others were being appended \(14 rows in all; now 16\)"):
        append(config)
    for row in (14, 15):
        image(config, row).unlink()
    assert append(config).manifest.rows == 14
    # Of two at once the second finds that all is done.
    assert begun.run(local=True).rows == 14
    grow(config, 14, 16)
    assert append(config).manifest.rows == 16
    assert check_store(url).problems == []


def test_trainings_keep_to_what_they_learned_from(config: Config, tmp_path: Path) -> None:
    store = FeatureStore.open(config.store_url("train"))
    run_folder = RunFolder(tmp_path / "run")
    run_folder.path.mkdir()
    then = features_record([store], None, None)
    run_folder.write_json("store.json", then)
    grow(config, ROWS, 13)
    append(config)
    # The data set as it was goes with the store as it was, for instance by its limit.
    source = {"kind": "folder", "path": str(tmp_path / "images")}
    first = {**source, "limit": {"rows": ROWS, "choose": "first"}}
    limited = make_config(tmp_path, dataset={"train": first})
    found, features = open_pair(limited, open_split(limited, "train"), "train")
    assert (found.manifest.rows, features.rows) == (ROWS, ROWS)
    require_features(run_folder, features_record([found], None, None))
    # All of it does not.
    grown, features = open_pair(config, open_split(config, "train"), "train")
    assert (grown.manifest.rows, features.rows) == (13, 13)
    with pytest.raises(StoreError, match=r"dataset\.rows was 10, is 13") as error:
        require_features(run_folder, features_record([grown], None, None))
    assert "\n" not in str(error.value)


def test_the_command_appends(config: Config, tmp_path: Path) -> None:
    grow(config, ROWS, 11)
    file = tmp_path / "config.yaml"
    file.write_text(config.model_dump_json(exclude_unset=True))
    said = egapipe("extract", "-c", str(file), "--local", "--append")
    assert "11 rows x 1 views" in said.stdout
    assert FeatureStore.open(config.store_url("train")).manifest.rows == 11
