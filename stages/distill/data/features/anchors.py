"""Anchors among the teacher's cached features: rows drawn by seed, or the centres of clusters."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from egapipe.pipeline.disk.arrays import mapped_npy
from egapipe.pipeline.disk.caches import ANCHORS, build_once
from egapipe.pipeline.errors import UsageError
from egapipe.stages.distill.data.joint import joint_embeddings
from egapipe.stages.distill.data.rows.order import Ints, generator
from egapipe.stages.distill.data.sources import Sources
from egapipe.stages.distill.workers.together import agreed
from egapipe.stages.distill.workers.world import World

Floats = npt.NDArray[np.float32]
Standardize = Callable[[Tensor], Tensor]

METHOD = "egapipe anchors 1"
"""Changes when the same features would give other anchors."""
_ANCHORS_STREAM = 6
_CHUNK = 8192


def anchors_of(
    sources: Sources,
    standardize: Standardize,
    seed: int,
    world: World,
    kind: str,
    count: int,
) -> Tensor:
    """float32 [M, F]: of the clean views of the rows that a training learns from, M at most these.

    standardize: stored features [B, F] to what objectives see. kind: "kmeans", the centres of
    clusters by direction, which are found once a node; else rows drawn by the seed. Raises
    StoreError if the cache folder cannot be written.
    """
    rows = np.flatnonzero(sources.learned)
    count = min(count, len(rows))
    if kind != "kmeans":
        drawn = generator(seed, _ANCHORS_STREAM).permutation(rows)[:count]
        return torch.from_numpy(_taken(sources, standardize, drawn))
    path = _file(sources, standardize, seed, count, rows)

    def make(partial: Path) -> None:
        centres = _centres(_taken(sources, standardize, rows), count, seed)
        with partial.open("wb") as file:
            np.save(file, centres, allow_pickle=False)

    shape = (count, sources.features[0].dim)
    found = agreed(world, lambda: build_once(ANCHORS, path, lambda: _mapped(path, shape), make))
    return torch.from_numpy(np.array(found))


def _file(sources: Sources, standardize: Standardize, seed: int, count: int, rows: Ints) -> Path:
    """Where these centres lie on this node; named by what the features are after standardising."""
    digest = hashlib.sha256(_taken(sources, standardize, rows[:1]).tobytes())
    names = [METHOD, str(seed), *(part.key for part in sources.features)]
    digest.update("\n".join(names).encode() + rows.tobytes())
    first = sources.features[0]
    # The name begins as that of the first part's features, which `store prune` keeps or removes.
    return first.path.with_name(f"{first.key}-anchors{count}-{digest.hexdigest()[:16]}.npy")


def _taken(sources: Sources, standardize: Standardize, rows: Ints) -> Floats:
    """float32 [M, F]: standardised features of the clean views of some rows."""
    features = joint_embeddings(sources.features)
    taken = np.empty((len(rows), features.dim), dtype=np.float32)
    with torch.no_grad():
        for start in range(0, len(rows), _CHUNK):
            chunk = standardize(features.take(rows[start : start + _CHUNK], 0))
            taken[start : start + len(chunk)] = chunk.numpy()
    return taken


def _centres(rows: Floats, count: int, seed: int) -> Floats:
    """float32 [count, F], of unit length: the centres of spherical k-means."""
    import faiss

    unit = F.normalize(torch.from_numpy(rows), dim=1).numpy()
    # So few rows a cluster that faiss would warn are the user's choice.
    means = faiss.Kmeans(
        unit.shape[1], count, seed=seed & 0x7FFFFFFF, spherical=True, min_points_per_centroid=1
    )
    means.train(unit)
    return np.asarray(means.centroids, dtype=np.float32)


def _mapped(path: Path, shape: tuple[int, int]) -> Floats | None:
    """None if there is no such file, or it is damaged."""
    try:
        found: Floats = mapped_npy(path)
    except UsageError:
        return None
    return found if found.shape == shape and found.dtype == np.float32 else None
