"""Commits: the records of all shards of a finished store as one table, `commits.parquet`.

A command on a store of many shards reads this one object in place of a record a shard. It adds
nothing to them: `finished.json` names the content that its checksums make, so that it counts only
where it is of the same shards; every record has the last word.
"""

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from egapipe.pipeline.disk.parquet import read_parquet
from egapipe.pipeline.errors import StoreError, one_line
from egapipe.pipeline.store.records.record import Commit, Failure

_CHECKSUM = "egapipe.checksum"
_NO_CHECKSUM = "0" * 64
# Parquet keeps the text of a file's metadata as it is, behind its name.
_WRITTEN = re.compile(re.escape(_CHECKSUM).encode() + rb".{1,8}?([0-9a-f]{64})", re.DOTALL)
_DIGEST = pa.binary(32)
# A column that the first tables did not have.
_LATER = "computed"


class Commits(Mapping[int, Commit]):
    """Shard -> its record, made of a row of the table when it is asked for."""

    def __init__(self, table: pa.Table, failures: Sequence[Failure]) -> None:
        self.failures = list(failures)
        self._table = table
        self._rows = np.array([failure.row for failure in failures], dtype=np.int64)

    def __getitem__(self, shard: int) -> Commit:
        if not 0 <= shard < len(self):
            raise KeyError(shard)
        [row] = self._table.slice(shard, 1).to_pylist()
        first, last = np.searchsorted(self._rows, [row["start"], row["stop"]])
        return Commit(
            shard=row["shard"],
            start=row["start"],
            stop=row["stop"],
            sha256={name: digest.hex() for name, digest in row["sha256"]},
            nonfinite=row["nonfinite"],
            failures=self.failures[first:last],
            seconds=dict(row["seconds"]),
            host=row["host"],
            versions=dict(row["versions"]),
            computed=dict(row.get(_LATER) or {}),
        )

    def __iter__(self) -> Iterator[int]:
        return iter(range(len(self)))

    def __len__(self) -> int:
        count: int = self._table.num_rows
        return count

    @property
    def record_bytes(self) -> list[int]:
        """Length of each record."""
        lengths: list[int] = self._table["bytes"].to_pylist()
        return lengths

    def is_of(self, records: Iterable[bytes]) -> bool:
        """Whether these are the stored bytes of the records, by shard."""
        digests: list[bytes] = self._table["record"].to_pylist()
        return digests == [hashlib.sha256(record).digest() for record in records]

    def checksums(self) -> list[tuple[int, dict[str, str]]]:
        """(shard, array -> hex of the stored bytes of its chunk), by shard."""
        return [
            (shard, {name: digest.hex() for name, digest in pairs})
            for shard, pairs in enumerate(self._table["sha256"].to_pylist())
        ]


_SCHEMA = pa.schema(
    [
        pa.field("shard", pa.int64(), nullable=False),
        pa.field("start", pa.int64(), nullable=False),
        pa.field("stop", pa.int64(), nullable=False),
        pa.field("sha256", pa.map_(pa.string(), pa.field("value", _DIGEST, False)), nullable=False),
        pa.field("nonfinite", pa.int64(), nullable=False),
        pa.field(
            "seconds", pa.map_(pa.string(), pa.field("value", pa.float64(), False)), nullable=False
        ),
        pa.field("host", pa.string(), nullable=False),
        pa.field(
            "versions", pa.map_(pa.string(), pa.field("value", pa.string(), False)), nullable=False
        ),
        pa.field("record", _DIGEST, nullable=False),
        pa.field("bytes", pa.int64(), nullable=False),
        pa.field(_LATER, pa.map_(pa.string(), pa.field("value", pa.string(), False)), False),
    ]
)


def encode_commits(commits: Mapping[int, Commit]) -> bytes:
    """Parquet bytes of the records of all shards, numbered from 0.

    Failures are left out: `failures.parquet` has them. The file vouches for itself as a record
    does: its metadata have, as `egapipe.checksum`, the SHA-256 of the file with zeros in its place.
    """
    rows = [_row(commits[shard]) for shard in range(len(commits))]
    table = pa.Table.from_pylist(rows, schema=_SCHEMA)
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(sink, _SCHEMA, compression="zstd") as writer:
        writer.write_table(table)
        writer.add_key_value_metadata({_CHECKSUM: _NO_CHECKSUM})
    data = bytearray(sink.getvalue().to_pybytes())
    place = _place(data)
    data[place] = hashlib.sha256(data).hexdigest().encode()
    return bytes(data)


def decode_commits(data: bytes, failures: Sequence[Failure], where: str) -> Commits:
    """The records in Parquet bytes. failures: of all shards, by row.

    Raises StoreError if any byte is wrong.
    """
    try:
        found = bytearray(data)
        place = _place(found)
        checksum, found[place] = found[place].decode(), _NO_CHECKSUM.encode()
        whole = hashlib.sha256(found).hexdigest() == checksum
        table = read_parquet(data)
        table = table.replace_schema_metadata(None)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise StoreError(f"{where} is damaged: {one_line(error)}") from error
    if not whole:
        raise StoreError(f"{where} is damaged: it has not its checksum")
    unknown = [name for name in table.column_names if name not in _SCHEMA.names]
    if unknown and table.column_names[: len(_SCHEMA)] == _SCHEMA.names:
        raise StoreError(
            f"{where} was written by a newer egapipe ({unknown[0]} is not known here): "
            "upgrade egapipe"
        )
    if table.column_names not in (_SCHEMA.names, [n for n in _SCHEMA.names if n != _LATER]):
        raise StoreError(f"{where} is damaged: its columns are {table.column_names}")
    return Commits(table.combine_chunks(), failures)


def _row(commit: Commit) -> dict[str, object]:
    record = commit.encode()
    return {
        "shard": commit.shard,
        "start": commit.start,
        "stop": commit.stop,
        "sha256": [(name, bytes.fromhex(digest)) for name, digest in commit.sha256.items()],
        "nonfinite": commit.nonfinite,
        "seconds": list(commit.seconds.items()),
        "host": commit.host,
        "versions": list(commit.versions.items()),
        "record": hashlib.sha256(record).digest(),
        "bytes": len(record),
        _LATER: list(commit.computed.items()),
    }


def _place(data: bytearray) -> slice:
    """Where the checksum stands. Raises ValueError if it is not there exactly once."""
    found = list(_WRITTEN.finditer(data))
    if len(found) != 1:
        raise ValueError("it has no checksum")
    return slice(*found[0].span(1))
