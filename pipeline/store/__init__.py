"""The feature store: teacher embeddings of every image and view, written once, read many times.

Zarr is the durable form, shared and written in parallel (`FeatureStore`); students read from a
memory-mapped copy on their own machine (`Features`). The format is described in `docs/store.md`.
"""

from typing import TYPE_CHECKING

from egapipe.pipeline.machine.lazy import lazy

if TYPE_CHECKING:
    from egapipe.pipeline.store.commands.check import CheckReport, check_store
    from egapipe.pipeline.store.copies.features import Features
    from egapipe.pipeline.store.format.index import INDEX_SCHEMA
    from egapipe.pipeline.store.format.layout import plan_shards
    from egapipe.pipeline.store.format.manifest import DatasetRecord, Manifest
    from egapipe.pipeline.store.records.record import Commit, Failure
    from egapipe.pipeline.store.store import FeatureStore

__all__ = [
    "INDEX_SCHEMA",
    "CheckReport",
    "Commit",
    "DatasetRecord",
    "Failure",
    "FeatureStore",
    "Features",
    "Manifest",
    "check_store",
    "plan_shards",
]

__getattr__ = lazy(
    __name__,
    {
        "INDEX_SCHEMA": "format.index",
        "CheckReport": "commands.check",
        "Commit": "records.record",
        "DatasetRecord": "format.manifest",
        "Failure": "records.record",
        "FeatureStore": "store",
        "Features": "copies.features",
        "Manifest": "format.manifest",
        "check_store": "commands.check",
        "plan_shards": "format.layout",
    },
)
