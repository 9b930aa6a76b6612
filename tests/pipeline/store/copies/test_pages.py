"""Pages of a mapped file: what is read for which entries, and that it is there then."""

import itertools
import mmap
import os
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from egapipe.pipeline.store.copies.pages import PAGE, Pages, stretches


@given(
    entries=st.lists(st.integers(0, 5000), max_size=50),
    entry_bytes=st.sampled_from([1, 100, 1024, PAGE, 3 * PAGE + 8]),
    offset=st.integers(0, 3 * PAGE),
    gap=st.sampled_from([0, PAGE, 32 << 10]),
)
def test_stretches_are_whole_pages_that_hold_all_entries(
    entries: list[int], entry_bytes: int, offset: int, gap: int
) -> None:
    found = stretches(np.array(entries, dtype=np.int64), entry_bytes, gap, offset)
    assert all(start % PAGE == stop % PAGE == 0 and start < stop for start, stop in found)
    for (_, stop), (start, _) in itertools.pairwise(found):
        assert start - stop > gap
    places = [offset + entry * entry_bytes for entry in entries]
    for place in places:
        assert any(a <= place and place + entry_bytes <= b for a, b in found)
    # No page is read that is far from every entry.
    for start, stop in found:
        inside = sorted(p for p in places if start <= p < stop)
        assert inside[0] < start + PAGE
        assert stop - (inside[-1] + entry_bytes) < PAGE
        for one, other in itertools.pairwise(inside):
            assert other - (one + entry_bytes) <= gap + 2 * PAGE


def test_pages_that_were_asked_for_are_there(tmp_path_factory: pytest.TempPathFactory) -> None:
    """On a file system with a disk: what lies in memory anyway is always there."""
    path = Path("/var/tmp", f"egapipe-{os.getpid()}.bin")  # noqa: S108
    path.write_bytes(bytes(512 * PAGE))
    try:
        with path.open("r+b") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            mapping = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            values = np.frombuffer(mapping, np.uint8).reshape(-1, 1024)
            pages = Pages(file.fileno(), mapping, values)
        # They are a megabyte apart: what lies between is not read along.
        some, others = np.arange(0, 400, 40), np.arange(1600, 2048, 40)
        if not (pages.missing(some) and pages.missing(others)):
            pytest.skip("this file system keeps its files in memory")
        pages.read(some)
        deadline = time.monotonic() + 30
        while pages.missing(some) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert not pages.missing(some)
        assert pages.missing(others)
    finally:
        path.unlink()
