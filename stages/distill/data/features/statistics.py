"""Mean, variance and principal axes of the teacher's outputs, as a file in the node's cache.

They are computed once a node from every view of every row that a training learns from, in one pass
over the features with the memory of D x D numbers, under a lock, and mapped by all that ask later.
"""

import hashlib
import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

from egapipe.pipeline.disk.caches import STATISTICS, build_once
from egapipe.pipeline.errors import UsageError
from egapipe.pipeline.store import Features
from egapipe.stages.distill.data.features.rotation import equal_variances
from egapipe.stages.distill.workers.together import agreed
from egapipe.stages.distill.workers.world import World

Doubles = npt.NDArray[np.float64]

METHOD = "egapipe statistics 1"
"""Changes when the same features would give other statistics."""
MOST_ROTATED = 8192
"""Widest output that is rotated: its covariance has 0.5 GB."""
_NUMBERS = 2**23
_log = logging.getLogger(__name__)


def channels_first(dimensions: int) -> bool:
    """Whether of what a row has, with so many dimensions, the first are the channels, as in maps
    [C, h, w], and not the last, as in tokens [T, D]."""
    return dimensions > 2


@dataclass(frozen=True)
class Statistics:
    """Of an output of width D. mean, variance: float64 [D].

    rotation: float64 [D, D], orthogonal; R (x - mean) has the mean of the variances in each entry.
    None where it was not asked for.
    """

    mean: Doubles
    variance: Doubles
    rotation: Doubles | None = None


def statistics_of(
    parts: Sequence[Features],
    rows: npt.NDArray[np.bool_],
    world: World,
    *,
    channels: bool = False,
    rotated: bool = False,
) -> Statistics:
    """The statistics of one output, of some rows of all parts together.

    rows: bool [N], of all parts one after the other. channels: of maps [C, h, w] those of the C
    channels, of tokens [T, D] those of the D, each place counting as a row; else of all numbers.
    Raises UsageError for an output too wide to be rotated, StoreError if the cache folder cannot be
    written.
    """
    width = _width(parts[0].shape) if channels else parts[0].dim
    if rotated and width > MOST_ROTATED:
        raise UsageError(
            f"distill.standardize is phi-s, whose covariance is of {width:,} x {width:,} numbers "
            f"here, and the limit {MOST_ROTATED:,}: set it to zscore or scale"
        )
    path = statistics_file(parts, rows, channels=channels, rotated=rotated)
    make = partial(_make, parts=parts, rows=rows, channels=channels, rotated=rotated)
    known = partial(_read, path, width, rotated=rotated)
    return agreed(world, lambda: build_once(STATISTICS, path, known, make))


def statistics_file(
    parts: Sequence[Features], rows: npt.NDArray[np.bool_], *, channels: bool, rotated: bool
) -> Path:
    """Where these statistics lie on this node."""
    chosen = hashlib.sha256(np.packbits(rows).tobytes()).hexdigest()
    names = "\n".join([METHOD, *(part.key for part in parts), chosen, str(channels)])
    digest = hashlib.sha256(names.encode()).hexdigest()[:16]
    kind = "rotation" if rotated else "moments"
    # The name begins as that of the first part's features, which `store prune` keeps or removes.
    return parts[0].path.with_name(f"{parts[0].key}-{kind}-{digest}.npz")


def accumulate(chunks: Iterator[Doubles], *, squared: bool) -> tuple[int, Doubles, Doubles]:
    """Count, mean [D], and the sum of squares about it, [D] or with `squared` [D, D].

    chunks: [n, D] each, n >= 1. Joined as Chan, Golub and LeVeque (1979) do: no large squares are
    subtracted.
    """
    count, mean, about = 0, np.zeros(1), np.zeros(1)
    for chunk in chunks:
        own = chunk.mean(axis=0)
        centred = chunk - own
        rows, apart = len(chunk), own - mean
        total = count + rows
        share = apart * (count * rows / total)
        about = about + (centred.T @ centred if squared else np.square(centred).sum(axis=0))
        about += np.outer(apart, share) if squared else apart * share
        mean = mean + apart * (rows / total)
        count = total
    return count, mean, about


def _make(
    path: Path,
    parts: Sequence[Features],
    rows: npt.NDArray[np.bool_],
    *,
    channels: bool,
    rotated: bool,
) -> None:
    started = time.perf_counter()
    count, mean, about = accumulate(_chunks(parts, rows, channels), squared=rotated)
    found = {"mean": mean, "variance": (about.diagonal() if rotated else about) / count}
    if rotated:
        found["rotation"] = equal_variances(about / count)
    with path.open("wb") as file:
        np.savez(file, allow_pickle=False, **found)
    _log.info("statistics of %d rows in %.1f s", count, time.perf_counter() - started)


def _chunks(
    parts: Sequence[Features], rows: npt.NDArray[np.bool_], channels: bool
) -> Iterator[Doubles]:
    """float64 [n, D]: all views of the rows, some rows at a time."""
    starts = np.cumsum([0, *(part.rows for part in parts)])
    for part, start in zip(parts, starts, strict=False):
        own = np.flatnonzero(rows[start : start + part.rows])
        length = max(1, _NUMBERS // part.dim)
        for view in range(part.view_count):
            for first in range(0, len(own), length):
                taken = part.take(own[first : first + length], view).double().numpy()
                if channels:
                    last = np.moveaxis(taken, 1, -1) if channels_first(len(part.shape)) else taken
                    yield last.reshape(-1, _width(part.shape))
                else:
                    yield taken.reshape(len(taken), -1)


def _width(shape: tuple[int, ...]) -> int:
    """Of what a row has, its channels; 1 of a scalar."""
    first = 0 if channels_first(len(shape)) else -1
    return shape[first] if shape else 1


def _read(path: Path, width: int, *, rotated: bool) -> Statistics | None:
    """None if there is no such file, or it is damaged."""
    try:
        with np.load(path, allow_pickle=False) as file:
            found = {name: file[name] for name in file.files}
    except (OSError, ValueError, EOFError, KeyError, BadZipFile):
        return None
    shapes: dict[str, tuple[int, ...]] = {"mean": (width,), "variance": (width,)}
    if rotated:
        shapes["rotation"] = (width, width)
    sound = {k: v.shape for k, v in found.items()} == shapes and all(
        v.dtype == np.float64 and np.isfinite(v).all() for v in found.values()
    )
    return Statistics(**found) if sound else None
