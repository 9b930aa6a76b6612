"""Who may use an object store: credentials come from the environment and go nowhere."""

import errno
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from egapipe.pipeline.config import load_config
from egapipe.pipeline.errors import StoreError, UsageError
from egapipe.pipeline.store import Features, FeatureStore, check_store
from egapipe.pipeline.store.find import find_stores
from egapipe.pipeline.store.objects.location import open_objects
from egapipe.pipeline.store.objects.remote import RemoteObjects
from egapipe.stages import distill
from tests.objectstore import S3, SECRET, either_client, environment, s3, s3_server
from tests.pipeline.store.samples import create, finished, make_manifest, write
from tests.pipeline.store.test_command import app

__all__ = ["either_client", "s3", "s3_server"]

EITHER = pytest.mark.usefixtures("either_client")

SMALL = make_manifest(outputs={"embedding": (3,)})
INSIDE = [
    f"s3://AKIA:{SECRET}@bucket/stores",
    "s3://AKIA:digits@bucket/stores",
    f"simplecache::s3://AKIA:{SECRET}@bucket/stores",
    f"https://me:{SECRET}@host.example/stores",
    f"https://host.example/stores?X-Amz-Signature={SECRET}",
]


@pytest.mark.parametrize("url", INSIDE)
def test_a_url_that_holds_credentials_is_refused_and_not_repeated(url: str, tmp_path: Path) -> None:
    store = load_config("quickstart").store.model_copy(update={"url": url})
    runs = {"store": store, "runs": str(tmp_path / "runs")}
    unchecked = load_config("quickstart").model_copy(update=runs)
    for act in (
        lambda: load_config("quickstart", [f"store.url={url}"]),
        lambda: open_objects(url),
        lambda: create(url, SMALL),
        lambda: list(find_stores(url)),
        lambda: distill.run(unchecked),
    ):
        with pytest.raises(UsageError) as refused:
            act()
        said = str(refused.value)
        assert "leave" in said
        assert not any(part in said for part in (SECRET, "AKIA", "digits", "example", "\n"))
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    "url", ["s3://bucket/a@b", "abfs://container@account.host/p", "/a:b@c?d", "file:///a:b@c?d"]
)
def test_other_uses_of_those_signs_are_none(url: str) -> None:
    assert open_objects(url).url == url.removeprefix("file://")


@EITHER
def test_secrets_are_in_nothing_that_is_written_or_printed(
    s3: S3, tmp_path: Path, cache: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    store = finished(s3.url("stores/train.zarr"), SMALL)
    Features.open(store)
    for arguments in (["info", s3.url("stores")], ["check", store.url], ["info", s3.url("none")]):
        CliRunner().invoke(app, ["store", *arguments])
    with pytest.raises(StoreError) as raised:
        FeatureStore.open(s3.url("none"))
    printed = "".join(capfd.readouterr()) + repr(store) + str(raised.value)
    written = [path.read_bytes() for path in cache.rglob("*") if path.is_file()]
    assert len(written) == 2
    assert len(s3.objects()) == 13
    for data in (printed.encode(), *written, *s3.objects().values()):
        assert SECRET.encode() not in data
        assert b"AKIDTESTS" not in data


@EITHER
def test_who_may_only_read_reads_and_is_told_so_when_writing(s3: S3) -> None:
    store = create(s3.url(), SMALL)
    write(store, 0)
    with s3.authorization() as reader, environment({**s3.environment, **reader}):
        assert not check_store(s3.url()).problems
        mine = FeatureStore.open(s3.url())
        assert mine.read_shard(0).shape == (4, 2, 3)
        assert mine.read_view(3, 1).tobytes() == mine.read_shard(0)[3, 1].tobytes()
        for act in (lambda: write(mine, 1), lambda: create(s3.url("other"), SMALL)):
            with pytest.raises(StoreError) as refused:
                act()
            assert "let the environment's credentials write there" in one_line(refused)
        with pytest.raises(StoreError) as refused:
            mine.objects.delete("commits/000000.json")
        assert "let the environment's credentials delete there" in one_line(refused)
    assert mine.pending() == [1, 2]


@EITHER
@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"AWS_ACCESS_KEY_ID": "AKIDUNKNOWN"}, "let the environment's credentials read there"),
        ({"AWS_SECRET_ACCESS_KEY": "wrong"}, "let the environment's credentials read there"),
    ],
    ids=["unknown", "wrong"],
)
def test_wrong_credentials_are_one_line(s3: S3, changes: dict[str, str], said: str) -> None:
    create(s3.url(), SMALL)
    with s3.authorization() as reader, environment({**s3.environment, **reader, **changes}):
        with pytest.raises(StoreError) as refused:
            FeatureStore.open(s3.url())
        assert said in one_line(refused)


@EITHER
def test_a_store_that_may_not_be_read_hides_no_other(s3: S3) -> None:
    for name in ("hidden", "shown"):
        finished(s3.url(f"stores/{name}.zarr"), SMALL)
    keys = [f"stores/{key}" for key in ("zarr.json", "commits/*", "shown.zarr/*")]
    with s3.authorization(keys) as reader, environment({**s3.environment, **reader}):
        shown = CliRunner().invoke(app, ["store", "info", s3.url("stores"), "--json"])
    assert shown.exit_code == 1
    (store,) = shown.stdout.splitlines()
    assert json.loads(store)["url"] == s3.url("stores/shown.zarr")
    (error,) = shown.stderr.splitlines()
    assert error.startswith(f"error: cannot read {s3.url('stores/hidden.zarr')}/")


@EITHER
def test_no_credentials_are_one_line(s3: S3) -> None:
    found = {name: v for name, v in s3.environment.items() if "KEY" not in name}
    nowhere = {"AWS_SHARED_CREDENTIALS_FILE": "/nowhere", "AWS_CONFIG_FILE": "/nowhere"}
    with environment({**found, **nowhere}), pytest.raises(StoreError) as refused:
        FeatureStore.open(s3.url())
    assert "set credentials in the environment" in one_line(refused)


@EITHER
def test_a_bucket_that_is_missing_is_one_line(s3: S3) -> None:
    with pytest.raises(StoreError, match="no store at s3://none/s: run"):
        FeatureStore.open("s3://none/s")
    with pytest.raises(StoreError) as refused:
        create("s3://none/s", SMALL)
    assert one_line(refused).endswith("create the bucket, or set another store.url")


@EITHER
def test_an_endpoint_where_nothing_answers_is_one_line(s3: S3) -> None:
    away = {"AWS_ENDPOINT_URL": f"http://me:{SECRET}@127.0.0.1:9", "AWS_MAX_ATTEMPTS": "1"}
    with environment({**s3.environment, **away}), pytest.raises(StoreError) as refused:
        FeatureStore.open(s3.url())
    assert "the endpoint and credentials in the environment" in one_line(refused)


def test_a_user_in_an_endpoint_is_not_printed() -> None:
    error = OSError(f"Could not connect to http://me:{SECRET}@host.example/b")
    said = str(RemoteObjects("s3://b/s").failure("read", "s3://b/s/k", error))
    assert "Could not connect to http://host.example/b: check store.url" in said


def test_a_full_bucket_and_other_reasons_come_with_what_to_do() -> None:
    error = OSError(errno.EIO, "the request\nfailed")
    said = str(RemoteObjects("s3://b/s").failure("write", "s3://b/s/k", error))
    assert said.startswith("cannot write s3://b/s/k: the request failed: check store.url")


def test_a_fault_of_the_program_is_no_trouble_of_the_place() -> None:
    """And every client's own exceptions, which are no OSErrors, are one."""
    import aiohttp
    import botocore.exceptions
    from gcsfs.retry import HttpError, validate_response
    from google.auth.exceptions import DefaultCredentialsError

    place = RemoteObjects("gs://b/s")
    faults = [TypeError, AttributeError, KeyError, NameError, ValueError, RuntimeError]
    for fault in faults:
        with pytest.raises(fault, match=r"^'?x'?$"), place.explained("read", "k"):
            raise fault("x")
    for trouble in (
        OSError("x"),
        TimeoutError("x"),
        aiohttp.ClientPayloadError("x"),
        botocore.exceptions.NoCredentialsError(),
        botocore.exceptions.ClientError({"Error": {"Code": "SlowDown"}}, "GetObject"),
        HttpError({"code": 429, "message": "x"}),
        DefaultCredentialsError("x"),
        NotImplementedError("x"),
    ):
        with pytest.raises(StoreError), place.explained("read", "k"):
            raise trouble
    # Of gcsfs, for an answer that it does not know.
    with pytest.raises(StoreError, match="Bad Request"), place.explained("read", "k"):
        validate_response(400, b'{"error": "invalid"}', "k")


@EITHER
def test_a_bucket_that_cannot_be_one_is_one_line(s3: S3) -> None:
    objects = open_objects("s3://no_bucket!")
    for act in (
        objects.folders,
        objects.sizes,
        lambda: objects.get("k"),
        lambda: objects.put("k", b"1"),
        lambda: objects.create("k", b"1"),
    ):
        with pytest.raises(StoreError) as refused:
            act()
        assert "no_bucket!" in one_line(refused)


def test_a_place_that_can_only_be_read_is_one_line() -> None:
    with pytest.raises(StoreError, match="cannot write http://"):
        open_objects("http://127.0.0.1:9/s").put("k", b"1")


def one_line(refused: pytest.ExceptionInfo[StoreError]) -> str:
    said = str(refused.value)
    assert "\n" not in said
    assert SECRET not in said
    return said
