"""The node-local copy of one array of a complete store: an Arrow IPC file with one record batch.

Columns: the array, a fixed-shape tensor [V, *shape] a row, and `valid`, bool. It holds everything
or a part, see `Selection`, and is mapped into memory by all readers of the node.
"""

import io
import math
import mmap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from egapipe.pipeline.store.copies.pages import Pages
from egapipe.pipeline.store.copies.selection import Selection
from egapipe.pipeline.store.format.dtypes import NUMPY, Stored
from egapipe.pipeline.store.store import FeatureStore

_ARROW = {"float16": pa.float16(), "bfloat16": pa.uint16(), "float32": pa.float32()}


@dataclass(frozen=True)
class Mapped:
    """A mapped copy of a part of an array.

    values: [N * V', D] in the stored type, read-only: N rows in V' views. valid: bool [N]. pages:
    how its bytes come from the disk.
    """

    values: Stored
    valid: npt.NDArray[np.bool_]
    pages: Pages


def map_cache(
    store: FeatureStore, name: str, content: str, path: Path, part: Selection
) -> Mapped | None:
    """Map the copy at `path`. None if there is none, or if it is unreadable or another array's.

    content: the store's content hash. part: what it is a copy of. Its structure is verified, its
    numbers are not: that would read all of it.
    """
    try:
        with path.open("rb") as file:
            # It lives as long as what points into it.
            mapping = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            options = pa.ipc.IpcReadOptions(use_threads=False)
            reader = pa.ipc.open_file(pa.py_buffer(mapping), options=options)
            if not reader.schema.equals(_schema(store, name, content, part), check_metadata=True):
                return None
            batch = reader.get_batch(0)
            # A damaged length aborts the process in what follows, unless it is found here.
            batch.validate()
            if batch.num_rows != store.manifest.rows:
                return None
            values = batch.column(0).storage.flatten().to_numpy(zero_copy_only=True)
            valid = batch.column(1).to_numpy(zero_copy_only=False)
            values = values.reshape(batch.num_rows * len(part.views), -1)
            return Mapped(values, valid, Pages(file.fileno(), mapping, values))
    except (OSError, ValueError, pa.ArrowException):
        return None


def around_values(
    store: FeatureStore, name: str, content: str, part: Selection, valid: npt.NDArray[np.bool_]
) -> tuple[bytes, bytes]:
    """What an IPC file of a part of an array has before and after the array's bytes.

    valid: bool [N]. Arrow writes a record batch from whole buffers, and the array may
    be larger than memory. So it is given a mapping of zeros that is never touched, and a sink that
    leaves it out.
    """
    dtype, rows = store.manifest.dtype, store.manifest.rows
    count = rows * len(part.views) * math.prod(store.manifest.outputs[name])
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | getattr(mmap, "MAP_NORESERVE", 0)
    size = count * NUMPY[dtype].itemsize
    with mmap.mmap(-1, size, flags=flags, prot=mmap.PROT_READ) as zeros:
        sink = _AllBut(pa.py_buffer(zeros))
        schema = _schema(store, name, content, part)
        values = pa.Array.from_buffers(_ARROW[dtype], count, [None, sink.buffer])
        lists = pa.FixedSizeListArray.from_arrays(values, count // rows)
        tensors = pa.ExtensionArray.from_storage(schema.field(0).type, lists)
        batch = pa.record_batch([tensors, pa.array(valid)], schema=schema)
        with pa.ipc.new_file(sink, schema) as writer:
            writer.write_batch(batch)
        # The mapping is closed when nothing of Arrow's points into it.
        del values, lists, tensors, batch
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


def _schema(store: FeatureStore, name: str, content: str, part: Selection) -> pa.Schema:
    manifest = store.manifest
    shape = [len(part.views), *manifest.outputs[name]]
    tensor = pa.fixed_shape_tensor(_ARROW[manifest.dtype], shape)
    fields = [pa.field(name, tensor, nullable=False), pa.field("valid", pa.bool_(), nullable=False)]
    said = {"egapipe.content": content, "egapipe.dtype": manifest.dtype, **part.metadata}
    return pa.schema(fields, said)
