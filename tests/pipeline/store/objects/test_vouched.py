"""What an object store vouches for is not downloaded again; what nobody vouches for is."""

from pathlib import Path

import pytest

from egapipe.pipeline.store import check_store
from egapipe.pipeline.store.objects.location import open_objects
from egapipe.pipeline.store.records.record import sha256
from tests.objectstore import S3, either_client, s3, s3_server
from tests.pipeline.store.samples import create, make_manifest, write

__all__ = ["either_client", "s3", "s3_server"]

EITHER = pytest.mark.usefixtures("either_client")

SMALL = make_manifest(outputs={"embedding": (3,)})


@EITHER
def test_s3_vouches_for_a_chunk_which_is_not_read_again(s3: S3) -> None:
    store = create(s3.url(), SMALL)
    write(store, 0)
    s3.log()
    write(store, 1)
    names = [line.replace(f"/{s3.bucket}/train.zarr/", "") for line in s3.log()]
    assert names == [
        "GET commits/000001.json",
        "PUT embedding/c/1/0/0",
        "PUT commits/000001.json",
    ]
    assert check_store(store.url).problems == []


@EITHER
def test_what_arrives_damaged_is_refused_and_sent_again(s3: S3) -> None:
    store = create(s3.url(), SMALL)
    write(store, 0)
    s3.log()
    s3.damage(1)
    write(store, 1)
    sent = [line for line in s3.log() if line.endswith("/embedding/c/1/0/0")]
    assert [line.partition(" ")[0] for line in sent] == ["PUT", "PUT"]
    assert check_store(store.url).problems == []


@EITHER
@pytest.mark.parametrize("size", [0, 1, 101 * 2**20])
def test_objects_of_any_size_are_one_request(s3: S3, size: int) -> None:
    objects, data = open_objects(s3.url()), bytes(size)
    s3.log()
    assert objects.put_vouched("a", data, sha256(data))
    assert [line.partition(" ")[0] for line in s3.log()] == ["PUT"]
    assert s3.objects()["train.zarr/a"] == data


@pytest.mark.parametrize("place", ["disk", "memory://vouched/s"])
def test_elsewhere_it_has_to_be_read_back(tmp_path: Path, place: str) -> None:
    objects = open_objects(place if "://" in place else tmp_path / place)
    assert not objects.put_vouched("a", b"1", sha256(b"1"))
    assert objects.get("a") == b"1"
