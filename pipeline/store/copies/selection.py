"""Which part of a store's array a node wants to have at hand: views, and the rows of shards."""

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
    """Some views of the rows of some shards, which follow each other.

    views: ascending. whole: whether nothing is left out. rows: of the store, those of the shards.
    """

    views: Sequence[int]
    shards: range
    rows: range
    whole: bool

    @classmethod
    def of(
        cls,
        store: "FeatureStore",
        views: Collection[int] | None = None,
        shards: range | None = None,
    ) -> Self:
        """None stands for all. Raises IndexError if the store has no such view or shard."""
        count, planned = store.manifest.view_count, len(store.shards)
        chosen = range(count) if views is None else sorted(set(views))
        among = range(planned) if shards is None else shards
        if not chosen or chosen[0] < 0 or chosen[-1] >= count:
            raise IndexError(f"views {list(chosen)} are not some of 0..{count - 1}")
        if among.step != 1 or not 0 <= among.start < among.stop <= planned:
            raise IndexError(f"shards {among} are not some of 0..{planned - 1} in a row")
        rows = range(store.shards[among.start].start, store.shards[among.stop - 1].stop)
        whole = len(chosen) == count and len(among) == planned
        return cls(chosen, among, rows, whole)

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
        views = ",".join(map(str, self.views))
        return f"views {views} shards {self.shards.start}-{self.shards.stop - 1}".encode()
