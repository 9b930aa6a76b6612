"""S3 through obstore: whom it asks, and that it says and does what s3fs does."""

import hashlib
import io
import os
from collections.abc import Iterator
from pathlib import Path

import botocore.session
import pytest
from fsspec.config import conf

from egapipe.pipeline.locations import buckets
from egapipe.pipeline.locations import s3 as through
from egapipe.pipeline.locations.buckets import address_of, region_of
from egapipe.pipeline.locations.clients import Client, FsspecClient, client_of
from egapipe.pipeline.locations.remote import RemoteError, read_range
from egapipe.pipeline.locations.s3 import S3Client
from egapipe.pipeline.locations.trouble import code
from egapipe.pipeline.store.objects import remote
from egapipe.pipeline.store.objects.location import open_objects
from tests.objectstore import S3, either_client, environment, s3, s3_server

__all__ = ["either_client", "s3", "s3_server"]

pytest.importorskip("obstore")


@pytest.fixture
def client(either_client: str, s3: S3) -> Client:
    """The one that is asked for."""
    found = client_of(s3.url("p"))[0]
    assert isinstance(found, S3Client) == (either_client == "obstore")
    return found


def path_of(s3: S3, key: str) -> str:
    return client_of(s3.url(key))[1]


KEYS = ["a", "b/c", "b/d e", "b/%20ü#?{}'.zarr", "b-", "z/y/x"]


def test_both_clients_list_the_same(s3: S3, client: Client) -> None:
    for key in KEYS:
        client.put(path_of(s3, f"p/{key}"), key.encode())
    # As some tools make folders; and one beside the prefix.
    for empty in ("p/", "p/b/", "px"):
        s3.client().put_object(Bucket=s3.bucket, Key=empty, Body=b"")
    objects = open_objects(s3.url("p"))
    assert objects.sizes() == {key: len(key.encode()) for key in KEYS}
    assert objects.sizes("b") == {key: len(key.encode()) for key in KEYS if key[:2] == "b/"}
    assert (objects.names(), objects.folders()) == (["a", "b", "b-", "z"], ["b", "z"])
    assert {key: client.get(path_of(s3, f"p/{key}")).decode() for key in KEYS} == dict(
        zip(KEYS, KEYS, strict=True)
    )
    assert objects.sizes("none") == {}


def test_both_clients_read_the_same_parts(s3: S3, client: Client) -> None:
    url = s3.url("p/k")
    client.put(path_of(s3, "p/k"), b"01234")
    parts = [(0, 2), (3, 5), (4, 99), (0, 0), (5, 9), (77, 78)]
    assert [read_range(url, *part) for part in parts] == [b"01", b"34", b"4", b"", b"", b""]
    with pytest.raises(FileNotFoundError):
        read_range(s3.url("p/none"), 0, 1)
    with pytest.raises(RemoteError, match=r"s3://no-such-bucket/k: .*bucket does not exist"):
        read_range("s3://no-such-bucket/k", 0, 1)


def test_both_clients_create_once_and_delete_what_is_gone(s3: S3, client: Client) -> None:
    path = path_of(s3, "p/k")
    assert client.create(path, b"first")
    assert not client.create(path, b"second")
    assert client.get(path) == b"first"
    client.delete(path)
    client.delete(path)
    with pytest.raises(FileNotFoundError):
        client.get(path)


def test_a_large_file_is_put_in_parts_and_once(
    s3: S3, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "_WHOLE", 0)
    # S3 takes no smaller parts but the last.
    monkeypatch.setattr(through, "_PART", 5 << 20)
    data = bytes(range(256)) * (24 << 10)
    objects = open_objects(s3.url("p"))
    s3.log()
    assert objects.create_from("k", io.BytesIO(data))
    sent = [line.partition(" ")[0] for line in s3.log()]
    assert sent.count("POST") == (2 if isinstance(client, S3Client) else 0)
    assert not objects.create_from("k", io.BytesIO(b"6"))
    assert objects.get("k") == data


def test_a_busy_server_is_asked_again(s3: S3, client: Client) -> None:
    path = path_of(s3, "p/k")
    client.put(path, b"1")
    s3.fail(2)
    assert client.get(path) == b"1"


def test_what_a_server_says_is_one_line_with_its_code(s3: S3, either_client: str) -> None:
    with environment({**s3.environment, "AWS_MAX_ATTEMPTS": "1"}):
        found, path = client_of(s3.url("k"))
        s3.fail(20)
        with pytest.raises(OSError, match="Please reduce your request rate") as refused:
            found.get(path)
        s3.fail(0)
    assert code(refused.value) == "SlowDown"
    assert "\n" not in str(refused.value)


def test_an_object_whose_tag_is_no_checksum_is_asked_for_its_checksum(s3: S3) -> None:
    """As of objects that are encrypted with a key."""
    found, path = client_of(s3.url("k"))
    assert isinstance(found, S3Client)
    data = b"12345"
    # The tests' server keeps the checksums of those alone who name the algorithm as well.
    s3.client().put_object(Bucket=s3.bucket, Key="k", Body=data, ChecksumAlgorithm="SHA256")
    tagged = S3Client(Untagged(), found._checksum)
    assert tagged.put_vouched(path, data, hashlib.sha256(data).hexdigest())
    assert not tagged.put_vouched(path, data, "0" * 64)


class Untagged:
    """A store of obstore that has been told everything already, and has tags of its own."""

    def put(self, *arguments: object, **options: object) -> dict[str, str]:
        del arguments, options
        return {"e_tag": '"0-1"'}


VIRTUAL = "[default]\ns3 =\n  addressing_style = virtual\n"
SERVICE = "[default]\nservices = mine\n[services mine]\ns3 =\n  endpoint_url = https://s3.here\n"


@pytest.mark.parametrize(
    ("variables", "file", "address"),
    [
        ({}, "", ("https://s3.example", False, "us-east-1")),
        ({"AWS_DEFAULT_REGION": "eu-west-1"}, "", ("https://s3.example", False, "eu-west-1")),
        ({}, VIRTUAL, ("https://bucket.s3.example", True, "us-east-1")),
        (
            {"AWS_ENDPOINT_URL_S3": "http://10.0.0.1:9"},
            "",
            ("http://10.0.0.1:9", False, "us-east-1"),
        ),
        ({"AWS_ENDPOINT_URL": ""}, SERVICE, ("https://s3.here", False, "us-east-1")),
    ],
    ids=["environment", "region", "virtual", "service", "profile"],
)
def test_a_bucket_is_where_botocore_says(
    variables: dict[str, str], file: str, address: tuple[str, bool, str], tmp_path: Path
) -> None:
    (tmp_path / "config").write_text(file)
    given = {"AWS_ENDPOINT_URL": "https://s3.example", "AWS_CONFIG_FILE": f"{tmp_path}/config"}
    with environment({**given, **variables}):
        assert address_of(botocore.session.get_session(), "bucket") == address


def test_the_variables_count_as_botocore_counts_them(s3: S3, either_client: str) -> None:
    """obstore by itself takes the one and not the other."""
    away = {"AWS_ENDPOINT_URL": "http://127.0.0.1:9", "AWS_ENDPOINT_URL_S3": s3.endpoint}
    with environment({**s3.environment, **away}):
        objects = open_objects(s3.url("p"))
        objects.put("k", either_client.encode())
        assert objects.get("k") == either_client.encode()


def test_the_region_of_a_bucket_is_asked_for(s3: S3) -> None:
    there = {"LocationConstraint": "eu-central-1"}
    name = f"{s3.bucket}-eu"
    s3.client().create_bucket(Bucket=name, CreateBucketConfiguration=there)
    assert region_of(s3.client(), name) == "eu-central-1"
    assert region_of(s3.client(), f"{name}-none") is None


@pytest.fixture
def configured() -> Iterator[None]:
    """As by a file of fsspec's own configuration."""
    conf["s3"] = {"anon": True}
    yield
    del conf["s3"]


@pytest.mark.usefixtures("configured")
def test_settings_of_fsspec_count(s3: S3) -> None:
    assert isinstance(client_of(s3.url("k"))[0], FsspecClient)


def test_keys_that_are_no_paths_are_left_to_fsspec(s3: S3) -> None:
    for key in ("a//b", "../a", "./a"):
        found, path = client_of(s3.url(key))
        assert isinstance(found, FsspecClient)
        assert path == f"{s3.bucket}/{key}"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_forked_process_does_not_wait_for_threads_that_it_has_not(s3: S3) -> None:
    found, path = client_of(s3.url("k"))
    assert isinstance(found, S3Client)
    found.put(path, b"1")
    child = os.fork()
    if not child:
        mine, here = client_of(s3.url("k"))
        os._exit(isinstance(mine, FsspecClient) and mine.get(here) == b"1")
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1
    assert client_of(s3.url("k"))[0] is buckets.client_of(s3.url("k"))[0]  # type: ignore[index]
