"""Batches of (row, view): a row's views behind each other, on one worker, labels on plain ones."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from egapipe.pipeline.config import to_yaml
from egapipe.pipeline.errors import UsageError
from egapipe.pipeline.store import FeatureStore
from egapipe.pipeline.views import quarter_turns
from egapipe.stages import distill
from egapipe.stages.distill.data.batch import Batch
from egapipe.stages.distill.data.rows.entries import first_views
from egapipe.stages.distill.objectives import REGISTRY
from egapipe.stages.distill.setup import Job, make_batches, prepare
from egapipe.stages.distill.training.gradient import make_gradient
from egapipe.stages.distill.workers.world import World
from tests.stages.distill import workers
from tests.stages.distill.conftest import MakeConfig, configured, extracted
from tests.stages.distill.test_step import watched
from tests.stages.distill.test_training import weights

CPU = torch.device("cpu")
ROWS = 300
SSKD = "distill.objective={kd: 0.9, sskd: {fit_epochs: 2, dim: 16}}"
SMALL = (
    f"dataset.train={{kind: digits, split: train, limit: {ROWS}}}",
    "views={count: 8, turns: 4, crop: pad, padding: 0.125, flip: 0.5}",
)


@pytest.fixture(scope="module")
def turned_store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Folder of the stores of some digits in two views, and these turned."""
    return extracted(tmp_path_factory.mktemp("turned"), *SMALL)


@pytest.fixture
def turned(turned_store: str, tmp_path: Path) -> MakeConfig:
    """A configuration over that store of few steps, four views of a row in a batch."""
    few = ["epochs=2", "threads=1", "student_view=paired", "views_per_row=4", "batch_size=48"]
    return configured(turned_store, tmp_path, *SMALL, *(f"distill.{one}" for one in few))


def batches_of(job: Job, epoch: int = 1) -> list[Batch]:
    batches = make_batches(job)
    batches.begin(epoch, 0)
    found = []
    for _ in range(job.loader.steps):
        batches.advance()
        found.append(batches.batch())
        batches.step.add_(1)
    return found


def test_a_store_has_the_test_images_as_they_are(turned_store: str) -> None:
    train, test = (FeatureStore.open(f"{turned_store}/{s}.zarr") for s in ("train", "test"))
    assert (train.manifest.view_count, train.manifest.plan.turns) == (9, 4)
    assert (test.manifest.view_count, test.manifest.plan.turns) == (1, 1)


@pytest.mark.parametrize("data", ["resident", "stream"])
def test_a_rows_views_stand_behind_each_other(turned: MakeConfig, data: str) -> None:
    """A plain view and its three turned ones, which have no label."""
    job = prepare(turned(f"distill.data={data}", "distill.labels_per_class=10"), World.alone(CPU))
    labels = job.sources.labels
    for batch in batches_of(job):
        assert batch.views is not None
        rows, views = batch.rows.view(-1, 4), batch.views.view(-1, 4)
        assert (rows == rows[:, :1]).all()
        assert len(rows[:, 0].unique()) == len(rows) == 48
        assert torch.equal(views, views[:, :1] + torch.arange(4))
        assert set(views[:, 0].tolist()) == {1, 5}
        fours = batch.labels.view(-1, 4)
        assert torch.equal(fours[:, 0], torch.from_numpy(labels[rows[:, 0]]))
        assert (fours[:, 1:] == -1).all()


def test_both_ways_to_a_batch_give_the_same(turned: MakeConfig) -> None:
    """Images, features and numbers, with changes of them too."""
    for sets in ([], ["distill.mix={}", "distill.jitter={}"]):
        resident, streamed = (
            batches_of(prepare(turned(f"distill.data={data}", *sets), World.alone(CPU)))
            for data in ("resident", "stream")
        )
        for one, other in zip(resident, streamed, strict=True):
            for column, same in zip(one.tensors(), other.tensors(), strict=True):
                assert torch.equal(column, same)


@pytest.mark.parametrize("several", [1, 2, 8])
def test_every_row_walks_through_all_its_views(turned: MakeConfig, several: int) -> None:
    config = turned(f"distill.views_per_row={several}")
    loader = prepare(config, World.alone(CPU)).loader
    rows, draws = np.arange(50), np.zeros(50, dtype=np.int64)
    seen = [loader.entries(rows, draws, epoch).views for epoch in range(8 // several)]
    walked = np.concatenate([views.reshape(50, several) for views in seen], axis=1)
    assert (np.sort(walked, axis=1) == np.arange(1, 9)).all()
    again = loader.entries(rows, draws + 1, 0)
    assert np.array_equal(again.views, loader.entries(rows, draws, 1).views)
    # The student's own numbers are another one for each entry.
    own = np.concatenate([loader.entries(rows, draws + d, 0).own for d in (0, 1)])
    assert len(np.unique(own)) == 2 * several


def test_one_view_is_walked_as_before_there_were_several(turned: MakeConfig) -> None:
    config, hashes = turned("distill.views_per_row=1").distill, np.arange(9, dtype=np.uint64)
    plan = turned().views.model_copy(update={"turns": 1})
    alone = first_views(config, plan, hashes, 3, 0)
    fours = first_views(turned().distill, plan, hashes, 3, 0)
    assert set(alone) <= set(range(1, 9))
    assert set(fours) <= {1, 5}


@pytest.mark.parametrize("size", [2, 3])
def test_workers_share_the_rows_not_their_views(turned: MakeConfig, size: int) -> None:
    alone = prepare(turned("distill.batch_size=20"), World.alone(CPU)).loader
    parts = [list(replace(alone, world=World(r, size, CPU)).epoch(0))[:3] for r in range(size)]
    for step, whole in enumerate(list(alone.epoch(0))[:3]):
        for name in ("images", "features", "labels", "rows", "views"):
            together = torch.cat([getattr(part[step], name) for part in parts])
            assert torch.equal(together, getattr(whole, name)), name
        assert all(len(part[step].rows) % 4 == 0 for part in parts)


def test_heads_learn_from_plain_views(turned: MakeConfig) -> None:
    loader = prepare(turned(), World.alone(CPU)).loader
    views = {int(v) for e in range(4) for v in loader.plain_views(np.arange(40), e)}
    assert views == {1, 5}
    assert not quarter_turns(loader.teacher_plan, np.array(sorted(views))).any()


def test_objectives_see_plain_views_unless_they_compare_turned_ones(turned: MakeConfig) -> None:
    """KD of four views a row is that of the plain ones, whichever the others are."""
    assert [name for name, kind in REGISTRY.items() if kind.turned] == ["sskd"]
    job = prepare(turned("distill.objective={kd: 1.0, ega: 1.0}"), World.alone(CPU))
    [batch, *_] = batches_of(job)
    job.model.eval()
    plain = batch.mapped(lambda values: values[::4])
    found, alone = job.model(batch).parts, job.model(plain).parts
    job.model._turns = 1
    expected = job.model(plain).parts
    for name in ("ce", "kd", "ega"):
        torch.testing.assert_close(found[name], expected[name])
    assert not torch.equal(alone["kd"], expected["kd"])


def test_a_step_looks_at_no_value(turned: MakeConfig) -> None:
    assert watched(turned, SSKD).found == {}


def test_the_gradient_of_parts_is_that_of_the_batch(turned: MakeConfig) -> None:
    """Also where a part ends between the views of a row."""
    found = []
    for rows in (None, 50):
        job = prepare(turned(SSKD, "distill.student.name=torch.nn:Flatten"), World.alone(CPU))
        gradient = make_gradient(job.model, World.alone(CPU), rows)
        gradient(batches_of(job)[0], torch.amp.GradScaler("cpu", enabled=False))
        found.append({n: p.grad for n, p in job.model.named_parameters() if p.grad is not None})
    assert {"objective.objectives.sskd.student_head.0.weight"} < found[0].keys()
    for name, value in found[0].items():
        torch.testing.assert_close(found[1][name], value, rtol=1e-4, atol=1e-6, msg=name)


def test_beside_clean_views_a_row_has_several_of_the_students_own(turned: MakeConfig) -> None:
    job = prepare(turned("distill.student_view=clean", "distill.views_per_row=2"), World.alone(CPU))
    [batch, *_] = batches_of(job)
    assert batch.views is not None
    assert not batch.views.any()
    pairs = batch.images.view(48, 2, *batch.images.shape[1:])
    assert (pairs[:, 0] != pairs[:, 1]).flatten(1).any(dim=1).float().mean() > 0.7
    assert torch.equal(batch.labels[::2], batch.labels[1::2])
    # A graph has each row twice.
    assert job.model.repeats


def test_what_a_store_cannot_give_is_refused(turned: MakeConfig) -> None:
    for sets, match in (
        (["distill.views_per_row=3"], "views_per_row is 3, and the store has 8 augmented views"),
        (["distill.student_view=independent"], "views are turned .*student_view to paired"),
        (["distill.views_per_row=2", SSKD], "sskd compares turned views: extract with views.turns"),
        (["distill.student_view=clean", SSKD], "sskd compares turned views"),
        (["distill.graph_batch=100", SSKD], "features of earlier steps are not remembered"),
    ):
        with pytest.raises(UsageError, match=match):
            prepare(turned(*sets), World.alone(CPU))
    with pytest.raises(UsageError, match="own views are not turned"):
        turned("distill.augment={count: 4, turns: 4}")


def test_the_teachers_part_is_fitted_first_and_stays(turned: MakeConfig) -> None:
    """Another one after more epochs, and the same in every checkpoint."""
    run = distill.run(turned(SSKD, "distill.labels_per_class=10", "distill.ema_decay=0.9"))
    assert run.top1 is not None
    heads = {k: v for k, v in weights(run.run).items() if "sskd.teacher_head" in k}
    assert len(heads) == 4
    first = prepare(turned(SSKD), World.alone(CPU)).model.objective.state_dict()
    for name, value in heads.items():
        assert not torch.equal(value, first[name.removeprefix("heads:objective.")])
    longer = distill.run(turned(SSKD, "distill.epochs=3", "distill.labels_per_class=10")).run
    for name, value in weights(longer).items():
        if name in heads:
            assert torch.equal(value, heads[name])


@pytest.mark.parametrize("size", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_an_interrupted_training_ends_with_the_same_bits(
    turned: MakeConfig, tmp_path: Path, size: int
) -> None:
    """Also within an epoch; of one process, and of three."""
    config = turned(SSKD, "distill.checkpoint_steps=2", "distill.labels_per_class=10")
    file = tmp_path / "config.yaml"
    file.write_text(to_yaml(config))
    runs = [tmp_path / "whole", tmp_path / "parts"]
    train = partial(workers.train_together, size)
    if size == 1:
        train = lambda file, run, stop: workers.train(str(file), str(run), World.alone(CPU), stop)  # noqa: E731
    train(file, runs[0], None)
    train(file, runs[1], 3)
    train(file, runs[1], None)
    one, other = (weights(run) for run in runs)
    assert one.keys() == other.keys()
    assert all(torch.equal(value, other[key]) for key, value in one.items())
