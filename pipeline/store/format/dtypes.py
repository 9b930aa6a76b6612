"""Stored number types: how float32 embeddings become float16, bfloat16 or float32 on disk.

bfloat16 is kept as its 16 bits in an unsigned integer, because neither numpy nor Zarr has the type.
"""

from typing import Any, Literal

import numpy as np
import numpy.typing as npt

DtypeName = Literal["float16", "bfloat16", "float32"]
Floats = npt.NDArray[np.float32]
Stored = npt.NDArray[Any]

# Little-endian on every machine, so that the same numbers are the same bytes.
NUMPY: dict[DtypeName, np.dtype[Any]] = {
    "float16": np.dtype("<f2"),
    "bfloat16": np.dtype("<u2"),
    "float32": np.dtype("<f4"),
}
_BFLOAT16_NAN = 0x7FC0
_BFLOAT16_EXPONENT = 0x7F80


def not_a_number(dtype: DtypeName) -> float | int:
    """NaN as it is stored: what failed rows and unwritten rows hold."""
    return _BFLOAT16_NAN if dtype == "bfloat16" else float("nan")


def to_stored(values: Floats, dtype: DtypeName) -> Stored:
    """A copy in the stored type, rounded to nearest even; what is too large becomes infinite."""
    if dtype == "bfloat16":
        return _to_bfloat16(values)
    with np.errstate(over="ignore"):
        return values.astype(NUMPY[dtype], order="C")


def to_floats(stored: Stored, dtype: DtypeName) -> Floats:
    """The exact values of stored numbers as float32, a copy unless they are that already."""
    if dtype == "bfloat16":
        widened: Floats = (stored.astype(np.uint32) << 16).view(np.float32)
        return widened
    return stored.astype(np.float32, copy=False)


def is_finite(stored: Stored, dtype: DtypeName) -> npt.NDArray[np.bool_]:
    """Where stored numbers are neither infinite nor NaN; same shape."""
    if dtype == "bfloat16":
        finite = (stored & _BFLOAT16_EXPONENT) != _BFLOAT16_EXPONENT
    else:
        finite = np.isfinite(stored)
    return np.asarray(finite, dtype=np.bool_)


def _to_bfloat16(values: Floats) -> Stored:
    bits = np.ascontiguousarray(values).view(np.uint32)
    # Half of the last kept bit, less one where the kept part is even: ties go to even. In place,
    # because a shard is large; the carry out of the exponent of a NaN is overwritten below.
    rounded = (bits >> 16) & 1
    rounded += np.uint32(0x7FFF)
    rounded += bits
    rounded >>= 16
    stored = rounded.astype(NUMPY["bfloat16"])
    stored[np.isnan(values)] = _BFLOAT16_NAN
    return stored
