"""The feature store: teacher embeddings of every image and view, written once, read many times.

Zarr is the durable form, shared and written in parallel (`FeatureStore`); students read from a
memory-mapped copy on their own machine (`Features`). The format is described in `docs/store.md`.
"""

from typing import TYPE_CHECKING

from egapipe.pipeline.machine.lazy import lazy

if TYPE_CHECKING:
    from egapipe.pipeline.store.check import CheckReport, check_store
    from egapipe.pipeline.store.features import Features
    from egapipe.pipeline.store.index import INDEX_SCHEMA
    from egapipe.pipeline.store.layout import plan_shards
    from egapipe.pipeline.store.manifest import DatasetRecord, Manifest
    from egapipe.pipeline.store.records import Commit, Failure
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
        "INDEX_SCHEMA": "index",
        "CheckReport": "check",
        "Commit": "records",
        "DatasetRecord": "manifest",
        "Failure": "records",
        "FeatureStore": "store",
        "Features": "features",
        "Manifest": "manifest",
        "check_store": "check",
        "plan_shards": "layout",
    },
)
