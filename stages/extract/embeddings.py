"""Files of embeddings that were made elsewhere."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from egapipe.pipeline.errors import UsageError

Floats = npt.NDArray[np.floating]


@dataclass(frozen=True)
class Embeddings:
    """values: [N, D] or [N, V, D], a memory map where the file allows it. keys: of the rows, where
    the file has them."""

    values: Floats
    keys: list[str] | None


def read_embeddings(path: str, column: str = "embedding") -> Embeddings:
    """Embeddings of a `.npy` or `.parquet` file.

    column: of a parquet file, lists of equal length; its column `key`, if there is one, names the
    rows. Raises UsageError: no such file, another format, or content of another shape.
    """
    file = Path(path)
    if not file.is_file():
        raise UsageError(f"no embeddings at {path}: give a .npy or .parquet file")
    if file.suffix == ".npy":
        return Embeddings(_array(file), None)
    if file.suffix == ".parquet":
        return _table(file, column)
    raise UsageError(
        f"{path} is neither a .npy nor a .parquet file: save embeddings as one of them"
    )


def _array(file: Path) -> Floats:
    try:
        values: Floats = np.load(file, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError) as error:
        raise UsageError(f"{file} cannot be read as .npy: {error}") from None
    if values.ndim not in (2, 3) or values.dtype.kind != "f":
        raise UsageError(
            f"{file} holds {values.dtype} {list(values.shape)}: "
            "embeddings are floats [rows, D] or [rows, views, D]"
        )
    return values


def _table(file: Path, column: str) -> Embeddings:
    try:
        names = pq.read_schema(file).names
        if column not in names:
            raise UsageError(
                f"{file} has no column {column!r}: it has {', '.join(names)}, choose with --column"
            )
        table = pq.read_table(file, columns=[n for n in (column, "key") if n in names])
    except (pa.ArrowInvalid, OSError) as error:
        raise UsageError(f"{file} cannot be read as parquet: {error}") from None
    keys = [str(key) for key in table["key"].to_pylist()] if "key" in table.column_names else None
    return Embeddings(_matrix(table[column].combine_chunks(), file, column), keys)


def _matrix(column: pa.Array, file: Path, name: str) -> Floats:
    if not (pa.types.is_list(column.type) or pa.types.is_fixed_size_list(column.type)):
        raise UsageError(
            f"{file}: column {name!r} is {column.type}, embeddings are lists of floats"
        )
    widths = set(column.value_lengths().to_pylist())
    if len(widths) != 1 or not widths <= set(range(1, 1 << 24)):
        raise UsageError(f"{file}: column {name!r} has lists of different lengths or none")
    values = column.flatten()
    if not pa.types.is_floating(values.type):
        raise UsageError(f"{file}: column {name!r} holds {values.type}, embeddings are floats")
    flat: Floats = values.to_numpy(zero_copy_only=False)
    return flat.reshape(len(column), widths.pop())
