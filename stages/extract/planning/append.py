"""Appending: what a data set has got since its store was finished is put behind the other rows."""

from egapipe.pipeline.config import Config
from egapipe.pipeline.config.tree import Split
from egapipe.pipeline.datasets import Dataset
from egapipe.pipeline.datasets.fingerprint import fingerprint_of
from egapipe.pipeline.errors import StoreError
from egapipe.pipeline.results.images import require_images
from egapipe.pipeline.store import FeatureStore
from egapipe.pipeline.store.create import require_equal
from egapipe.pipeline.store.format.index import first_difference
from egapipe.pipeline.store.format.manifest import Parent
from egapipe.pipeline.store.growth import next_state
from egapipe.pipeline.store.records.snapshot import Snapshot
from egapipe.stages.extract.decoding.reader import require_samples
from egapipe.stages.extract.planning.manifest import Origin, index_of, manifest_for
from egapipe.stages.extract.planning.plan import StorePlan, copied_count, plan_store
from egapipe.stages.extract.teachers import Teacher


def plan_append(config: Config, split: Split, dataset: Dataset, teacher: Teacher) -> StorePlan:
    """What extracting the rows of a split that its store has not will write; where there is no
    store, or nothing to append, what extracting it does.

    Whole shards of the store stay as they are. Rows of its last one, where that is not full, are
    done again with the new ones. Raises StoreError if the store is not complete, or the data set
    does not begin with its rows; of images are looked at those that `require_images` looks at.
    """
    require_samples(dataset, teacher.preprocessing, config.view_plan(split))
    url = config.store_url(split)
    if not FeatureStore.exists(url):
        return plan_store(config, split, dataset, teacher)
    store = FeatureStore.open(url)
    stored = store.manifest
    if len(dataset) == stored.rows:
        return plan_store(config, split, dataset, teacher)
    found = store.snapshot()
    if not found.complete:
        raise StoreError(
            f"store {store.url} is not complete ({len(found.committed)} of {len(store.shards)} "
            f"shards): finish its {stored.rows:,} rows with the data set as it was, then append"
        )
    _require_beginning(store, found, dataset)
    parent = Parent(rows=stored.rows, content=found.content_hash())
    origin = Origin.of(teacher)
    grown = manifest_for(config, split, origin, dataset, stored=stored, parent=parent)
    require_equal(stored.asking(dataset=grown.dataset), grown, store.url)
    objects = next_state(store.objects, stored.rows // stored.shard_rows)
    copied = copied_count(config, split)
    if not FeatureStore.exists(objects):
        new = range(objects.first, -(-grown.rows // grown.shard_rows))
        return StorePlan(split, objects, grown, False, tuple(new), copied=copied)
    begun = FeatureStore.at(objects)
    if begun.manifest.differences(grown):
        raise StoreError(
            f"to store {store.url} others were being appended ({begun.manifest.rows:,} rows in all;"
            f" now {len(dataset):,}): finish that with the data set as it was then, or remove "
            f"{objects.home.url} to give it up"
        )
    taken = begun.snapshot()
    return StorePlan(split, objects, begun.manifest, True, tuple(taken.pending), taken, copied)


def _require_beginning(store: FeatureStore, found: Snapshot, dataset: Dataset) -> None:
    """Raise StoreError unless the first rows of a data set are those of a store."""
    rows = store.manifest.rows
    refused = f"nothing can be appended to store {store.url}"
    remedy = (
        "new rows come after the old ones, which stay as they are, so give new images as a further "
        "source behind the others; or extract into another store.url"
    )
    if len(dataset) < rows:
        raise StoreError(
            f"{refused}: it has {rows:,} rows, the data set {len(dataset):,}: {remedy}"
        )
    different = first_difference(store.listing, index_of(dataset))
    if different is not None:
        column, row, old, new = different
        raise StoreError(
            f"{refused}: {column} of row {row} is {old!r}, the data set has {new!r}: {remedy}"
        )
    record = store.manifest.dataset
    if record.images is None and fingerprint_of(dataset, rows) != record.fingerprint:
        raise StoreError(f"{refused}: images of its {rows:,} rows have changed: {remedy}")
    require_images(store, dataset, found)
