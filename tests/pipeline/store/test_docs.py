"""docs/store.md: every block is run, or compared with what is stored."""

import json
import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
import zarr
from pydantic import TypeAdapter
from typer.testing import CliRunner

from egapipe.pipeline.store import Commit, Failure, FeatureStore, Manifest
from egapipe.pipeline.store.command import register
from egapipe.pipeline.store.format import layout
from egapipe.pipeline.store.records.record import Created, Finished
from tests.pipeline.store import test_growth as growth
from tests.pipeline.store.samples import (
    create,
    finished,
    make_arrays,
    make_digests,
    make_manifest,
)

PAGE = Path(__file__).resolve().parents[3] / "docs" / "store.md"
BLOCKS: list[tuple[str, str]] = re.findall(r"^```(\w*)\n(.*?)^```$", PAGE.read_text(), re.M | re.S)


def blocks(language: str) -> list[str]:
    return [text for name, text in BLOCKS if name == language]


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FeatureStore:
    """stores/quickstart/train.zarr in the working folder, with a failed row."""
    monkeypatch.chdir(tmp_path)
    manifest = make_manifest(outputs={"embedding": (3,)}, images=True)
    store = create("stores/quickstart/train.zarr", manifest)
    for shard, rows in enumerate(store.shards):
        failures = [Failure(6, "train/6", "no image")] if 6 in rows else []
        digests = make_digests(manifest, rows)
        arrays = make_arrays(manifest, rows)
        store.write_shard(shard, arrays, failures=failures, images=digests)
    store.finish()
    return store


def test_every_block_is_of_a_kind_that_is_tested() -> None:
    assert {name for name, _ in BLOCKS} == {"text", "json", "python", "sh"}
    assert PAGE.read_text().count("```") == 2 * len(BLOCKS)


def test_the_objects_are_those_of_a_store(store: FeatureStore) -> None:
    (text,) = blocks("text")
    listed = [line.split()[0] for line in text.splitlines()]
    assert sorted(listed) == sorted(store.objects.sizes())
    assert set(listed) == layout.planned_keys(store.manifest)


def test_the_records_are_records() -> None:
    manifest, created, commit, finished = blocks("json")
    whole: Manifest = TypeAdapter(Manifest).validate_python(json.loads(manifest))
    assert list(json.loads(manifest)) == list(Manifest.model_fields)
    assert whole.view_count == 5
    for kind, text in ((Created, created), (Commit, commit), (Finished, finished)):
        assert kind.decode(text.encode(), "docs/store.md").encode() == text.encode()


def test_every_member_of_the_manifest_is_described() -> None:
    rows = re.findall(r"^\| `(\w+)` \|", PAGE.read_text(), re.M)
    assert rows == list(Manifest.model_fields)


def test_the_python_runs(store: FeatureStore) -> None:
    """In reading order, in one namespace."""
    namespace: dict[str, Any] = {}
    for text in blocks("python"):
        exec(compile(text, str(PAGE), "exec"), namespace)  # noqa: S102
    assert namespace["features"].path.exists()
    assert FeatureStore.open("stores/mine.zarr").complete


def test_plain_zarr_reads_what_was_appended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    url = "stores/quickstart/train.zarr"
    finished(url, growth.manifest_of(4))
    for rows in (5, 8, 10):
        store = growth.append(url, rows)
    [text] = [text for text in blocks("python") if "appended.json" in text]
    first = zarr.open_group(url, mode="r")["embedding"]
    namespace = {"Path": Path, "json": json, "np": np, "zarr": zarr}
    namespace |= {"embedding": first, "shard_rows": 3}
    exec(compile(text, str(PAGE), "exec"), namespace)  # noqa: S102
    expected = np.concatenate([store.read_shard(shard) for shard in range(4)])
    np.testing.assert_array_equal(namespace["embedding"], expected)


def test_the_reader_notices_damage(store: FeatureStore) -> None:
    """The assertions of the page are worth something."""
    text = next(text for text in blocks("python") if "def record" in text)
    namespace: dict[str, Any] = {}
    exec(compile(blocks("python")[0], str(PAGE), "exec"), namespace)  # noqa: S102
    for key in sorted(layout.planned_keys(store.manifest)):
        data = store.objects.get(key) or b""
        store.objects.put(key, data[:-3] + bytes([data[-3] ^ 1]) + data[-2:])
        with pytest.raises(AssertionError):
            exec(compile(text, str(PAGE), "exec"), namespace)  # noqa: S102
        store.objects.put(key, data)
    exec(compile(text, str(PAGE), "exec"), namespace)  # noqa: S102


def test_the_commands_run(store: FeatureStore) -> None:
    app = typer.Typer()
    register(app)
    for line in "".join(blocks("sh")).splitlines():
        program, *arguments = shlex.split(line)
        assert program == "egapipe"
        ended = CliRunner().invoke(app, arguments)
        assert ended.exit_code == 0
        assert store.url in ended.stdout
