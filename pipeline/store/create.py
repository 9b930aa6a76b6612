"""Creating a store, and opening one.

Creating is resumed like everything else: until `commits/created.json` exists nothing else can, and
what an interrupted attempt left of these few objects is taken up. Several may create at once: each
object is made by one of them, and the others go on with it or are refused.
"""

import hashlib
import logging
import os
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from tempfile import TemporaryFile

from egapipe.pipeline.disk.paths import cache_dir
from egapipe.pipeline.errors import StoreError
from egapipe.pipeline.store.format import layout
from egapipe.pipeline.store.format.index import (
    Rows,
    StoredIndex,
    digest_of,
    first_difference,
    require_index,
    write_index,
)
from egapipe.pipeline.store.format.manifest import Manifest, group_attributes, manifest_of
from egapipe.pipeline.store.objects.base import Objects
from egapipe.pipeline.store.records.record import Created, sha256

_log = logging.getLogger(__name__)
_ATTEMPTS = 5

ELSEWHERE = "run `egapipe extract` with another store.url, or point store.url elsewhere"


def create_store(objects: Objects, manifest: Manifest, index: Rows) -> None:
    """Write the manifest, the arrays' metadata and the index, then the record that they exist.

    Does nothing if a store exists. Raises StoreError rather than to touch anything else's objects.
    """
    if objects.get(layout.CREATED) is not None or _is_other_content(objects, manifest):
        return

    def same_store(group: bytes) -> bool:
        # Bytes that are no JSON are half of a document.
        if group_attributes(group) is None:
            return False
        require_equal(manifest_of(group, objects.url), manifest, objects.url)
        return True

    require_index(index, manifest.rows)
    documents = layout.metadata_documents(manifest)
    # The manifest is the first: whoever has made it has the place.
    same = {layout.GROUP: same_store}
    for key in map(layout.array_key, manifest.arrays):
        same[key] = partial(_same_array, documents[key])
    order = sorted(documents, key=lambda key: key != layout.GROUP)
    checksums = {key: sha256(_settle(objects, key, documents[key], same[key])) for key in order}
    checksums[layout.INDEX] = _settle_index(objects, manifest, index)
    created = Created(sha256=dict(sorted(checksums.items())))
    objects.create(layout.CREATED, created.encode())


def _settle(objects: Objects, key: str, data: bytes, same: Callable[[bytes], bool]) -> bytes:
    """The bytes of an object: those that another creator has put there, or these.

    same: whether bytes can be taken up; else they are half of an object, and written over.
    """
    for _ in range(_ATTEMPTS):
        if objects.create(key, data):
            return data
        found = objects.get(key)
        if found is not None:
            break
    else:
        raise _contended(objects, key)
    if found == data or same(found):
        return found
    objects.put(key, data)
    return data


def _settle_index(objects: Objects, manifest: Manifest, index: Rows) -> str:
    """The SHA-256 of the index there, which another creator has put there, or this one has.

    It is written to a file of this machine first: of a billion rows it is larger than memory.
    """
    with TemporaryFile(dir=_spool_folder()) as file:
        write_index(index, manifest.shard_rows, file)
        file.seek(0)
        mine = hashlib.file_digest(file, "sha256").hexdigest()
        for _ in range(_ATTEMPTS):
            if objects.create_from(layout.INDEX, file):
                return mine
            found = digest_of(objects, layout.INDEX)
            if found is None:
                continue
            if found == mine or _same_rows(objects, found, manifest, index):
                return found
            objects.delete(layout.INDEX)
    raise _contended(objects, layout.INDEX)


def _same_rows(objects: Objects, digest: str, manifest: Manifest, index: Rows) -> bool:
    """Whether an index can be taken up; else it is half of one, or damaged. Raises StoreError if it
    is of other rows."""
    stored = StoredIndex(objects, Created(sha256={layout.INDEX: digest}), manifest.rows)
    try:
        first = stored.slice(0, manifest.rows) if stored.small else stored.slice(0, 1)
    except StoreError:
        return False
    require_same_rows(first if stored.small else stored, index, objects.url)
    return True


def _spool_folder() -> Path | None:
    """Of this node's cache, which is on a disk; None for the system's where it cannot be written,
    which may be in memory."""
    folder = cache_dir()
    with suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        if os.access(folder, os.W_OK):
            return folder
    return None


def _contended(objects: Objects, key: str) -> StoreError:
    return StoreError(f"{objects.named(key)} is being written by others: run the command again")


def open_store(objects: Objects) -> tuple[Manifest, Created]:
    """The manifest of a store and the record of its creation.

    Raises StoreError if there is no store, if it was not created to the end, or if it is damaged.
    """
    record = objects.get(layout.CREATED)
    if record is None:
        raise StoreError(_no_store(objects, objects.get(layout.GROUP)))
    created = Created.decode(record, objects.named(layout.CREATED))
    return manifest_of(read_created(objects, created, layout.GROUP), objects.url), created


def read_created(objects: Objects, created: Created, key: str) -> bytes:
    """An object that the record of a store's creation vouches for.

    Raises StoreError if it is missing or its bytes have not the recorded checksum.
    """
    data = objects.get(key)
    if data is None or sha256(data) != created.sha256.get(key):
        what = "is missing" if data is None else "has not the recorded checksum"
        raise StoreError(f"{objects.named(key)} {what}: {Created.remedy()}")
    return data


def require_equal(stored: Manifest, asked: Manifest, url: str) -> None:
    """Raise StoreError with the differences of two manifests, if there are any.

    Both are of a teacher that was loaded.
    """
    differences = stored.differences(asked, loaded=True)
    if differences:
        raise StoreError(f"store {url} is another one: {'; '.join(differences)}: {ELSEWHERE}")


def require_software(stored: Manifest, asked: Manifest, url: str, *, same: bool) -> None:
    """Say that an unfinished store was begun with other software; refuse it where it must be the
    same. Raises StoreError."""
    differences = stored.software(asked)
    if not differences:
        return
    begun = f"store {url} was begun with other software ({'; '.join(differences)})"
    if same:
        raise StoreError(
            f"{begun}: finish it with that software, set extract.same_software=false, "
            f"or {ELSEWHERE}"
        )
    _log.warning("%s: the records of the shards that are missing will name this one", begun)


def require_same_rows(stored: Rows, index: Rows, url: str) -> None:
    """Raise StoreError if two indexes differ in a key or a label. Where images lie may differ."""
    found = None
    if stored.num_rows == index.num_rows:
        found = first_difference(stored, index)
        if found is None:
            return
    # What could be no store's says so; else it is another one's.
    require_index(index, stored.num_rows)
    if found is not None:
        column, row, old, new = found
        raise StoreError(
            f"store {url} is another one: {column} of row {row} is {old!r}, "
            f"the data set has {new!r}: {ELSEWHERE}"
        )


def _is_other_content(objects: Objects, manifest: Manifest) -> bool:
    """Refuse a place that holds something else; whether a store has appeared there meanwhile.

    Only to an empty place, or over an interrupted creation of this very store, is written.
    """
    _require_own_place(objects, manifest)
    planned = layout.planned_keys(manifest)
    folders = {key.partition("/")[0] for key in planned}
    for name in objects.names():
        if name not in folders and layout.leftover_of(name) not in folders:
            # Another creator may have come since: its manifest was there before all else.
            _require_own_place(objects, manifest)
            raise StoreError(
                f"{objects.url} is not empty and no store (it holds {name}): "
                "set store.url to a new or empty folder"
            )
    begun = {layout.GROUP, layout.INDEX, *(layout.array_key(name) for name in manifest.arrays)}
    for key in objects.sizes():
        if key in planned - begun:
            if objects.get(layout.CREATED) is not None:
                return True
            raise StoreError(
                f"store {objects.url} is damaged ({layout.CREATED} is missing, {key} is there): "
                f"{Created.remedy()}"
            )
    return False


def _require_own_place(objects: Objects, manifest: Manifest) -> None:
    """Raise StoreError with the differences if the manifest of another store is there."""
    group = objects.get(layout.GROUP)
    if group is not None and group_attributes(group) is not None:
        require_equal(manifest_of(group, objects.url), manifest, objects.url)


def _same_array(asked: bytes, found: bytes) -> bool:
    return layout.array_meaning(found) == layout.array_meaning(asked)


def _no_store(objects: Objects, group: bytes | None) -> str:
    if group is None:
        return f"no store at {objects.url}: run `egapipe extract`, or point store.url elsewhere"
    if group_attributes(group) is not None:
        manifest_of(group, objects.url)
    return f"store {objects.url} was interrupted while it was created: run `egapipe extract` again"
