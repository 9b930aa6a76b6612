"""Nearest images in teacher or student space, and images that train and test share."""

from typing import TYPE_CHECKING

from egapipe.pipeline.machine.lazy import lazy

if TYPE_CHECKING:
    from egapipe.stages.index.embedding_index import EmbeddingIndex, IndexReport, build
    from egapipe.stages.index.leaks import Leak, LeakReport, find_leaks
    from egapipe.stages.index.spaces import Neighbour, neighbours

__all__ = [
    "KINDS",
    "EmbeddingIndex",
    "IndexReport",
    "Leak",
    "LeakReport",
    "Neighbour",
    "build",
    "find_leaks",
    "neighbours",
]

KINDS = ("flat", "hnsw", "ivf")
"""flat: every pair is compared, exact. hnsw: a graph that is walked. ivf: the nearest of lists."""

__getattr__ = lazy(
    __name__,
    {
        "EmbeddingIndex": "embedding_index",
        "IndexReport": "embedding_index",
        "build": "embedding_index",
        "Leak": "leaks",
        "LeakReport": "leaks",
        "find_leaks": "leaks",
        "Neighbour": "spaces",
        "neighbours": "spaces",
    },
)
