"""Finding stores: a folder of stores is as good as a store where people look at them."""

from collections.abc import Iterator

from egapipe.pipeline.store import layout
from egapipe.pipeline.store.location import open_objects
from egapipe.pipeline.store.manifest import ATTRIBUTE, group_attributes
from egapipe.pipeline.store.objects import Objects

DEPTH = 2


def find_stores(url: str) -> list[str]:
    """URLs of the stores that a URL names, sorted: itself, or else those up to two folders below.

    What lies at the URL itself counts even if it is damaged or another Zarr group: it was asked
    for. Raises StoreError if a folder cannot be listed.
    """
    objects = open_objects(url)
    if any(data is not None for data in objects.get_many([layout.CREATED, layout.GROUP])):
        return [objects.url]
    return list(_below(objects, DEPTH))


def _below(objects: Objects, depth: int) -> Iterator[str]:
    for name in objects.folders():
        inner = open_objects(f"{objects.url.rstrip('/')}/{name}")
        if _is_store(inner):
            yield inner.url
        elif depth > 1:
            yield from _below(inner, depth - 1)


def _is_store(objects: Objects) -> bool:
    """Whether a store is here, be it half created; another Zarr group is none."""
    created, group = objects.get_many([layout.CREATED, layout.GROUP])
    if created is not None or group is None:
        return created is not None
    return ATTRIBUTE in (group_attributes(group) or {})
