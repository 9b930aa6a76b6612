"""Which rows a data set's pairs join, `dataset.pairs`: as edges between row numbers."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import torch

from egapipe.pipeline.datasets import Dataset
from egapipe.pipeline.datasets.pairs import Pairs, read_pairs
from egapipe.pipeline.errors import UsageError
from egapipe.stages.distill.data.rows.order import Ints
from egapipe.stages.distill.workers.world import World

_log = logging.getLogger(__name__)
# Keys of a data set that are looked through at a time.
_KEYS = 1 << 22


@dataclass(frozen=True, eq=False)
class Links:
    """Edges between the N rows of a training, by the row that they come from.

    starts: int64 [N + 1]; the edges out of row i are those from starts[i] to starts[i + 1] - 1.
    targets: int64 [E], the rows that they go to, ascending for each row. scores: float32 [E].
    digest: of the file that they are of, see `Pairs.digest`. No edge is there twice, none goes to
    where it comes from, and all are between rows to learn from.
    """

    starts: Ints
    targets: Ints
    scores: npt.NDArray[np.float32]
    digest: str

    @property
    def sources(self) -> Ints:
        """int64 [E], the rows that the edges come from."""
        return np.repeat(np.arange(len(self.starts) - 1), np.diff(self.starts))


def open_links(place: str, datasets: Sequence[Dataset], learned: npt.NDArray[np.bool_]) -> Links:
    """The pairs at a path or URL as edges, first to second.

    datasets: their rows are numbered through. learned: bool [N], the rows to learn from. What
    cannot be an edge is left out, counted and said in one warning. Raises UsageError, in one line,
    as `read_pairs`, for a key that two data sets have, a pair of two scores, or where nothing is
    left; MachineError as `read_pairs`.
    """
    where = f"dataset.pairs: {place}"
    pairs = read_pairs(place)
    first, second = _rows(pairs, datasets, where)
    known = (first >= 0) & (second >= 0)
    there = known & learned[first] & learned[second]
    others = there & (first != second)
    edges = _unique(first[others], second[others], pairs, np.flatnonzero(others), where)
    left_out = {
        "with a key that no row to learn from has": len(first) - int(known.sum()),
        "of an image that failed, or is held out": int((known & ~there).sum()),
        "of a row with itself": int((there & ~others).sum()),
        "that are there before": int(others.sum()) - len(edges[0]),
    }
    said = ", ".join(f"{count:,} {what}" for what, count in left_out.items() if count)
    if len(edges[0]) == 0:
        raise UsageError(
            f"{where} joins no two rows to learn from: of its pairs are {said}; first and second "
            f"are keys such as {datasets[0].keys[0]!r}"
        )
    if said:
        _log.warning("%s: of its %d pairs are left out %s", where, len(first), said)
    counts = np.bincount(edges[0], minlength=len(learned))
    starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    scores = pairs.scores[edges[2]].astype(np.float32)
    return Links(starts, edges[1], scores, pairs.digest)


def check_one_file(links: Links | None, world: World) -> None:
    """Raise UsageError, on all workers, unless they have read the same pairs. All call it."""
    if links is None or world.group is None:
        return
    # Ends here where another worker could not read its own.
    world.agree(lambda: None)
    own = torch.tensor([*bytes.fromhex(links.digest)], device=world.device)
    first = own.clone()
    world.broadcast([first])
    if int(world.total((own != first).any().long())):
        raise UsageError(
            "dataset.pairs is not the same file on all workers' machines: copy one to all of them"
        )


def _rows(pairs: Pairs, datasets: Sequence[Dataset], where: str) -> tuple[Ints, Ints]:
    """int64 [E] each: rows of first and second, -1 where there is none of that key."""
    wanted = pc.unique(pa.chunked_array([pairs.first, pairs.second]))
    rows = np.full(len(wanted), -1, dtype=np.int64)
    start = 0
    for dataset in datasets:
        found = _rows_in(dataset, wanted)
        both = np.flatnonzero((found >= 0) & (rows >= 0))
        if len(both):
            raise UsageError(
                f"{where}: the key {wanted[int(both[0])].as_py()!r} is that of two rows, one of "
                f"{dataset.name}: pairs need keys that are unique over all images to learn from"
            )
        rows = np.where(found >= 0, found + start, rows)
        start += len(dataset)
    return _places(pairs.first, wanted, rows), _places(pairs.second, wanted, rows)


def _rows_in(dataset: Dataset, wanted: pa.Array) -> Ints:
    """int64 [K]: the row of each key, -1 where there is none."""
    rows = np.full(len(wanted), -1, dtype=np.int64)
    for start in range(0, len(dataset), _KEYS):
        keys = pa.array(dataset.keys[start : start + _KEYS], pa.large_string())
        found = pc.fill_null(pc.index_in(wanted, value_set=keys), -1).to_numpy().astype(np.int64)
        rows = np.where(found >= 0, found + start, rows)
    return rows


def _places(keys: pa.Array, wanted: pa.Array, rows: Ints) -> Ints:
    places: Ints = pc.index_in(keys, value_set=wanted).to_numpy().astype(np.int64)
    return rows[places]


def _unique(
    first: Ints, second: Ints, pairs: Pairs, places: Ints, where: str
) -> tuple[Ints, Ints, Ints]:
    """Sorted by first and second, one of each: both rows, and the place in the file."""
    order = np.lexsort((places, second, first))
    first, second, places = first[order], second[order], places[order]
    again = np.zeros(len(places), dtype=bool)
    again[1:] = (np.diff(first) == 0) & (np.diff(second) == 0)
    odd = np.flatnonzero(again[1:] & (np.diff(pairs.scores[places]) != 0))
    if len(odd):
        one, two = places[odd[0] : odd[0] + 2].tolist()
        raise UsageError(
            f"{where}: rows {one} and {two} are the same pair with two scores, "
            f"{pairs.scores[one]:g} and {pairs.scores[two]:g}: leave one of them"
        )
    return first[~again], second[~again], places[~again]
