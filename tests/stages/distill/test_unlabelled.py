"""Unlabelled sources beside the labelled one: their stores, their rows and the samplers over all.

Training digits are the labelled source. Unlabelled are the first of them once more, and a folder of
images of another size, of which two cannot be read.
"""

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from egapipe.pipeline.config import Config, load_config
from egapipe.pipeline.config.data import DigitsSource
from egapipe.pipeline.datasets import open_dataset
from egapipe.pipeline.errors import StoreError, UsageError
from egapipe.pipeline.results.runs import run_folder
from egapipe.pipeline.store import Features, FeatureStore
from egapipe.pipeline.views import key_hashes, teacher_views
from egapipe.stages import distill, extract
from egapipe.stages.distill.data.agreement import check_agreement
from egapipe.stages.distill.data.batch import Batch
from egapipe.stages.distill.data.joint import Embeddings
from egapipe.stages.distill.data.loader import Loader
from egapipe.stages.distill.data.rows.order import Ints
from egapipe.stages.distill.data.rows.samplers.nearest import nearest_file, nearest_of
from egapipe.stages.distill.data.sources import open_sources
from egapipe.stages.distill.setup import prepare
from egapipe.stages.distill.training.heads import train_teacher_head
from egapipe.stages.distill.workers.world import World
from tests.stages.distill.test_training import assert_same_weights, weights

LABELLED, AGAIN, OTHERS, BROKEN = 150, 60, 30, 2
ALL = LABELLED + AGAIN + OTHERS
WORLD = World.alone(torch.device("cpu"))
Make = Callable[..., Config]


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The images of other size and the stores of all splits."""
    folder = tmp_path_factory.mktemp("unlabelled")
    digits = open_dataset(DigitsSource(kind="digits", split="test"))
    (folder / "images").mkdir()
    for row in range(OTHERS):
        digits.image(row).resize((12, 10)).save(folder / "images" / f"{row:02d}.png")
    for file in sorted((folder / "images").iterdir())[:BROKEN]:
        file.write_bytes(file.read_bytes()[:60])
    config = configured(folder)
    for split in config.splits():
        extract.run(config, split=split, local=True)
    return folder


@pytest.fixture
def make(stored: Path, tmp_path: Path) -> Make:
    return lambda *sets: configured(stored, f"runs={tmp_path / 'runs'}", *sets)


def configured(folder: Path, *sets: str) -> Config:
    again = f"{{kind: digits, limit: {{rows: {AGAIN}, choose: first}}}}"
    others = f"{{kind: folder, path: '{folder / 'images'}'}}"
    small = [
        f"dataset.train.limit={{rows: {LABELLED}, choose: first}}",
        "dataset.test.limit=40",
        f"dataset.unlabelled=[{again}, {others}]",
        f"store.url={folder / 'stores'}",
        f"store.cache_dir={folder / 'cache'}",
        f"extract.max_failures={BROKEN}",
        "views.count=2",
        "distill.epochs=2",
        "distill.batch_size=16",
        "distill.labels_per_class=null",
    ]
    return load_config("quickstart", [*small, *sets])


def epoch(loader: Loader, number: int, first_step: int = 0) -> list[Batch]:
    return list(loader.epoch(number, first_step))


def test_each_source_has_a_store_of_its_own(make: Make) -> None:
    config = make()
    assert config.splits() == ["train", "test", "unlabelled", "unlabelled2"]
    stores = {split: FeatureStore.open(config.store_url(split)) for split in config.splits()}
    assert Path(stores["unlabelled2"].url).name == "unlabelled2.zarr"
    rows = {split: store.manifest.rows for split, store in stores.items()}
    assert rows == {"train": LABELLED, "test": 40, "unlabelled": AGAIN, "unlabelled2": OTHERS}
    views = {store.manifest.view_count for split, store in stores.items() if split != "test"}
    assert views == {3}


def test_unlabelled_rows_join_the_graph_and_not_the_cross_entropy(make: Make) -> None:
    done = distill.run(make())
    assert done.summary["train_rows"] == ALL - BROKEN
    assert done.summary["labelled_rows"] == LABELLED
    [line, _] = (done.run / "metrics.jsonl").read_text().splitlines()
    assert '"train/ega"' in line


@pytest.mark.parametrize("view", ["independent", "paired"])
def test_every_row_has_its_own_features_and_labels(make: Make, view: str) -> None:
    config = make(f"distill.student_view={view}")
    loader = prepare(config, WORLD).loader
    datasets = [
        open_dataset(source) for s in config.training_splits() if (source := config.source(s))
    ]
    features = [
        Features.open(FeatureStore.open(config.store_url(s)), cache_dir=config.store.cache_dir)
        for s in config.training_splits()
    ]
    home = [(part, row) for part, d in enumerate(datasets) for row in range(len(d))]
    seen = [teacher_views(2, 0, 1, key_hashes(d.keys)) for d in datasets]
    batches = epoch(loader, 1)
    assert {batch.images.shape[1:] for batch in batches} == {(3, 8, 8)}
    for batch in batches:
        for place, joint in enumerate(batch.rows.tolist()):
            part, row = home[joint]
            wanted = features[part].take(np.array([row]), seen[part][[row]])[0]
            assert torch.equal(batch.features[place], wanted)
            assert batch.labels[place] == (datasets[0].labels[row] if part == 0 else -1)


def test_the_images_are_the_same_whichever_part_streams(make: Make) -> None:
    resident, streamed = (
        epoch(prepare(make(f"distill.data={data}"), WORLD).loader, 0)
        for data in ("resident", "stream")
    )
    for one, two in zip(resident, streamed, strict=True):
        assert torch.equal(one.rows, two.rows)
        # Resizing differs by a rounding between PIL and torch.
        assert (one.images.int() - two.images.int()).abs().max() <= 1


def test_a_ratio_fills_every_batch_and_an_epoch_is_one_pass_over_the_labels(make: Make) -> None:
    loader = prepare(make("distill.unlabelled_ratio=1"), WORLD).loader
    assert loader.steps == LABELLED // 8
    drawn = [batch for number in range(3) for batch in epoch(loader, number)]
    assert len(drawn) == 3 * loader.steps
    for batch in drawn:
        assert (batch.labels >= 0).sum() == 8
        assert len(batch.rows) == 16
    counts = np.bincount(torch.cat([b.rows for b in drawn]).numpy(), minlength=ALL)
    unlabelled = np.flatnonzero(open_sources(make()).valid)[LABELLED:]
    # 3 * 18 * 8 draws of 88 rows: each comes four to six times.
    assert counts[unlabelled].min() >= 4
    assert counts[unlabelled].max() <= 6


def test_a_ratio_of_zero_leaves_unlabelled_rows_out(make: Make) -> None:
    done = distill.run(make("distill.unlabelled_ratio=0"))
    assert done.summary["train_rows"] == LABELLED


def test_a_ratio_mixes_hidden_labels_of_the_labelled_source_too(make: Make) -> None:
    config = make("distill.label_fraction=0.2", "distill.unlabelled_ratio=3")
    job = prepare(config, WORLD)
    labelled = int((job.loader.labels >= 0).sum())
    assert abs(labelled - 0.2 * LABELLED) <= 5
    assert job.loader.steps == labelled // 4
    assert {int((b.labels >= 0).sum()) for b in epoch(job.loader, 0)} == {4}


SAMPLED = [
    ["distill.unlabelled_ratio=1"],
    ["distill.unlabelled_ratio=1", "distill.sampler=class-balanced"],
    ["distill.sampler=neighbours", "distill.sampler_group=4"],
]


@pytest.mark.parametrize("sampled", SAMPLED)
def test_an_epoch_goes_on_in_its_middle(make: Make, sampled: list[str]) -> None:
    loader = prepare(make(*sampled), WORLD).loader
    whole, rest = epoch(loader, 1), epoch(loader, 1, first_step=5)
    for one, two in zip(whole[5:], rest, strict=True):
        for name in ("rows", "images", "features", "labels"):
            assert torch.equal(getattr(one, name), getattr(two, name))


@pytest.mark.parametrize("sampled", SAMPLED)
def test_an_interrupted_training_ends_with_the_same_weights(
    make: Make, tmp_path: Path, sampled: list[str]
) -> None:
    undisturbed = distill.run(make(*sampled, f"runs={tmp_path / 'undisturbed'}"))

    def interrupt(epoch: int, metrics: object) -> None:
        raise KeyboardInterrupt

    config = make(*sampled)
    with pytest.raises(KeyboardInterrupt):
        distill.run(config, report=interrupt)
    assert not run_folder(config).finished
    assert_same_weights(undisturbed.run, distill.run(config).run)


@pytest.mark.parametrize(
    "other",
    [
        "dataset.unlabelled=[]",
        "distill.unlabelled_ratio=1",
        "distill.label_fraction=0.5",
        "distill.sampler=neighbours",
        "distill.sampler_group=4",
    ],
)
def test_another_mixture_is_another_run(make: Make, other: str) -> None:
    assert run_folder(make(other)) != run_folder(make())


def test_neighbours_are_found_over_all_sources_once_a_node(make: Make) -> None:
    sources = open_sources(make())
    near = nearest_of(sources.features, 5, WORLD)
    # The first digits are there twice: each is the nearest of the other.
    assert (near[LABELLED : LABELLED + AGAIN, 0] == np.arange(AGAIN)).all()
    assert (near[:AGAIN, 0] == np.arange(LABELLED, LABELLED + AGAIN)).all()
    broken = np.flatnonzero(~sources.valid)
    assert len(broken) == BROKEN
    assert (near[broken] == -1).all()
    assert not np.isin(near, broken).any()
    file = nearest_file(sources.features, 5)
    assert file.parent == sources.features[0].path.parent
    made = file.stat()
    assert (nearest_of(sources.features, 5, WORLD) == near).all()
    assert file.stat().st_ino == made.st_ino
    assert nearest_file(sources.features[:1], 5) != file != nearest_file(sources.features, 6)


def test_a_damaged_file_of_neighbours_is_made_again(make: Make) -> None:
    features = open_sources(make()).features
    near = np.array(nearest_of(features, 3, WORLD))
    file = nearest_file(features, 3)
    whole = file.read_bytes()
    for damaged in (b"", whole[:50], whole[: len(whole) // 2]):
        file.unlink()
        file.write_bytes(damaged)
        assert (nearest_of(features, 3, WORLD) == near).all()
        assert file.read_bytes() == whole


def test_one_source_may_stand_without_a_list(make: Make) -> None:
    config = make("dataset.unlabelled={kind: digits, split: test}")
    assert config.splits() == ["train", "test", "unlabelled"]
    assert make("dataset.unlabelled=null").splits() == ["train", "test"]


@pytest.mark.parametrize(
    ("sets", "error", "said"),
    [
        (
            ["dataset.unlabelled=[]", "distill.unlabelled_ratio=1"],
            UsageError,
            "there are 0: add da",
        ),
        (["distill.sampler=class-balanced"], UsageError, "88 rows have no label: set distill.unl"),
        (["dataset.unlabelled={kind: digits, limit: 9}"], StoreError, "unlabelled.zarr: dataset"),
        (
            ["distill.sampler=neighbours", "distill.unlabelled_ratio=1"],
            UsageError,
            "distill: sampler neighbours groups labelled and unlabelled rows alike",
        ),
        (
            ["distill.unlabelled_ratio=99"],
            UsageError,
            "distill: unlabelled_ratio 99 leaves no labelled row in a batch of 16",
        ),
        (
            ["distill.unlabelled_ratio=0.01"],
            UsageError,
            "distill: unlabelled_ratio 0.01 leaves no unlabelled row in a batch of 16",
        ),
        (
            ["distill.labels_per_class=2", "distill.label_fraction=0.5"],
            UsageError,
            "labels_per_class and label_fraction are two choices",
        ),
        (["distill.label_fraction=0"], UsageError, "distill.label_fraction must be greater than 0"),
        (["dataset.unlabelled={kind: digit}"], UsageError, "dataset.unlabelled.0.kind must be one"),
    ],
)
def test_mistakes_are_one_line(
    make: Make, sets: list[str], error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said) as raised:
        distill.run(make(*sets))
    assert "\n" not in str(raised.value)


def test_a_missing_store_says_what_to_run(make: Make, tmp_path: Path) -> None:
    config = make(f"store.url={tmp_path}")
    extract.run(config, split="train", local=True)
    with pytest.raises(StoreError, match=r"no store at .*unlabelled\.zarr: run `egapipe extract`"):
        distill.run(config)


@pytest.mark.slow  # Two trainings on Ray, 20 s each: only there do workers share neighbours.
@pytest.mark.usefixtures("ray_cluster")
@pytest.mark.parametrize("sampled", SAMPLED[1:])
def test_two_workers_learn_what_one_learns(make: Make, tmp_path: Path, sampled: list[str]) -> None:
    """Without batch norm nothing in a step depends on how a global batch is split."""
    sets = ["distill.student.name=torch.nn:Flatten", "distill.lr=0.01", *sampled]
    alone = distill.run(make(*sets, f"runs={tmp_path / 'alone'}"))
    shared = distill.run(make(*sets, "distill.workers=2"))
    one, two = weights(alone.run), weights(shared.run)
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=1e-3, atol=1e-5, msg=name)


REPEATING = {
    "small classes": ["distill.sampler=class-balanced", "distill.unlabelled_ratio=1"],
    "few unlabelled": ["dataset.unlabelled=[]", "distill.label_fraction=0.95"],
}


@pytest.mark.parametrize("name", REPEATING)
@pytest.mark.parametrize("view", ["independent", "paired", "clean"])
def test_a_row_that_comes_again_in_an_epoch_comes_in_other_views(
    make: Make, name: str, view: str
) -> None:
    """The first time it has the view that it would have had alone; each time the look at a row
    finds it right; what is left of an epoch has the views of the whole. Of two teacher views the
    third draw has the first again."""
    ratio = "distill.unlabelled_ratio=1"
    crop = "distill.augment={crop: scale, flip: 0.5}"
    sets = [f"distill.student_view={view}", ratio, crop, *REPEATING[name]]
    job = prepare(make(*sets), WORLD)
    loader = job.loader
    alike: list[tuple[bool, bool]] = []
    drawn: dict[int, list[Batch]] = {}
    batches = epoch(loader, 1)
    for batch in batches:
        for place, row in enumerate(batch.rows.tolist()):
            one = replace(batch, images=batch.images[place], features=batch.features[place])
            drawn.setdefault(row, []).append(one)
    for row, seen in drawn.items():
        entry = loader.entries(np.array([row]), np.array([0]), 1)
        assert torch.equal(seen[0].features, loader.features.take(entry.rows, entry.views)[0])
        alike += [
            (torch.equal(one.images, two.images), torch.equal(one.features, two.features))
            for one, two in pairwise(seen)
        ]
    assert len(alike) > 10
    # Two crops of small images may be the same.
    images, features = np.mean(alike, axis=0)
    assert images < 0.4
    assert features == 1 if view == "clean" else features < 0.4
    for batch, later in zip(batches[4:], loader.epoch(1, 4), strict=True):
        assert torch.equal(batch.images, later.images)
        check_agreement(later, 1, job.sources, job.config.distill)


@pytest.mark.parametrize("view", ["independent", "clean"])
def test_a_head_that_learns_first_sees_what_the_student_will(make: Make, view: str) -> None:
    sets = (f"distill.student_view={view}", "distill.head.mode=sequential", "distill.head.epochs=2")
    job = prepare(make(*sets), WORLD)
    met = {}
    for number in range(2):
        for batch in epoch(job.loader, number):
            for place, row in enumerate(batch.rows.tolist()):
                met[row, number] = batch.features[place]
    seen = Recorded(job.loader.features)
    train_teacher_head(job.model.teacher_head, replace(job.loader, features=seen))
    assert len(seen.taken) > 10
    for number, taken in enumerate(np.array_split(np.array(seen.taken), 2)):
        for row, view_number in taken.tolist():
            found = job.loader.features.take(np.array([row]), view_number)[0]
            assert (row, number) not in met or torch.equal(found, met[row, number])


class Recorded:
    """Embeddings, and which rows were taken in which views."""

    def __init__(self, features: Embeddings) -> None:
        self._features, self.dim, self.valid = features, features.dim, features.valid
        self.row_bytes = features.row_bytes
        self.taken: list[tuple[int, int]] = []

    def take(self, rows: Ints, view: int | Ints) -> torch.Tensor:
        views = np.broadcast_to(np.asarray(view), rows.shape)
        self.taken += zip(rows.tolist(), views.tolist(), strict=True)
        return self._features.take(rows, view)

    def read_ahead(self, rows: Ints, view: int | Ints) -> None:
        self._features.read_ahead(rows, view)
