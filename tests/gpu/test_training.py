"""A training on a GPU: recorded and eager, deterministic, continued, in every precision."""

import itertools
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from egapipe.pipeline.errors import TrainingError
from egapipe.pipeline.results.runs import RunFolder, run_folder
from egapipe.stages import distill
from egapipe.stages.distill.setup import Job, prepare
from egapipe.stages.distill.training.checkpoint import checkpoint_folder
from egapipe.stages.distill.training.learner import make_learner
from egapipe.stages.distill.training.loop import fit, make_steps
from egapipe.stages.distill.training.meters import Clock
from egapipe.stages.distill.training.step import device_settings
from egapipe.stages.distill.workers.world import World
from tests.gpu.conftest import Make
from tests.stages.distill.objectives.samples import ON_VECTORS

STRICT = "distill.deterministic=true"
EVERYTHING = "distill.objective={" + ", ".join(f"{n}: 0.01" for n in ON_VECTORS if n != "irg") + "}"


def weights(run: Path) -> dict[str, Tensor]:
    folder = checkpoint_folder(RunFolder(run), "last")
    return load_file(folder / "student.safetensors") | load_file(folder / "heads.safetensors")


def same(one: Path, two: Path) -> bool:
    first, second = weights(one), weights(two)
    return all(torch.equal(value, second[name]) for name, value in first.items())


def again(config, tmp_path: Path, name: str) -> Path:
    return distill.run(config, folder=RunFolder(tmp_path / name)).run


def test_two_trainings_are_equal_bit_for_bit(make: Make, tmp_path: Path) -> None:
    config = make(STRICT)
    assert same(again(config, tmp_path, "one"), again(config, tmp_path, "two"))


def test_a_recorded_step_does_what_an_eager_one_does(make: Make, tmp_path: Path) -> None:
    recorded = again(make(STRICT, "distill.ema_decay=0.9"), tmp_path, "recorded")
    eager = again(
        make(STRICT, "distill.ema_decay=0.9", "distill.cuda_graphs=false"), tmp_path, "eager"
    )
    assert same(recorded, eager)
    summaries = [RunFolder(run).summary() for run in (recorded, eager)]
    assert summaries[0]["top1"] == summaries[1]["top1"]
    assert summaries[0]["ema_top1"] == summaries[1]["ema_top1"]


def test_rows_on_the_device_and_rows_from_the_host_train_alike(make: Make, tmp_path: Path) -> None:
    resident = again(make(STRICT, "distill.data=resident"), tmp_path, "resident")
    streamed = again(make(STRICT, "distill.data=stream"), tmp_path, "streamed")
    assert same(resident, streamed)


class KilledError(Exception):
    """Stands for a kill."""


@pytest.mark.parametrize("objective", ["ega", "crd"])
def test_a_killed_training_continues_to_the_same_weights(
    make: Make, tmp_path: Path, device: torch.device, objective: str
) -> None:
    config = make(
        STRICT,
        f"distill.objective={{{objective}: 1}}",
        "distill.checkpoint_steps=7",
        "distill.ema_decay=0.9",
    )
    whole = again(config, tmp_path, "whole")
    folder = RunFolder(tmp_path / "killed")
    count = itertools.count()

    def stepped(at: object) -> None:
        if next(count) == 30:
            raise KilledError

    job = prepare(config, World.alone(device))
    folder.begin(config, {})
    with pytest.raises(KilledError):
        fit(job, folder, lambda epoch, metrics: None, stepped)
    fit(prepare(config, World.alone(device)), folder, lambda epoch, metrics: None)
    assert same(whole, folder.path)


PEERS = ("peers={other: {name: resnet8}}", "objective={kd: {teacher: peers}, ega: 1}")
AVERAGE = ("teacher=average", "ema_decay=0.9")
VIEWS = ("views_per_row=2", "student_view=clean", "batch_size=32")


@pytest.mark.parametrize(
    "options",
    [
        ["precision=bfloat16"],
        ["precision=float16"],
        ["precision=float16", "clip_grad_norm=1.0"],
        ["tf32=none", "clip_grad_norm=1.0"],
        ["tf32=all"],
        ["micro_batch_size=20"],
        ["graph_batch=256"],
        ["channels_last=false"],
        ["augment={crop: scale, flip: 0.5}", "image_size=16"],
        ["student_view=paired"],
        ["head.mode=sequential", "head.epochs=2"],
        ["sampler=neighbours"],
        ["unlabelled_ratio=1"],
        ["objective={}"],
        ["mix={kind: either}", "jitter={}", "augment={crop: pad, flip: alternating}"],
        ["optimizer=adamw", "lr=0.002"],
        ["optimizer=muon", "lr=0.002"],
        [*PEERS, "precision=float16"],
        [*AVERAGE, "objective={kd: 1.0}", "micro_batch_size=20"],
        ["objective={lsp: 1.0, hashing: 0.1}", "sampler=neighbours"],
        ["objective={dogo: 0.1}", "teacher=peers", "peers={other: {name: resnet8}}", *VIEWS],
        ["objective={igsd: 0.1}", *AVERAGE, *VIEWS],
    ],
    ids=" ".join,
)
def test_every_option_learns(make: Make, options: list[str]) -> None:
    done = distill.run(make(*(f"distill.{option}" for option in options), "distill.epochs=24"))
    assert done.top1 is not None
    # Chance is 10.
    assert done.top1 > 15
    assert distill.load_student(done.run).accuracy().top1 == pytest.approx(done.top1, abs=0.3)


@pytest.mark.parametrize("mode", ["default", "reduce-overhead"])
def test_compiled_students_learn(gpu: torch.device, make: Make, mode: str) -> None:
    done = distill.run(make(f"distill.compile={mode}", "distill.epochs=24"))
    assert done.top1 is not None
    assert done.top1 > 40


@pytest.mark.parametrize("name", ON_VECTORS)
def test_no_step_waits_for_the_device(gpu: torch.device, make: Make, name: str) -> None:
    """torch refuses every wait in the steps from the second on; then the step is recorded."""
    job = prepare(make(f"distill.objective={{{name}: 0.1}}"), World.alone(gpu))
    recorded = steps_without_waits(job, gpu)
    assert recorded


def test_no_step_of_many_options_waits_for_the_device(gpu: torch.device, make: Make) -> None:
    config = make(
        EVERYTHING,
        "distill.precision=float16",
        "distill.ema_decay=0.99",
        "distill.clip_grad_norm=1.0",
        "distill.augment={crop: scale, flip: 0.5}",
    )
    assert steps_without_waits(prepare(config, World.alone(gpu)), gpu)


@pytest.mark.parametrize(
    "options",
    [
        *(["mix={kind: either}"], ["jitter={}"], ["optimizer=adamw"], ["optimizer=muon"]),
        *([*PEERS], [*AVERAGE, "objective={kd: 1.0}"]),
        ["graph_batch=160", "objective={ega: {weight: 0.1, form: factored}}"],
        ["sampler=class-balanced", "labels_per_class=null", "objective={ega: {form: factored}}"],
    ],
    ids=" ".join,
)
def test_no_step_of_another_recipe_waits_for_the_device(
    gpu: torch.device, make: Make, options: list[str]
) -> None:
    config = make(*(f"distill.{option}" for option in options), "distill.clip_grad_norm=1.0")
    assert steps_without_waits(prepare(config, World.alone(gpu)), gpu)


def steps_without_waits(job: Job, device: torch.device) -> bool:
    """Make eight steps; whether they are recorded by then."""
    with device_settings(job.config.distill, device):
        steps = make_steps(job, make_learner(job.model, job.config.distill, device))
        job.model.train()
        steps.begin(0, 0)
        clock = Clock(device)
        for step in range(8):
            steps.advance(clock)
            if step == 2:
                torch.cuda.set_sync_debug_mode("error")
            try:
                # Recording collects garbage and waits once; it is not a step.
                if step == 3:
                    torch.cuda.set_sync_debug_mode("default")
                steps.run(0, step)
                if step == 3:
                    torch.cuda.set_sync_debug_mode("error")
            except BaseException:
                torch.cuda.set_sync_debug_mode("default")
                raise
        torch.cuda.set_sync_debug_mode("default")
        return steps.recorded


class Looks(nn.Module):
    """A student whose forward pass looks at a value on the device."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3 * 8 * 8, 32)

    def forward(self, images: Tensor) -> Tensor:
        hidden: Tensor = self.layer(images.flatten(1))
        return hidden if float(hidden.detach().sum()) > 0 else -hidden


def test_a_student_that_cannot_be_recorded_trains_eagerly(gpu: torch.device, make: Make) -> None:
    config = make("distill.student.name=tests.gpu.test_training:Looks")
    with pytest.warns(UserWarning, match="without a CUDA graph"):
        done = distill.run(config)
    assert done.summary["epochs"] == 3


def test_a_loss_that_is_not_finite_stops_with_the_step(make: Make) -> None:
    config = make("distill.decay=1e18", "distill.milestones=[2]", "distill.epochs=5")
    with pytest.raises(TrainingError, match=r"not finite .*epoch 2, step \d+ "):
        distill.run(config)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        student = distill.load_student(run_folder(config))
    assert all(bool(p.isfinite().all()) for p in student.student.parameters())


def test_waits_are_a_small_share(gpu: torch.device, make: Make) -> None:
    done = distill.run(make("distill.epochs=6"))
    assert 0 <= done.summary["data_wait"] < 0.5
    assert np.isfinite(done.summary["rows_per_s"])
