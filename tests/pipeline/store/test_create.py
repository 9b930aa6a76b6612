"""Creating a store: what a manifest and an index may be."""

import json

import pyarrow as pa
import pytest
from pydantic import ValidationError

from egapipe.pipeline.errors import StoreError
from egapipe.pipeline.store import INDEX_SCHEMA, FeatureStore, Manifest, check_store
from egapipe.pipeline.store.format import index, layout
from egapipe.pipeline.store.objects import remote
from egapipe.pipeline.store.objects.location import open_objects
from egapipe.pipeline.store.records.record import Created, sha256
from tests.pipeline.store.samples import create, finished, make_index, make_manifest


def test_what_was_asked_for_is_there(url: str) -> None:
    manifest = make_manifest(teacher={"name": "größer", "scale": 1.0, "sizes": (1, 2)})
    store = FeatureStore.create(url, manifest, make_index())
    again = FeatureStore.open(url)
    assert again.manifest == manifest == store.manifest
    assert again.manifest.hash() == manifest.hash()
    assert again.index().schema == INDEX_SCHEMA
    assert again.index().to_pydict() == make_index().to_pydict()
    assert (again.complete, again.pending(), again.commits()) == (False, [0, 1, 2], {})
    assert check_store(url).problems == []


def test_the_hash_of_a_manifest_is_of_its_content() -> None:
    assert make_manifest().hash() == make_manifest().hash()
    assert make_manifest(teacher={"a": 1, "b": 2}).hash() == (
        make_manifest(teacher={"b": 2, "a": 1}).hash()
    )
    assert make_manifest().hash() != make_manifest(versions={"torch": "2.14"}).hash()


@pytest.mark.parametrize(
    "changes",
    [
        {"outputs": {}},
        {"outputs": {"index": (3,)}},
        {"outputs": {"commits": (3,)}},
        {"outputs": {"../up": (3,)}},
        {"outputs": {"embedding": (0,)}},
        {"dtype": "float64"},
        {"shard_rows": 0},
        {"rows": 0},
        {"teacher": {"scale": float("nan")}},
        {"unknown": 1},
    ],
)
def test_a_manifest_that_cannot_be_stored_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises((ValidationError, ValueError)):
        make_manifest(**changes)


def without_key(index: pa.Table) -> pa.Table:
    return index.drop_columns(["key"])


def with_null(index: pa.Table) -> pa.Table:
    return index.set_column(2, "label", [[None, *index["label"].to_pylist()[1:]]])


def of_text(index: pa.Table) -> pa.Table:
    return index.set_column(2, "label", [["cat"] * index.num_rows])


def shorter(index: pa.Table) -> pa.Table:
    return index.slice(1)


def disordered(index: pa.Table) -> pa.Table:
    return index.take(list(range(index.num_rows))[::-1])


def with_a_key_twice(index: pa.Table) -> pa.Table:
    return index.set_column(1, "key", [["train/7", *index["key"].to_pylist()[1:]]])


BAD = {
    without_key: r"has not the columns of a store: .*key",
    with_null: r"has not the columns of a store: .*null",
    of_text: r"has not the columns of a store: .*cat",
    shorter: r"the index has 9 rows, the manifest 10",
    disordered: r"does not list rows 0 to 9 in order",
    with_a_key_twice: r"has a key twice: 'train/7'",
}


@pytest.mark.parametrize("change", BAD)
@pytest.mark.parametrize("exists", [False, True])
def test_an_index_that_cannot_be_stored_is_refused(memory: str, change, exists: bool) -> None:
    if exists:
        create(memory)
    with pytest.raises(StoreError, match=BAD[change]) as refused:
        FeatureStore.create(memory, make_manifest(), change(make_index()))
    assert "\n" not in str(refused.value)
    assert FeatureStore.exists(memory) == exists


def test_an_index_in_other_types_and_chunks_is_the_same(memory: str) -> None:
    index = make_index()
    other = (
        pa.concat_tables([index.slice(0, 3), index.slice(3)])
        .cast(
            pa.schema(
                [
                    ("row", pa.int32()),
                    ("key", pa.large_string()),
                    ("label", pa.int8()),
                    ("source", pa.large_string()),
                ]
            )
        )
        .select(["source", "label", "key", "row"])
    )
    one = create(memory)
    two = FeatureStore.create(f"{memory}2", make_manifest(), other)
    assert one.objects.get(layout.INDEX) == two.objects.get(layout.INDEX)


@pytest.mark.parametrize("whole", [1 << 20, 0], ids=["small", "large"])
def test_an_index_that_another_creator_has_put_is_taken_up(
    memory: str, whole: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A large one is compared row group by row group, and half of one is written over."""
    monkeypatch.setattr(index, "_SMALL", whole)
    monkeypatch.setattr(remote, "_WHOLE", whole)
    manifest, rows = make_manifest(), make_index()
    objects = open_objects(memory)
    theirs = index.encode_index(rows, 3)
    assert theirs != index.encode_index(rows, manifest.shard_rows)
    objects.put(layout.INDEX, theirs)
    store = FeatureStore.create(memory, manifest, rows)
    assert objects.get(layout.INDEX) == theirs
    assert store.created.sha256[layout.INDEX] == sha256(theirs)
    for created in (layout.CREATED, layout.INDEX):
        objects.delete(created)
    objects.put(layout.INDEX, theirs[:-9])
    FeatureStore.create(memory, manifest, rows)
    assert objects.get(layout.INDEX) == index.encode_index(rows, manifest.shard_rows)
    for created in (layout.CREATED, layout.INDEX):
        objects.delete(created)
    others = make_index().set_column(2, "label", pa.array(range(10), pa.int64()))
    objects.put(layout.INDEX, index.encode_index(others, 3))
    with pytest.raises(StoreError, match="is another one: label of row"):
        FeatureStore.create(memory, manifest, rows)


def rewrite_manifest(store: FeatureStore, **changes: object) -> dict[str, object]:
    """As another version of egapipe would have written it: what is stored then."""
    tree = json.loads(store.objects.get(layout.GROUP) or b"")
    tree["attributes"]["egapipe"].update(changes)
    data = json.dumps(tree).encode()
    store.objects.put(layout.GROUP, data)
    created = Created(sha256={**store.created.sha256, layout.GROUP: sha256(data)})
    store.objects.put(layout.CREATED, created.encode())
    stored: dict[str, object] = tree["attributes"]["egapipe"]
    return stored


def test_another_format_is_refused(memory: str) -> None:
    rewrite_manifest(finished(memory), format=2)
    with pytest.raises(StoreError, match="has format 2, this egapipe reads 1: install"):
        FeatureStore.open(memory)
    with pytest.raises(StoreError, match="has format 2"):
        create(memory)


def test_a_manifest_that_makes_no_sense_is_refused(memory: str) -> None:
    rewrite_manifest(finished(memory), shard_rows=-1)
    with pytest.raises(StoreError, match=r"damaged manifest \(shard_rows: .*\): restore the store"):
        FeatureStore.open(memory)


NEWER = {
    "views.jitter": {"views": {**make_manifest().views.model_dump(), "jitter": 0.5}},
    "views.crop": {"views": {**make_manifest().views.model_dump(), "crop": "tilted"}},
    "licence": {"licence": "MIT"},
    "dataset.licence": {"dataset": {**make_manifest().dataset.model_dump(), "licence": "MIT"}},
    "teacher.adapter": {"teacher": {"backend": "timm", "model": "vit", "adapter": "lora"}},
    "teacher.teachers.a.adapter": {
        "teacher": {"backend": "ensemble", "teachers": {"a": {"backend": "run", "adapter": 1}}}
    },
    "teacher.preprocessing.antialias": {
        "teacher": {"backend": "onnx", "preprocessing": {"size": 8, "antialias": True}}
    },
}


@pytest.mark.parametrize("member", NEWER)
def test_what_is_not_known_was_written_by_a_newer_one(memory: str, member: str) -> None:
    rewrite_manifest(finished(memory), **NEWER[member])
    said = f"was written by a newer egapipe \\({member} is not known here\\): upgrade"
    with pytest.raises(StoreError, match=said):
        FeatureStore.open(memory)
    (problem,) = check_store(memory).problems
    assert "damaged" not in problem


@pytest.mark.parametrize("key", [layout.CREATED, layout.commit_key(1), layout.FINISHED])
def test_a_record_with_more_members_is_of_a_newer_one(memory: str, key: str) -> None:
    """Not damaged, which would advise to delete it."""
    store = finished(memory)
    data = store.objects.get(key) or b""
    body = data.rpartition(b' "checksum"')[0] + b' "licence": "MIT",\n'
    store.objects.put(key, body + f' "checksum": "{sha256(body)}"\n}}\n'.encode())
    problems = " ".join(check_store(memory).problems)
    assert f"{key} was written by a newer egapipe (licence is not known here)" in problems
    assert "delete" not in problems


def test_another_programs_teacher_may_have_any_member(memory: str) -> None:
    manifest = make_manifest(teacher={"backend": "jax", "adapter": "lora"})
    assert create(memory, manifest).manifest.teacher["adapter"] == "lora"


def test_check_compares_the_manifest_with_what_is_there(memory: str) -> None:
    """The checksums are right here: the writer itself was wrong."""
    rewrite_manifest(finished(memory), views_hash="0" * 64, dtype="bfloat16")
    problems = check_store(memory).problems
    assert "views_hash is not the hash of the view plan: its views cannot be replayed" in problems
    assert "embedding/zarr.json describes another array than the manifest" in problems


def test_names_are_those_of_the_package() -> None:
    import egapipe.pipeline.store as package

    for name in package.__all__:
        assert getattr(package, name) is not None
    assert package.Manifest is Manifest
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        package.Nothing  # noqa: B018
