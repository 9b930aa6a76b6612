"""Data sets at URLs: the same rows as on a disk, and a storage's trouble is none of theirs."""

import pickle
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
import s3fs
from pydantic import TypeAdapter

from egapipe.pipeline.config.data import FolderSource, ParquetSource, SourceConfig, WebDatasetSource
from egapipe.pipeline.datasets import Dataset, open_dataset
from egapipe.pipeline.datasets.decoding import reading
from egapipe.pipeline.disk.paths import cache_dir
from egapipe.pipeline.errors import EgapipeError, ImageError, MachineError, UsageError
from tests.objectstore import S3, SECRET, environment, s3, s3_server, serve_s3
from tests.pipeline.datasets.samples import images, write_folder, write_parquet, write_tar

__all__ = ["s3", "s3_server"]

DATA = images(8)
Make = Callable[[str], SourceConfig]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "PAUSES", (0.0,))


def put(s3: S3, folder: Path, prefix: str = "set") -> str:
    """Upload a folder; its URL."""
    for file in (path for path in folder.rglob("*") if path.is_file()):
        key = f"{prefix}/{file.relative_to(folder)}"
        s3.client().put_object(Bucket=s3.bucket, Key=key, Body=file.read_bytes())
    return s3.url(prefix)


def tars(place: str) -> SourceConfig:
    return WebDatasetSource(kind="webdataset", files=[f"{place}/t{{000..003}}.tar"])


def table(place: str) -> SourceConfig:
    return ParquetSource(kind="parquet", files=[f"{place}/p*.parquet"])


def folder(place: str) -> SourceConfig:
    return FolderSource(kind="folder", path=place)


def make_set(path: Path) -> Path:
    """Tars, parquet with and without bytes, and folders of classes, one of them without images."""
    for n in range(4):
        rows = range(2 * n, 2 * n + 2)
        members = {f"{row}.png": DATA[row] for row in rows}
        path.mkdir(exist_ok=True)
        write_tar(path / f"t{n:03d}.tar", members | {f"{r}.cls": b"%d" % r for r in rows})
    write_folder(path, {f"{'ab'[row % 2]}/{row}.png": DATA[row] for row in range(6)})
    write_folder(
        path, {"6.PNG": DATA[6], "c/notes.txt": b"", ".hidden/7.png": b"", "a/.x.png": b""}
    )
    write_parquet(path / "p0.parquet", DATA[:3], label=[0, 1, 2])
    write_parquet(path / "p1.parquet", [None, DATA[4]], ["b/3.png", None], label=[3, 4])
    return path


def seen(dataset: Dataset) -> list[Any]:
    rows = range(len(dataset))
    content = [dataset.encoded(row) for row in rows]
    return [list(dataset.keys), dataset.labels.tolist(), dataset.classes, dataset.name, content]


@pytest.mark.parametrize("make", [tars, table, folder])
def test_a_set_is_the_same_here_and_there(s3: S3, tmp_path: Path, make: Make) -> None:
    here = open_dataset(make(str(make_set(tmp_path / "set"))))
    there = open_dataset(make(put(s3, tmp_path / "set")))
    assert seen(there) == seen(here)
    assert there.fingerprint() == here.fingerprint()
    assert there.notes == here.notes


@pytest.mark.parametrize("make", [tars, table, folder])
def test_threads_and_processes_read_the_same(s3: S3, tmp_path: Path, make: Make) -> None:
    there = open_dataset(make(put(s3, make_set(tmp_path / "set"))))
    expected = seen(there)[-1]
    rows = [row % len(there) for row in range(24)]
    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(there.encoded, rows)) == [expected[row] for row in rows]
    # A forked process has the client's connections and threads of this one, and uses neither.
    with ProcessPoolExecutor(3, get_context("fork")) as pool:
        assert list(pool.map(_read, [there] * 6, rows[:6])) == [expected[row] for row in rows[:6]]


def _read(dataset: Dataset, row: int) -> bytes:
    return dataset.encoded(row)


def test_what_was_found_is_remembered_until_an_object_is_replaced(s3: S3, tmp_path: Path) -> None:
    place = put(s3, make_set(tmp_path / "set"))
    before = {make: open_dataset(make(place)).fingerprint() for make in (tars, table, folder)}
    s3.log()
    again = {make: open_dataset(make(place)).fingerprint() for make in (tars, table, folder)}
    assert again == before
    # Of tars and images nothing is read: their states are enough.
    read = [line for line in s3.log() if line.startswith("GET") and line.count("/") > 2]
    assert [line for line in read if ".parquet" not in line] == []
    # The same size, and by the clock of a server that counts seconds perhaps the same time.
    other = DATA[0].replace(DATA[0][60:64], bytes(4), 1)
    members = {"0.png": other, "1.png": DATA[1], "0.cls": b"0", "1.cls": b"1"}
    changed = write_tar(tmp_path / "x", members)
    client = s3.client()
    client.put_object(Bucket=s3.bucket, Key="set/t000.tar", Body=changed.read_bytes())
    client.put_object(Bucket=s3.bucket, Key="set/a/0.png", Body=other)
    assert open_dataset(tars(place)).fingerprint() != before[tars]
    assert open_dataset(folder(place)).fingerprint() != before[folder]
    assert open_dataset(table(place)).fingerprint() == before[table]


def test_many_files_of_a_folder_are_looked_at_by_listing_it(s3: S3, tmp_path: Path) -> None:
    names = [f"a/{n:02d}.png" for n in range(40)]
    place = put(s3, write_folder(tmp_path / "set", dict.fromkeys(names, DATA[0])))
    dataset = open_dataset(folder(place))
    known = dataset.fingerprint()
    s3.log()
    assert open_dataset(folder(place)).fingerprint() == known
    assert len(s3.log()) <= 4


def test_a_parquet_file_that_is_replaced_while_it_is_open(s3: S3, tmp_path: Path) -> None:
    dataset = open_dataset(table(put(s3, make_set(tmp_path / "set"))))
    other = write_parquet(tmp_path / "x", images(3, 50), label=[0, 1, 2])
    s3.client().put_object(Bucket=s3.bucket, Key="set/p0.parquet", Body=other.read_bytes())
    with pytest.raises(MachineError, match=r"p0.parquet was replaced since it was opened"):
        dataset.image(0)


def test_a_server_that_goes_away_is_the_machines_trouble(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_set(tmp_path / "set")
    # The client's own patience, twenty seconds a request.
    monkeypatch.setattr(s3fs.S3FileSystem, "retries", 1)
    with serve_s3() as server, environment(server.environment | {"AWS_MAX_ATTEMPTS": "1"}):
        server.client().create_bucket(Bucket=server.bucket)
        place = put(server, tmp_path / "set")
        opened = [open_dataset(make(place)) for make in (tars, table, folder)]
        server.stop()
        for dataset in opened:
            with pytest.raises(MachineError, match="that is the machine's trouble") as found:
                dataset.image(0)
            assert SECRET not in str(found.value)
            with pytest.raises(MachineError):
                dataset.fingerprint()
        for make in (tars, table, folder):
            with pytest.raises(EgapipeError) as said:
                open_dataset(make(place))
            assert not isinstance(said.value, ImageError)
            assert "\n" not in str(said.value)
    assert not list(cache_dir().glob("digests/*"))


def test_a_server_that_is_busy_is_asked_again(s3: S3, tmp_path: Path) -> None:
    dataset = open_dataset(folder(put(s3, make_set(tmp_path / "set"))))
    s3.fail(2)
    assert dataset.encoded(0) == DATA[6]


def test_what_is_missing_or_cut_off_there(s3: S3, tmp_path: Path) -> None:
    place = put(s3, make_set(tmp_path / "set"))
    opened = [open_dataset(make(place)) for make in (tars, folder)]
    client = s3.client()
    whole = (tmp_path / "set" / "t000.tar").read_bytes()
    for size in (0, 600):
        client.put_object(Bucket=s3.bucket, Key="set/t000.tar", Body=whole[:size])
        with pytest.raises(ImageError, match=r"the file ends .* before the image does"):
            opened[0].encoded(0)
        with pytest.raises(UsageError, match=r"t000.tar is truncated"):
            open_dataset(tars(place))
    for key in ("set/t000.tar", "set/6.PNG"):
        client.delete_object(Bucket=s3.bucket, Key=key)
    for dataset in opened:
        with pytest.raises(ImageError, match="the file cannot be read: No such file"):
            dataset.encoded(0)
    client.put_object(Bucket=s3.bucket, Key="set/6.PNG", Body=b"")
    with pytest.raises(ImageError, match="the file is empty"):
        opened[1].image(0)
    with pytest.raises(UsageError, match=r"tar s3://\S*t000.tar cannot be read: No such file"):
        open_dataset(tars(place))


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ({"kind": "webdataset", "files": "{set}/x*.tar"}, "no tar matches s3://"),
        ({"kind": "parquet", "files": "{set}/x*.parquet"}, "no parquet file matches"),
        ({"kind": "parquet", "files": "{set}/a/0.png"}, "is not a readable parquet file"),
        ({"kind": "folder", "path": "{set}/x"}, "is not there"),
        ({"kind": "folder", "path": "s5://x"}, "Protocol not known"),
        ({"kind": "folder", "path": "s3://$LOGIN@x/y"}, "stands for credentials"),
    ],
)
def test_mistakes_in_one_line(
    s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: dict[str, str], said: str
) -> None:
    monkeypatch.setenv("LOGIN", "key:hush")
    place = put(s3, write_folder(tmp_path / "set", {"a/0.png": DATA[0]}))
    fields = {name: text.replace("{set}", place) for name, text in source.items()}
    with pytest.raises(UsageError, match=said) as caught:
        open_dataset(TypeAdapter(SourceConfig).validate_python(fields))
    assert "\n" not in str(caught.value)
    assert "hush" not in str(caught.value)


OUTSIDE = ("../secret.png", "/etc/hostname", "a/../../secret.png", "%2e%2e/x")


@pytest.mark.parametrize("path", OUTSIDE)
def test_rows_of_a_table_there_name_no_file_outside_it(s3: S3, tmp_path: Path, path: str) -> None:
    write_folder(tmp_path / "set", {})
    (tmp_path / "set").mkdir()
    write_parquet(tmp_path / "set" / "p0.parquet", [None], [path], label=[0])
    place = put(s3, tmp_path / "set")
    with pytest.raises(UsageError, match="not below the table's folder"):
        open_dataset(table(place))
    for other in ("http://127.0.0.1/x", "file:///etc/hostname"):
        write_parquet(tmp_path / "set" / "p0.parquet", [None], [other], label=[0])
        put(s3, tmp_path / "set")
        with pytest.raises(UsageError, match="of another storage"):
            open_dataset(ParquetSource(kind="parquet", files=f"{place}/p0.parquet", outside=True))


def test_a_pickle_carries_no_secret(s3: S3, tmp_path: Path) -> None:
    place = put(s3, make_set(tmp_path / "set"))
    for make in (tars, table, folder):
        sent = pickle.dumps(open_dataset(make(place)))
        assert SECRET.encode() not in sent
        assert seen(pickle.loads(sent))[-1]  # noqa: S301
