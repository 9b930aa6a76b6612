"""What a student learns from: the labelled split and the unlabelled ones, checked and as one."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from egapipe.pipeline.config import Config
from egapipe.pipeline.config.data import ArrayType, ViewsConfig
from egapipe.pipeline.config.distill import DistillConfig
from egapipe.pipeline.config.features import pair_names
from egapipe.pipeline.config.tree import Split
from egapipe.pipeline.datasets import Dataset, open_split
from egapipe.pipeline.errors import StoreError, UsageError
from egapipe.pipeline.machine.cores import available_cpus
from egapipe.pipeline.results.images import content_of
from egapipe.pipeline.results.pairing import check_one_teacher, copied_views, open_pair
from egapipe.pipeline.store import Features, FeatureStore
from egapipe.pipeline.views import Hashes, key_hashes
from egapipe.stages.distill.data.inputs.arrays import ResidentArrays, StreamedArrays
from egapipe.stages.distill.data.inputs.images import Frame, Images, ResidentImages, StreamedImages
from egapipe.stages.distill.data.inputs.pixels import (
    SizeMismatchError,
    decoded_arrays,
    decoded_images,
    first_size,
    image_size,
)
from egapipe.stages.distill.data.joint import joint_embeddings, joint_images
from egapipe.stages.distill.data.loader import Loader, student_plan
from egapipe.stages.distill.data.rows.choice import held_out
from egapipe.stages.distill.data.rows.entries import check_views
from egapipe.stages.distill.data.rows.labels import keep_fraction, keep_labels
from egapipe.stages.distill.data.rows.links import Links, open_links
from egapipe.stages.distill.data.rows.order import UNLABELLED, Mixed, Plain, Plan
from egapipe.stages.distill.data.rows.partners import joint_partners
from egapipe.stages.distill.data.rows.samplers import Pool, find_sampler
from egapipe.stages.distill.data.rows.samplers.nearest import nearest_of
from egapipe.stages.distill.workers.world import World

Ints = npt.NDArray[np.int64]

# Neighbours that are looked up for each place of a group: some are taken by other groups.
_CANDIDATES = 4


@dataclass(frozen=True)
class Sources:
    """The splits to learn from, `train` first; their rows are numbered through.

    datasets, stores, features: one a split. labels: int64 [N] of all rows, those that training may
    use; -1 = unlabelled. outputs: what else objectives compare of the teacher, by name, one a split
    each. held_out: int64, the rows that no training sees. links: edges between rows, where the data
    set has pairs.
    """

    datasets: Sequence[Dataset]
    stores: Sequence[FeatureStore]
    features: Sequence[Features]
    labels: Ints
    outputs: Mapping[str, Sequence[Features]] = field(default_factory=dict)
    held_out: Ints = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    links: Links | None = None

    @property
    def learned(self) -> npt.NDArray[np.bool_]:
        """bool [N], True for the rows to learn from: with an embedding, and not held out."""
        learned = self.valid
        learned[self.held_out] = False
        return learned

    @property
    def valid(self) -> npt.NDArray[np.bool_]:
        """bool [N], False for rows without an embedding."""
        return np.concatenate([part.valid for part in self.features])


def open_sources(config: Config) -> Sources:
    """Open and check data sets and stores. Raises UsageError or StoreError."""
    splits, datasets, opened = config.training_splits(), [], []
    for split in splits:
        datasets.append(open_split(config, split))
        opened.append(open_features(config, datasets[-1], split))
    stores, features = zip(*opened, strict=True)
    for store in stores[1:]:
        check_one_teacher(stores[0], store)
    outputs = open_outputs(config, stores)
    held = held_out(datasets[0], config.dataset.validation)
    labels = training_labels(config, datasets[0], features[0], held)
    more = sum(len(dataset) for dataset in datasets[1:])
    labels = np.append(labels, np.full(more, UNLABELLED))
    found = Sources(datasets, stores, features, labels, outputs, held)
    pairs = config.dataset.pairs
    return (
        found if pairs is None else replace(found, links=open_links(pairs, datasets, found.learned))
    )


def open_outputs(config: Config, stores: Sequence[FeatureStore]) -> dict[str, list[Features]]:
    """What else of each store the pairs of features are of, by name.

    Raises UsageError for a store without.
    """
    pairs = config.distill.pairs
    wanted = {pair.teacher or name: name for name, pair in pairs.items()}
    for output, name in wanted.items():
        for store in stores:
            if output not in store.manifest.outputs:
                raise _no_output(config, store, output, name)
    cache, views = config.store.cache_dir, copied_views(config, "train")
    return {
        output: [Features.open(store, output, cache, views=views) for store in stores]
        for output in wanted
    }


def _no_output(config: Config, store: FeatureStore, output: str, name: str) -> UsageError:
    """name: of the pair that wants it."""
    distill = config.distill
    objective = next(o for o, options in distill.objective if name in pair_names(options))
    own = name in distill.features
    key = f"distill.features.{name}.teacher" if own else "distill.teacher_grid"
    extract = f"teacher.outputs.{output}" if own else "teacher.grid"
    return UsageError(
        f"distill.objective.{objective}.features is {name}, but store {store.url} has no output "
        f"{output}: set {key} to one of {', '.join(store.manifest.outputs)}, or {extract} and run "
        "`egapipe extract` with another store.url"
    )


def open_features(config: Config, dataset: Dataset, split: Split) -> tuple[FeatureStore, Features]:
    """The store of a split and its node-local copy, checked against config and data set.

    The copy is of the output `distill.teacher_output`. Raises StoreError, also where there is none.
    """
    store, features = open_pair(config, dataset, split)
    valid = np.flatnonzero(features.valid)
    if len(valid) == 0:
        raise StoreError(f"store {store.url} has no usable row: every image failed")
    sample = features.take(valid[:256], 0).float()
    if len(valid) > 1 and bool((sample == sample[0]).all()):
        raise StoreError(
            f"store {store.url} holds the same embedding for different images: "
            "check teacher.pooling and the teacher's weights, then extract again"
        )
    return store, features


def training_labels(config: Config, dataset: Dataset, features: Features, held: Ints) -> Ints:
    """int64 [N]: the labels of a data set that training may use. held: rows that it may not see.

    Raises UsageError for none, where something learns from them.
    """
    distill = config.distill
    labels = np.where(features.valid, dataset.labels, UNLABELLED)
    labels[held] = UNLABELLED
    labels = keep_labels(labels, distill.labels_per_class, distill.seed)
    labels = keep_fraction(labels, distill.label_fraction, distill.seed)
    if distill.learns_labels and not (labels >= 0).any():
        raise UsageError(
            f"{dataset.name} has no labelled image: heads and student are trained on labels; "
            "set dataset.train.label_column, or use sub-folders as classes; without labels set "
            "distill.ce_weight=0 and distill.teacher to peers or average, or learn by embeddistill "
            "or from pairs of features (distill.features)"
        )
    return labels


def make_loader(config: Config, sources: Sources, frame: Frame | ArrayType, world: World) -> Loader:
    """The loader of all sources.

    Raises UsageError if the rows cannot be drawn as the configuration says.
    """
    plan = epoch_plan(config, sources, world)
    check_views(config.distill, sources.stores[0].manifest.plan)
    hashes = [key_hashes(dataset.keys) for dataset in sources.datasets]
    return Loader(
        images=_joint(config, sources, hashes, frame, world),
        features=joint_embeddings(sources.features),
        labels=sources.labels,
        rows=np.sort(plan.rows),
        hashes=np.concatenate(hashes),
        teacher_plan=sources.stores[0].manifest.plan,
        config=config.distill,
        world=world,
        plan=plan,
        outputs={name: joint_embeddings(parts) for name, parts in sources.outputs.items()},
        partners=joint_partners(sources.stores, hashes, sources.held_out),
    )


def epoch_plan(config: Config, sources: Sources, world: World) -> Plan:
    """Which rows meet in which batch. Raises UsageError where they are too few or lack labels."""
    distill, rows = config.distill, np.flatnonzero(sources.learned)
    labelled = sources.labels[rows] != UNLABELLED
    mixed = distill.unlabelled_ratio is not None
    pool = Pool(
        rows=rows[labelled] if mixed else rows,
        labels=sources.labels,
        seed=distill.seed,
        group=distill.sampler_group,
        nearest=lambda: nearest_of(sources.features, _CANDIDATES * distill.sampler_group, world),
        batch=distill.batch_size,
        links=sources.links,
    )
    order = find_sampler(distill.sampler)(pool)
    if not mixed:
        return Plain(rows, distill.batch_size, order)
    parts = (distill.labelled_rows, distill.batch_size - distill.labelled_rows)
    return Mixed(pool.rows, rows[~labelled], parts, order, distill.seed)


def _joint(
    config: Config, sources: Sources, hashes: list[Hashes], frame: Frame | ArrayType, world: World
) -> Images:
    """All sources' images; those of the unlabelled ones may have any size."""
    each = zip(sources.datasets, sources.stores, hashes, strict=True)
    parts = [
        open_images(config, dataset, own, frame, world, store=store, any_size=number > 0)
        for number, (dataset, store, own) in enumerate(each)
    ]
    return joint_images(parts, [len(dataset) for dataset in sources.datasets])


def student_frame(config: Config, dataset: Dataset, plan: ViewsConfig) -> Frame | ArrayType:
    """What the student sees of an image, or of an array. plan: the teacher's views."""
    if dataset.arrays is not None:
        return dataset.arrays.type
    aspect, side = student_plan(config.distill, plan).aspect, config.distill.image_size
    if side is not None:
        return Frame((side, side), _kept(aspect))
    height, width = first_size(dataset)
    if aspect == "keep":
        height = width = min(height, width)
    return Frame((height, width), _kept(aspect))


def _kept(aspect: str | None) -> Literal["keep"] | None:
    return "keep" if aspect == "keep" else None


def open_images(
    config: Config,
    dataset: Dataset,
    hashes: Hashes,
    frame: Frame | ArrayType,
    world: World,
    *,
    store: FeatureStore | None = None,
    any_size: bool = False,
) -> Images:
    """Images on the device if they are of one size and fit, else streamed.

    store: of these images, which were compared with it; what was read for that is not read again.
    any_size: they need not say what the student's input is, even where the configuration does not.
    Nothing is decoded where others train.
    """
    distill = config.distill
    if not isinstance(frame, Frame):
        return _open_arrays(distill, dataset, hashes, frame, world, store)
    height, width = first_size(dataset)
    fits = len(dataset) * height * width * 3 <= distill.resident_bytes
    resident = distill.data == "resident" or (distill.data == "auto" and fits)
    if resident and world.trains(distill.workers):
        try:
            content = None if store is None else content_of(dataset, store.manifest)
            decoded = decoded_images(dataset, content)
            return ResidentImages(decoded.values, hashes, frame, world.device, decoded.unreadable)
        except SizeMismatchError as error:
            if distill.data == "resident":
                raise UsageError(f"distill.data is resident, but {error}") from None
    if distill.image_size is None and not any_size and not _one_size(dataset):
        raise UsageError(
            f"images of {dataset.name} differ in size: set distill.image_size, the student's input"
        )
    return StreamedImages(dataset, hashes, frame, world.device, decoding_threads(distill))


def _open_arrays(
    distill: DistillConfig,
    dataset: Dataset,
    hashes: Hashes,
    seen: ArrayType,
    world: World,
    store: FeatureStore | None,
) -> Images:
    """Arrays on the device if they fit, else streamed. Raises UsageError for others than those that
    the student sees."""
    arrays = dataset.arrays
    if arrays is None or arrays.type != seen:
        found = "images" if arrays is None else f"{arrays.type.dtype} {list(arrays.type.shape)}"
        raise UsageError(
            f"{dataset.name} holds {found}, the student sees arrays {seen.dtype} {list(seen.shape)}"
        )
    numbers = len(dataset) * arrays.variants * math.prod(seen.shape)
    fits = numbers * np.dtype(seen.dtype).itemsize <= distill.resident_bytes
    resident = distill.data == "resident" or (distill.data == "auto" and fits)
    if resident and world.trains(distill.workers):
        content = None if store is None else content_of(dataset, store.manifest)
        rows = decoded_arrays(dataset, arrays, content)
        return ResidentArrays(rows, hashes, arrays, world.device)
    return StreamedArrays(dataset, hashes, arrays, world.device, decoding_threads(distill))


def decoding_threads(distill: DistillConfig) -> int:
    """Threads that decode ahead on each worker."""
    if distill.stream_threads is not None:
        return distill.stream_threads
    return max(2, available_cpus() // max(1, distill.workers))


def _one_size(dataset: Dataset) -> bool:
    """Whether the images are of one size, judged by a sample: streaming fits all others anyway."""
    step = max(1, len(dataset) // 64)
    sizes = {size for row in range(0, len(dataset), step) if (size := image_size(dataset, row))}
    return len(sizes) == 1
