"""What a store holds, byte by byte."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from egapipe.pipeline.store.format import layout

_OF_SHARDS = ["shard", "start", "stop", "sha256", "nonfinite", "versions"]


def every_byte(url: str) -> dict[str, bytes]:
    """Path -> bytes of every file of a local store."""
    root = Path(url)
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in files}


def content(url: str) -> dict[str, object]:
    """Every byte of a store, but for three fields of a shard's commit record.

    `seconds` (how long the phases took) and `host` (who did it) describe the run that wrote the
    shard, not the shard, and `checksum` is that of the record's text with both; nothing else may
    differ between two runs. The table of records has the same fields.
    """
    found: dict[str, object] = dict(every_byte(url))
    for path, data in every_byte(url).items():
        if path.startswith("commits/0"):
            record = json.loads(data)
            assert record.pop("host")
            assert record.pop("checksum")
            parts = {"decode", "wait", "infer", "hold", "write"}
            assert set(record.pop("seconds")) == parts
            found[path] = record
        elif path == layout.COMMIT_TABLE:
            found[path] = pq.read_table(pa.BufferReader(data)).select(_OF_SHARDS).to_pydict()
    return found
