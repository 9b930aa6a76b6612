"""The nearest rows in teacher space as a file in the node's cache, beside the features.

Searching takes up to minutes that every trial would pay again; the file is made once per node under
a lock, renamed into place, and mapped by all processes.
"""

import hashlib
import logging
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from egapipe.pipeline.disk.arrays import mapped_npy
from egapipe.pipeline.disk.caches import NEIGHBOURS, build_once
from egapipe.pipeline.errors import UsageError
from egapipe.pipeline.store import Features
from egapipe.stages.distill.data.rows.samplers.search import EXACT_ROWS, Nearest, nearest_rows
from egapipe.stages.distill.workers.together import agreed
from egapipe.stages.distill.workers.world import World

METHOD = f"egapipe nearest 1, exact to {EXACT_ROWS}"
"""Changes when the same features would give other neighbours."""
_CHUNK = 8192
_log = logging.getLogger(__name__)


def nearest_of(parts: Sequence[Features], k: int, world: World) -> Nearest:
    """int32 [N, k]: for each row of all parts together the others that are nearest to it.

    By the cosine of the clean views' embeddings, nearest first; -1 where there are none, as for
    failed rows, which are nobody's neighbours. The same array on every worker: the first one's.
    """
    nearest = agreed(world, lambda: _mapped_or_made(parts, k, world.device))
    if world.group is None:
        return nearest
    # Another machine's arithmetic may have swapped two neighbours that are as near.
    shared = torch.from_numpy(np.array(nearest)).to(world.device)
    world.broadcast([shared])
    return shared.cpu().numpy()


def nearest_file(parts: Sequence[Features], k: int) -> Path:
    """Where the neighbours of these features lie on this node."""
    names = "\n".join([METHOD, *(part.key for part in parts)])
    digest = hashlib.sha256(names.encode()).hexdigest()[:16]
    # The name begins as that of the first part's features, which `store prune` keeps or removes.
    return parts[0].path.with_name(f"{parts[0].key}-nearest{k}-{digest}.npy")


def _mapped_or_made(parts: Sequence[Features], k: int, device: torch.device) -> Nearest:
    """Raises StoreError if the cache folder cannot be written."""
    path, shape = nearest_file(parts, k), (sum(part.rows for part in parts), k)
    return build_once(
        NEIGHBOURS,
        path,
        lambda: _mapped(path, shape),
        lambda partial: _make(partial, parts, k, device),
    )


def _mapped(path: Path, shape: tuple[int, int]) -> Nearest | None:
    """None if there is no such file, or it is damaged."""
    try:
        nearest: Nearest = mapped_npy(path)
    except UsageError:
        return None
    return nearest if nearest.shape == shape and nearest.dtype == np.int32 else None


def _make(path: Path, parts: Sequence[Features], k: int, device: torch.device) -> None:
    started = time.perf_counter()
    nearest = _search(parts, k, device)
    with path.open("wb") as file:
        np.save(file, nearest, allow_pickle=False)
    _log.info("neighbours found in %.1f s: %s", time.perf_counter() - started, path.parent)


def _search(parts: Sequence[Features], k: int, device: torch.device) -> Nearest:
    valid = np.concatenate([part.valid for part in parts])
    rows = np.flatnonzero(valid)
    found = nearest_rows(torch.cat([_directions(part) for part in parts]), k, device)
    nearest = np.full((len(valid), k), -1, dtype=np.int32)
    nearest[rows] = np.where(found >= 0, rows[found], -1)
    return nearest


def _directions(features: Features) -> Tensor:
    """float32 [M, D]: the valid rows' clean views, of unit length."""
    rows = np.flatnonzero(features.valid)
    taken = torch.empty(len(rows), features.dim)
    for start in range(0, len(rows), _CHUNK):
        chunk = features.take(rows[start : start + _CHUNK], 0).float()
        taken[start : start + len(chunk)] = F.normalize(chunk, dim=1)
    return taken
