"""Is a store what its teacher says? A few embeddings are computed again and compared."""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from egapipe.pipeline.config import Config
from egapipe.pipeline.config.teachers import ImportedTeacher
from egapipe.pipeline.config.tree import Split
from egapipe.pipeline.datasets import Dataset, open_split
from egapipe.pipeline.errors import StoreError, UsageError
from egapipe.pipeline.locations.places import with_files
from egapipe.pipeline.mathematics.correlation import correlations
from egapipe.pipeline.results.durable import durable
from egapipe.pipeline.results.images import Changed, changed_images, changed_of
from egapipe.pipeline.store import FeatureStore, Manifest
from egapipe.pipeline.store.commands.diff import cosine_differences
from egapipe.pipeline.store.create import require_equal, require_same_rows
from egapipe.pipeline.store.format.dtypes import DtypeName, to_floats
from egapipe.pipeline.views import plan_hash, settled
from egapipe.stages.extract.decoding.reader import Reader
from egapipe.stages.extract.planning.manifest import index_of, software
from egapipe.stages.extract.teachers import Teacher
from egapipe.stages.extract.workers.forward.inference import Arrays, cpu_threads, open_inference
from egapipe.stages.extract.workers.forward.tuned import open_teacher

Floats = npt.NDArray[np.float32]
Pairs = npt.NDArray[np.int64]

ROUNDING: dict[DtypeName, float] = {"float16": 2**-11, "bfloat16": 2**-8, "float32": 2**-24}
"""Largest relative error of one stored number."""
ARITHMETIC = {"float32": 2e-3, "float16": 1e-2, "bfloat16": 5e-2}
"""By precision of the forward pass: how far two devices or batch sizes may move an embedding,
relative to its norm. That of float32 allows for TF32 convolutions, a GPU's default."""


@dataclass(frozen=True)
class Agreement:
    """One output of a teacher, as stored and computed again, over the pairs that were drawn.

    cosine_max, cosine_mean: of 1 - cosine of the two. correlation: largest absolute difference of
    an entry of the two matrices of Pearson correlations between embeddings (EGA's edges). The
    others are what is allowed of them. NaN agrees with nothing.
    """

    name: str
    cosine_max: float
    cosine_mean: float
    cosine_allowed: float
    correlation: float
    correlation_allowed: float

    @property
    def ok(self) -> bool:
        """Whether both are within what is allowed."""
        cosines = self.cosine_max <= self.cosine_allowed
        return bool(cosines and self.correlation <= self.correlation_allowed)

    def line(self) -> str:
        """The comparison in words."""
        return (
            f"{self.name}: 1 - cosine max {self.cosine_max:.2g}, mean {self.cosine_mean:.2g} "
            f"(allowed {self.cosine_allowed:.2g}), correlations off by {self.correlation:.2g} "
            f"(allowed {self.correlation_allowed:.2g}): {'agrees' if self.ok else 'DIFFERS'}"
        )


@dataclass(frozen=True)
class VerifyReport:
    """pairs: int64 [n, 2], the rows and views compared. worst: key and view of the least similar
    pair. software: `name old -> new` where versions are no longer those of the store. changed:
    images that are not those that the store was made of, among the pairs' or, if asked, all."""

    url: str
    pairs: Pairs
    worst: tuple[str, int]
    outputs: list[Agreement]
    software: list[str]
    changed: list[Changed]

    @property
    def ok(self) -> bool:
        """Whether every output agrees, and no image has changed."""
        return all(output.ok for output in self.outputs) and not self.changed

    def lines(self) -> list[str]:
        """The result, for people."""
        lines = [f"{self.url}: {len(self.pairs)} embeddings computed again"]
        lines += [f"  {output.line()}" for output in self.outputs]
        lines += [f"  {_named(changed)}" for changed in self.changed]
        if not all(output.ok for output in self.outputs):
            lines.append(f"  least similar: view {self.worst[1]} of {self.worst[0]}")
        if self.software:
            lines.append(f"  software is another: {', '.join(self.software)}")
        return lines


def verify_store(
    config: Config, *, split: Split, count: int = 16, seed: int = 0, images: bool = False
) -> VerifyReport:
    """Run the teacher again on random (row, view) pairs of a split and compare with what is stored.

    count: pairs, all different, of committed rows that did not fail; fewer if there are fewer.
    seed: which ones. images: read every image that was stored, and compare its digest; else those
    of the pairs, where the store has digests. The store may be unfinished. Software may be newer
    than the store's.

    Raises UsageError (no such split, embeddings that were imported), TeacherError (the teacher
    cannot be used), ImageError (an image that was stored cannot be read) or StoreError (no store,
    damaged, nothing committed yet, or of another teacher, view plan or data set than configured).
    """
    if isinstance(config.teacher, ImportedTeacher):
        raise UsageError(
            f"config {config.name} has imported embeddings: there is no teacher to run again"
        )
    dataset = open_split(config, split)
    store = FeatureStore.open(config.store_url(split))
    pairs = _draw(store, count, seed)
    teacher = open_teacher(config)
    _require_of(store, teacher, dataset, config, split)
    reader = Reader(dataset, teacher.preprocessing, store.manifest.plan)
    fresh, kept = _encode(config, teacher, reader, pairs), _stored(store, pairs)
    agreements = [_agreement(store.manifest, n, kept[n], fresh[n]) for n in store.manifest.outputs]
    row, view = pairs[_worst(kept, fresh)]
    worst = (dataset.keys[row], int(view))
    changed = list(_changed(store, dataset, None if images else pairs[:, 0]))
    return VerifyReport(store.url, pairs, worst, agreements, _newer(store), changed)


def _changed(
    store: FeatureStore, dataset: Dataset, rows: npt.NDArray[np.int64] | None
) -> Iterator[Changed]:
    """Images that have changed, of some rows or all that are committed."""
    if rows is None:
        yield from changed_images(store, store.snapshot(), dataset, whole=True)
        return
    shards = rows // store.manifest.shard_rows
    for shard in np.unique(shards):
        commit = store.commit(int(shard))
        if commit is not None:
            yield from changed_of(store, commit, dataset, np.unique(rows[shards == shard]).tolist())


def _named(changed: Changed) -> str:
    what = "cannot be read" if changed.gone else "is another one"
    return (
        f"image {changed.key} (row {changed.row}, shard {changed.shard}) {what}: {changed.remedy}"
    )


def _draw(store: FeatureStore, count: int, seed: int) -> Pairs:
    """[n, 2] rows and views of what is stored, by row."""
    found = store.snapshot()
    failed = [failure.row for failure in found.failures]
    shards = [store.shards[shard] for shard in found.committed]
    rows = np.concatenate([np.empty(0, np.int64), *map(np.array, shards)], dtype=np.int64)
    rows = rows[~np.isin(rows, failed)]
    if not len(rows):
        raise StoreError(f"store {store.url} has no embeddings yet: run `egapipe extract` first")
    views = store.manifest.view_count
    every = len(rows) * views
    drawn = np.random.default_rng(seed).choice(every, min(count, every), replace=False)
    drawn.sort()
    return np.stack([rows[drawn // views], drawn % views], axis=1)


def _require_of(
    store: FeatureStore, teacher: Teacher, dataset: Dataset, config: Config, split: Split
) -> None:
    """Refuse a store of anything else, but for image bytes: reading them all would take hours."""
    stored = store.manifest
    plan = settled(config.view_plan(split), stored.views.aspect, stored.views.among(len(dataset)))
    record = {"name": dataset.name, "rows": len(dataset)}
    asked = stored.asking(
        dataset=stored.dataset.model_copy(update=record),
        teacher=with_files(teacher.spec, durable(config.teacher)),
        preprocessing=teacher.preprocessing.to_json(),
        views=plan,
        views_hash=plan_hash(plan),
        outputs=teacher.outputs,
    )
    require_equal(stored, asked, store.url)
    require_same_rows(store.listing, index_of(dataset), store.url)


def _encode(config: Config, teacher: Teacher, reader: Reader, pairs: Pairs) -> Arrays:
    """Output -> float32 [n, *shape], as an extraction computes it."""
    gpu = torch.cuda.is_available() and config.extract.device != "cpu"
    device = torch.device("cuda" if gpu else "cpu")
    size = config.extract.usual_batch
    pixels = torch.from_numpy(np.stack(list(_pixels(reader, pairs))))
    with closing(open_inference(teacher, device, cpu_threads())) as inference:
        batches = [inference.submit(batch).result() for batch in pixels.split(size)]
    return {n: np.concatenate([batch[n] for batch in batches]) for n in teacher.outputs}


def _pixels(reader: Reader, pairs: Pairs) -> Iterator[npt.NDArray[np.uint8]]:
    """uint8 [3, H, W] for each pair; an image is decoded once."""
    for row in np.unique(pairs[:, 0]):
        views = reader.views(int(row))
        yield from (views[view] for view in pairs[pairs[:, 0] == row, 1])


def _stored(store: FeatureStore, pairs: Pairs) -> Arrays:
    """Output -> float32 [n, *shape] out of the store; every shard is read once."""
    shards = pairs[:, 0] // store.manifest.shard_rows
    found: dict[str, list[Floats]] = {name: [] for name in store.manifest.outputs}
    for shard in np.unique(shards):
        rows, views = pairs[shards == shard].T
        for name, parts in found.items():
            chosen = store.read_shard(int(shard), name)[rows - store.shards[shard].start, views]
            parts.append(to_floats(chosen, store.manifest.dtype))
    return {name: np.concatenate(parts) for name, parts in found.items()}


def _agreement(manifest: Manifest, name: str, kept: Floats, fresh: Floats) -> Agreement:
    """An embedding moved by at most r of its norm turns by 1 - cosine <= r^2 / 2.

    Centred for Pearson correlation it keeps a part of its norm only, so the same move counts for
    more, and two rows of each correlation move.
    """
    kept, fresh = kept.reshape(len(kept), -1), fresh.reshape(len(fresh), -1)
    precision = str(manifest.teacher.get("precision", "float32"))
    moved = 2 * ROUNDING[manifest.dtype] + ARITHMETIC.get(precision, ARITHMETIC["bfloat16"])
    cosines = cosine_differences(kept, fresh)
    norms = np.linalg.norm(fresh, axis=1)
    centred = np.linalg.norm(fresh - fresh.mean(axis=1, keepdims=True), axis=1)
    varied = centred > 0
    share = (norms[varied] / centred[varied]).max(initial=1)
    return Agreement(
        name,
        float(cosines.max()),
        float(cosines.mean()),
        moved**2 / 2,
        float(np.abs(correlations(kept) - correlations(fresh)).max()),
        2 * moved * float(share),
    )


def _worst(kept: Arrays, fresh: Arrays) -> int:
    """The pair whose embeddings are least similar in any output."""
    found = [
        cosine_differences(kept[n].reshape(len(kept[n]), -1), fresh[n].reshape(len(kept[n]), -1))
        for n in kept
    ]
    return int(np.nan_to_num(np.max(found, axis=0), nan=np.inf).argmax())


def _newer(store: FeatureStore) -> list[str]:
    """Versions that made a shard, as its record says, or the manifest for older ones."""
    here = software()
    made = [commit.versions or store.manifest.versions for commit in store.commits().values()]
    found = sorted({pair for versions in made for pair in versions.items()})
    return [
        f"{name} {version} -> {here.get(name, 'none')}"
        for name, version in found
        if here.get(name) != version
    ]
