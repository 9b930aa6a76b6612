"""Invariant 4: the manifest is resolved before the first image. Any difference is another store."""

import re

import pytest

from egapipe.pipeline.errors import StoreError
from egapipe.pipeline.store import FeatureStore, check_store
from egapipe.pipeline.store.commands.summary import summarize
from egapipe.pipeline.views import plan_hash
from tests.pipeline.store.samples import (
    complete,
    create,
    make_arrays,
    make_index,
    make_manifest,
    snapshot,
    write,
)


def changed_views(**changes: object) -> dict[str, object]:
    plan = make_manifest().plan.model_copy(update=changes)
    return {"views": plan, "views_hash": plan_hash(plan)}


CHANGES = {
    "dataset.fingerprint": {"dataset": {"name": "sample", "fingerprint": "0" * 64, "rows": 10}},
    "teacher.model": {"teacher": {"model": "resnet", "sha256": "a" * 64}},
    "teacher.sha256": {"teacher": {"model": "vit", "sha256": "b" * 64}},
    "teacher.pooling": {"teacher": {"model": "vit", "sha256": "a" * 64, "pooling": "cls"}},
    "preprocessing.size": {"preprocessing": {"size": 112}},
    "views.seed": changed_views(seed=1),
    "views.count": changed_views(count=4),
    "views_hash": {"views_hash": "0" * 64},
    "outputs.embedding": {"outputs": {"embedding": (4,), "logits": (2,)}},
    "outputs.logits": {"outputs": {"embedding": (3,)}},
    "dtype": {"dtype": "bfloat16"},
    "shard_rows": {"shard_rows": 5},
}


@pytest.mark.parametrize("key", CHANGES)
@pytest.mark.parametrize("state", ["empty", "begun", "complete"])
def test_any_difference_is_another_store(memory: str, key: str, state: str) -> None:
    store = create(memory)
    if state != "empty":
        write(store, 1)
    if state == "complete":
        complete(store)
    before = snapshot(store)
    with pytest.raises(StoreError) as refused:
        create(memory, make_manifest(**CHANGES[key]))
    said = str(refused.value)
    assert "\n" not in said
    assert re.findall(r"(?:^|[:;] )([\w.]+) is ", said.partition("another one")[2]) == [key]
    assert "run `egapipe extract` with another store.url" in said
    assert snapshot(store) == before


def test_every_difference_is_named(memory: str) -> None:
    create(memory)
    with pytest.raises(StoreError) as refused:
        create(memory, make_manifest(dtype="float32", teacher={"model": "x" * 1000}))
    said = str(refused.value)
    assert "dtype is 'float16', the config asks for 'float32'" in said
    assert "teacher.sha256 is 'aaaa" in said
    assert "the config does not set it" in said
    assert len(said) < 800


NEWER = {"torch": "2.14"}


@pytest.mark.parametrize("shards", [[], [0], [0, 1, 2], "finished"])
def test_other_software_may_go_on_and_its_shards_say_so(
    url: str, shards: list[int] | str, caplog: pytest.LogCaptureFixture
) -> None:
    store = create(url)
    for shard in range(3) if shards == "finished" else shards:
        write(store, int(shard))
    if shards == "finished":
        store.finish()
    missing = store.pending()
    again = create(url, make_manifest(versions=NEWER))
    for shard in missing:
        arrays = make_arrays(again.manifest, again.shards[shard])
        again.write_shard(shard, arrays, versions=NEWER)
    again.finish()
    assert again.manifest.versions == {"torch": "2.13"}
    assert again.complete
    assert check_store(url).problems == []
    assert {i for i, c in again.commits().items() if c.versions == NEWER} == set(missing)
    shown = summarize(url)["shard_versions"]
    mixed = {"torch": ["2.14"]}
    assert shown == (mixed if missing else {})
    warned = "begun with other software (versions.torch is '2.13', here it is '2.14')"
    assert (warned in caplog.text) == bool(missing)


@pytest.mark.parametrize(("shards", "refused"), [([0], True), ([0, 1, 2], False)])
def test_other_software_is_refused_on_demand(memory: str, shards: list[int], refused: bool) -> None:
    store = create(memory)
    for shard in shards:
        write(store, shard)
    manifest = make_manifest(versions=NEWER)
    if not refused:
        FeatureStore.create(memory, manifest, make_index(), same_software=True)
        return
    with pytest.raises(StoreError, match=r"begun with other software .*set extract\.same_software"):
        FeatureStore.create(memory, manifest, make_index(), same_software=True)


def test_the_version_of_a_teachers_library_is_software(memory: str) -> None:
    create(memory, make_manifest(teacher={"model": "vit", "runtime": "timm 1.0"}))
    newer = make_manifest(teacher={"model": "vit", "runtime": "timm 1.1"})
    assert create(memory, newer).pending() == [0, 1, 2]


def test_a_data_sets_name_describes_it(memory: str) -> None:
    create(memory)
    renamed = {"name": "folder/photos2", "fingerprint": "f" * 64, "rows": 10}
    assert create(memory, make_manifest(dataset=renamed)).manifest.dataset.name == "sample"


@pytest.mark.parametrize(("column", "value"), [("key", "other"), ("label", 7)])
def test_other_rows_are_another_store(memory: str, column: str, value: object) -> None:
    create(memory)
    index = make_index()
    values = index[column].to_pylist()
    values[3] = value
    changed = index.set_column(index.schema.get_field_index(column), column, [values])
    with pytest.raises(StoreError, match=f"another one: {column} of row 3 is .*, the data set has"):
        FeatureStore.create(memory, make_manifest(), changed)


def test_where_images_lie_may_differ(memory: str) -> None:
    create(memory)
    moved = make_index().set_column(3, "source", [["elsewhere"] * 10])
    assert FeatureStore.create(memory, make_manifest(), moved).pending() == [0, 1, 2]
