"""The faiss index of unit vectors: its kind by the number of rows, its file, its GPU."""

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from egapipe.pipeline.disk.files import replace_file
from egapipe.pipeline.errors import EgapipeError, one_line
from egapipe.pipeline.mathematics.nearest import Floats, Ints

FLAT_ROWS = 100_000
HNSW_ROWS = 1_000_000
"""Up to FLAT_ROWS every pair is compared, up to HNSW_ROWS a graph is walked, lists above."""
_LINKS, _EF_CONSTRUCTION, _EF_SEARCH = 32, 80, 128
_TRAINING_PER_LIST = 64
_LISTS_VISITED = 32

Chunks = Callable[[], Iterator[tuple[Ints, Floats]]]
"""Rows int64 [n] and their unit vectors float32 [n, D], a chunk at a time; may be asked again."""


def kind_for(rows: int) -> str:
    """flat, hnsw or ivf."""
    return "flat" if rows <= FLAT_ROWS else "hnsw" if rows <= HNSW_ROWS else "ivf"


def build_index(kind: str, rows: int, dim: int, chunks: Chunks) -> Any:
    """An index of inner products whose ids are row numbers; a GPU trains and fills it if there is
    one that this faiss can use."""
    import faiss

    index = faiss.IndexIDMap(on_gpu(_empty(kind, rows, dim), kind))
    if not index.is_trained:
        index.train(_sample(chunks, _lists(rows) * _TRAINING_PER_LIST, rows))
    for numbers, vectors in chunks():
        index.add_with_ids(np.ascontiguousarray(vectors), numbers)
    return index


def on_gpu(index: Any, kind: str) -> Any:
    """The index on all GPUs, where faiss sees any and has this kind there; else as it is."""
    import faiss

    gpus = getattr(faiss, "get_num_gpus", lambda: 0)()
    return faiss.index_cpu_to_all_gpus(index) if gpus and kind != "hnsw" else index


def write_index(index: Any, file: Path) -> None:
    """Write an index, whole or not at all."""
    import faiss

    if hasattr(faiss, "index_gpu_to_cpu") and getattr(faiss, "get_num_gpus", lambda: 0)():
        index = faiss.index_gpu_to_cpu(index)
    replace_file(file, faiss.serialize_index(index).tobytes())


def read_index(file: Path) -> Any:
    """Read an index. Raises EgapipeError if it is damaged."""
    import faiss

    try:
        return faiss.read_index(str(file))
    except RuntimeError as error:
        raise EgapipeError(f"index {file} is damaged ({one_line(error)}): remove it") from None


def _empty(kind: str, rows: int, dim: int) -> Any:
    import faiss

    metric = faiss.METRIC_INNER_PRODUCT
    if kind == "flat":
        return faiss.IndexFlatIP(dim)
    if kind == "hnsw":
        graph = faiss.IndexHNSWFlat(dim, _LINKS, metric)
        graph.hnsw.efConstruction, graph.hnsw.efSearch = _EF_CONSTRUCTION, _EF_SEARCH
        return graph
    lists = faiss.IndexIVFFlat(faiss.IndexFlatIP(dim), dim, _lists(rows), metric)
    lists.nprobe = min(_LISTS_VISITED, _lists(rows))
    return lists


def _lists(rows: int) -> int:
    """Four times the root of the rows, and enough rows in each to find its centre."""
    return max(1, min(int(4 * math.sqrt(rows)), rows // 39))


def _sample(chunks: Chunks, wanted: int, rows: int) -> Floats:
    """Every n-th row, in all `wanted` at least where there are so many."""
    step = max(1, rows // max(wanted, 1))
    return np.concatenate([vectors[::step] for _, vectors in chunks()])
