"""One extraction at a time: two would do all the work twice, and on different devices they would
write different bytes under one checksum."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from egapipe.pipeline.errors import StoreError
from egapipe.pipeline.locations.lease import leased
from egapipe.pipeline.store.format import layout
from egapipe.pipeline.store.objects.base import Objects
from egapipe.pipeline.store.objects.local import LocalObjects

LEASE = ".lease"
"""What the name of a store in an object store has behind it where its lease lies: the store's own
objects are those of a finished one, no more."""
# File systems without locks.
_NO_LOCKS = {errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL}


@contextmanager
def locked(objects: Objects) -> Iterator[None]:
    """Keep other extractions away from a store that exists, for the length of a block.

    On a disk the lock is the system's, on the record of the store's creation, which is never
    replaced: it ends with the process, however that dies, and leaves no file. In an object store it
    is a lease beside the store, see `leased`. Raises StoreError if another process, or another
    block of this one, holds it, or if the store may not be written.
    """
    objects = objects.home
    if not isinstance(objects, LocalObjects):
        place = type(objects)(f"{objects.url}{LEASE}")
        with leased(place, f"store {objects.url}", "being extracted", StoreError):
            yield
        return
    with objects.explained("write", layout.CREATED):
        # Network file systems lock for writing only what is open for writing.
        handle = os.open(Path(objects.url, layout.CREATED), os.O_RDWR | os.O_CLOEXEC)
    try:
        _lock(handle, objects.url)
        yield
    finally:
        os.close(handle)


def _lock(handle: int, url: str) -> None:
    try:
        import fcntl
    except ImportError:
        raise StoreError(
            f"cannot lock {url}: this system has no flock, as Windows has none: extract on Linux "
            "or macOS, on Windows in WSL"
        ) from None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise StoreError(
            f"another process extracts into {url} now: wait until it has finished, or end it, "
            "then run the same command again"
        ) from None
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
