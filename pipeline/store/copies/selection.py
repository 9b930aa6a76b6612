"""Which views of a store's array a node wants to have at hand."""

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np

from egapipe.pipeline.store.format.dtypes import Stored

if TYPE_CHECKING:
    from egapipe.pipeline.store.store import FeatureStore


@dataclass(frozen=True)
class Selection:
    """Some views of all rows.

    views: ascending. whole: whether they are all. shards: how many the rows are in.
    """

    views: Sequence[int]
    whole: bool
    shards: int

    @classmethod
    def of(cls, store: "FeatureStore", views: Collection[int] | None = None) -> Self:
        """None stands for all. Raises IndexError if the store has no such view."""
        count = store.manifest.view_count
        chosen = range(count) if views is None else sorted(set(views))
        if not chosen or chosen[0] < 0 or chosen[-1] >= count:
            raise IndexError(f"views {list(chosen)} are not some of 0..{count - 1}")
        return cls(chosen, len(chosen) == count, len(store.shards))

    @property
    def name(self) -> str:
        """What sets it apart from others of the same array, as part of a file's name."""
        return "" if self.whole else f"-part{hashlib.sha256(self._text).hexdigest()[:16]}"

    @property
    def metadata(self) -> dict[str, str]:
        """What the copy says of itself; nothing where it has everything."""
        return {} if self.whole else {"egapipe.selection": self._text.decode()}

    def taken(self, block: Stored) -> Stored:
        """The views of a shard, [rows, V', *shape] of [rows, V, *shape]; itself if they are all."""
        if len(self.views) == block.shape[1]:
            return block
        return np.ascontiguousarray(block[:, list(self.views)])

    @property
    def _text(self) -> bytes:
        # The shards are named because there are copies whose names have them.
        views = ",".join(map(str, self.views))
        return f"views {views} shards 0-{self.shards - 1}".encode()
