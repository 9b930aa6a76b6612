"""Number types for stored embeddings: size, what rounding does to them, and reading speed.

int8 is measured as it would be stored, with a float32 scale a row; the store has no such type.
"""

import os
import statistics
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from egapipe.pipeline.config import load_config
from egapipe.pipeline.config.data import ViewsConfig
from egapipe.pipeline.errors import UsageError
from egapipe.pipeline.mathematics.timing import timed
from egapipe.pipeline.store import DatasetRecord, Features, FeatureStore, Manifest
from egapipe.pipeline.store.commands.diff import cosine_differences
from egapipe.pipeline.store.format.dtypes import NUMPY, DtypeName, to_floats, to_stored
from egapipe.pipeline.store.format.stored import StoredViews
from egapipe.pipeline.views import plan_hash
from egapipe.stages import extract
from egapipe.stages.distill.objectives import ega_loss

Floats = npt.NDArray[np.float32]
Gather = Callable[[npt.NDArray[np.int64]], torch.Tensor]

EMBEDDINGS = "EGAPIPE_BENCH_EMBEDDINGS"
STORED: tuple[DtypeName, ...] = ("float16", "bfloat16", "float32")
BATCH, BATCHES, REPEATS = 256, 100, 9


@dataclass(frozen=True)
class Choice:
    """One number type. rounded: float32 [N, D], what is read back."""

    name: str
    bytes_a_row: int
    rounded: Floats
    gather: Gather


@dataclass(frozen=True)
class Errors:
    """What storing does to embeddings.

    cosine_max, cosine_mean: of 1 - cosine to the exact ones. edges: EGA's edge term ||E_t - E_s||_F
    between the stored embeddings of a batch of 256 and the exact ones. loss: relative change of the
    EGA of a student half way there, whose embeddings are the exact ones and as much noise. Both in
    float64 by the direct form, the mean of up to 8 batches.
    """

    cosine_max: float
    cosine_mean: float
    edges: float
    loss: float


def errors(exact: Floats, rounded: Floats) -> Errors:
    """Compare stored embeddings with exact ones, both [N, D] with N >= 256."""
    cosines = cosine_differences(exact, rounded)
    rng = np.random.default_rng(0)
    count = min(8, len(exact) // BATCH)
    edges, changes = [], []
    for rows in rng.permutation(len(exact))[: count * BATCH].reshape(count, BATCH):
        true, stored = (torch.from_numpy(x[rows].astype(np.float64)) for x in (exact, rounded))
        noise = torch.from_numpy(rng.standard_normal(true.shape))
        student = true + noise * true.std(dim=0)
        asked, given = (float(ega_loss(student, t, form="direct")) for t in (true, stored))
        moved = ega_loss(stored, true, node_weight=0, edge_weight=1, form="direct")
        edges.append(float(moved))
        changes.append(abs(given - asked) / asked)
    return Errors(
        float(cosines.max()),
        float(cosines.mean()),
        statistics.mean(edges),
        statistics.mean(changes),
    )


def to_int8(values: Floats) -> tuple[npt.NDArray[np.int8], Floats]:
    """[N, D] as int8 and one scale a row, [N, 1]: the largest entry of a row becomes 127."""
    scales = np.abs(values).max(axis=1, keepdims=True) / np.float32(127)
    codes = np.rint(values / np.where(scales == 0, 1, scales)).astype(np.int8)
    return codes, scales.astype(np.float32)


def report() -> list[str]:
    """The measurement as lines of text."""
    exact, source = _embeddings()
    rows, dim = exact.shape
    lines = [
        f"{rows:,} x {dim} embeddings of {source}, gathered {BATCH} rows at a time",
        f"  {'':<10}{'bytes':>7}{'1 - cosine max':>16}{'mean':>10}{'edges':>10}"
        f"{'EGA change':>12}{'M rows/s':>10}{'as float32':>12}",
    ]
    with tempfile.TemporaryDirectory() as name:
        choices = _choices(Path(name), exact)
        speeds = _speeds(choices, rows)
        for choice, (plain, widened) in zip(choices, speeds, strict=True):
            found = errors(exact, choice.rounded)
            lines.append(
                f"  {choice.name:<10}{choice.bytes_a_row:>7}{found.cosine_max:>16.1e}"
                f"{found.cosine_mean:>10.1e}{found.edges:>10.1e}{found.loss:>12.1e}"
                f"{plain:>10.2f}{widened:>12.2f}"
            )
    return lines


def _embeddings() -> tuple[Floats, str]:
    """Real embeddings in float32 [N, D], and whose they are."""
    path = os.environ.get(EMBEDDINGS)
    if path is None:
        return _digits(), "digits by the quickstart's teacher"
    try:
        given = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise UsageError(f"{EMBEDDINGS}={path} cannot be read as .npy: {error}") from None
    if given.ndim != 2 or given.dtype.kind != "f" or len(given) < BATCH:
        raise UsageError(
            f"{EMBEDDINGS}={path} holds {given.dtype} {list(given.shape)}: "
            f"floats [rows, D] with {BATCH} rows or more are needed"
        )
    return _unrounded(given), Path(path).stem


def _unrounded(given: npt.NDArray[np.floating]) -> Floats:
    """Embeddings that were rounded to float16 before would show no error in float16.

    A random rotation keeps all their angles and fills the digits that they lack.
    """
    values = given.astype(np.float64)
    if given.dtype == np.float16:
        square = np.random.default_rng(0).standard_normal((values.shape[1],) * 2)
        values = values @ np.linalg.qr(square)[0]
    exact: Floats = values.astype(np.float32)
    return exact


def _digits() -> Floats:
    with tempfile.TemporaryDirectory() as name:
        sets = [f"store.url={name}", "store.dtype=float32", "views.count=0"]
        config = load_config("quickstart", sets)
        url = extract.run(config, split="train", local=True).url
        store = FeatureStore.open(url)
        shards = [store.read_shard(shard)[:, 0] for shard in range(len(store.shards))]
        return to_floats(np.concatenate(shards), "float32")


def _choices(folder: Path, exact: Floats) -> list[Choice]:
    dim = exact.shape[1]
    choices = []
    for dtype in STORED:
        features = Features.open(_store(folder, exact, dtype), cache_dir=str(folder / "cache"))
        rounded = to_floats(to_stored(exact, dtype), dtype)
        choices.append(
            Choice(dtype, dim * NUMPY[dtype].itemsize, rounded, partial(features.take, view=0))
        )
    codes, scales = to_int8(exact)
    choices.append(Choice("int8", dim + 4, codes * scales, _int8_gather(folder, codes, scales)))
    return choices


def _int8_gather(folder: Path, codes: npt.NDArray[np.int8], scales: Floats) -> Gather:
    """Rows of a mapped file, multiplied by their scales: as plain int8 they are no embeddings."""
    np.save(folder / "codes.npy", codes)
    mapped: npt.NDArray[np.int8] = np.load(folder / "codes.npy", mmap_mode="r")

    def gather(rows: npt.NDArray[np.int64]) -> torch.Tensor:
        taken = torch.from_numpy(mapped.take(rows, axis=0, mode="clip")).float()
        return taken.mul_(torch.from_numpy(scales[rows]))

    return gather


def _speeds(choices: list[Choice], rows: int) -> list[tuple[float, float]]:
    """Millions of rows a second of each choice, as stored and widened to float32.

    All are timed in turn, and the median of several rounds is taken.
    """
    batches = np.random.default_rng(0).integers(0, rows, (BATCHES, BATCH))

    def plain(choice: Choice) -> None:
        for batch in batches:
            choice.gather(batch)

    def widened(choice: Choice) -> None:
        for batch in batches:
            choice.gather(batch).float()

    works = [partial(work, choice) for choice in choices for work in (plain, widened)]
    rounds = [[timed(work) for work in works] for _ in range(REPEATS + 1)]
    seconds = np.median(rounds[1:], axis=0).reshape(len(choices), 2)
    rates = BATCH * BATCHES / 1e6 / seconds
    return [(float(one), float(two)) for one, two in rates]


def _store(folder: Path, exact: Floats, dtype: DtypeName) -> FeatureStore:
    rows, dim = exact.shape
    plan = ViewsConfig(count=0)
    manifest = Manifest(
        dataset=DatasetRecord(name="bench", fingerprint="bench", rows=rows),
        teacher={"backend": "bench"},
        preprocessing={},
        views=StoredViews.of(plan),
        views_hash=plan_hash(plan),
        outputs={"embedding": (dim,)},
        dtype=dtype,
        shard_rows=4096,
        versions={},
    )
    keys = [str(row) for row in range(rows)]
    index = pa.table(
        {"row": range(rows), "key": keys, "label": [-1] * rows, "source": ["bench"] * rows}
    )
    store = FeatureStore.create(str(folder / f"{dtype}.zarr"), manifest, index)
    for shard, part in enumerate(store.shards):
        store.write_shard(shard, {"embedding": exact[part.start : part.stop, None]})
    store.finish()
    return store
