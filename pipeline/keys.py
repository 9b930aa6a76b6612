"""Keys of many rows without a Python string for each: made, or decoded, when they are asked for."""

from abc import abstractmethod
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import accumulate, islice
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

import numpy as np
import numpy.typing as npt

# Arrow is imported where it is used: a process that decodes images needs none.
if TYPE_CHECKING:
    import pyarrow as pa

T = TypeVar("T")

BLOCK = 1 << 16
"""Keys that are Python strings at a time where all of them are looked at."""


class Keys(Sequence[str]):
    """A sequence of keys that makes a block of them at a time; equal to a list of the same."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def block(self, start: int, stop: int) -> list[str]:
        """Keys `start` to `stop` - 1, which are there."""

    @overload
    def __getitem__(self, place: int) -> str: ...

    @overload
    def __getitem__(self, place: slice) -> list[str]: ...

    def __getitem__(self, place: int | slice) -> str | list[str]:
        if isinstance(place, slice):
            start, stop, step = place.indices(len(self))
            return self.block(start, max(start, stop))[::step] if step > 0 else list(self)[place]
        row = int(place) + (len(self) if place < 0 else 0)
        if not 0 <= row < len(self):
            raise IndexError(f"key {place} of {len(self)}")
        return self.block(row, row + 1)[0]

    def __iter__(self) -> Iterator[str]:
        for start in range(0, len(self), BLOCK):
            yield from self.block(start, min(start + BLOCK, len(self)))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence) or isinstance(other, str) or len(other) != len(self):
            return NotImplemented if not isinstance(other, Sequence) else False
        return all(one == two for one, two in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]


class PartedKeys(Keys, Generic[T]):
    """The keys of several sequences, one after the other, each with its prefix."""

    def __init__(self, parts: Sequence[tuple[str, Sequence[T]]]) -> None:
        self._parts = [(prefix, part) for prefix, part in parts if len(part)]
        self._ends = list(accumulate(len(part) for _, part in self._parts))

    @abstractmethod
    def keys_of(self, prefix: str, part: Sequence[T]) -> list[str]:
        """The keys of a slice of one of them."""

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def block(self, start: int, stop: int) -> list[str]:
        """See `Keys`."""
        made: list[str] = []
        number = bisect_right(self._ends, start)
        while start < stop:
            prefix, part = self._parts[number]
            begin = self._ends[number] - len(part)
            end = min(stop, self._ends[number])
            made += self.keys_of(prefix, part[start - begin : end - begin])
            start, number = end, number + 1
        return made


class NumberedKeys(PartedKeys[int]):
    """`<prefix><number>` for the numbers of some ranges, with leading zeros."""

    def __init__(self, parts: Sequence[tuple[str, range]], digits: int) -> None:
        super().__init__(parts)
        self._digits = digits

    def keys_of(self, prefix: str, part: Sequence[int]) -> list[str]:
        """See `PartedKeys`."""
        digits = self._digits
        return [f"{prefix}{number:0{digits}d}" for number in part]


class JoinedKeys(PartedKeys[str]):
    """The keys of several sequences, one after the other, each behind its prefix."""

    def keys_of(self, prefix: str, part: Sequence[str]) -> list[str]:
        """See `PartedKeys`."""
        return [prefix + key for key in part]


class TextKeys(Keys):
    """Keys as Arrow text: their bytes and eight more each."""

    def __init__(self, text: "pa.ChunkedArray") -> None:
        """text: string or large_string, without nulls."""
        import pyarrow as pa

        self._text = text.cast(pa.large_string())

    @classmethod
    def of(cls, keys: Iterable[str]) -> "TextKeys":
        """Those of any iterable, which is read a block at a time."""
        import pyarrow as pa

        left, chunks = iter(keys), []
        while block := list(islice(left, BLOCK)):
            chunks.append(pa.array(block, pa.large_string()))
        return cls(pa.chunked_array(chunks, pa.large_string()))

    @classmethod
    def sorted(cls, keys: Iterable[str]) -> "TextKeys":
        """Those of any iterable, in the order of their code points."""
        import pyarrow.compute as pc

        text = cls.of(keys)._text
        # The order of UTF-8's bytes is that of the code points.
        return cls(text.take(pc.sort_indices(text)))

    def __len__(self) -> int:
        return len(self._text)

    def block(self, start: int, stop: int) -> list[str]:
        """See `Keys`."""
        keys: list[str] = self._text.slice(start, stop - start).to_pylist()
        return keys

    def take(self, rows: npt.NDArray[np.int64]) -> "TextKeys":
        """The keys of some rows."""
        return TextKeys(self._text.take(rows))

    def __reduce__(self) -> tuple[Any, ...]:
        return TextKeys, (self._text,)


def taken(keys: Sequence[str], rows: npt.NDArray[np.int64]) -> Sequence[str]:
    """The keys of some rows."""
    if isinstance(keys, TextKeys):
        return keys.take(rows)
    return TextKeys.of(keys[int(row)] for row in rows)


def repeated(keys: Sequence[str], hashed: Callable[[str], int] = hash) -> tuple[int, int] | None:
    """The first row whose key has come before, behind the row where it came first; None if all are
    different.

    It holds a 64-bit hash a key, and compares the keys themselves where two hashes are equal.
    """
    hashes = np.empty(len(keys), np.int64)
    for start in range(0, len(keys), BLOCK):
        block = keys[start : start + BLOCK]
        hashes[start : start + len(block)] = np.fromiter(map(hashed, block), np.int64, len(block))
    ordered = np.sort(hashes)
    twice = np.unique(ordered[1:][ordered[1:] == ordered[:-1]])
    seen: dict[str, int] = {}
    for row in np.flatnonzero(np.isin(hashes, twice)) if len(twice) else ():
        first = seen.setdefault(keys[int(row)], int(row))
        if first != row:
            return first, int(row)
    return None
