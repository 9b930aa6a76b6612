"""The layout of a store: a pure function of the manifest, never of the number of workers."""

import json
import math
import re
from collections.abc import Sequence
from typing import Any, overload

import numpy as np

from egapipe.pipeline.store.format.dtypes import NUMPY, not_a_number
from egapipe.pipeline.store.format.manifest import ATTRIBUTE, Manifest
from egapipe.pipeline.store.records.record import IMAGES

GROUP = "zarr.json"
INDEX = "index/index.parquet"
INDEX_GROUPS = 1 << 14
COMMITS = "commits"
CREATED = f"{COMMITS}/created.json"
FINISHED = f"{COMMITS}/finished.json"
FAILURES = "failures.parquet"
COMMIT_TABLE = "commits.parquet"
DIGEST_BYTES = 32
APPENDED = "appended"
COUNTS = "appended.json"

# What makes stored bytes an array; a later zarr may add members that do not.
_MEANING = (
    "zarr_format",
    "node_type",
    "shape",
    "data_type",
    "chunk_grid",
    "chunk_key_encoding",
    "fill_value",
    "codecs",
    "storage_transformers",
)

# What a killed writer leaves: `LocalObjects.put`, and zarr, through which older egapipes wrote
# chunks, write to `<name>.<uuid4 hex>.partial` beside the object and rename it.
_PARTIAL = re.compile(r"(.+)\.[0-9a-f]{32}\.partial")


class Shards(Sequence[range]):
    """The rows of each shard: consecutive, `shard_rows` each, the last one may be shorter."""

    def __init__(self, rows: int, shard_rows: int) -> None:
        self._rows, self._shard_rows = rows, shard_rows

    def __len__(self) -> int:
        return -(-self._rows // self._shard_rows)

    @overload
    def __getitem__(self, place: int) -> range: ...

    @overload
    def __getitem__(self, place: slice) -> list[range]: ...

    def __getitem__(self, place: int | slice) -> range | list[range]:
        if isinstance(place, slice):
            return [self[shard] for shard in range(len(self))[place]]
        start = range(len(self))[place] * self._shard_rows
        return range(start, min(start + self._shard_rows, self._rows))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]


def plan_shards(rows: int, shard_rows: int) -> Shards:
    """The shards of a plan, without a list of them."""
    return Shards(rows, shard_rows)


def index_group_rows(rows: int, shard_rows: int) -> int:
    """Rows of a row group of the index: whole shards, one where there are few."""
    shards = -(-rows // shard_rows)
    return shard_rows * -(-shards // INDEX_GROUPS)


def chunk_shape(manifest: Manifest, name: str) -> tuple[int, ...]:
    """Shape of a stored chunk, (R, V, *shape), of the images' digests (R, 32): one chunk, one
    object, is one shard.

    R is at most N, so that a small data set is not padded to a whole shard.
    """
    return (min(manifest.shard_rows, manifest.rows), *row_shape(manifest, name))


def row_shape(manifest: Manifest, name: str) -> tuple[int, ...]:
    """Shape of what a row has in an array: (V, *shape), of the images' digests (32,)."""
    if _is_digests(manifest, name):
        return (DIGEST_BYTES,)
    return (manifest.view_count, *manifest.outputs[name])


def chunk_dtype(manifest: Manifest, name: str) -> np.dtype[Any]:
    """Of the numbers in a chunk."""
    return np.dtype(np.uint8 if _is_digests(manifest, name) else NUMPY[manifest.dtype])


def fill_value(manifest: Manifest, name: str) -> Any:
    """What rows without a value have, and the padding: NaN, of the images' digests 0."""
    return 0 if _is_digests(manifest, name) else not_a_number(manifest.dtype)


def chunk_bytes(manifest: Manifest, name: str) -> int:
    """Bytes of a stored chunk. The last one is as long as the others: Zarr pads it."""
    return math.prod(chunk_shape(manifest, name)) * chunk_dtype(manifest, name).itemsize


def chunk_key(manifest: Manifest, name: str, shard: int) -> str:
    """Key of a shard's chunk: Zarr's default encoding, `c/<shard>/0/0`."""
    zeros = "/0" * len(row_shape(manifest, name))
    return f"{name}/c/{shard}{zeros}"


def commit_key(shard: int) -> str:
    """Key of a shard's commit record."""
    return f"{COMMITS}/{shard:06d}.json"


def appended_key(number: int) -> str:
    """Key of the record that rows were appended, the number-th time; numbers count from 1."""
    return f"{appended_folder(number)}/{COUNTS}"


def appended_folder(number: int) -> str:
    """Where they lie."""
    return f"{APPENDED}/{number:06d}"


def array_key(name: str) -> str:
    """Key of an array's metadata."""
    return f"{name}/{GROUP}"


def planned_keys(manifest: Manifest) -> set[str]:
    """Every object of a finished store: no more, no less."""
    shards = range(len(plan_shards(manifest.rows, manifest.shard_rows)))
    keys = {GROUP, INDEX, CREATED, FINISHED, FAILURES, COMMIT_TABLE}
    if manifest.dataset.parent is not None:
        keys.add(COUNTS)
    keys |= {array_key(name) for name in manifest.arrays}
    keys |= {commit_key(shard) for shard in shards}
    return keys | {chunk_key(manifest, name, i) for name in manifest.arrays for i in shards}


def leftover_of(key: str) -> str | None:
    """The object whose killed writer left this temporary file; None if it is no such file."""
    match = _PARTIAL.fullmatch(key)
    return match.group(1) if match else None


def array_meaning(document: bytes) -> dict[str, Any] | None:
    """What the `zarr.json` of an array says of its bytes; None if it is no JSON object."""
    try:
        tree = json.loads(document)
    except ValueError:
        return None
    return {name: tree.get(name) for name in _MEANING} if isinstance(tree, dict) else None


def metadata_documents(manifest: Manifest) -> dict[str, bytes]:
    """Key -> bytes of the `zarr.json` of the group and of each array, as zarr writes them.

    They are made in memory and put one by one, because a store that is being created is resumed,
    never overwritten.
    """
    import zarr
    from zarr.core.buffer import Buffer
    from zarr.storage import MemoryStore

    documents: dict[str, Buffer] = {}
    attributes = {ATTRIBUTE: manifest.model_dump(mode="json")}
    group = zarr.create_group(MemoryStore(documents), attributes=attributes)
    for name in manifest.arrays:
        group.create_array(
            name,
            shape=(manifest.rows, *row_shape(manifest, name)),
            chunks=chunk_shape(manifest, name),
            dtype=chunk_dtype(manifest, name),
            fill_value=fill_value(manifest, name),
            filters=None,
            # Embeddings are noise to a compressor, and plain bytes are read at the disk's speed.
            compressors=None,
        )
    return {key: buffer.to_bytes() for key, buffer in documents.items()}


def _is_digests(manifest: Manifest, name: str) -> bool:
    return name == IMAGES and manifest.dataset.images is not None
