"""Features: random access to the embeddings of a complete store, at memory speed."""

import warnings
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch

from egapipe.pipeline.disk.caches import FEATURES
from egapipe.pipeline.disk.paths import cache_dir as default_cache_dir
from egapipe.pipeline.disk.paths import on_each_node, own_folder
from egapipe.pipeline.locations.urls import path_of
from egapipe.pipeline.store.cache import map_or_build
from egapipe.pipeline.store.store import FeatureStore

Rows = npt.NDArray[np.int64]

TORCH = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}


class Features:
    """One output of a teacher for N rows in V views, mapped from a file on this machine.

    The file is built by the first who asks and shared by every process of the node through the
    page cache. A Features may be pickled (it is mapped anew where it arrives, and built there if it
    has to be), forked and spawned.

    rows: N. view_count: V. shape: of the output for one image, (D,) for embeddings and logits,
    (C, g, g) for grids. dim: how many numbers that is. dtype: of `take`.
    valid: bool [N], False for failed rows, whose values are NaN.
    """

    def __init__(
        self, store: FeatureStore, output: str, content: str, cache_dir: str | None
    ) -> None:
        """Use `open`. content: the content hash of the store, which is not read if it is cached."""
        folder = default_cache_dir() if cache_dir is None else own_folder(path_of(cache_dir))
        path = FEATURES.file(folder.absolute(), f"{content}-{output}")
        mapped = map_or_build(store, output, content, path)
        self._source = (store, output, content, cache_dir)
        self.shape = store.manifest.outputs[output]
        self._values = mapped.values.reshape(-1, *self.shape)
        self.path = path
        self.valid = mapped.valid
        self.rows = store.manifest.rows
        self.view_count = store.manifest.view_count
        self.dim = mapped.values.shape[1]
        self.dtype = TORCH[store.manifest.dtype]

    @classmethod
    def open(
        cls, store: FeatureStore, output: str = "embedding", cache_dir: str | None = None
    ) -> Self:
        """The features of a complete store, from this node's copy; it is built if there is none.

        output: its name in the manifest. cache_dir: where copies are kept; default `$EGAPIPE_CACHE`
        or `~/.cache/egapipe`. Raises StoreError if the store is not complete or damaged, or if the
        folder cannot be written.
        """
        store.require_output(output)
        # Whoever unpickles it may have another working folder.
        cache_dir = None if cache_dir is None else on_each_node(cache_dir)
        return cls(store, output, store.finished().content_hash(), cache_dir)

    def take(self, rows: Rows, view: int | Rows) -> torch.Tensor:
        """[B, *shape] in the stored type: a copy of some rows, each in the view asked for.

        rows: int64 [B]. view: one for all, or int64 [B]. Raises IndexError with the values if one
        is out of range.
        """
        try:
            flat = np.ravel_multi_index((rows, view), (self.rows, self.view_count))
        except ValueError:
            raise self._refusal(rows, view) from None
        # Every index was checked: `clip` spares numpy a check of its own.
        taken = torch.from_numpy(self._values.take(flat, axis=0, mode="clip"))
        return taken.view(self.dtype)

    def tensor(self) -> torch.Tensor:
        """[N * V, *shape] in the stored type: row r's view v is entry r * V + v.

        It shares the memory of the mapped file, which must not be written to.
        """
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
            return torch.from_numpy(self._values).view(self.dtype)

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
        return IndexError(f"{np.shape(rows)} rows and {np.shape(view)} views do not pair")
