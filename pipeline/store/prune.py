"""Removing what nobody will use: leftovers of killed writers, and old node-local copies.

Committed data, and data that a resumed extraction writes over, are never touched.
"""

import os
import time
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from egapipe.pipeline.files import PARTIAL
from egapipe.pipeline.store import layout
from egapipe.pipeline.store.cache import FOLDER, SUFFIX, remove_unlocked
from egapipe.pipeline.store.objects import unusable
from egapipe.pipeline.store.store import FeatureStore

MINUTE, DAY = 60.0, 86_400.0


@dataclass(frozen=True)
class Pruned:
    """A file that was removed, or would be. bytes: its size."""

    where: str
    bytes: int
    why: str


def prune_store(url: str, *, idle: float, dry_run: bool) -> list[Pruned]:
    """Remove the temporary files that killed writers left of a store's own objects.

    idle: seconds for which a file must not have been written to, because a living writer has such
    files too. dry_run: remove nothing. Raises StoreError if there is no store, or it cannot be
    written.
    """
    store = FeatureStore.open(url)
    objects, planned = store.objects, layout.planned_keys(store.manifest)
    found = []
    for key, size in objects.sizes().items():
        if layout.leftover_of(key) in planned and objects.age(key) >= idle:
            if not dry_run:
                objects.delete(key)
            found.append(Pruned(f"{store.url}/{key}", size, "left by a killed writer"))
    return found


def prune_cache(
    folder: Path, keep: Collection[str], *, unused: float, dry_run: bool
) -> list[Pruned]:
    """Remove node-local copies that were not opened lately, and what killed builders left of them.

    folder: what `store.cache_dir` names. keep: content hashes whose copies stay whatever their age.
    unused: seconds since a copy was last mapped, or built where the file system notes no access.
    A copy that is being built stays. Raises StoreError if the folder cannot be written.
    """
    found = []
    try:
        for path, status in _files(folder / FOLDER):
            why = _reason(path, status, keep, unused)
            if why and remove_unlocked(path, dry_run=dry_run):
                found.append(Pruned(str(path), status.st_size, why))
    except OSError as error:
        raise unusable("prune", str(folder), error, "choose another --cache") from error
    return found


def contents(urls: Collection[str]) -> set[str]:
    """Content hashes of those stores that are complete."""
    stores = map(FeatureStore.open, urls)
    return {store.content_hash() for store in stores if store.complete}


def _files(folder: Path) -> Iterator[tuple[Path, os.stat_result]]:
    for pattern in (f"*{PARTIAL}", f"*{SUFFIX}", "*-nearest*.npy"):
        for path in sorted(folder.glob(pattern)):
            # A builder may have renamed its file meanwhile.
            with suppress(FileNotFoundError):
                yield path, path.stat()


def _reason(path: Path, status: os.stat_result, keep: Collection[str], unused: float) -> str | None:
    """Why a file of the cache may go; None if it may not."""
    if path.suffix == PARTIAL:
        return "left by a killed builder"
    idle = time.time() - max(status.st_atime, status.st_mtime)
    if path.name.partition("-")[0] in keep or idle < unused:
        return None
    return f"not opened for {idle / DAY:.1f} days"
