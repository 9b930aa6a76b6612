"""Chunks: the stored embeddings of one shard, one object per array."""

import hashlib
import math
import os
from typing import Any

import numpy as np

from egapipe.pipeline.errors import StoreError
from egapipe.pipeline.store import layout
from egapipe.pipeline.store.create import read_created
from egapipe.pipeline.store.dtypes import NUMPY, Stored, not_a_number
from egapipe.pipeline.store.manifest import Manifest
from egapipe.pipeline.store.objects import Objects
from egapipe.pipeline.store.records import Commit, Created, sha256


class Chunks:
    """Writes chunks through zarr, and reads them as bytes that are hashed and used at once."""

    def __init__(self, objects: Objects, manifest: Manifest, created: Created) -> None:
        self._objects = objects
        self._manifest = manifest
        self._created = created
        self._opened: tuple[int, dict[str, Any]] | None = None

    def write(self, shard: int, rows: range, name: str, block: Stored) -> str:
        """Write the whole chunk of a shard; SHA-256 of its bytes, read back from the store.

        block: [rows, V, *shape] in the stored type. Raises StoreError if the bytes in the store
        are not those of the block.
        """
        key = layout.chunk_key(self._manifest, name, shard)
        with self._objects.explained("write", key):
            self._arrays()[name][rows.start : rows.stop] = block
        # Zarr's local store renames its file without a flush.
        self._objects.flush(key)
        stored = sha256(self._objects.get(key) or b"")
        if stored != self._checksum(name, block):
            raise StoreError(
                f"{self._objects.url}/{key} does not hold what was written: "
                "does another process write this shard?"
            )
        return stored

    def read(self, commit: Commit, name: str) -> Stored:
        """The chunk that a record vouches for: [R, V, *shape] with its padding, read-only.

        Raises StoreError if it is missing or its bytes have not the recorded checksum.
        """
        key = layout.chunk_key(self._manifest, name, commit.shard)
        data = self._objects.get(key)
        if data is None:
            raise StoreError(self._bad(commit.shard, f"{key} is missing"))
        if sha256(data) != commit.sha256[name]:
            raise StoreError(self._bad(commit.shard, f"{key} has not the recorded checksum"))
        if len(data) != layout.chunk_bytes(self._manifest, name):
            raise StoreError(self._bad(commit.shard, f"{key} has {len(data)} bytes"))
        shape = layout.chunk_shape(self._manifest, name)
        return np.frombuffer(data, NUMPY[self._manifest.dtype]).reshape(shape)

    def read_view(self, shard: int, place: int, view: int, name: str) -> Stored:
        """One view of one row, [*shape], by itself: `place` is the row's in its shard.

        Its bytes alone are read, so the chunk's checksum says nothing of them. Raises StoreError if
        they are not there.
        """
        key = layout.chunk_key(self._manifest, name, shard)
        _, views, *shape = layout.chunk_shape(self._manifest, name)
        dtype = NUMPY[self._manifest.dtype]
        length = math.prod(shape) * np.dtype(dtype).itemsize
        start = (place * views + view) * length
        data = self._objects.part(key, start, start + length)
        if data is None:
            raise StoreError(self._bad(shard, f"{key} is missing"))
        if len(data) != length:
            raise StoreError(self._bad(shard, f"{key} ends before row {place}"))
        return np.frombuffer(data, dtype).reshape(shape)

    def _checksum(self, name: str, block: Stored) -> str:
        """SHA-256 of the chunk that a block makes: its numbers, then NaN to the chunk's length."""
        digest = hashlib.sha256(block.data)
        missing = layout.chunk_bytes(self._manifest, name) - block.nbytes
        dtype = self._manifest.dtype
        nan = np.full(1, not_a_number(dtype), NUMPY[dtype]).tobytes()
        digest.update(nan * (missing // len(nan)))
        return digest.hexdigest()

    def _arrays(self) -> dict[str, Any]:
        """The arrays, opened by this process: zarr's threads do not survive a fork."""
        if self._opened is None or self._opened[0] != os.getpid():
            import zarr

            # Zarr believes what these documents say of type and shape.
            for name in self._manifest.outputs:
                read_created(self._objects, self._created, layout.array_key(name))
            store = self._objects.zarr(read_only=False)
            # Zarr would leave out a chunk that is all NaN; here every shard is an object. An array
            # keeps the setting that it was opened with.
            with zarr.config.set({"array.write_empty_chunks": True}):
                arrays = {
                    name: zarr.open_array(store, path=name, mode="r+")
                    for name in self._manifest.outputs
                }
            self._opened = (os.getpid(), arrays)
        return self._opened[1]

    def _bad(self, shard: int, what: str) -> str:
        record = layout.commit_key(shard)
        return (
            f"shard {shard} of store {self._objects.url} is damaged: {what}: "
            f"delete {record} there and run `egapipe extract` again to redo the shard"
        )

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_opened": None}
