"""Whether images are those that a store was made of: by shard, then by row.

A store of an older egapipe has one fingerprint of everything, and then a change has no name.
"""

import socket
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from egapipe.pipeline.datasets import Dataset
from egapipe.pipeline.datasets.fingerprint import digests_of, listing_fingerprint
from egapipe.pipeline.errors import StoreError
from egapipe.pipeline.store import Commit, FeatureStore, Manifest
from egapipe.pipeline.store.format import layout
from egapipe.pipeline.store.format.manifest import DatasetRecord
from egapipe.pipeline.store.records.digests import changed_rows, gone_rows
from egapipe.pipeline.store.records.record import IMAGES, images_root
from egapipe.pipeline.store.records.snapshot import Snapshot
from egapipe.pipeline.store.streams import spread

WHOLE_ROWS = 1 << 21
"""Up to so many rows every image is read, once a node while its files stay the same; of more, those
of a sample: 200 GB of images are minutes, a hundred terabytes are a day."""
# Shards that are spread over a store, and rows over each.
_SHARDS, _EACH = 16, 16


class Changed(NamedTuple):
    """An image that is not the one that a store was made of. record: of its shard, below the
    store's URL. gone: it cannot be read now."""

    row: int
    key: str
    shard: int
    record: str
    gone: bool

    @property
    def remedy(self) -> str:
        """What to do."""
        return (
            f"restore the image, or delete {self.record} there and run `egapipe extract` again to "
            "redo the shard"
        )


def fingerprint_of(dataset: Dataset, record: DatasetRecord) -> str:
    """The fingerprint of a data set that a record of this kind has."""
    return listing_fingerprint(dataset) if record.images else dataset.fingerprint()


def root_of(dataset: Dataset, manifest: Manifest) -> str:
    """The identity of all images as a store of a manifest has it, see `images_root`. Reads them."""
    digests = dataset.digests(manifest.shard_rows)
    shards = ((shard, {IMAGES: digest.hex()}) for shard, digest in enumerate(digests))
    return images_root(manifest.dataset.fingerprint, shards)


def content_of(dataset: Dataset, manifest: Manifest) -> str:
    """What stands for keys and images of a data set: what `require_images` reads of a store that
    was made of it."""
    return root_of(dataset, manifest) if manifest.dataset.images else dataset.fingerprint()


def require_images(store: FeatureStore, dataset: Dataset, found: Snapshot | None = None) -> None:
    """Raise StoreError, which names the first image that is another one than a store was made of.

    dataset: its first rows are of the store's keys and labels. found: of the store, where somebody
    has taken it. All images are looked at of a complete store of up to WHOLE_ROWS rows, else those
    of a sample of what is committed.
    """
    if not store.manifest.dataset.images:
        return
    if found is None and len(dataset) == store.manifest.rows <= WHOLE_ROWS:
        # One small object in place of a snapshot.
        end = store.ended()
        if end is not None and end.images == root_of(dataset, store.manifest):
            return
    first = next(changed_images(store, found or store.snapshot(), dataset), None)
    if first is not None:
        raise StoreError(refusal(store, first))


def refusal(store: FeatureStore, changed: Changed) -> str:
    """What to say of an image that has changed, and what to do."""
    what = "cannot be read" if changed.gone else "is another one"
    return (
        f"store {store.url}: image {changed.key} (row {changed.row}) on {socket.gethostname()} "
        f"{what} than that it was made of: {changed.remedy}; `egapipe store verify --images` lists "
        "all that have changed"
    )


def changed_images(
    store: FeatureStore, found: Snapshot, dataset: Dataset, *, whole: bool = False
) -> Iterator[Changed]:
    """Images that are not those that a store was made of, by row; none of an older egapipe's store.

    whole: all of what is committed, however much there is to read. See `require_images`.
    """
    if not store.manifest.dataset.images:
        return
    whole = whole or (found.complete and store.manifest.rows <= WHOLE_ROWS)
    if whole and found.complete and len(dataset) == store.manifest.rows:
        ours = dataset.digests(store.manifest.shard_rows)
        for shard, (now, was) in enumerate(zip(ours, found.image_digests(), strict=True)):
            if now.hex() != was:
                yield from changed_of(store, found.commits[shard], dataset, store.shards[shard])
        return
    shards = found.committed if whole else spread(found.committed, _SHARDS)
    for shard in shards:
        commit = store.commit(shard)
        if commit is not None:
            rows = store.shards[shard]
            yield from changed_of(store, commit, dataset, rows if whole else spread(rows, _EACH))


def changed_of(
    store: FeatureStore, commit: Commit, dataset: Dataset, rows: Sequence[int]
) -> Iterator[Changed]:
    """Of some rows of a committed shard those whose images have changed, by row; see `Changed`."""
    if not store.manifest.dataset.images:
        return
    was = store.read_digests(commit)[np.asarray(rows) - commit.start]
    now = digests_of(dataset, rows)
    gone = set(gone_rows(was, now).tolist())
    failed = {failure.row for failure in commit.failures}
    for place in sorted({*gone, *changed_rows(was, now).tolist()}):
        row = rows[place]
        # Without an embedding, there is nothing that another image would be paired with.
        if row in failed:
            continue
        record = store.objects.located(layout.commit_key(commit.shard))
        yield Changed(row, dataset.keys[row], commit.shard, record, place in gone)
