"""Counting what a command asks of an object store, and stores of many tiny shards to ask it of."""

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from egapipe.pipeline.store import Commit, FeatureStore
from egapipe.pipeline.store.format import layout
from egapipe.pipeline.store.format.dtypes import NUMPY
from egapipe.pipeline.store.records.record import IMAGES, sha256

_KINDS = {"find": "list", "ls": "list", "cat_file": "read", "pipe_file": "put", "rm_file": "delete"}


class Requests(Counter[tuple[str, str]]):
    """(kind, path) -> how often; kinds are list, read, put and delete."""

    def of(self, kind: str) -> int:
        """How many of a kind."""
        return sum(count for (asked, _), count in self.items() if asked == kind)

    def paths(self, kind: str) -> set[str]:
        """What was asked for by a kind."""
        return {path for asked, path in self if asked == kind}


@contextmanager
def counted() -> Iterator[Requests]:
    """What is asked of `memory://` in a block, the calls within a call left out."""
    found, lock, here = Requests(), threading.Lock(), threading.local()

    def counting(kind: str, plain: Any) -> Any:
        def call(self: Any, path: str = "", *arguments: Any, **named: Any) -> Any:
            depth = getattr(here, "depth", 0)
            if depth == 0:
                with lock:
                    found[kind, str(path)] += 1
            here.depth = depth + 1
            try:
                return plain(self, path, *arguments, **named)
            finally:
                here.depth = depth

        return call

    with pytest.MonkeyPatch.context() as patch:
        for name, kind in _KINDS.items():
            plain = getattr(MemoryFileSystem, name)
            patch.setattr(MemoryFileSystem, name, counting(kind, plain))
        yield found


def fill(store: FeatureStore, digest_of_each: bytes = b"\1" * 32) -> FeatureStore:
    """Write all shards, which hold zeros, past zarr: thousands of them are a matter of a second."""
    manifest = store.manifest
    chunks = {
        name: np.zeros(layout.chunk_shape(manifest, name), NUMPY[manifest.dtype]).tobytes()
        for name in manifest.outputs
    }
    if manifest.dataset.images:
        chunks[IMAGES] = digest_of_each * layout.chunk_shape(manifest, IMAGES)[0]
    checksums = {name: sha256(chunk) for name, chunk in chunks.items()}
    fs, root = MemoryFileSystem(), store.url.removeprefix("memory:/")
    for shard, rows in enumerate(store.shards):
        commit = Commit(
            shard=shard,
            start=rows.start,
            stop=rows.stop,
            sha256=checksums,
            nonfinite=0,
            failures=[],
            seconds={"infer": 0.5},
            host="here",
        )
        for name, chunk in chunks.items():
            fs.pipe_file(f"{root}/{layout.chunk_key(manifest, name, shard)}", chunk)
        fs.pipe_file(f"{root}/{layout.commit_key(shard)}", commit.encode())
    store.finish()
    return store
