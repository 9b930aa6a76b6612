"""The identity of a data set's content, whatever files it is laid out in.

There are two. The cheap one covers what is listed, keys and labels; beside it each image has a
digest of its own, and each shard of a store a digest of these, which those compute who read the
images anyway. The other covers everything at once, and whoever asks for it reads all images first:
stores of older egapipes are known by it.
"""

import hashlib
import json
import struct
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Protocol

import numpy as np
import numpy.typing as npt

from egapipe.pipeline.datasets.base import Dataset, Images, Labels
from egapipe.pipeline.errors import ImageError
from egapipe.pipeline.keys import BLOCK

METHOD = "egapipe data set fingerprint 1"
"""Changes when the same content would get another fingerprint."""

LISTING_METHOD = "egapipe data set listing 1"
"""As METHOD, of what is listed."""
DIGESTS_METHOD = "egapipe image digests 1"
"""Changes when what is remembered of images would be another."""

# Reading waits for the disk more than it computes, so there are more threads than cores.
_THREADS = 8
_CHUNK_ROWS = 256
_DIGEST_BYTES = 32


class Listed(Protocol):
    """What the cheap identity covers, see `Dataset`."""

    @property
    def keys(self) -> Sequence[str]:
        """See `Images`."""
        ...

    @property
    def label_numbers(self) -> Labels:
        """See `Dataset`."""
        ...

    def __len__(self) -> int: ...


def fingerprint_of(dataset: Dataset, rows: int | None = None) -> str:
    """SHA-256 (64 hex digits) over each row's key, label, length and SHA-256 of its image's bytes.

    rows: how many, from the first on; None for all.
    A row without bytes counts as unreadable: repairing it changes the fingerprint. Raises
    MachineError where the machine cannot read one: that is no property of the data.
    """
    digest = hashlib.sha256(METHOD.encode())
    for records in _by_chunks(
        partial(_chunk, dataset), range(len(dataset) if rows is None else rows)
    ):
        digest.update(records)
    return digest.hexdigest()


def listing_fingerprint(dataset: Listed) -> str:
    """SHA-256 (64 hex digits) over number, keys and labels of the rows: no image is read.

    After METHOD and N come, of every 65,536 rows, the lengths of the keys, their UTF-8 and the
    labels, numbers as int64.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    digest = hashlib.sha256(LISTING_METHOD.encode() + struct.pack("<q", len(dataset)))
    for start in range(0, len(dataset), BLOCK):
        block = dataset.keys[start : start + BLOCK]
        lengths = pc.binary_length(pa.array(block, pa.large_string())).to_numpy()
        digest.update(np.ascontiguousarray(lengths, "<i8").data)
        digest.update("".join(block).encode())
        labels = dataset.label_numbers[start : start + BLOCK]
        digest.update(np.ascontiguousarray(labels, "<i8").data)
    return digest.hexdigest()


def digests_of(dataset: Images, rows: Sequence[int]) -> npt.NDArray[np.uint8]:
    """[n, 32]: the SHA-256 of the bytes of some images; zeros where there are none to be read.

    Raises MachineError where the machine cannot read one.
    """
    found = b"".join(_by_chunks(partial(_digests, dataset), rows))
    return np.frombuffer(found, np.uint8).reshape(len(rows), _DIGEST_BYTES)


def image_digests(dataset: Images, rows: int) -> list[bytes]:
    """For every `rows` rows the SHA-256 (32 bytes) over the digests of their images, see
    `digests_of`; the last ones are filled with zeros to as many, or to all rows if there are less.

    It is what a store of shards of as many rows has as checksum of each chunk of its array
    `images`. Reads every image.
    """
    size, pending, found = min(rows, len(dataset)) * _DIGEST_BYTES, bytearray(), list[bytes]()
    for digests in _by_chunks(partial(_digests, dataset), range(len(dataset))):
        pending += digests
        while len(pending) >= size:
            found.append(hashlib.sha256(pending[:size]).digest())
            del pending[:size]
    if pending:
        found.append(hashlib.sha256(pending.ljust(size, b"\0")).digest())
    return found


def encode_digests(digests: Sequence[bytes]) -> bytes:
    """What is remembered of them: they vouch for themselves."""
    joined = b"".join(digests)
    return hashlib.sha256(joined).digest() + joined


def decode_digests(data: bytes) -> list[bytes] | None:
    """None for bytes that are no digests."""
    joined = data[_DIGEST_BYTES:]
    if hashlib.sha256(joined).digest() != data[:_DIGEST_BYTES]:
        return None
    return [joined[i : i + _DIGEST_BYTES] for i in range(0, len(joined), _DIGEST_BYTES)]


def listing_digest(dataset: Dataset) -> str:
    """SHA-256 (64 hex digits) over what is known before an image is read: keys, labels, classes."""
    digest = hashlib.sha256(json.dumps([len(dataset), dataset.classes]).encode())
    digest.update(np.ascontiguousarray(dataset.label_numbers, dtype="<i8").data)
    for key in dataset.keys:
        digest.update(_key(key))
    return digest.hexdigest()


def _by_chunks(read: Callable[[Sequence[int]], bytes], rows: Sequence[int]) -> Iterator[bytes]:
    """What is read of some rows, in their order, a part at a time."""
    parts = (rows[start : start + _CHUNK_ROWS] for start in range(0, len(rows), _CHUNK_ROWS))
    pool = ThreadPoolExecutor(_THREADS)
    try:
        yield from pool.map(read, parts)
    finally:
        pool.shutdown(cancel_futures=True)


def _digests(dataset: Images, rows: Sequence[int]) -> bytes:
    return b"".join(_digest(dataset, row) for row in rows)


def _digest(dataset: Images, row: int) -> bytes:
    try:
        return hashlib.sha256(dataset.encoded(row)).digest()
    except ImageError:
        return bytes(_DIGEST_BYTES)


def _chunk(dataset: Dataset, rows: Sequence[int]) -> bytes:
    return b"".join(_record(dataset, row) for row in rows)


def _record(dataset: Dataset, row: int) -> bytes:
    """Length-prefixed, so that no two different rows give the same record."""
    head = _key(dataset.keys[row]) + struct.pack("<q", int(dataset.label_numbers[row]))
    try:
        data = dataset.encoded(row)
    except ImageError:
        return head + struct.pack("<q", -1)
    return head + struct.pack("<q", len(data)) + hashlib.sha256(data).digest()


def _key(key: str) -> bytes:
    data = key.encode()
    return struct.pack("<q", len(data)) + data
