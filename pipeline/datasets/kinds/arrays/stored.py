"""What the files of arrays have in common: what they say of their rows before one is read."""

from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from egapipe.pipeline.config.sources import ArrayType
from egapipe.pipeline.errors import ImageError, UsageError

# Truth values, whole numbers and fractions. Whole ones of 64 bits without a sign may be too large.
_KINDS, _TOO_WIDE = "biuf", np.dtype(np.uint64)


class Arrays(NamedTuple):
    """The samples of a data set. type: of one of them. variants: ready-made ones a row, V."""

    type: ArrayType
    variants: int


class Stored(Protocol):
    """Arrays of one shape and type in files."""

    @property
    def rows(self) -> int:
        """N."""
        ...

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one row, its variants included."""
        ...

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the stored bytes, their order included."""
        ...

    @property
    def files(self) -> list[str]:
        """Absolute paths, or URLs."""
        ...

    def read(self, row: int) -> bytes:
        """The numbers of a row in the order of its axes. Raises ImageError if there are none."""
        ...


def arrays_of(stored: Stored, where: str, *, variants: bool) -> Arrays:
    """The samples in some files. variants: whether the first axis of a row counts them.

    Raises UsageError for what is no number, and rows without an axis.
    """
    dtype = stored.dtype
    if dtype.kind not in _KINDS or dtype == _TOO_WIDE:
        raise UsageError(f"{where} holds {dtype}: it must be whole numbers or fractions")
    axes = list(stored.shape)
    if len(axes) <= variants:
        what = "one number a row" if not axes else "rows of one axis, which would be the variants"
        raise UsageError(f"{where} holds {what}: an array is needed for each sample")
    count, shape = (axes[0], axes[1:]) if variants else (1, axes)
    kind: Literal["int64", "float32"] = "float32" if dtype.kind == "f" else "int64"
    return Arrays(ArrayType(shape=tuple(shape), dtype=kind), count)


def samples(data: bytes, stored: Stored, arrays: Arrays) -> npt.NDArray[Any]:
    """[V, *shape] of int64 or float32 in the stored bytes of a row.

    Raises ImageError for fractions that are not finite, or not in float32.
    """
    values = np.frombuffer(data, stored.dtype).reshape(arrays.variants, *arrays.type.shape)
    with np.errstate(over="ignore"):
        made = values.astype(arrays.type.dtype)
    if made.dtype.kind == "f" and not np.isfinite(made).all():
        raise ImageError("it has numbers that are not finite in float32")
    return made
