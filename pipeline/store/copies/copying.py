"""Filling a node-local copy: several streams read shards, and each is put where it belongs.

What a killed process has copied stays, see `Parts`. Memory: the shards that are under way.
"""

import errno
import math
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from functools import partial
from io import FileIO
from itertools import islice
from pathlib import Path

import numpy as np
from rich.filesize import decimal

from egapipe.pipeline.disk.caches import FEATURES, REMEDY, build_once, remove_abandoned
from egapipe.pipeline.disk.parts import Parts
from egapipe.pipeline.errors import StoreError
from egapipe.pipeline.store.copies.cache import Mapped, around_values, map_cache
from egapipe.pipeline.store.copies.selection import Selection
from egapipe.pipeline.store.format.dtypes import NUMPY
from egapipe.pipeline.store.records.record import Commit
from egapipe.pipeline.store.records.snapshot import Snapshot
from egapipe.pipeline.store.store import FeatureStore
from egapipe.pipeline.store.streams import streams_of
from egapipe.pipeline.terminal.progress import Progress, open_progress

# What was copied is noted so often. Who is done before progress is shown needs none.
_SETTLE_SECONDS = 2.0
_SILENT_SECONDS = 3.0
_FULL = {errno.ENOSPC, errno.EDQUOT}


def map_or_copy(
    store: FeatureStore, name: str, content: str, folder: Path, wanted: Selection
) -> tuple[Mapped, Selection, Path]:
    """Map this node's copy of what is wanted, or of everything where that is there; if there is
    none it is made, while others who ask for it wait. The copy, what it has, and its file.

    content: the store's content hash. folder: of caches. Raises StoreError if the folder cannot be
    written or has too little room, or if a shard is damaged.
    """
    whole = Selection.of(store)
    if not wanted.whole:
        path = copy_path(folder, content, name, whole)
        mapped = map_cache(store, name, content, path, whole)
        if mapped is not None:
            return mapped, whole, path
    path = copy_path(folder, content, name, wanted)
    mapped = build_once(
        FEATURES,
        path,
        partial(map_cache, store, name, content, path, wanted),
        partial(_copy, store, name, content, wanted),
    )
    return mapped, wanted, path


def copy_path(folder: Path, content: str, name: str, part: Selection) -> Path:
    """Where the copy of a part of an array is. folder: of caches, absolute."""
    return FEATURES.file(folder, f"{content}-{name}{part.name}")


def _copy(store: FeatureStore, name: str, content: str, part: Selection, path: Path) -> None:
    found = _unchanged(store, content)
    count = store.manifest.rows
    valid = np.ones(count, dtype=bool)
    valid[[failure.row for failure in found.failures]] = False
    before, after = around_values(store, name, content, part, valid)
    numbers = len(part.views) * math.prod(store.manifest.outputs[name])
    row_bytes = numbers * NUMPY[store.manifest.dtype].itemsize
    end = len(before) + row_bytes * count
    size = end + len(after)
    _require_room(store, name, path, size)
    path.touch()
    with FileIO(path, "r+") as file:
        parts = Parts(file, size, part.shards, before + after)
        parts.write(before, 0)
        parts.write(after, end)

        def fetch(commit: Commit) -> int:
            rows = store.shards[commit.shard]
            block = part.taken(store.chunks.read(commit, name)[: len(rows)])
            parts.write(block.data, len(before) + row_bytes * rows.start)
            return commit.shard

        try:
            _fill(store, name, found, parts, fetch)
        except StoreError:
            # A shard that is not what was recorded may be done again by now.
            _unchanged(store, content)
            raise
        except OSError as error:
            if error.errno in _FULL:
                left = row_bytes * store.manifest.shard_rows * (part.shards - len(parts.done))
                raise _no_room(store, name, path, left) from error
            raise
        parts.finish()


def _fill(
    store: FeatureStore,
    name: str,
    found: Snapshot,
    parts: Parts,
    fetch: Callable[[Commit], int],
) -> None:
    """Fetch all shards that are not there, and show how far that is."""
    missing = [shard for shard in range(len(store.shards)) if shard not in parts.done]
    rows = store.manifest.rows - sum(len(store.shards[shard]) for shard in missing)
    began, settled, new = time.monotonic(), time.monotonic(), list[int]()
    shown: Progress | None = None
    with ExitStack() as stack:
        # Also where it is interrupted: what was copied until then stays.
        stack.callback(lambda: parts.settle(new))
        commits = map(found.commits.__getitem__, missing)
        for shards in _under_way(fetch, commits, streams_of(store, [name])):
            new += shards
            rows += sum(len(store.shards[shard]) for shard in shards)
            now = time.monotonic()
            if now - settled > _SETTLE_SECONDS:
                parts.settle(new)
                new, settled = [], now
            if shown is None and now - began > _SILENT_SECONDS:
                task = f"copy {name}"
                shown = stack.enter_context(open_progress(task, store.manifest.rows, done=rows))
            if shown is not None:
                shown.update(rows)


def _under_way(
    fetch: Callable[[Commit], int], commits: Iterable[Commit], streams: int
) -> Iterator[list[int]]:
    """The shards that were fetched, as they come, a few at a time. Raises what `fetch` does."""
    coming = iter(commits)
    with ThreadPoolExecutor(streams, "copy") as pool:
        running: set[Future[int]] = set()
        try:
            while True:
                more = islice(coming, 2 * streams - len(running))
                running |= {pool.submit(fetch, commit) for commit in more}
                if not running:
                    return
                done, running = wait(running, return_when=FIRST_COMPLETED)
                yield [future.result() for future in done if future.exception() is None]
                for future in done:
                    future.result()
        finally:
            for future in running:
                future.cancel()


def _unchanged(store: FeatureStore, content: str) -> Snapshot:
    """The store's records. Raises StoreError if they are of another content: a Features that was
    pickled may arrive after a shard was done again, and one may be while it is copied."""
    found = store.finished()
    if found.content_hash() != content:
        raise StoreError(f"store {store.url} has changed since it was opened: start again")
    return found


def _require_room(store: FeatureStore, name: str, path: Path, size: int) -> None:
    """Raise StoreError if the rest of a copy has no room; what killed builders left goes first."""
    here = path.stat().st_blocks * 512 if path.exists() else 0
    if size - here > shutil.disk_usage(path.parent).free:
        remove_abandoned(FEATURES, path.parent)
        if size - here > shutil.disk_usage(path.parent).free:
            raise _no_room(store, name, path, size - here)


def _no_room(store: FeatureStore, name: str, path: Path, needed: int) -> StoreError:
    free = shutil.disk_usage(path.parent).free
    return StoreError(
        f"the node-local copy of {name} of store {store.url} needs {decimal(needed)} in "
        f"{path.parent}, where {decimal(free)} are free: free some space there, or {REMEDY}, then "
        "run the same command again"
    )
