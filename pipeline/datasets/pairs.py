"""Pairs of rows by their keys: a parquet file with the columns `first`, `second`[, `score`]."""

import hashlib
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from egapipe.pipeline.datasets.files.datafile import open_data
from egapipe.pipeline.disk.digests import cached_digest
from egapipe.pipeline.errors import UsageError, one_line
from egapipe.pipeline.locations.urls import absolute_url

FIRST, SECOND, SCORE = "first", "second", "score"
_FORMAT = "egapipe pairs 1"
_LARGEST = float(np.finfo(np.float32).max)


class Pairs(NamedTuple):
    """The E pairs of a file, in its order.

    first, second: large_string [E], keys. scores: float64 [E], 1 where the file has none.
    """

    first: pa.Array
    second: pa.Array
    scores: npt.NDArray[np.float64]

    @property
    def digest(self) -> str:
        """SHA-256 of all that they say, 64 hex digits: however the file is written."""
        digest = hashlib.sha256(_FORMAT.encode())
        for keys in (self.first, self.second):
            lengths = pc.binary_length(keys).to_numpy(zero_copy_only=False)
            digest.update(lengths.astype("<i8").tobytes())
            digest.update(_bytes(keys))
        digest.update(self.scores.astype("<f8").tobytes())
        return digest.hexdigest()


def read_pairs(place: str) -> Pairs:
    """The pairs at a path or URL.

    Raises UsageError, in one line, for a file that is not there, is none of parquet, has no pairs,
    lacks a column, or a key, or whose scores are not all finite numbers; MachineError for a storage
    that cannot be used.
    """
    where = f"dataset.pairs: {place}"
    table = _table(place, where)
    if table.num_rows == 0:
        raise UsageError(f"{where} has no pairs: name another file, or leave dataset.pairs out")
    first, second = (_keys(table.column(name), name, where) for name in (FIRST, SECOND))
    if SCORE in table.column_names:
        return Pairs(first, second, _scores(table.column(SCORE), where))
    return Pairs(first, second, np.ones(len(first)))


def pairs_digest(place: str) -> str:
    """The `digest` of the pairs at a path or URL, computed once a node for as long as it stays.

    Raises as `read_pairs`.
    """
    return cached_digest([absolute_url(place)], _FORMAT, lambda: read_pairs(place).digest)


def _table(place: str, where: str) -> pa.Table:
    """The columns that count."""
    try:
        with open_data(absolute_url(place)) as opened:
            file = pq.ParquetFile(opened, pre_buffer=False)
            names = file.schema_arrow.names
            missing = [name for name in (FIRST, SECOND) if name not in names]
            if missing:
                raise UsageError(
                    f"{where} has no column {missing[0]!r}: it has {', '.join(names) or 'none'}, "
                    "and needs first and second"
                )
            wanted = [name for name in (FIRST, SECOND, SCORE) if name in names]
            twice = [name for name in wanted if names.count(name) > 1]
            if twice:
                raise UsageError(f"{where} has the column {twice[0]!r} twice: leave one of them")
            return file.read(wanted, use_threads=False)
    except FileNotFoundError:
        raise UsageError(f"{where} is not there: check its path") from None
    # Arrow has errors of its own, and some of Python's.
    except (OSError, ValueError, pa.ArrowException) as error:
        raise UsageError(f"{where} is no readable parquet file: {one_line(error)}") from None


def _keys(column: pa.ChunkedArray, name: str, where: str) -> pa.Array:
    """large_string [E]."""
    column = _plain(column)
    kind = column.type
    if pa.types.is_null(kind) or column.null_count:
        row = pc.index(column.is_null(), True).as_py()
        raise UsageError(f"{where}: {name} has no key in row {row}")
    if not (_is_text(kind) or pa.types.is_integer(kind)):
        raise UsageError(f"{where}: {name} holds {kind}, keys are text or integers")
    keys = column.cast(pa.large_string()).combine_chunks()
    try:
        keys.validate(full=True)
    except pa.ArrowInvalid:
        raise UsageError(f"{where}: {name} holds text that is no UTF-8") from None
    return keys


def _scores(column: pa.ChunkedArray, where: str) -> npt.NDArray[np.float64]:
    column = _plain(column)
    kind = column.type
    number = pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)
    if not (number or pa.types.is_null(kind)):
        raise UsageError(f"{where}: score holds {kind}, scores are numbers")
    scores = np.asarray(column.cast(pa.float64()).fill_null(np.nan), dtype=np.float64)
    wrong = np.flatnonzero(~(np.abs(scores) <= _LARGEST))
    if len(wrong):
        row = int(wrong[0])
        found: Any = column[row].as_py()
        raise UsageError(
            f"{where}: score is {'null' if found is None else found} in row {row}, scores are "
            "finite numbers: leave such pairs out"
        )
    return scores


def _plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Without a dictionary."""
    if pa.types.is_dictionary(column.type):
        return column.cast(column.type.value_type)
    return column


def _is_text(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    )


def _bytes(keys: pa.Array) -> memoryview:
    """The UTF-8 of all keys, one behind the other."""
    _, offsets, data = keys.buffers()
    ends = np.frombuffer(offsets, np.int64)[keys.offset : keys.offset + len(keys) + 1]
    return memoryview(b"" if data is None else data)[ends[0] : ends[-1]]
