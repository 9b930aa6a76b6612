"""Chunks: the stored embeddings of one shard, one object per array."""

import math

import numpy as np

from egapipe.pipeline.errors import StoreError
from egapipe.pipeline.store.create import read_created
from egapipe.pipeline.store.format import layout
from egapipe.pipeline.store.format.dtypes import NUMPY, Stored
from egapipe.pipeline.store.format.manifest import Manifest
from egapipe.pipeline.store.objects.base import Objects
from egapipe.pipeline.store.records.record import Commit, Created, sha256


class Chunks:
    """Writes chunks and reads them as bytes: that is all that a chunk of Zarr without codecs is."""

    def __init__(self, objects: Objects, manifest: Manifest, created: Created) -> None:
        self._objects = objects
        self._manifest = manifest
        self._created = created
        self._verified = False

    def write(self, shard: int, name: str, block: Stored) -> str:
        """Write the whole chunk of a shard; SHA-256 of its bytes, as they are in the store.

        block: [rows, V, *shape] in the stored type. They are read back, unless the store vouches
        for them. Raises StoreError if the bytes in the store are not those of the block.
        """
        self._require_metadata()
        key = layout.chunk_key(self._manifest, name, shard)
        data = self._bytes(name, block)
        digest = sha256(data)
        vouched = self._objects.put_vouched(key, data, digest)
        if not vouched and sha256(self._objects.get(key) or b"") != digest:
            raise StoreError(
                f"{self._objects.named(key)} does not hold what was written: "
                "does another process write this shard?"
            )
        return digest

    def read(self, commit: Commit, name: str) -> Stored:
        """The chunk that a record vouches for: [R, V, *shape] with its padding, read-only.

        Raises StoreError if it is missing or its bytes have not the recorded checksum.
        """
        key = layout.chunk_key(self._manifest, name, commit.shard)
        data = self._objects.get(key)
        if data is None:
            raise StoreError(self._bad(commit.shard, f"{self._objects.located(key)} is missing"))
        if sha256(data) != commit.sha256[name]:
            raise StoreError(
                self._bad(
                    commit.shard, f"{self._objects.located(key)} has not the recorded checksum"
                )
            )
        if len(data) != layout.chunk_bytes(self._manifest, name):
            raise StoreError(
                self._bad(commit.shard, f"{self._objects.located(key)} has {len(data)} bytes")
            )
        shape = layout.chunk_shape(self._manifest, name)
        return np.frombuffer(data, layout.chunk_dtype(self._manifest, name)).reshape(shape)

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
            raise StoreError(self._bad(shard, f"{self._objects.located(key)} is missing"))
        if len(data) != length:
            raise StoreError(
                self._bad(shard, f"{self._objects.located(key)} ends before row {place}")
            )
        return np.frombuffer(data, dtype).reshape(shape)

    def digest(self, name: str, block: Stored) -> str:
        """SHA-256 of the chunk that a block makes, without writing it."""
        return sha256(self._bytes(name, block))

    def _bytes(self, name: str, block: Stored) -> bytes:
        """The chunk that a block makes: its numbers, then what fills it to the chunk's length."""
        missing = layout.chunk_bytes(self._manifest, name) - block.nbytes
        dtype = layout.chunk_dtype(self._manifest, name)
        fill = np.full(1, layout.fill_value(self._manifest, name), dtype).tobytes()
        return block.tobytes() + fill * (missing // len(fill))

    def _require_metadata(self) -> None:
        """Whoever reads by zarr believes what these documents say of type and shape: they are read
        once before the first chunk is written. Raises StoreError."""
        if not self._verified:
            for name in self._manifest.arrays:
                read_created(self._objects, self._created, layout.array_key(name))
        self._verified = True

    def _bad(self, shard: int, what: str) -> str:
        record = self._objects.located(layout.commit_key(shard))
        return (
            f"shard {shard} of store {self._objects.url} is damaged: {what}: "
            f"delete {record} there and run `egapipe extract` again to redo the shard"
        )
