"""Removing what nobody will use: leftovers of killed writers, and old node-local copies.

Committed data, and data that a resumed extraction writes over, are never touched.
"""

import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from egapipe.pipeline.caches import Entry, entries, is_abandoned
from egapipe.pipeline.store import layout
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
    """Remove what a node's cache holds of any kind and was not opened lately, and what killed
    builders left.

    folder: what `store.cache_dir` names. keep: content hashes; what was made of them alone stays
    whatever its age. unused: seconds since an entry was last opened. What is being built stays, and
    so does every file that is none of egapipe's. Raises StoreError if the folder cannot be written.
    """
    found = []
    try:
        for entry in entries(folder):
            why = _reason(entry, keep, unused)
            if why and entry.remove(dry_run=dry_run):
                found.append(Pruned(str(entry.files[0]), entry.bytes, f"{entry.kind.what}, {why}"))
    except OSError as error:
        raise unusable("prune", str(folder), error, "choose another --cache") from error
    return found


def contents(urls: Collection[str]) -> set[str]:
    """Content hashes of those stores that are complete."""
    found = [FeatureStore.open(url).snapshot() for url in urls]
    return {snapshot.content_hash() for snapshot in found if snapshot.complete}


def _reason(entry: Entry, keep: Collection[str], unused: float) -> str | None:
    """Why an entry of the cache may go; None if it may not."""
    if entry.partial:
        return "left by a killed builder" if is_abandoned(entry) else None
    idle = time.time() - entry.used
    if entry.key.partition("-")[0] in keep or idle < unused:
        return None
    return f"not opened for {idle / DAY:.1f} days"
