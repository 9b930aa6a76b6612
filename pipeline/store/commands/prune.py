"""Removing what nobody will use: leftovers of killed writers, and old node-local copies.

Committed data, and data that a resumed extraction writes over, are never touched.
"""

import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from egapipe.pipeline.disk.caches import KINDS, Entry, entries, is_abandoned
from egapipe.pipeline.errors import StoreError
from egapipe.pipeline.store.format import layout
from egapipe.pipeline.store.objects.base import unusable
from egapipe.pipeline.store.objects.location import Place
from egapipe.pipeline.store.store import FeatureStore

MINUTE, DAY = 60.0, 86_400.0


@dataclass(frozen=True)
class Pruned:
    """A file that was removed, or would be. bytes: its size."""

    where: str
    bytes: int
    why: str


def prune_store(place: Place, *, idle: float, dry_run: bool) -> list[Pruned | StoreError]:
    """Remove the temporary files that killed writers left of a store's own objects; what was
    removed, and why the others could not be.

    idle: seconds for which a file must not have been written to, because a living writer has such
    files too. dry_run: remove nothing. Raises StoreError if there is no store that can be read.
    """
    store = FeatureStore.open(place)
    objects, planned = store.objects, layout.planned_keys(store.manifest)
    found: list[Pruned | StoreError] = []
    for key, size in objects.sizes().items():
        if layout.leftover_of(key) not in planned:
            continue
        try:
            if objects.age(key) < idle:
                continue
            if not dry_run:
                objects.delete(key)
        except StoreError as error:
            found.append(error)
        else:
            found.append(Pruned(f"{store.url}/{key}", size, "left by a killed writer"))
    return found


def prune_cache(
    folder: Path, keep: Collection[str], *, unused: float, dry_run: bool
) -> list[Pruned | StoreError]:
    """Remove what a node's cache holds of any kind and was not opened lately, and what killed
    builders left; what was removed, and why the others could not be.

    folder: what `store.cache_dir` names. keep: content hashes; what was made of them alone stays
    whatever its age. unused: seconds since an entry was last opened. What is being built stays, and
    so does every file that is none of egapipe's.
    """
    found: list[Pruned | StoreError] = []
    for kind in {kind.folder: kind for kind in KINDS}.values():
        try:
            listed = entries(folder, [kind])
        except OSError as error:
            found.append(_unusable("list", folder / kind.folder, error))
            continue
        for entry in listed:
            why = _reason(entry, keep, unused)
            where = entry.files[0]
            try:
                if why and entry.remove(dry_run=dry_run):
                    found.append(Pruned(str(where), entry.bytes, f"{entry.kind.what}, {why}"))
            except OSError as error:
                found.append(_unusable("remove", where, error))
    return found


def _unusable(doing: str, path: Path, error: OSError) -> StoreError:
    return unusable(doing, str(path), error, "choose another --cache")


def contents(place: Place) -> set[str]:
    """The content hash of a store, if it is complete. Raises StoreError if it is damaged."""
    found = FeatureStore.open(place).snapshot()
    return {found.content_hash()} if found.complete else set()


def _reason(entry: Entry, keep: Collection[str], unused: float) -> str | None:
    """Why an entry of the cache may go; None if it may not."""
    if entry.partial:
        return "left by a killed builder" if is_abandoned(entry) else None
    idle = time.time() - entry.used
    if entry.key.partition("-")[0] in keep or idle < unused:
        return None
    return f"not opened for {idle / DAY:.1f} days"
