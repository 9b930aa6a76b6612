"""The identity of a data set's content, whatever files it is laid out in."""

import hashlib
import json
import struct
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np

from egapipe.pipeline.datasets.base import Dataset
from egapipe.pipeline.errors import ImageError

METHOD = "egapipe data set fingerprint 1"
"""Changes when the same content would get another fingerprint."""

# Reading waits for the disk more than it computes, so there are more threads than cores.
_THREADS = 8
_CHUNK_ROWS = 256


def fingerprint_of(dataset: Dataset) -> str:
    """SHA-256 (64 hex digits) over each row's key, label, length and SHA-256 of its image's bytes.

    A row without bytes counts as unreadable: repairing it changes the fingerprint. Raises
    MachineError where the machine cannot read one: that is no property of the data.
    """
    digest = hashlib.sha256(METHOD.encode())
    starts = range(0, len(dataset), _CHUNK_ROWS)
    pool = ThreadPoolExecutor(_THREADS)
    try:
        for records in pool.map(partial(_chunk, dataset), starts):
            digest.update(records)
    finally:
        pool.shutdown(cancel_futures=True)
    return digest.hexdigest()


def listing_digest(dataset: Dataset) -> str:
    """SHA-256 (64 hex digits) over what is known before an image is read: keys, labels, classes."""
    digest = hashlib.sha256(json.dumps([len(dataset), dataset.classes]).encode())
    digest.update(np.ascontiguousarray(dataset.label_numbers, dtype="<i8").data)
    for key in dataset.keys:
        digest.update(_key(key))
    return digest.hexdigest()


def _chunk(dataset: Dataset, start: int) -> bytes:
    stop = min(start + _CHUNK_ROWS, len(dataset))
    return b"".join(_record(dataset, row) for row in range(start, stop))


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
