"""Whether a place can be written to, how fast, and how much still fits there."""

import os
import shutil
import time
import uuid
from collections.abc import Sequence
from pathlib import Path

from rich.filesize import decimal

from egapipe.pipeline.errors import StoreError, UsageError
from egapipe.pipeline.store.objects.base import Objects
from egapipe.pipeline.store.objects.local import LocalObjects
from egapipe.stages.extract.planning.plan import StorePlan

# Long enough that its time is not the latency's alone.
PROBE_BYTES = 4 * 2**20


def nearest_folder(path: Path) -> Path:
    """A path itself, or the closest of the folders around it that exists."""
    return next(folder for folder in (path, *path.parents) if folder.exists())


def free_bytes(objects: Objects) -> int | None:
    """Bytes that still fit at a place; None where nobody knows, as in an object store.

    The folder need not exist yet. Raises StoreError if the place cannot be read.
    """
    objects = objects.home
    if not isinstance(objects, LocalObjects):
        return None
    with objects.explained("read", ""):
        return shutil.disk_usage(nearest_folder(Path(objects.url))).free


def require_room(plans: Sequence[StorePlan]) -> None:
    """Raise UsageError if what is left to be written does not fit.

    Stores on one file system share its free space.
    """
    for plans_there in _by_file_system(plans):
        objects = plans_there[0].objects
        needed = sum(plan.bytes_left for plan in plans_there)
        free = free_bytes(objects)
        if free is not None and needed > free:
            urls = " and ".join(plan.objects.url for plan in plans_there)
            raise UsageError(
                f"{urls}: {decimal(needed)} are to be written, only {decimal(free)} are free: "
                "make room, set store.url to a larger place, or store less "
                "(views.count, store.dtype)"
            )


def probe_writing(objects: Objects) -> float:
    """Bytes a second at which a place takes an object and gives it back, as a worker does it.

    The object is removed. Where there is no folder yet, the nearest one around it is probed, so
    that none is made. Raises StoreError if the place cannot be written to.
    """
    place, key, data = _around(objects), f"{uuid.uuid4().hex}.probe", os.urandom(PROBE_BYTES)
    began = time.perf_counter()
    place.put(key, data)
    try:
        returned = place.get(key)
        seconds = time.perf_counter() - began
    finally:
        place.delete(key)
    if returned != data:
        raise StoreError(f"{place.url} gives back other bytes than it was given")
    return len(data) / seconds


def _around(objects: Objects) -> Objects:
    """Where a probe leaves nothing behind: in a folder that is there, beside a store elsewhere."""
    objects = objects.home
    if not isinstance(objects, LocalObjects):
        return type(objects)(objects.url.rpartition("/")[0])
    with objects.explained("read", ""):
        return LocalObjects(str(nearest_folder(Path(objects.url))))


def _by_file_system(plans: Sequence[StorePlan]) -> list[list[StorePlan]]:
    """The plans with something left to write, those of one file system together."""
    groups: dict[int | str, list[StorePlan]] = {}
    for plan in plans:
        if plan.pending:
            groups.setdefault(_file_system(plan.objects), []).append(plan)
    return list(groups.values())


def _file_system(objects: Objects) -> int | str:
    objects = objects.home
    if not isinstance(objects, LocalObjects):
        return objects.url
    with objects.explained("read", ""):
        return nearest_folder(Path(objects.url)).stat().st_dev
