"""Reading ahead what an epoch takes of features: its order is known, so it is read as it lies."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from egapipe.pipeline.machine.memory import free_memory

T = TypeVar("T")

# Of the free memory, what is read before it is taken. A window twice as large joins more of it.
_SHARE = 1 / 16
_MOST_BYTES = 1 << 29


def read_ahead(
    steps: Sequence[T], rows: Sequence[int], most: int, read: Callable[[Sequence[T]], object]
) -> Iterator[T]:
    """The steps one by one, each after it was read; a thread reads others meanwhile.

    rows: of each step. most: rows that are read at once; twice as many wait to be taken. read:
    asks the system for some steps. Raises what it does.
    """
    if not steps:
        return
    parts = windows(rows, most)
    with ThreadPoolExecutor(1, "read-ahead") as pool:
        try:
            coming = pool.submit(read, steps[parts[0].start : parts[0].stop])
            for number, part in enumerate(parts):
                coming.result()
                if number + 1 < len(parts):
                    after = parts[number + 1]
                    coming = pool.submit(read, steps[after.start : after.stop])
                yield from steps[part.start : part.stop]
        finally:
            coming.cancel()


def windows(rows: Sequence[int], most: int) -> list[range]:
    """Steps that are read together: one at first, so that it comes soon, then twice as many each
    time, up to so many rows, and a step at least.

    rows: of each step.
    """
    found, start, size = [], 0, 1
    while start < len(rows):
        stop, total = start + 1, rows[start]
        while stop < min(start + size, len(rows)) and total + rows[stop] <= most:
            total += rows[stop]
            stop += 1
        found.append(range(start, stop))
        start, size = stop, 2 * size
    return found


def free_rows(row_bytes: int) -> int:
    """Rows of so many bytes that may be in memory before they are taken."""
    return int(min(_MOST_BYTES, _SHARE * free_memory())) // max(1, row_bytes)
