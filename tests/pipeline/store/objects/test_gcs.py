"""gs:// takes the same way as s3://, against an emulator of Google's server."""

import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import gcsfs
import numpy as np
import pytest
from gcp_storage_emulator.server import create_server

from egapipe.pipeline.config.data import FolderSource, ParquetSource, WebDatasetSource
from egapipe.pipeline.datasets import open_dataset
from egapipe.pipeline.errors import StoreError, TrainingError
from egapipe.pipeline.results.runs import folder_at
from egapipe.pipeline.store import Features, FeatureStore, check_store
from egapipe.pipeline.store.objects.location import open_objects
from tests.pipeline.datasets.samples import images, write_parquet, write_tar
from tests.pipeline.store.samples import complete, create, finished, make_manifest, snapshot, write

SMALL = make_manifest(outputs={"embedding": (3,)})


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    server = create_server("127.0.0.1", 0, in_memory=True, default_bucket="bucket")
    server.start()
    host, port = server._api._httpd.server_address
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STORAGE_EMULATOR_HOST", f"http://{host}:{port}")
        # gcsfs would ask Google which kind of bucket it is.
        patch.setenv("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
        gcsfs.GCSFileSystem.clear_instance_cache()
        yield f"http://{host}:{port}"
    gcsfs.GCSFileSystem.clear_instance_cache()
    server.stop()


@pytest.fixture
def url(endpoint: str) -> str:
    return f"gs://bucket/{uuid.uuid4().hex}/train.zarr"


def test_a_store_is_made_continued_and_read(url: str, tmp_path: Path) -> None:
    store = create(url, SMALL)
    write(store, 1)
    assert FeatureStore.open(url).pending() == [0, 2]
    store = complete(create(url, SMALL))
    assert snapshot(store) == snapshot(finished(str(tmp_path / "local"), SMALL))
    assert check_store(url).ok
    taken = Features.open(store).take(np.arange(10), 1)
    assert taken.shape == (10, 3)


def test_objects_are_listed_and_removed(url: str) -> None:
    objects = open_objects(url)
    assert (objects.names(), objects.sizes(), objects.get("a")) == ([], {}, None)
    objects.put("a/b", b"12")
    objects.put("c", b"3")
    assert (objects.names(), objects.folders()) == (["a", "c"], ["a"])
    assert objects.sizes() == {"a/b": 2, "c": 1}
    objects.delete("c")
    objects.delete("c")
    assert list(objects.get_many(["a/b", "c"])) == [b"12", None]


def test_images_and_a_copy_of_a_run(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is read in place, and what a lease and a copy need of a storage."""
    monkeypatch.setenv("EGAPIPE_CACHE", str(tmp_path / "cache"))
    data = images(3)
    objects = open_objects(url)
    tar = write_tar(tmp_path / "x", {f"{n}.png": image for n, image in enumerate(data)})
    table = write_parquet(tmp_path / "y", data, label=[0, 1, 2])
    for key, content in {"t0.tar": tar, "p.parquet": table}.items():
        objects.put(key, content.read_bytes())
    for n, image in enumerate(data):
        objects.put(f"set/{'ab'[n % 2]}/{n}.png", image)
    sources = [
        WebDatasetSource(kind="webdataset", files=[f"{url}/t{{0..0}}.tar"]),
        ParquetSource(kind="parquet", files=[f"{url}/*.parquet"]),
        FolderSource(kind="folder", path=f"{url}/set"),
    ]
    for dataset in map(open_dataset, sources):
        assert sorted(map(dataset.encoded, range(3))) == sorted(data)
        assert dataset.fingerprint() == dataset.fingerprint()
    assert (tmp_path / "cache" / "digests").exists()
    run = folder_at(f"{url}/run")
    with run.exclusive() as held:
        held.write("metrics.jsonl", b"{}")
        held.require_held()
        with pytest.raises(TrainingError), folder_at(f"{url}/run", "read").exclusive():
            raise AssertionError
    there = folder_at(f"{url}/run", "read")
    there.fetch()
    assert there.metrics.read_bytes() == b"{}"
    assert objects.sizes("run") == {"run/metrics.jsonl": 2}


def test_a_bucket_that_is_missing_is_one_line(endpoint: str) -> None:
    with pytest.raises(StoreError) as refused:
        create("gs://none/s", SMALL)
    assert str(refused.value).startswith("cannot ")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(("scheme", "package", "extra"), [("gs", "gcsfs", "gcs"), ("s3",) * 3])
def test_a_client_that_is_not_installed_is_named(scheme: str, package: str, extra: str) -> None:
    package = {"s3": "s3fs"}.get(package, package)
    code = (
        f"import sys; sys.modules[{package!r}] = None\n"
        "from egapipe.pipeline import cli\n"
        f"sys.argv = ['egapipe', 'store', 'info', '{scheme}://bucket/s']\n"
        "cli.main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env=os.environ
    )
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert done.stderr.strip().endswith(f"run `pip install egapipe[{extra}]`")
