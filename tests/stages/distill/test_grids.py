"""Objectives on pairs of features: the teacher's from the store, the student's before pooling, or
of a submodule."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from egapipe.pipeline.config import Config, load_config, to_yaml
from egapipe.pipeline.errors import StoreError, UsageError
from egapipe.pipeline.results.runs import RunFolder, run_identity
from egapipe.pipeline.results.tracking import read_metrics
from egapipe.pipeline.store import FeatureStore
from egapipe.pipeline.views import CLEAN, teacher_views
from egapipe.stages import distill, extract
from egapipe.stages.distill.model.precision import loss_scaler
from egapipe.stages.distill.setup import prepare
from egapipe.stages.distill.training.gradient import OnePass, TwoPasses
from egapipe.stages.distill.workers.world import World
from tests.stages.distill.conftest import MakeConfig
from tests.stages.distill.test_resume import train
from tests.stages.distill.test_training import assert_same_weights, weights
from tests.stages.distill.workers import train_together

CPU = torch.device("cpu")
ALONE = World.alone(CPU)
LABELLED, UNLABELLED, SIDE = 120, 60, 2
SP = "distill.objective={sp: {features: grid, weight: 3000}}"
FITNET = "distill.objective={fitnet: {features: grid}}"
BOTH = "distill.objective={sp: {features: grid}, fitnet: {features: grid}, ega: 1.0, gram: 2.0}"
OUTPUTS = (
    "{early: {at: encoder.stages.0, shape: grid 2}, spots: {at: encoder.stages.1, shape: tokens}, "
    "raw: {at: encoder.stages.1}, mean: {at: encoder.stages.0, shape: vector}}"
)
PAIRS = "distill.features={early: {student: layers.2}, deep: {student: layers.5, teacher: early}}"
SEVERAL = (
    "distill.objective={sp: {features: [grid, early]}, fitnet: {features: [early, grid]}, "
    "ega: 1.0, at: {features: [deep, grid]}, iusp: 1.0, "
    "dreamteacher: {features: [early, grid], channels: 8, weight: 0.1}}"
)
Make = Callable[..., Config]


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stores of digits with grids, of the shipped teacher: labelled and unlabelled."""
    folder = tmp_path_factory.mktemp("grids")
    config = configured(folder)
    for split in config.splits():
        extract.run(config, split=split, local=True)
    return folder


@pytest.fixture
def make(stored: Path, tmp_path: Path) -> Make:
    return lambda *sets: configured(stored, f"runs={tmp_path / 'runs'}", *sets)


def configured(folder: Path, *sets: str) -> Config:
    small = [
        f"dataset.train.limit={LABELLED}",
        f"dataset.unlabelled=[{{kind: digits, limit: {UNLABELLED}}}]",
        "dataset.test.limit=20",
        f"teacher.grid={SIDE}",
        f"teacher.outputs={OUTPUTS}",
        f"store.url={folder / 'stores'}",
        f"store.cache_dir={folder / 'cache'}",
        "views.count=2",
        "distill.epochs=3",
        "distill.batch_size=60",
        "distill.labels_per_class=null",
    ]
    return load_config("quickstart", [*small, *sets])


@pytest.mark.parametrize(("objective", "name"), [(SP, "sp"), (FITNET, "fitnet")])
def test_a_training_on_grids_lowers_their_loss(make: Make, objective: str, name: str) -> None:
    done = distill.run(make(objective, "distill.ce_weight=0", "distill.epochs=8"))
    values = [line[f"train/{name}"] for line in read_metrics(RunFolder(done.run))]
    assert values[-1] < values[0]


@pytest.mark.parametrize("view", ["paired", "clean"])
def test_grids_are_the_stored_ones_of_the_rows_and_views_of_the_batch(
    make: Make, view: str
) -> None:
    config = make(FITNET, f"distill.student_view={view}")
    job = prepare(config, ALONE)
    arrays = [
        FeatureStore.open(config.store_url(split)).read_shard(0, "grid")
        for split in config.training_splits()
    ]
    seen = teacher_views(2, config.distill.seed, 1, job.loader.hashes)
    if view == "clean":
        seen = np.full_like(seen, CLEAN)
    batch = next(job.loader.epoch(1))
    rows = batch.rows.numpy()
    assert rows.min() < LABELLED <= rows.max()
    for row, grid in zip(rows, batch.outputs["grid"].numpy(), strict=True):
        part, inner = (0, row) if row < LABELLED else (1, row - LABELLED)
        assert np.array_equal(grid, arrays[part][inner, seen[row]])
    assert batch.outputs["grid"].shape[2:] == (SIDE, SIDE)


def test_grids_are_read_only_where_an_objective_compares_them(make: Make) -> None:
    job = prepare(make(), ALONE)
    assert job.sources.outputs == {}
    assert next(job.loader.epoch(0)).outputs == {}


def test_workers_share_the_grids_of_one(make: Make) -> None:
    alone = prepare(make(FITNET), ALONE).loader
    whole = next(alone.epoch(0)).outputs["grid"]
    shared = [replace(alone, world=World(rank, 2, CPU)) for rank in range(2)]
    assert torch.equal(
        torch.cat([next(loader.epoch(0)).outputs["grid"] for loader in shared]), whole
    )


def test_in_parts_the_gradient_is_that_of_the_whole_batch(make: Make) -> None:
    """In evaluation mode, for batch norm normalises over a part. float32 rounds to about 1e-6."""
    gradients = []
    for rows in (None, 17):
        job = prepare(make(SEVERAL, PAIRS), ALONE)
        model, batch = job.model.eval(), next(job.loader.epoch(0))
        gradient = OnePass(model, ALONE) if rows is None else TwoPasses(model, ALONE, rows)
        gradient(batch, loss_scaler(CPU, torch.float32))
        found = [p.grad.flatten() for p in model.parameters() if p.grad is not None]
        gradients.append(torch.cat(found))
    whole, parts = gradients
    assert whole.norm() > 0
    assert (parts - whole).norm() <= 1e-4 * whole.norm()


@pytest.mark.parametrize(
    "more", [pytest.param([], marks=pytest.mark.slow), ["distill.micro_batch_size=25"]]
)
def test_an_interrupted_training_on_grids_ends_with_the_same_bits(
    make: Make, tmp_path: Path, more: list[str]
) -> None:
    config = make(SEVERAL, PAIRS, "distill.checkpoint_steps=1", *more)
    whole = train(config, tmp_path / "whole")
    assert_same_weights(whole.path, train(config, tmp_path / "parts", 2, 3).path)


@pytest.mark.parametrize(
    "option",
    [
        "precision=bfloat16",
        "precision=float16",
        "channels_last=false",
        # A C++ compiler takes a minute.
        pytest.param("compile=default", marks=pytest.mark.slow),
    ],
)
def test_grids_go_with_every_way_to_compute(make: Make, tmp_path: Path, option: str) -> None:
    """Their losses are those of float32, of which bfloat16 keeps two digits. One step: what is
    scaled for float16 begins with an overflow, after which it is a step behind."""
    few = [SEVERAL, PAIRS, "distill.epochs=1", "distill.batch_size=180"]
    runs = [make(*few, f"runs={tmp_path / 'usual'}"), make(*few, f"distill.{option}")]
    usual, other = (read_metrics(RunFolder(distill.run(config).run))[0] for config in runs)
    for name in ("sp", "fitnet", "ega"):
        assert other[f"train/{name}"] == pytest.approx(usual[f"train/{name}"], rel=0.05)


STUDENT = """
from torch import nn

class Small(nn.Module):
    num_features = 8

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), *(nn.ReLU() for _ in range(5)))

    def maps(self, images):
        return self.layers(images)

    def pool(self, maps):
        return maps.mean(dim=(2, 3))

    def forward(self, images):
        return self.pool(self.maps(images))
"""


@pytest.mark.slow
def test_workers_learn_from_grids_what_one_learns(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A student of the user's own without batch norm, which would normalise over a worker's rows.
    The regressor's gradient is averaged over the workers too."""
    (tmp_path / "mapping_student.py").write_text(STUDENT)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.syspath_prepend(str(tmp_path))
    small = ["distill.student.name=mapping_student:Small", "distill.epochs=2"]
    config = make(SEVERAL, PAIRS, *small)
    one = weights(train(config, tmp_path / "one").path)
    (tmp_path / "two.yaml").write_text(to_yaml(config))
    train_together(2, tmp_path / "two.yaml", tmp_path / "two", None)
    two = weights(tmp_path / "two")
    assert one.keys() == two.keys()
    for key, value in one.items():
        torch.testing.assert_close(two[key], value, rtol=1e-3, atol=1e-5, msg=key)


def test_a_member_of_an_ensemble_has_grids_of_its_own(tmp_path: Path) -> None:
    member = "{backend: transformers, model: 'package:egapipe.configs.teachers.digits', grid: %d}"
    members = f"teachers: {{one: {member % 2}, two: {member % 1}}}"
    ensemble = f"teacher={{backend: ensemble, combine: separate, {members}}}"
    config = configured(
        tmp_path,
        ensemble,
        f"runs={tmp_path / 'runs'}",
        "dataset.unlabelled=[]",
        "distill.teacher_output=two",
        "distill.teacher_grid=two_grid",
        "distill.epochs=1",
        BOTH,
    )
    for split in config.splits():
        extract.run(config, split=split, local=True)
    assert next(prepare(config, ALONE).loader.epoch(0)).outputs["two_grid"].shape[1:] == (128, 1, 1)
    assert distill.run(config).top1 is not None
    other = config.model_copy(
        update={"distill": config.distill.model_copy(update={"teacher_grid": "grid"})}
    )
    with pytest.raises(
        UsageError, match=r"has no output grid: .*teacher_grid to one of .*one_grid"
    ):
        prepare(other, ALONE)


def test_outputs_of_submodules_are_stored_in_the_shape_that_is_asked_for(make: Make) -> None:
    """Maps of 8 x 8, and of 4 x 4 behind them."""
    store = FeatureStore.open(make().store_url("train"))
    shapes = dict(store.manifest.outputs)
    assert shapes.pop("embedding")
    assert shapes == {
        "grid": (128, 2, 2),
        "early": (32, 2, 2),
        "spots": (16, 64),
        "raw": (64, 4, 4),
        "mean": (32,),
    }
    found = {name: store.read_shard(0, name).astype(np.float32) for name in shapes}
    raw = found["raw"]
    assert np.array_equal(found["spots"], raw.reshape(*raw.shape[:3], -1).swapaxes(2, 3))
    assert np.allclose(found["early"].mean(axis=(3, 4)), found["mean"], rtol=0.02, atol=0.02)


def test_each_pair_is_of_its_tap_and_its_output(make: Make) -> None:
    pairs = "{a: {student: layers.2, teacher: mean}, b: {teacher: spots}, c: {teacher: raw}}"
    config = make(
        f"distill.features={pairs}",
        "distill.objective.sp={features: [c, a, b]}",
        "distill.epochs=1",
    )
    job = prepare(config, ALONE)
    assert set(job.sources.outputs) == {"mean", "spots", "raw"}
    batch = next(job.loader.epoch(0))
    outputs = job.model.outputs(batch)
    seen = outputs.students["student"]
    assert set(seen.taps) == {"layers.2", "maps"}
    assert outputs.named()["student.taps.maps"].shape[1] == 64
    found = job.model._stored_pair(seen, job.model._stored_teacher(outputs, batch), batch).features
    assert [tuple(side.shape[1:]) for pair in found.values() for side in pair] == [
        *((64, 4, 4), (64, 4, 4)),
        *((32, 8, 8), (32,)),
        *((64, 4, 4), (16, 64)),
    ]
    assert torch.equal(found["b"].teacher, batch.outputs["spots"].float())


def test_standardised_outputs_have_the_mean_0_in_each_channel(make: Make) -> None:
    pairs = "{spots: {}, mean: {}, raw: {}}"
    config = make(
        f"distill.features={pairs}",
        "distill.objective={sp: {features: [spots, mean, raw]}}",
        "distill.standardize=zscore",
        "distill.student_view=paired",
    )
    job = prepare(config, ALONE)
    assert sorted(job.model.standards)[0] == "standardizers.output_mean.mean"
    for name, parts in job.sources.outputs.items():
        every = torch.cat([part.tensor() for part in parts])
        found = job.model._output(name, every)
        dims = {"spots": (0, 1), "mean": (0,), "raw": (0, 2, 3)}[name]
        assert found.mean(dim=dims).abs().max() < 1e-3
        assert (found.std(dim=dims) - 1).abs().max() < 1e-2


def test_a_checkpoint_of_before_has_the_grids_standardiser(make: Make) -> None:
    job = prepare(make(FITNET, "distill.standardize=zscore"), ALONE)
    state = job.model.state_dict()
    old = {
        k.replace("standardizers.output_grid.", "grid_standardizer."): v for k, v in state.items()
    }
    assert "grid_standardizer.mean" in old
    assert old.keys() != state.keys()
    job.model.load_state_dict(old)


def test_a_pair_is_part_of_what_a_run_is_and_a_store_too(make: Make) -> None:
    plain, named = make(FITNET), make(FITNET, PAIRS)
    assert run_identity(plain) != run_identity(named)
    assert run_identity(make(FITNET, "distill.features={}")) == run_identity(plain)
    with pytest.raises(StoreError, match=r"teacher\.outputs\.early"):
        prepare(make("teacher.outputs={}"), ALONE)


@pytest.mark.parametrize(
    ("sets", "message"),
    [
        (["distill.objective={at: {features: early}}"], r"at\.features names 'early'.*one of grid"),
        (["distill.objective={sp: {features: []}}"], r"sp\.features"),
        (["distill.objective={sp: {features: [grid, grid]}}"], "names one twice"),
        (["distill.objective={sp: {features: [nodes, grid]}}"], "names 'nodes'"),
        (["distill.objective={gram: {features: nodes}}"], "names 'nodes'"),
        (["distill.features={nodes: {}}"], "nodes are the embeddings"),
        (["teacher.outputs={grid: {}}"], r"there is an output grid, rename"),
        (["teacher.outputs={a: {shape: frames}}"], r"teacher\.outputs\.a\.shape"),
    ],
)
def test_what_names_no_pair_is_refused(make: Make, sets: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make(*sets)


def test_an_output_that_no_store_has_is_refused(make: Make) -> None:
    sets = ["distill.features={level: {}}", "distill.objective={at: {features: level}}"]
    with pytest.raises(
        UsageError, match=r"no output level: set distill\.features\.level\.teacher to"
    ):
        prepare(make(*sets), ALONE)


def test_a_store_without_grids_is_refused(quick: MakeConfig) -> None:
    with pytest.raises(UsageError, match=r"sp\.features is grid, .*teacher\.grid.*egapipe extract"):
        prepare(quick(SP), ALONE)


def test_an_output_that_does_not_go_with_maps_is_refused(make: Make) -> None:
    with pytest.raises(UsageError, match=r"fitnet\.features: of grid the student has \[.* \[128\]"):
        prepare(make(FITNET, "distill.teacher_grid=embedding"), ALONE)


def test_a_student_without_maps_is_refused(make: Make) -> None:
    with pytest.raises(UsageError, match=r"^student Flatten gives no feature maps: [^\n]*$"):
        prepare(make(SP, "distill.student.name=torch.nn:Flatten"), ALONE)


def test_any_output_can_be_learned_from(make: Make) -> None:
    config = make("distill.teacher_output=grid")
    features = prepare(config, ALONE).sources.features[0]
    array = FeatureStore.open(config.store_url("train")).read_shard(0, "grid")
    taken = features.take(np.array([3, 1]), np.array([0, 2]))
    assert np.array_equal(taken.numpy(), np.stack([array[3, 0], array[1, 2]]).reshape(2, -1))
    assert features.dim == taken.shape[1]
    assert run_identity(config) != run_identity(make())
    assert distill.run(make("distill.teacher_output=grid", "distill.epochs=1")).top1 is not None


def test_an_output_that_is_not_there_is_refused_with_those_there_are(make: Make) -> None:
    with pytest.raises(StoreError, match=r"no output 'grids': .*embedding, grid"):
        prepare(make("distill.teacher_output=grids"), ALONE)
