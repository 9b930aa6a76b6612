"""Features: random access to the embeddings of a complete store, at memory speed."""

import warnings
from collections.abc import Collection, Sequence
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch

from egapipe.pipeline.disk.paths import cache_dir as default_cache_dir
from egapipe.pipeline.disk.paths import on_each_node, own_folder
from egapipe.pipeline.locations.urls import path_of
from egapipe.pipeline.store.copies.copying import map_or_copy
from egapipe.pipeline.store.copies.pages import PAGE
from egapipe.pipeline.store.copies.selection import Selection
from egapipe.pipeline.store.store import FeatureStore

Rows = npt.NDArray[np.int64]

TORCH = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}


class Features:
    """One output of a teacher for N rows in V views, mapped from a file on this machine.

    The file is built by the first who asks and shared by every process of the node through the
    page cache. A Features may be pickled (it is mapped anew where it arrives, and built there if it
    has to be), forked and spawned.

    rows: N. view_count: V. shape: of the output for one image, (D,) for embeddings and logits,
    (C, g, g) for grids. dim: how many numbers that is. dtype: of `take`. views: those that are at
    hand, ascending. valid: bool [N], False for failed rows, whose values are NaN. row_bytes: of
    memory that one view of a row takes when it is read. key: what they are, whatever views of them
    are at hand: caches of what is made of them are named by it.
    """

    def __init__(
        self,
        store: FeatureStore,
        output: str,
        content: str,
        cache_dir: str | None,
        views: Sequence[int] | None = None,
    ) -> None:
        """Use `open`. content: the content hash of the store, which is not read if it is cached."""
        folder = default_cache_dir() if cache_dir is None else own_folder(path_of(cache_dir))
        wanted = Selection.of(store, views)
        mapped, part, self.path = map_or_copy(store, output, content, folder.absolute(), wanted)
        self._source = (store, output, content, cache_dir, views)
        self.shape = store.manifest.outputs[output]
        self._values = mapped.values.reshape(-1, *self.shape)
        self._pages = mapped.pages
        self.rows = store.manifest.rows
        self.view_count = store.manifest.view_count
        self.views = part.views
        self.valid = mapped.valid
        # Of each view, its place among those at hand; -1 = not there.
        self._places = np.full(self.view_count, -1, dtype=np.int64)
        self._places[list(part.views)] = np.arange(len(part.views))
        self._everything = part.whole
        self.dim = mapped.values.shape[1]
        self.row_bytes = self._pages.entry_pages * PAGE
        self.key = f"{content}-{output}"
        self.dtype = TORCH[store.manifest.dtype]

    @classmethod
    def open(
        cls,
        store: FeatureStore,
        output: str = "embedding",
        cache_dir: str | None = None,
        *,
        views: Collection[int] | None = None,
    ) -> Self:
        """The features of a complete store, from this node's copy; it is built if there is none.

        output: its name in the manifest. cache_dir: where copies are kept; default `$EGAPIPE_CACHE`
        or `~/.cache/egapipe`. views: those that are needed, nothing else is copied; None for all.
        Raises StoreError if the store is not complete or damaged, or if the folder cannot be
        written, IndexError for a view that it has not.
        """
        store.require_output(output)
        # Whoever unpickles it may have another working folder.
        cache_dir = None if cache_dir is None else on_each_node(cache_dir)
        wanted = None if views is None else tuple(sorted(views))
        return cls(store, output, store.finished().content_hash(), cache_dir, wanted)

    def take(self, rows: Rows, view: int | Rows) -> torch.Tensor:
        """[B, *shape] in the stored type: a copy of some rows, each in the view asked for.

        rows: int64 [B]. view: one for all, or int64 [B]. Raises IndexError with the values if one
        is out of range, or the view is not at hand.
        """
        entries = self.entries(rows, view)
        if self._pages.sparse and len(entries) > 1 and self._pages.missing(entries):
            self._pages.read(entries)
        # Every index was checked: `clip` spares numpy a check of its own.
        taken = torch.from_numpy(self._values.take(entries, axis=0, mode="clip"))
        return taken.view(self.dtype)

    def entries(self, rows: Rows, view: int | Rows) -> Rows:
        """int64 [B]: where some rows are in `tensor()`, each in the view asked for. As `take`."""
        try:
            if self._everything:
                entries = np.ravel_multi_index((rows, view), (self.rows, self.view_count))
                return np.asarray(entries, dtype=np.int64)
            # This refuses a negative view, which would count from the end.
            places = self._places[np.ravel_multi_index((view,), (self.view_count,))]
            found = np.ravel_multi_index((rows, places), (self.rows, len(self.views)))
            return np.asarray(found, dtype=np.int64)
        except ValueError:
            raise self._refusal(rows, view) from None

    def read_ahead(self, rows: Rows, view: int | Rows) -> None:
        """Have the system read what `take` will be asked for, many rows at a time, sorted as they
        lie on the disk; what is in memory already costs next to nothing."""
        entries = self.entries(rows, view)
        if len(entries) and self._pages.missing(entries):
            self._pages.read(entries)

    def tensor(self, views: Sequence[int] | None = None) -> torch.Tensor:
        """[N * V, *shape] in the stored type: row r's view v is entry r * V + v; of a part, see
        `entries`.

        views: the V there are in it, ascending, some of those at hand; None for all of these. Then
        it shares the memory of the mapped file, which must not be written to.
        """
        self._pages.read_all()
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
            every = torch.from_numpy(self._values).view(self.dtype)
        if views is None or list(views) == list(self.views):
            return every
        apart = every.view(-1, len(self.views), *self.shape)
        places = torch.from_numpy(self._places[list(views)])
        return apart.index_select(1, places).flatten(0, 1)

    def __reduce__(self) -> tuple[Any, ...]:
        return (type(self), self._source)

    def __repr__(self) -> str:
        return f"Features({str(self.path)!r})"

    def _refusal(self, rows: Rows, view: int | Rows) -> IndexError:
        for what, values, end in (("row", rows, self.rows), ("view", view, self.view_count)):
            given = np.atleast_1d(values)
            wrong = given[(given < 0) | (given >= end)]
            if len(wrong):
                return IndexError(f"{what} {wrong[0]} is not in 0..{end - 1}")
        if self._everything or (np.ndim(view) > 0 and np.shape(rows) != np.shape(view)):
            return IndexError(f"{np.shape(rows)} rows and {np.shape(view)} views do not pair")
        return IndexError(f"this copy has views {list(self.views)}: others are not here")
