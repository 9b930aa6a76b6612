"""Finding stores: a folder of stores is as good as a store where people look at them."""

from collections.abc import Iterator

from egapipe.pipeline.errors import StoreError
from egapipe.pipeline.store.format import layout
from egapipe.pipeline.store.format.manifest import ATTRIBUTE, group_attributes
from egapipe.pipeline.store.objects.base import Objects
from egapipe.pipeline.store.objects.location import Place, open_objects

DEPTH = 2


def find_stores(place: Place) -> Iterator[Objects | StoreError]:
    """The stores at a place, sorted: itself, or else those up to two folders below; and the reason
    for each folder there that cannot be looked into, which hides no other.

    What lies at the place itself counts even if it is damaged or another Zarr group: it was asked
    for. Raises StoreError if the place cannot be read.
    """
    objects = open_objects(place)
    if any(data is not None for data in objects.get_many([layout.CREATED, layout.GROUP])):
        yield objects
        return
    yield from _below(objects, objects.folders(), DEPTH)


def _below(objects: Objects, names: list[str], depth: int) -> Iterator[Objects | StoreError]:
    for name in names:
        inner = objects.below(name)
        try:
            is_store = _is_store(inner)
            folders = inner.folders() if depth > 1 and not is_store else []
        except StoreError as error:
            yield error
            continue
        if is_store:
            yield inner
        yield from _below(inner, folders, depth - 1)


def _is_store(objects: Objects) -> bool:
    """Whether a store is here, be it half created; another Zarr group is none."""
    created, group = objects.get_many([layout.CREATED, layout.GROUP])
    if created is not None or group is None:
        return created is not None
    return ATTRIBUTE in (group_attributes(group) or {})
