"""Bytes of files that travel, changed at random: every reader gives a result or one line.

`make fuzz SECONDS=120` fuzzes each reader that long and prints a line a reader; a failure prints
the seed and number of the input, which make it again.
"""

import argparse
import io
import json
import tempfile
import time
import traceback
import zipfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from itertools import count
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from safetensors.torch import save

from egapipe.pipeline.config import syntax
from egapipe.pipeline.config.data import ArraysSource, ParquetSource
from egapipe.pipeline.datasets import open_dataset
from egapipe.pipeline.datasets.files.tarscan import scan
from egapipe.pipeline.datasets.files.zips import Zip
from egapipe.pipeline.errors import EgapipeError, ImageError
from egapipe.pipeline.results.experiment import Cell, Experiment, Setting, read_experiment
from egapipe.pipeline.results.former import TRIALS
from egapipe.pipeline.results.runs import RunFolder
from egapipe.pipeline.results.tracking import read_metrics
from egapipe.pipeline.store.format.index import decode_index
from egapipe.pipeline.store.format.manifest import manifest_of
from egapipe.pipeline.store.records.failures import decode_failures, encode_failures
from egapipe.pipeline.store.records.record import Commit, Failure
from egapipe.stages.distill.model.spec import shapes_in
from egapipe.stages.distill.training.checkpoint import Checkpoints, Position
from egapipe.stages.export.folder import FORMAT, read_config
from egapipe.stages.extract.importing.embeddings import read_embeddings
from egapipe.stages.report.pages.comparison import comparison_sections
from egapipe.stages.report.pages.sweep import sweep_sections
from tests.pipeline.datasets.archives import tarred


class Reader(NamedTuple):
    """whole: a sound file. read: the reader, given changed bytes and a folder of its own."""

    whole: bytes
    read: Callable[[bytes, Path], object]


def changed(whole: bytes, random: np.random.Generator) -> bytes:
    """The bytes with one to four changes: others, cut, doubled, or words a parser trips over."""
    data = bytearray(whole)
    for _ in range(random.integers(1, 5)):
        place = int(random.integers(0, len(data) + 1))
        length = int(random.integers(1, 17))
        match random.integers(6):
            case 0:
                data[place : place + 1] = random.bytes(1)
            case 1:
                data[place : place + length] = random.bytes(length)
            case 2:
                del data[place:]
            case 3:
                del data[place : place + length]
            case 4:
                data[place:place] = data[place : place + 4 * length]
            case _:
                data[place : place + length] = _WORDS[random.integers(len(_WORDS))]
        if not data:
            break
    return bytes(data)


_WORDS = (
    b"null", b"-1", b"1e999", b"NaN", b"[]", b"{}", b'""', b"[" * 5000, b"9" * 5000, b'"\\ud800"',
    b"\0" * 16, b"\xff" * 8, b"\xff\xff\xff\x7f", b"../../x", b"true", b"0.5", b"9" * 30,
)  # fmt: skip


def file_reader(name: str, read: Callable[[Path], object]) -> Callable[[bytes, Path], object]:
    """A reader of a file of this name."""

    def written(data: bytes, folder: Path) -> object:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
        return read(folder / name)

    return written


def _zip() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/x.txt", "hello " * 20)
    return file.getvalue()


def read_members(path: Path) -> None:
    """Every member of a zip."""
    opened = Zip(path)
    for name in opened.names:
        opened.read(name)


def _npy() -> bytes:
    file = io.BytesIO()
    np.save(file, np.ones((4, 3), np.float32))
    return file.getvalue()


def _parquet(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    data: bytes = sink.getvalue().to_pybytes()
    return data


def _images() -> bytes:
    kind = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    rows = [{"bytes": b"x", "path": "a.png"}, {"bytes": None, "path": "b.png"}]
    columns = {"img": pa.array(rows, kind), "label": ["cat", "dog"], "key": ["a", "b"]}
    return _parquet(pa.table(columns))


def _read_images(path: Path) -> None:
    """Every row of a data set of images."""
    dataset = open_dataset(ParquetSource(kind="parquet", files=[str(path)], key_column="key"))
    for row in range(len(dataset)):
        with suppress(ImageError):
            dataset.encoded(row)


def _read_arrays(path: Path) -> None:
    dataset = open_dataset(ArraysSource(kind="arrays", files=[str(path)]))
    for row in range(min(len(dataset), 4)):
        with suppress(ImageError):
            dataset.array(row)


def _experiment() -> bytes:
    """The record of a sweep with a trial in every state that has a value or a reason."""
    settings = [Setting(name=f"lr={lr}", label=f"lr={lr}", changes={_LR: lr}) for lr in (0.1, 0.2)]
    cells = [
        Cell(number=0, setting="lr=0.1", seed=0, state="done", value=50.0, epoch=2, epochs=2),
        Cell(number=1, setting="lr=0.2", seed=0, state="failed", error="x", epochs=2),
    ]
    known = {"kind": "sweep", "name": "x", "metric": "test/top1", "mode": "max", "planned": 2}
    record = Experiment.model_validate({**known, "settings": settings, "cells": cells})
    return record.model_dump_json().encode()


def _page(path: Path) -> object:
    """What a report says of the experiment in a file's folder."""
    folder = path.parent
    (folder / TRIALS).mkdir(exist_ok=True)
    (folder / "config.yaml").write_text(
        "name: x\ndataset:\n  train: {kind: digits}\nteacher: {backend: transformers, model: m}\n",
        "utf-8",
    )
    recorded = read_experiment(str(folder))
    if recorded.experiment.kind == "comparison":
        return comparison_sections(recorded)
    return sweep_sections(recorded)


_LR = "distill.lr"
# As an egapipe wrote them that had no experiment.json.
_TRAINED = {"student": "s", "seed": 0, "run": "../s", "top1": 50.0, "seconds": 1.0}
_COMPARISON = {"name": "x", "confidence": 0.95, "rows": [],
               "cells": [{**_TRAINED, "variant": v} for v in ("ce", "ega")]}  # fmt: skip
_TRIAL = {"number": 0, "changes": {_LR: 0.1}, "status": "failed", "epochs": 0, "total": 1,
          "value": None, "run": "trials/0000", "error": "x"}  # fmt: skip
_SWEEP = {"name": "x", "metric": "top1", "mode": "max", "best": 0, "concurrent": 1, "seconds": 1.0,
          "trials": [_TRIAL]}  # fmt: skip
_SPEC = {**FORMAT, "student": {"name": "resnet8", "args": {}}, "features": 64, "dim": 8,
         "classes": 10, "class_names": None, "size": [8, 8],
         "normalize": {"mean": [0.5] * 3, "std": [0.5] * 3}}  # fmt: skip
_COMMIT = Commit(shard=0, start=0, stop=1, sha256={}, nonfinite=0, failures=[], seconds={}, host="")
_FAILURES = encode_failures([Failure(1, "key", "reason")])
_STORE = Path(__file__).parent / "golden/stores/golden/test.zarr"


def readers() -> dict[str, Reader]:
    """Every reader by name."""
    pointer = json.dumps({"folder": "epoch00001-step0000000"}).encode()
    return {
        "npy": Reader(_npy(), file_reader("a.npy", lambda f: read_embeddings(str(f)))),
        "experiment": Reader(_experiment(), file_reader("experiment.json", _page)),
        "older comparison": Reader(
            json.dumps(_COMPARISON).encode(), file_reader("comparison.json", _page)
        ),
        "older sweep": Reader(json.dumps(_SWEEP).encode(), file_reader("summary.json", _page)),
        "error": Reader(
            b'{"error": "x", "identity": "y"}',
            file_reader("error.json", lambda f: RunFolder(f.parent).read_json("error.json")),
        ),
        "checkpoint": Reader(
            json.dumps(asdict(Position())).encode(),
            file_reader("c/epoch00001-step0000000/state.json", _position),
        ),
        "pointer": Reader(
            pointer, file_reader("c/last.json", lambda f: Checkpoints(f.parent).find("last"))
        ),
        "commit": Reader(_COMMIT.encode(), lambda data, _: Commit.decode(data, "x")),
        "manifest": Reader(
            (_STORE / "zarr.json").read_bytes(), lambda data, _: manifest_of(data, "x")
        ),
        "index": Reader(
            next((_STORE / "index").iterdir()).read_bytes(), lambda data, _: decode_index(data, "x")
        ),
        "failures": Reader(_FAILURES, lambda data, _: decode_failures(data, "x")),
        "parquet": Reader(
            _parquet(pa.table({"embedding": [[1.0, 2.0]], "key": ["a"]})),
            file_reader("a.parquet", lambda f: read_embeddings(str(f))),
        ),
        "parquet images": Reader(_images(), file_reader("a.parquet", _read_images)),
        "npy arrays": Reader(_npy(), file_reader("a.npy", _read_arrays)),
        "parquet arrays": Reader(
            _parquet(pa.table({"x": [[1.0, 2.0], [3.0, 4.0]]})),
            file_reader("a.parquet", _read_arrays),
        ),
        "safetensors": Reader(
            save({"a": torch.ones(2, 2)}), file_reader("a.safetensors", shapes_in)
        ),
        "tar": Reader(
            tarred({"a.jpg": b"x", "a.cls": b"1", "b.jpg": b"y", "b.json": b'{"label": 2}'}),
            file_reader("a.tar", lambda f: scan(f, None, "label")),
        ),
        "zip": Reader(_zip(), file_reader("a.zip", read_members)),
        "export": Reader(json.dumps(_SPEC).encode(), file_reader("config.json", read_config)),
        "metrics": Reader(
            b'{"epoch": 0, "loss": 1.0}\n{"epoch": 1, "loss": 0.5}\n',
            file_reader("metrics.jsonl", lambda f: read_metrics(RunFolder(f.parent))),
        ),
        "yaml": Reader(
            b'a: &x {b: 1, c: [1, 2]}\nd: *x\ne: !!int 3\nf: "x"\n', lambda data, _: _yaml(data)
        ),
    }


def _position(path: Path) -> object:
    checkpoints = path.parent.parent
    (checkpoints / "last.json").write_text('{"folder": "epoch00001-step0000000"}', "utf-8")
    return Checkpoints(checkpoints).position()


def _yaml(data: bytes) -> object:
    try:
        return syntax.parse(data.decode("utf-8", "replace"))
    except ValueError as error:
        # What `config.files` makes of it.
        raise EgapipeError(str(error)) from None


def falls_out(reader: Reader, data: bytes, folder: Path) -> str | None:
    """What a reader raised that is no error of one line; None where all is well."""
    try:
        reader.read(data, folder)
    except EgapipeError as error:
        return None if len(str(error).splitlines()) == 1 else f"several lines: {error}"
    except Exception:
        return traceback.format_exc(limit=-3)
    return None


def fuzz(reader: Reader, seconds: float, most: float, seed: int = 0) -> tuple[int, dict[str, str]]:
    """Inputs tried until the seconds or the `most` inputs are over; what fell out, by its place."""
    found: dict[str, str] = {}
    end = time.monotonic() + seconds
    with tempfile.TemporaryDirectory() as folder:
        for number in count():
            if number >= most or time.monotonic() > end:
                return number, found
            random = np.random.default_rng([seed, number])
            said = falls_out(reader, changed(reader.whole, random), Path(folder))
            if said is not None:
                found.setdefault(said[-300:], f"seed {seed}, input {number}: {said}")
    raise AssertionError("counting does not end")


def main() -> None:
    """Fuzz every reader, or those that are named, and print a line each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="readers; default all")
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    known = readers()
    for name in options.names or known:
        tried, found = fuzz(known[name], options.seconds, float("inf"), options.seed)
        print(f"| {name} | {options.seconds:.0f} | {tried:,} | {len(found)} |", flush=True)
        for said in found.values():
            print(said, flush=True)


if __name__ == "__main__":
    main()
