"""What a store will hold, resolved before the first image is read."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import pyarrow as pa

from egapipe.pipeline.config import Config
from egapipe.pipeline.config.data import ViewsConfig
from egapipe.pipeline.config.tree import Split
from egapipe.pipeline.datasets import Dataset
from egapipe.pipeline.datasets.fingerprint import listing_fingerprint
from egapipe.pipeline.locations.places import with_files
from egapipe.pipeline.machine.versions import installed
from egapipe.pipeline.results.durable import durable
from egapipe.pipeline.store import INDEX_SCHEMA, DatasetRecord, Manifest
from egapipe.pipeline.store.format.manifest import Parent
from egapipe.pipeline.store.format.stored import StoredViews
from egapipe.pipeline.views import plan_hash, settled
from egapipe.stages.extract.planning.shards import fitting_rows
from egapipe.stages.extract.teachers import Teacher

# What decides the stored bytes: decoding and resizing, the network's code, the arithmetic.
_SOFTWARE = ("egapipe", "numpy", "pillow", "torch", "transformers")


@dataclass(frozen=True)
class Origin:
    """Where embeddings come from, as plain JSON. outputs: name -> shape of one embedding."""

    spec: dict[str, Any]
    preprocessing: dict[str, Any]
    outputs: dict[str, tuple[int, ...]]

    @classmethod
    def of(cls, teacher: Teacher) -> Self:
        """The origin of what a teacher will compute."""
        return cls(teacher.spec, teacher.preprocessing.to_json(), teacher.outputs)


def manifest_for(
    config: Config,
    split: Split,
    origin: Origin,
    dataset: Dataset,
    *,
    fingerprint: str | None = None,
    stored: Manifest | None = None,
    whole: bool = False,
    parent: Parent | None = None,
) -> Manifest:
    """The manifest of a split's store: dataset, teacher, preprocessing, views, layout, software.

    stored: of the store that is there already, which has what the configuration leaves open: also
    what its fingerprint covers. whole: of a new store, the bytes of all images, which nobody reads
    later. Then they are read for it, unless a fingerprint is given. parent: the store to which the
    data set's last rows are appended.
    """
    whole = whole if stored is None else stored.dataset.images is None
    if fingerprint is None:
        fingerprint = dataset.fingerprint() if whole else listing_fingerprint(dataset)
    left_open = _aspect(origin.preprocessing) if stored is None else stored.views.aspect
    among = len(dataset) if stored is None else stored.views.among(len(dataset))
    plan = settled(config.view_plan(split), left_open, among)
    return Manifest(
        dataset=DatasetRecord(
            name=dataset.name,
            fingerprint=fingerprint,
            rows=len(dataset),
            images=None if whole else "sha256",
            parent=parent or (None if stored is None else stored.dataset.parent),
        ),
        teacher=with_files(origin.spec, durable(config.teacher)),
        preprocessing=origin.preprocessing,
        views=StoredViews.of(plan),
        views_hash=plan_hash(plan),
        outputs=origin.outputs,
        dtype=config.store.dtype,
        shard_rows=_shard_rows(config, origin, plan, stored),
        versions=software(),
    )


def _shard_rows(config: Config, origin: Origin, plan: ViewsConfig, stored: Manifest | None) -> int:
    """What was asked for, else what a store has, else what fits."""
    if config.store.shard_rows is not None or stored is None:
        fitting = fitting_rows(origin.outputs, plan.count + 1, config.store.dtype)
        return config.store.shard_rows or fitting
    return stored.shard_rows


@dataclass(frozen=True)
class DatasetIndex:
    """The rows of a data set as a store's index, see `Rows`."""

    dataset: Dataset

    @property
    def num_rows(self) -> int:
        """N."""
        return len(self.dataset)

    def slice(self, offset: int, length: int) -> pa.Table:
        """Columns row, key, label, source of some rows."""
        stop = min(offset + length, len(self.dataset))
        columns = [
            pa.array(np.arange(offset, stop)),
            pa.array(self.dataset.keys[offset:stop], pa.large_string()),
            pa.array(self.dataset.label_numbers[offset:stop], pa.int64()),
            pa.repeat(pa.scalar(self.dataset.name, pa.large_string()), stop - offset),
        ]
        return pa.Table.from_arrays(columns, schema=INDEX_SCHEMA)


def _aspect(preprocessing: Mapping[str, Any]) -> str | None:
    """What a teacher's own transform does to images that are not square.

    Of several teachers, whose transforms are below `members`: `keep` if one of them does.
    """
    members = preprocessing.get("members")
    parts = list(members.values()) if isinstance(members, dict) else [preprocessing]
    # The length of the shortest edge, where two numbers are height and width.
    return "keep" if any(isinstance(part.get("resize"), int) for part in parts) else None


def index_of(dataset: Dataset) -> DatasetIndex:
    """The rows of a data set as a store's index: row, key, label, source."""
    return DatasetIndex(dataset)


def software() -> dict[str, str]:
    """Versions of the software that decides the stored bytes."""
    return installed(_SOFTWARE)
