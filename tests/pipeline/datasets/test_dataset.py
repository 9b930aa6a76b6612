"""What holds for a data set of any kind."""

import hashlib
import os
import pickle
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from pydantic import TypeAdapter
from sklearn.datasets import load_digits

from egapipe.pipeline.config.data import SourceConfig
from egapipe.pipeline.datasets import Dataset, open_dataset
from tests.pipeline.datasets.samples import (
    images,
    pixels,
    write_folder,
    write_parquet,
    write_tar,
)

KINDS = ("digits", "hub", "parquet", "folder", "webdataset", "several")
ROWS = 30
LABELS = [row % 4 for row in range(ROWS)]
SOURCE: TypeAdapter[SourceConfig] = TypeAdapter(SourceConfig)

REPLAY = """
import hashlib, pickle, sys
dataset = pickle.load(sys.stdin.buffer)
seen = hashlib.sha256(repr((list(dataset.keys), dataset.labels.tolist())).encode())
for row in range(len(dataset)):
    seen.update(dataset.image(row).tobytes())
print(seen.hexdigest(), dataset.fingerprint())
"""


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def source(kind: str, tmp_path: Path) -> dict[str, object]:
    """The configuration of 30 rows of 4 or more classes."""
    data = images(ROWS)
    if kind == "digits":
        return {"kind": "digits", "limit": {"rows": ROWS, "choose": "first"}}
    if kind == "webdataset":
        members = {f"{row}.png": data[row] for row in range(ROWS)}
        members |= {f"{row}.cls": str(label).encode() for row, label in enumerate(LABELS)}
        return {"kind": "webdataset", "files": str(write_tar(tmp_path / "set.tar", members))}
    if kind == "several":
        ends = {"a": (0, 7), "b": (7, ROWS)}
        parts = [
            write_parquet(tmp_path / f"{n}.parquet", data[i:j], label=LABELS[i:j])
            for n, (i, j) in ends.items()
        ]
        sources = [{"kind": "parquet", "files": str(file)} for file in parts]
        return {"kind": "several", "sources": sources}
    if kind == "folder":
        files = {f"c{label}/{row}.png": data[row] for row, label in enumerate(LABELS)}
        return {"kind": "folder", "path": str(write_folder(tmp_path / "set", files))}
    (tmp_path / "set").mkdir()
    file = write_parquet(tmp_path / "set" / "train.parquet", data, label=LABELS)
    if kind == "hub":
        return {"kind": "hub", "name": str(file.parent)}
    return {"kind": "parquet", "files": str(file)}


def opened(source: dict[str, object], **fields: object) -> Dataset:
    return open_dataset(SOURCE.validate_python({**source, **fields}))


def test_every_row_has_a_key_a_label_and_an_image(source: dict[str, object]) -> None:
    dataset = opened(source)
    assert len(dataset) == len(dataset.keys) == len(dataset.labels) == ROWS
    assert len(set(dataset.keys)) == ROWS
    assert dataset.labels.dtype == np.int64
    for row in range(ROWS):
        assert dataset.image(row).mode == "RGB"
        assert dataset.encoded(np.int64(row)) == dataset.encoded(row)  # type: ignore[arg-type]


@pytest.mark.parametrize("limit", [1, 7, ROWS, 10_000])
def test_first_takes_the_first_rows(source: dict[str, object], kind: str, limit: int) -> None:
    whole, part = opened(source), opened(source, limit={"rows": limit, "choose": "first"})
    expected = min(limit, 1437 if kind == "digits" else ROWS)
    assert len(part) == expected
    n = min(expected, ROWS)
    assert list(part.keys[:n]) == list(whole.keys[:n])
    assert part.labels[:n].tolist() == whole.labels[:n].tolist()
    assert part.encoded(n - 1) == whole.encoded(n - 1)
    assert part.classes == whole.classes
    with pytest.raises(IndexError, match=f"row {expected} of data set"):
        part.encoded(expected)
    with pytest.raises(IndexError, match="row -1 of data set"):
        part.image(-1)


def test_another_process_reads_the_same(source: dict[str, object], tmp_path: Path) -> None:
    """A process elsewhere, with caches of its own, as on another node."""
    dataset = opened(source)
    sent = pickle.dumps(dataset)
    assert len(sent) < 2000
    done = subprocess.run(
        [sys.executable, "-c", REPLAY],
        input=sent,
        capture_output=True,
        check=True,
        cwd="/",
        env={**os.environ, "HF_HOME": str(tmp_path / "hf"), "EGAPIPE_CACHE": str(tmp_path / "ega")},
    )
    seen = hashlib.sha256(repr((list(dataset.keys), dataset.labels.tolist())).encode())
    for row in range(ROWS):
        seen.update(dataset.image(row).tobytes())
    assert done.stdout.decode().split() == [seen.hexdigest(), dataset.fingerprint()]


def test_threads_read_at_once(source: dict[str, object]) -> None:
    dataset = opened(source)
    expected = [dataset.image(row).tobytes() for row in range(ROWS)]
    rows = np.random.default_rng(0).integers(0, ROWS, 2000).tolist()
    with ThreadPoolExecutor(8) as pool:
        seen = list(pool.map(lambda row: dataset.image(row).tobytes(), rows))
    assert all(data == expected[row] for data, row in zip(seen, rows, strict=True))


def test_images_are_the_pixels_that_were_stored(source: dict[str, object], kind: str) -> None:
    expected = pixels(0)
    if kind == "digits":
        grey = np.rint(load_digits().images[0] * 255 / 16).astype(np.uint8)
        expected = np.repeat(grey[..., None], 3, axis=2)
    np.testing.assert_array_equal(np.asarray(opened(source).image(0)), expected)


def test_local_files_never_ask_the_network(source: dict[str, object], monkeypatch) -> None:
    asked: list[object] = []

    def refuse(*address: object, **_: object) -> None:
        asked.append(address)
        raise OSError("no network in this test")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    opened(source).fingerprint()
    assert asked == []
