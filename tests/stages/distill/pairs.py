"""Files of pairs for tests."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

Pair = tuple[str, str]


def write_pairs(
    file: Path, pairs: Sequence[Pair], scores: Sequence[float] | None = None, **columns: Any
) -> Path:
    """A parquet file of pairs; columns: others, or others in their place."""
    first, second = ([pair[side] for pair in pairs] for side in (0, 1))
    given = {"first": first, "second": second}
    if scores is not None:
        given["score"] = list(scores)
    pq.write_table(pa.table({**given, **columns}), file)
    return file
