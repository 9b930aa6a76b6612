"""The node-local copy of one array of a complete store: an Arrow IPC file with one record batch.

Columns: the array, a fixed-shape tensor [V, *shape] a row, and `valid`, bool. It is written in one
sequential pass over the shards, and mapped into memory by all readers of the node.
"""

import io
import math
import mmap
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from egapipe.pipeline.disk.caches import FEATURES, build_once
from egapipe.pipeline.errors import StoreError
from egapipe.pipeline.store.dtypes import NUMPY, Stored
from egapipe.pipeline.store.store import FeatureStore

_ARROW = {"float16": pa.float16(), "bfloat16": pa.uint16(), "float32": pa.float32()}


@dataclass(frozen=True)
class Mapped:
    """A mapped copy. values: [N * V, D] in the stored type, read-only. valid: bool [N]."""

    values: Stored
    valid: npt.NDArray[np.bool_]


def map_or_build(store: FeatureStore, name: str, content: str, path: Path) -> Mapped:
    """Map the copy at `path`; if there is none, build it, while others who ask for it wait.

    content: the store's content hash. Raises StoreError if the folder cannot be written, or if a
    shard is damaged.
    """
    return build_once(
        FEATURES,
        path,
        partial(map_cache, store, name, content, path),
        partial(_build, store, name, content),
    )


def map_cache(store: FeatureStore, name: str, content: str, path: Path) -> Mapped | None:
    """Map the copy at `path`. None if there is none, or if it is unreadable or another array's.

    Its structure is verified, its numbers are not: that would read all of it.
    """
    manifest = store.manifest
    try:
        options = pa.ipc.IpcReadOptions(use_threads=False)
        reader = pa.ipc.open_file(pa.memory_map(str(path)), options=options)
        if not reader.schema.equals(_schema(store, name, content), check_metadata=True):
            return None
        batch = reader.get_batch(0)
        # A damaged length aborts the process in what follows, unless it is found here.
        batch.validate()
    except (OSError, ValueError, pa.ArrowException):
        return None
    if batch.num_rows != manifest.rows:
        return None
    values = batch.column(0).storage.flatten().to_numpy(zero_copy_only=True)
    valid = batch.column(1).to_numpy(zero_copy_only=False)
    return Mapped(values.reshape(manifest.rows * manifest.view_count, -1), valid)


def _build(store: FeatureStore, name: str, content: str, path: Path) -> None:
    """Write the copy. Memory: one shard, however many there are."""
    found = store.finished()
    # A Features that was pickled may arrive after a shard was done again.
    if found.content_hash() != content:
        raise StoreError(f"store {store.url} has changed since it was opened: start again")
    valid = np.ones(store.manifest.rows, dtype=bool)
    valid[[failure.row for failure in found.failures]] = False
    before, after = _around_values(store, name, content, valid)
    with path.open("wb") as file:
        file.write(before)
        for shard, rows in enumerate(store.shards):
            file.write(store.chunks.read(found.commits[shard], name)[: len(rows)].data)
        file.write(after)


def _around_values(
    store: FeatureStore, name: str, content: str, valid: npt.NDArray[np.bool_]
) -> tuple[bytes, bytes]:
    """What an IPC file of this array has before and after the array's bytes.

    Arrow writes a record batch from whole buffers, and the array may be larger than memory. So it
    is given a mapping of zeros that is never touched, and a sink that leaves it out.
    """
    manifest = store.manifest
    count = manifest.rows * manifest.view_count * math.prod(manifest.outputs[name])
    size = count * NUMPY[manifest.dtype].itemsize
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    with mmap.mmap(-1, size, flags=flags, prot=mmap.PROT_READ) as zeros:
        sink = _AllBut(pa.py_buffer(zeros))
        schema = _schema(store, name, content)
        values = pa.Array.from_buffers(_ARROW[manifest.dtype], count, [None, sink.buffer])
        rows = pa.FixedSizeListArray.from_arrays(values, count // manifest.rows)
        tensors = pa.ExtensionArray.from_storage(schema.field(0).type, rows)
        batch = pa.record_batch([tensors, pa.array(valid)], schema=schema)
        with pa.ipc.new_file(sink, schema) as writer:
            writer.write_batch(batch)
        # The mapping is closed when nothing of Arrow's points into it.
        del values, rows, tensors, batch
        return sink.parts()


class _AllBut(io.RawIOBase):
    """A file that keeps everything written to it but one buffer, and where that one was."""

    def __init__(self, buffer: pa.Buffer) -> None:
        self.buffer = buffer
        self._parts: list[list[bytes]] = [[]]

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        if isinstance(data, pa.Buffer) and data.address == self.buffer.address:
            self._parts.append([])
        else:
            self._parts[-1].append(bytes(data))
        return memoryview(data).nbytes

    def parts(self) -> tuple[bytes, bytes]:
        """Before and after the buffer, which is let go."""
        del self.buffer
        before, after = self._parts
        return b"".join(before), b"".join(after)


def _schema(store: FeatureStore, name: str, content: str) -> pa.Schema:
    manifest = store.manifest
    shape = [manifest.view_count, *manifest.outputs[name]]
    tensor = pa.fixed_shape_tensor(_ARROW[manifest.dtype], shape)
    fields = [pa.field(name, tensor, nullable=False), pa.field("valid", pa.bool_(), nullable=False)]
    return pa.schema(fields, {"egapipe.content": content, "egapipe.dtype": manifest.dtype})
