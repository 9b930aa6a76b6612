"""Creating a store, and opening one.

Creating is resumed like everything else: until `commits/created.json` exists nothing else can, so
whatever an interrupted attempt left of these few objects is written again.
"""

import pyarrow as pa

from egapipe.pipeline.errors import StoreError
from egapipe.pipeline.store import layout
from egapipe.pipeline.store.manifest import Manifest, group_attributes, manifest_of
from egapipe.pipeline.store.objects import Objects
from egapipe.pipeline.store.records import Created, sha256
from egapipe.pipeline.store.tables import encode_index

ELSEWHERE = "run `egapipe extract` with another store.url, or point store.url elsewhere"


def create_store(objects: Objects, manifest: Manifest, index: pa.Table) -> None:
    """Write the manifest, the arrays' metadata and the index, then the record that they exist.

    Does nothing if a store exists. Raises StoreError rather than to touch anything else's objects.
    """
    if objects.get(layout.CREATED) is not None:
        return
    _refuse_other_content(objects, manifest)
    documents = {
        **layout.metadata_documents(manifest),
        layout.INDEX: encode_index(index),
    }
    for key, data in documents.items():
        objects.put(key, data)
    created = Created(sha256={key: sha256(documents[key]) for key in sorted(documents)})
    objects.put(layout.CREATED, created.encode())


def open_store(objects: Objects) -> tuple[Manifest, Created]:
    """The manifest of a store and the record of its creation.

    Raises StoreError if there is no store, if it was not created to the end, or if it is damaged.
    """
    record = objects.get(layout.CREATED)
    if record is None:
        raise StoreError(_no_store(objects, objects.get(layout.GROUP)))
    created = Created.decode(record, f"{objects.url}/{layout.CREATED}")
    return manifest_of(read_created(objects, created, layout.GROUP), objects.url), created


def read_created(objects: Objects, created: Created, key: str) -> bytes:
    """An object that the record of a store's creation vouches for.

    Raises StoreError if it is missing or its bytes have not the recorded checksum.
    """
    data = objects.get(key)
    if data is None or sha256(data) != created.sha256.get(key):
        what = "is missing" if data is None else "has not the recorded checksum"
        raise StoreError(f"{objects.url}/{key} {what}: {Created.remedy()}")
    return data


def require_equal(stored: Manifest, asked: Manifest, url: str, *, versions: bool) -> None:
    """Raise StoreError with the differences of two manifests, if there are any."""
    differences = stored.differences(asked, versions=versions)
    if not differences:
        return
    listed = "; ".join(differences)
    if all(difference.startswith("versions.") for difference in differences):
        raise StoreError(
            f"store {url} was begun with other software ({listed}): "
            f"finish it with that software, or {ELSEWHERE}"
        )
    raise StoreError(f"store {url} is another one: {listed}: {ELSEWHERE}")


def require_same_rows(stored: pa.Table, index: pa.Table, url: str) -> None:
    """Raise StoreError if two indexes differ in a key or a label. Where images lie may differ."""
    for column in ("key", "label"):
        if stored[column].equals(index[column]):
            continue
        pairs = zip(stored[column].to_pylist(), index[column].to_pylist(), strict=True)
        for row, (old, new) in enumerate(pairs):
            if old != new:
                raise StoreError(
                    f"store {url} is another one: {column} of row {row} is {old!r}, "
                    f"the data set has {new!r}: {ELSEWHERE}"
                )


def _refuse_other_content(objects: Objects, manifest: Manifest) -> None:
    """Only to an empty place, or over an interrupted creation of this very store, is written."""
    group = objects.get(layout.GROUP)
    # Bytes that are no JSON are half of a document.
    if group is not None and group_attributes(group) is not None:
        require_equal(manifest_of(group, objects.url), manifest, objects.url, versions=True)
    planned = layout.planned_keys(manifest)
    folders = {key.partition("/")[0] for key in planned}
    for name in objects.names():
        if name not in folders and layout.leftover_of(name) not in folders:
            raise StoreError(
                f"{objects.url} is not empty and no store (it holds {name}): "
                "set store.url to a new or empty folder"
            )
    begun = {layout.GROUP, layout.INDEX, *(layout.array_key(name) for name in manifest.outputs)}
    for key in objects.sizes():
        if key in planned - begun:
            raise StoreError(
                f"store {objects.url} is damaged ({layout.CREATED} is missing, {key} is there): "
                f"{Created.remedy()}"
            )


def _no_store(objects: Objects, group: bytes | None) -> str:
    if group is None:
        return f"no store at {objects.url}: run `egapipe extract`, or point store.url elsewhere"
    if group_attributes(group) is not None:
        manifest_of(group, objects.url)
    return f"store {objects.url} was interrupted while it was created: run `egapipe extract` again"
