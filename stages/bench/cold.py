"""Gathering rows that are not in memory, against what the disk itself gives."""

import ctypes
import mmap
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from egapipe.pipeline.config.data import ViewsConfig
from egapipe.pipeline.errors import UsageError
from egapipe.pipeline.store import Features, FeatureStore
from egapipe.pipeline.store.copies import pages
from egapipe.stages.bench.synthetic import noise_store
from egapipe.stages.distill.data.ahead import free_rows, read_ahead

Ints = npt.NDArray[np.int64]
Batch = tuple[Ints, Ints]

ROWS, VIEWS, DIM, BATCH = 400_000, 5, 512, 256
ROWS_ASKED = "EGAPIPE_BENCH_ROWS"
# Of the rows of 64 GiB, those that are read ahead in 512 MiB, a page each, are this share.
_WINDOW_SHARE = 1 / 512
# Entries of two pages, of which one is taken.
_APART = 8
_PAGE, _LARGE = 4096, 4 << 20
_THREADS, _READS = 64, 20_000
_UNAIDED = 20
# Rows a second that feed any training; a disk that reads fewer pages is the limit.
_ENOUGH = 400_000
_ROUNDS = 7


class Rates(NamedTuple):
    """Rows a second, but for the last two. resident: the share of the file that was in memory when
    a measurement began, at most.

    epoch: every row once in one view, read ahead as an epoch is. sparse: as of a file of 64 GiB of
    which next to nothing stays in memory: windows of as few of its rows, and no two rows in a page.
    unaided: a numpy memory map, row by row. random, sequential: reads of 4 KiB by 64 threads, and
    bytes a second of reads of 4 MiB by 4, past the page cache. share: median of sparse over random,
    which are measured in turn, as disks that are shared give now more and now less.
    """

    resident: float
    epoch: float
    sparse: float
    unaided: float
    random: float
    sequential: float
    share: float


def measure(rows: int | None = None) -> Rates:
    """All rates, on a file in the folder for temporary files. Raises UsageError where that has no
    disk."""
    rows = rows or int(os.environ.get(ROWS_ASKED, ROWS))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        store = noise_store(folder, rows, DIM, ViewsConfig(count=VIEWS - 1))
        features = Features.open(store, cache_dir=str(folder / "cache"))
        file = Dropped(features)
        rng = np.random.default_rng(0)
        batches = _batches(rng.permutation(rows) * VIEWS + rng.integers(0, VIEWS, rows))
        epoch = file.rate(rows, lambda: _epoch(features, batches, free_rows(features.row_bytes)))
        count = rows * VIEWS // _APART
        apart = rng.permutation(count) * _APART + rng.integers(0, _APART // 2, count)
        window = max(BATCH, int(rows * VIEWS * _WINDOW_SHARE))
        pairs = []
        large = _as_if_large(store, str(folder / "cache"))
        apart_file = Dropped(large)
        # What one of both has mapped stays in memory, whoever lets go of it.
        file.drop()
        for _ in range(_ROUNDS):
            # So long that its first windows, which are small, do not count.
            some = rng.permutation(apart)[: count // 3]
            read = partial(_epoch, large, _batches(some), window)
            pairs.append((apart_file.rate(len(some), read), apart_file.random()))
        apart_file.drop()
        few = batches[:_UNAIDED]
        unaided = file.rate(len(few) * BATCH, lambda: _plain(features, few))
        return Rates(
            max(file.resident, apart_file.resident),
            epoch,
            statistics.median(sparse for sparse, _ in pairs),
            unaided,
            statistics.median(random for _, random in pairs),
            256 * _LARGE / file.reading(256, _LARGE, 4),
            statistics.median(sparse / random for sparse, random in pairs),
        )


class Dropped:
    """The file under some features, whose pages are let go of. resident: the largest share of it
    that was in memory nevertheless."""

    def __init__(self, features: Features) -> None:
        values = features.tensor()
        self.path, self.resident = features.path, 0.0
        self._address = values.data_ptr() // mmap.PAGESIZE * mmap.PAGESIZE
        self._length = values.nbytes
        self._libc = ctypes.CDLL(None, use_errno=True)

    def drop(self) -> None:
        """Let go of all pages, and look which stay."""
        place = ctypes.c_void_p(self._address), ctypes.c_size_t(self._length)
        # What a process has mapped is not dropped.
        self._libc.madvise(*place, mmap.MADV_DONTNEED)
        file = os.open(self.path, os.O_RDONLY)
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(file)
        pages = np.empty(-(-self._length // mmap.PAGESIZE), np.uint8)
        self._libc.mincore(*place, ctypes.c_void_p(pages.ctypes.data))
        self.resident = max(self.resident, float((pages & 1).mean()))
        if self.resident > 0.5:
            raise UsageError(
                f"{self.path.parent} keeps its files in memory: set TMPDIR to a folder on a disk"
            )

    def rate(self, rows: int, read: Callable[[], object]) -> float:
        """Rows a second of reading so many, none of them in memory at first."""
        self.drop()
        began = time.perf_counter()
        read()
        return rows / (time.perf_counter() - began)

    def random(self) -> float:
        """Reads of a page a second, at random places."""
        return _READS / self.reading(_READS, _PAGE, _THREADS)

    def reading(self, count: int, size: int, threads: int) -> float:
        """Seconds that so many reads of random blocks take, past the page cache."""
        self.drop()
        blocks = self.path.stat().st_size // size
        places = np.random.default_rng(1).integers(0, blocks, count) * size
        file = os.open(self.path, os.O_RDONLY | getattr(os, "O_DIRECT", 0))

        def read(some: Ints) -> None:
            buffer = mmap.mmap(-1, size)
            for place in some.tolist():
                os.preadv(file, [buffer], place)

        try:
            with ThreadPoolExecutor(threads) as pool:
                began = time.perf_counter()
                list(pool.map(read, np.array_split(places, threads)))
                return time.perf_counter() - began
        finally:
            os.close(file)


def _as_if_large(store: FeatureStore, cache: str) -> Features:
    """The same features, read as those of a file that memory cannot hold."""
    share, pages.SHARE = pages.SHARE, 0.0
    try:
        return Features.open(store, cache_dir=cache)
    finally:
        pages.SHARE = share


def _epoch(features: Features, batches: Sequence[Batch], most: int) -> None:
    def ask(some: Sequence[Batch]) -> None:
        rows, views = (np.concatenate(column) for column in zip(*some, strict=True))
        features.read_ahead(rows, views)

    for rows, views in read_ahead(batches, [len(r) for r, _ in batches], most, ask):
        features.take(rows, views)


def _batches(entries: Ints) -> list[Batch]:
    """Rows and views of some entries, in their order."""
    parts = np.split(entries, range(BATCH, len(entries), BATCH))
    return [(part // VIEWS, part % VIEWS) for part in parts]


def _plain(features: Features, batches: Sequence[Batch]) -> None:
    values = np.memmap(features.path, np.uint8, mode="r")
    start = features.path.stat().st_size - features.rows * VIEWS * DIM * 2
    for rows, views in batches:
        # One byte a row: what it costs is the page.
        values[start // 2 + (rows * VIEWS + views) * DIM * 2].sum()


def report() -> list[str]:
    """The measurement as lines of text."""
    found = measure()
    aim = "aim >= 1" if found.random < _ENOUGH else f"aim >= {_ENOUGH:,.0f} rows/s"
    return [
        f"gather of {DIM} float16 rows from the disk, {VIEWS} views, batches of {BATCH}",
        f"  in memory at the start       {100 * found.resident:10.2f} %",
        f"  an epoch read ahead          {found.epoch:10,.0f} rows/s",
        f"  larger than memory           {found.sparse:10,.0f} rows/s",
        f"  numpy memmap, unaided        {found.unaided:10,.0f} rows/s",
        f"  the disk: reads of 4 KiB     {found.random:10,.0f} a second",
        f"  larger than memory / disk    {found.share:10.2f}  (median of {_ROUNDS}; {aim})",
        f"  the disk: reads of 4 MiB     {found.sequential / 1e6:10,.0f} MB/s",
    ]
