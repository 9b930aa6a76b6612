"""What a store will take, and what of it is left: known before an image is read."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from egapipe.pipeline.config import Config
from egapipe.pipeline.config.tree import Split
from egapipe.pipeline.datasets import Dataset
from egapipe.pipeline.errors import StoreError
from egapipe.pipeline.results.pairing import copied_views
from egapipe.pipeline.store import FeatureStore, Manifest, plan_shards
from egapipe.pipeline.store.create import (
    ELSEWHERE,
    require_equal,
    require_same_rows,
    require_software,
)
from egapipe.pipeline.store.format.dtypes import NUMPY
from egapipe.pipeline.store.format.layout import chunk_bytes
from egapipe.pipeline.store.objects.base import Objects
from egapipe.pipeline.store.objects.location import open_objects
from egapipe.pipeline.store.records.snapshot import Snapshot
from egapipe.stages.extract.decoding.reader import require_samples
from egapipe.stages.extract.planning.manifest import Origin, index_of, manifest_for
from egapipe.stages.extract.teachers import Teacher

# Upper estimates: an index row holds a key, a label and the data set's name, compressed together;
# a record of a shard fills a block of the file system.
_INDEX_ROW_BYTES = 64
_RECORD_BYTES = 4096


@dataclass(frozen=True)
class StorePlan:
    """One store as it will be, and what of it is still to be written.

    begun: whether the store exists. pending: its shards without a record, by number. copied: views
    that stage two copies, None for all.
    """

    split: Split
    objects: Objects
    manifest: Manifest
    begun: bool
    pending: tuple[int, ...]
    found: Snapshot | None = None
    """Of a store that was begun."""
    copied: int | None = None

    @property
    def shards(self) -> Sequence[range]:
        """The rows of every shard."""
        return plan_shards(self.manifest.rows, self.manifest.shard_rows)

    @property
    def rows_left(self) -> int:
        """Rows of pending shards."""
        shards = self.shards
        return sum(len(shards[shard]) for shard in self.pending)

    @property
    def views_left(self) -> int:
        """Forward passes of pending shards, counted in views."""
        return self.rows_left * self.manifest.view_count

    @property
    def row_bytes(self) -> int:
        """Bytes of a row's embeddings in all views and outputs."""
        return sum(_row_bytes(self.manifest, name) for name in self.manifest.outputs)

    @property
    def bytes(self) -> int:
        """Bytes of the finished store's embeddings and digests, with the last shard's padding."""
        return len(self.shards) * self._shard_bytes

    @property
    def bytes_left(self) -> int:
        """Bytes to be written: pending shards with their records, and the index of a new store.

        A shard that was begun counts in full: its new file lies beside the old one for a while.
        """
        index = 0 if self.begun else self.manifest.rows * _INDEX_ROW_BYTES + _RECORD_BYTES
        return index + len(self.pending) * (self._shard_bytes + _RECORD_BYTES)

    @property
    def cache_bytes(self) -> int:
        """Bytes of the node-local copy that stage two reads: unpadded, and a bit for each row."""
        read = "embedding" if "embedding" in self.manifest.outputs else min(self.manifest.outputs)
        rows, views = self.manifest.rows, self.manifest.view_count
        copied = views if self.copied is None else self.copied
        return rows * _row_bytes(self.manifest, read) * copied // views + -(-rows // 8)

    @property
    def _shard_bytes(self) -> int:
        return sum(chunk_bytes(self.manifest, name) for name in self.manifest.arrays)


def plan_store(config: Config, split: Split, dataset: Dataset, teacher: Teacher) -> StorePlan:
    """What extracting a split will write, an existing store of it taken into account.

    Reads no image: of an existing store everything but the images' bytes is compared. Raises
    StoreError if another store is there, or it cannot be read.
    """
    require_samples(dataset, teacher.preprocessing, config.view_plan(split))
    objects, origin = open_objects(config.store_url(split)), Origin.of(teacher)
    copied = copied_count(config, split)
    if not FeatureStore.exists(objects):
        manifest = manifest_for(config, split, origin, dataset)
        shards = len(plan_shards(manifest.rows, manifest.shard_rows))
        pending = tuple(range(shards))
        return StorePlan(split, objects, manifest, begun=False, pending=pending, copied=copied)
    store = FeatureStore.open(objects)
    found = store.snapshot()
    stored = store.manifest
    # Rows are compared one by one, which names the first that differs.
    known = stored.dataset.fingerprint
    if len(dataset) > stored.rows:
        raise StoreError(
            f"store {store.url} is another one: dataset.rows is {stored.rows}, the config asks for "
            f"{len(dataset)}: `egapipe extract --append` adds rows that follow the old ones, or "
            f"{ELSEWHERE}"
        )
    asked = manifest_for(config, split, origin, dataset, fingerprint=known, stored=stored)
    require_equal(stored, asked, store.url)
    if found.pending and config.extract.same_software:
        require_software(stored, asked, store.url, same=True)
    require_same_rows(store.listing, index_of(dataset), store.url)
    return StorePlan(
        split,
        store.objects,
        stored,
        begun=True,
        pending=tuple(found.pending),
        found=found,
        copied=copied,
    )


def copied_count(config: Config, split: Split) -> int | None:
    """How many views of a split stage two copies, None for all."""
    views = copied_views(config, split)
    return None if views is None else len(views)


def _row_bytes(manifest: Manifest, name: str) -> int:
    numbers = manifest.view_count * math.prod(manifest.outputs[name])
    return numbers * NUMPY[manifest.dtype].itemsize
