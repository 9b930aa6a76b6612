"""Small files that are damaged, or made to be: a StoreError or UsageError of one line."""

import io
import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from egapipe.pipeline.datasets.decoding.reading import read_slice
from egapipe.pipeline.datasets.files.tarscan import scan
from egapipe.pipeline.datasets.files.zips import Zip
from egapipe.pipeline.disk.files import json_object, read_json_object
from egapipe.pipeline.errors import EgapipeError, ImageError
from egapipe.pipeline.results.experiment import RECORD, read_experiment
from egapipe.pipeline.results.runs import RunFolder
from egapipe.pipeline.results.tracking import read_metrics
from egapipe.pipeline.store.format.index import decode_index
from egapipe.pipeline.store.format.manifest import manifest_of
from egapipe.pipeline.store.records.failures import decode_failures, encode_failures
from egapipe.pipeline.store.records.record import Commit, Created, Failure, Finished
from tests.fuzz import file_reader, read_members

DEEP = b"[" * 100_000
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda below: st.lists(below) | st.dictionaries(st.text(), below),
    max_leaves=8,
)
COMMIT = Commit(shard=0, start=0, stop=1, sha256={}, nonfinite=0, failures=[], seconds={}, host="")


def records() -> st.SearchStrategy[bytes]:
    """Anything, any JSON, and a commit record of which one member is something else."""
    tree = COMMIT.model_dump(mode="json")
    changed = st.builds(lambda key, value: {**tree, key: value}, st.sampled_from([*tree]), JSON)
    manifest = st.builds(lambda value: {"attributes": {"egapipe": value}}, JSON)
    return st.binary() | st.one_of(JSON, changed, manifest).map(lambda v: json.dumps(v).encode())


READERS: dict[str, Callable[[bytes], object]] = {
    "commit": lambda data: Commit.decode(data, "x"),
    "created": lambda data: Created.decode(data, "x"),
    "finished": lambda data: Finished.decode(data, "x"),
    "manifest": lambda data: manifest_of(data, "x"),
    "index": lambda data: decode_index(data, "x"),
    "failures": lambda data: decode_failures(data, "x"),
    "object": lambda data: json_object(data, "x"),
}


@pytest.mark.parametrize("reader", READERS)
@settings(max_examples=100, deadline=None)
@example(data=DEEP)
@example(data=b'{"a":' * 100_000)
@example(data=b'{"failures": [[]]}')
@given(data=records())
def test_a_damaged_file_is_one_line(reader: str, data: bytes) -> None:
    said = "one line"
    try:
        READERS[reader](data)
    except EgapipeError as error:
        said = str(error)
    assert len(said.splitlines()) == 1


@settings(max_examples=100, deadline=None)
@example(tail=b"\0" * 4096 + b"\n")
@example(tail=DEEP + b"\n")
@example(tail=b'{"loss": 1}\n')
@given(tail=st.binary())
def test_metrics_are_read_up_to_the_first_bad_line(
    tail: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    run = RunFolder(tmp_path_factory.mktemp("run"))
    run.metrics.write_bytes(b'{"epoch": 0, "loss": 1.0}\n' + tail)
    assert read_metrics(run)[0] == {"epoch": 0, "loss": 1.0}


def sample_zip() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a/x.txt", "hello")
    return file.getvalue()


TABLE = encode_failures([Failure(1, "key", "reason")])
ZIP = sample_zip()
read_zip = file_reader("a.zip", read_members)


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_a_changed_byte_of_a_table_or_a_zip_is_one_line(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.getbasetemp()
    for whole, read in (
        (TABLE, lambda changed: decode_failures(changed, "x")),
        (ZIP, lambda changed: read_zip(changed, folder)),
    ):
        changed = bytearray(whole)
        for _ in range(data.draw(st.integers(1, 3))):
            place = data.draw(st.integers(0, len(whole) - 1))
            changed[place] = data.draw(st.integers(0, 255))
        said = "one line"
        try:
            read(bytes(changed))
        except EgapipeError as error:
            said = str(error)
        assert len(said.splitlines()) == 1


@pytest.mark.parametrize("name", [RECORD, "comparison.json"])
def test_a_comparison_that_was_cut_off_is_one_line(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text('{"cells": [')
    with pytest.raises(EgapipeError, match="is damaged") as caught:
        read_experiment(str(tmp_path))
    assert len(str(caught.value).splitlines()) == 1


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "summary.json")
    with pytest.raises(EgapipeError, match="no regular file"):
        read_json_object(tmp_path / "summary.json")


def test_an_archive_or_a_slice_of_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a")
    for read in (lambda path: scan(path, None, "label"), Zip, lambda path: read_slice(path, 0, 1)):
        with pytest.raises(EgapipeError, match="no regular file"):
            read(tmp_path / "a")


def test_a_zip_that_names_a_place_before_its_start_is_bad_content(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    with pytest.raises(ImageError, match="are no image"):
        read_slice(tmp_path / "a", -1, 2)
