"""Which shards of a store are read, and how many beside each other."""

from collections.abc import Collection, Sequence

import numpy as np

from egapipe.pipeline.locations.remote import AT_ONCE
from egapipe.pipeline.store.format import layout
from egapipe.pipeline.store.objects.local import LocalObjects
from egapipe.pipeline.store.store import FeatureStore

# Of a disk: more streams only take turns there.
_LOCAL = 4
_MEMORY = 1 << 29


def streams_of(store: FeatureStore, names: Collection[str]) -> int:
    """As many as its place can serve, and memory can hold of these arrays' chunks."""
    most = _LOCAL if isinstance(store.objects.home, LocalObjects) else AT_ONCE
    largest = max(layout.chunk_bytes(store.manifest, name) for name in names)
    return max(1, min(most, _MEMORY // largest))


def spread(places: Sequence[int], count: int) -> list[int]:
    """At most so many of some places, from the first to the last."""
    if len(places) <= count:
        return list(places)
    return [places[int(i)] for i in np.linspace(0, len(places) - 1, count).round()]
