"""What several workers have in common: statistics that can be of all rows, sums, and their end."""

import json
import multiprocessing
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from safetensors.torch import load_file
from torch import Tensor, nn

from egapipe.pipeline.config import Config, load_config, to_yaml
from egapipe.pipeline.config import override as overridden
from egapipe.pipeline.config.data import ViewsConfig
from egapipe.pipeline.config.load import check
from egapipe.pipeline.errors import EgapipeError, StoreError, UsageError
from egapipe.pipeline.results.runs import RunFolder, run_folder
from egapipe.pipeline.results.tracking import read_metrics
from egapipe.stages import distill
from egapipe.stages.distill.data.inputs.images import Images
from egapipe.stages.distill.data.rows.order import Ints
from egapipe.stages.distill.folder import training_folder
from egapipe.stages.distill.model.spec import MODEL
from egapipe.stages.distill.model.synchronised import has_batch_statistics, synchronise
from egapipe.stages.distill.setup import prepare
from egapipe.stages.distill.training.loop import fit
from egapipe.stages.distill.training.meters import epoch_means
from egapipe.stages.distill.workers.together import agreed
from egapipe.stages.distill.workers.totals import over_workers
from egapipe.stages.distill.workers.world import World
from tests.stages.distill import workers
from tests.stages.distill.conftest import MakeConfig
from tests.stages.distill.test_resume import CLOCK
from tests.stages.distill.test_training import assert_same_weights, weights

CPU = torch.device("cpu")
SIZE = 4


def work(rank: int, folder: str, sessions: list[workers.Session]) -> None:
    """One of the workers of all that is looked at here: to start them takes the longest."""
    with workers.together(rank, SIZE, Path(folder)):
        torch.save(layers(rank), Path(folder) / f"{rank}.pt")
        workers.take_turns(rank, sessions)
        said = {name: ending(rank, Path(folder), fail) for name, fail in FAILURES.items()}
        (Path(folder) / f"{rank}.json").write_text(json.dumps(said))


# ------------------------------------------------------------------------------------ a training


@dataclass
class Sessions:
    """Trainings to be done by the same workers, one after another."""

    folder: Path
    make: MakeConfig
    planned: list[workers.Session] = field(default_factory=list)

    def add(self, name: str, size: int, sets: list[str], *stops: int) -> RunFolder:
        """Plan a training by `size` workers, begun anew after so many steps each time."""
        few = ["epochs=1", "batch_size=402", "checkpoint_steps=1", "ema_decay=0.9"]
        config = self.make(*(f"distill.{value}" for value in (*few, *sets)))
        run, file = RunFolder(self.folder / name), self.folder / f"{name}.yaml"
        file.write_text(to_yaml(config))
        run.begin(config, {})
        spec = prepare(config, World.alone(CPU)).spec
        run.write_json(MODEL, spec.model_dump(mode="json"))
        self.planned += [(size, str(file), str(run.path), stop) for stop in (*stops, None)]
        return run

    def work(self) -> None:
        multiprocessing.set_forkserver_preload(["torch._dynamo", __name__])
        args = (str(self.folder), self.planned)
        mp.start_processes(work, args=args, nprocs=SIZE, start_method="forkserver")  # type: ignore[attr-defined]


PARTS = ["micro_batch_size=60", "epochs=2"]
SYNCHRONISED = ["sync_batchnorm=true"]
PEERS = [
    *SYNCHRONISED,
    *("views_per_row=2", "peers={other: {name: digits_cnn}}", "teacher=peers"),
    "objective={dogo: {hidden: 16, dim: 8}, ega: 0.5, kd: {teacher: store}}",
]


@pytest.fixture(scope="module")
def runs(digits_store: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, RunFolder]:
    """A student with batch normalisation, trained by one to four workers; a few interrupted."""
    folder = tmp_path_factory.mktemp("sessions")

    def make(*sets: str) -> Config:
        where = [f"store.url={digits_store}", "views.count=2", "distill.threads=1"]
        return load_config("quickstart", [*where, *sets])

    sessions = Sessions(folder, make)
    made = {
        "one": sessions.add("one", 1, SYNCHRONISED),
        "two": sessions.add("two", 2, SYNCHRONISED),
        "four": sessions.add("four", 4, SYNCHRONISED),
        "changed": sessions.add("changed", 4, SYNCHRONISED, 2),
        "own": sessions.add("own", 4, []),
        "peers": sessions.add("peers", 1, PEERS),
        "three, peers": sessions.add("three", 3, PEERS, 2),
        "parts": sessions.add("parts", 4, PARTS),
        "parts, interrupted": sessions.add("interrupted", 4, PARTS, 2, 4),
    }
    sessions.work()
    return made


@pytest.mark.parametrize("name", ["two", "four", "changed", "three, peers"])
def test_synchronised_workers_learn_what_one_learns(runs: dict[str, RunFolder], name: str) -> None:
    """Of 402 rows a step four workers have 101, 101, 100 and 100. A few steps: of rounding, what a
    ReLU makes of a zero is all or nothing, and grows."""
    alone = "peers" if "peers" in name else "one"
    one, other = weights(runs[alone].path), weights(runs[name].path)
    assert one.keys() == other.keys()
    assert any("running_var" in key for key in one)
    # Their projections have a ReLU more.
    tolerance = 1e-2 if alone == "peers" else 1e-3
    for key, value in one.items():
        assert close(other[key], value, tolerance), key


def test_workers_of_their_own_statistics_learn_something_else(runs: dict[str, RunFolder]) -> None:
    """Else the test before this would prove nothing."""
    one, own = weights(runs["one"].path), weights(runs["own"].path)
    assert len([key for key, value in one.items() if not close(own[key], value)]) > len(one) / 2


def close(one: Tensor, other: Tensor, tolerance: float = 1e-3) -> bool:
    """To float32's rounding, of a tensor's largest number."""
    return float((one - other).abs().max()) <= tolerance * float(other.abs().max())


@pytest.mark.parametrize("name", ["four", "own", "parts", "parts, interrupted"])
@pytest.mark.parametrize("which", ["last", "ema"])
def test_what_is_reported_is_the_accuracy_of_what_is_saved(
    runs: dict[str, RunFolder], name: str, which: str
) -> None:
    found = runs[name].read_json(workers.RESULTS)
    accuracy = distill.load_student(runs[name], which).accuracy()
    prefix = "ema_" if which == "ema" else ""
    assert (found[f"{prefix}top1"], found[f"{prefix}top5"]) == (accuracy.top1, accuracy.top5)


@pytest.mark.parametrize("name", ["four", "own", "parts", "parts, interrupted"])
def test_all_workers_end_with_the_student_that_is_saved(
    runs: dict[str, RunFolder], name: str
) -> None:
    """Its running statistics too, of which each had its own: all measured with the same."""
    saved = {
        key.partition(":")[2]: value
        for key, value in weights(runs[name].path).items()
        if key.startswith("student:")
    }
    for rank in range(SIZE):
        found = load_file(runs[name].path / f"rank{rank}.safetensors")
        assert all(torch.equal(found[f"backbone.{key}"], value) for key, value in saved.items())


def test_an_interrupted_epoch_of_several_workers_has_its_own_metrics(
    runs: dict[str, RunFolder],
) -> None:
    """Each had its own rows before the interruption too, and went on with its own sums."""
    whole, parts = runs["parts"], runs["parts, interrupted"]
    assert_same_weights(whole.path, parts.path)
    lines = [
        [{k: v for k, v in line.items() if k not in CLOCK} for line in read_metrics(run)]
        for run in (whole, parts)
    ]
    assert lines[0] == lines[1]


def test_sums_go_on_with_another_number_of_workers() -> None:
    """Three steps by four workers, then one by one: losses 1, 1, 1, 5 have the mean 2."""
    before = {"loss": 12.0, "steps": 12.0, "rows": 60.0, "correct": 30.0, "labelled": 60.0}
    before |= {"seconds": 8.0, "wait": 4.0, "workers": 4.0}
    own = {"loss": 5.0, "steps": 1.0, "rows": 20.0, "correct": 20.0, "labelled": 20.0}
    sums = over_workers(before, {**own, "seconds": 2.0, "wait": 0.0}, World.alone(CPU))
    assert epoch_means(sums) == {
        "train/loss": 2.0,
        "train/top1": 62.5,
        "train/seconds": 4.0,
        "train/rows_per_s": 20.0,
        "train/data_wait": 0.25,
    }


# ------------------------------------------------------------------------------------- one layer

SHAPES = {nn.BatchNorm1d: (37, 5), nn.BatchNorm2d: (37, 5, 3, 2), nn.BatchNorm3d: (37, 5, 2, 1, 2)}
SPLITS = {"even": [10, 9, 9, 9], "uneven": [30, 1, 6, 0]}


def layer_cases() -> dict[str, tuple[nn.Module, Tensor]]:
    """Layers in float64 and what they are given; one far from zero, where squares cancel."""
    torch.manual_seed(0)
    cases: dict[str, tuple[nn.Module, Tensor]] = {}
    for kind, shape in SHAPES.items():
        cases[kind.__name__] = (kind(shape[1]), torch.randn(shape))
    cases["cumulative"] = (nn.BatchNorm1d(5, momentum=None), torch.randn(37, 5))
    cases["plain"] = (nn.BatchNorm1d(5, affine=False), torch.randn(37, 5))
    cases["forgetful"] = (nn.BatchNorm2d(5, track_running_stats=False), torch.randn(37, 5, 2, 2))
    cases["far"] = (nn.BatchNorm1d(5), torch.randn(37, 5) + 3000)
    return cases


def run_layer(layer: nn.Module, x: Tensor, weights: Tensor) -> dict[str, Tensor]:
    """Two steps: the outputs, gradients and running statistics they end with."""
    for _ in range(2):
        layer.zero_grad()
        given = x.clone().requires_grad_()
        output = layer(given)
        ((output + output**2) * weights).sum().backward()
    assert given.grad is not None
    found = {"output": output.detach(), "by_x": given.grad}
    found |= {f"by_{name}": p.grad for name, p in layer.named_parameters() if p.grad is not None}
    return found | {f"buffer {name}": b for name, b in layer.named_buffers()}


def layers(rank: int) -> dict[str, dict[str, Tensor]]:
    """What a worker finds of every layer with every way to share the rows."""
    found = {}
    for split, counts in SPLITS.items():
        for name, (layer, x) in layer_cases().items():
            assert dist.group.WORLD is not None
            synchronise(layer, dist.group.WORLD)
            weights = torch.linspace(0.1, 1, x.numel()).view_as(x)
            own, share = (values.split(counts)[rank] for values in (x, weights))
            found[f"{split} {name}"] = run_layer(layer, own, share)
    return found


def test_a_layer_of_workers_is_that_of_one_with_all_rows(runs: dict[str, RunFolder]) -> None:
    folder = runs["one"].path.parent
    found = [torch.load(folder / f"{rank}.pt") for rank in range(SIZE)]
    for split in SPLITS:
        for name, (layer, x) in layer_cases().items():
            weights = torch.linspace(0.1, 1, x.numel()).view_as(x)
            exact = run_layer(layer.double(), x.double(), weights.double())
            each = [one[f"{split} {name}"] for one in found]
            tolerance = {"rtol": 1e-3, "atol": 1e-3} if name == "far" else {}
            for key, expected in exact.items():
                parts = [part[key] for part in each]
                if key in ("output", "by_x"):
                    value = torch.cat(parts)
                elif key.startswith("by_"):
                    value = torch.stack(parts).sum(0)
                else:
                    assert all(torch.equal(part, parts[0]) for part in parts)
                    value = parts[0]
                torch.testing.assert_close(
                    value, expected.to(value.dtype), msg=f"{split} {name} {key}", **tolerance
                )


# ------------------------------------------------------------------------- what a run is made of


def test_batch_statistics_are_those_that_a_training_makes() -> None:
    assert not has_batch_statistics(nn.Sequential(nn.Flatten(), nn.LayerNorm(3), nn.Linear(3, 2)))
    student = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    assert has_batch_statistics(student)
    assert not has_batch_statistics(student.requires_grad_(False))


class Scaled(nn.BatchNorm2d):
    """One that does more than to normalise."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input) * 2


def test_a_normalisation_of_its_own_kind_is_refused() -> None:
    with pytest.raises(
        UsageError, match=r"^distill\.sync_batchnorm .* 1 of the student is .*Scaled"
    ):
        synchronise(nn.Sequential(nn.Flatten(), Scaled(3)), None)  # type: ignore[arg-type]


def test_parts_of_a_step_are_not_all_its_rows(quick: MakeConfig) -> None:
    with pytest.raises(UsageError, match="sync_batchnorm normalises over all rows of a step"):
        quick("distill.sync_batchnorm=true", "distill.micro_batch_size=32")


def test_workers_are_part_of_a_run_where_they_decide_what_is_learned(quick: MakeConfig) -> None:
    """Six ways to train with batch normalisation are three runs, without it one."""

    def folders(*students: str) -> list[set[Path]]:
        ways = ["workers=0", "workers=1", "sync_batchnorm=true"]
        synchronised = ["distill.workers=4", "distill.sync_batchnorm=true"]
        alike = [*([f"distill.{way}"] for way in ways), synchronised]
        two, four = ["distill.workers=2"], ["distill.workers=4"]
        return [
            {training_folder(quick(*students, *sets)).path for sets in group}
            for group in (alike, [two], [four])
        ]

    normalised = folders()
    assert [len(group) for group in normalised] == [1, 1, 1]
    assert len(set.union(*normalised)) == 3
    assert len(set.union(*folders("distill.student.name=torch.nn:Flatten"))) == 1
    assert training_folder(quick()) == run_folder(quick())


# --------------------------------------------------------------------- one worker's end is of all

UNLUCKY = 2


class Failing:
    """Images of which one batch, or what is asked for after it, cannot be read."""

    def __init__(self, images: Images, batches: int) -> None:
        self._images, self._left = images, batches
        self.threads, self.frame = images.threads, images.frame

    def clean(self, rows: Ints) -> Tensor:
        self._take()
        return self._images.clean(rows)

    def batch(self, rows: Ints, plan: ViewsConfig, k: int | Ints) -> Tensor:
        self._take()
        return self._images.batch(rows, plan, k)

    def _take(self) -> None:
        self._left -= 1
        if self._left < 0:
            raise StoreError("the disk of this machine is gone")


def override(config: Config, values: Mapping[str, str]) -> Config:
    return check(overridden(config.model_dump(mode="json"), values), "changed")


def without_a_store(config: Config, run: Path, world: World) -> None:
    if world.rank == UNLUCKY:
        config = override(config, {"store.url": str(run / "nowhere")})
    fit(agreed(world, lambda: prepare(config, world)), RunFolder(run), silent)


def without_neighbours(config: Config, run: Path, world: World) -> None:
    """The others have begun to agree on whose rows are near when this one fails."""
    config = override(config, {"distill.sampler": "neighbours"})
    without_a_store(config, run, world)


def within_what_they_agree_on(config: Config, run: Path, world: World) -> None:
    """Who fails knows as well as the others that all of them know."""

    def fail() -> None:
        if world.rank == UNLUCKY:
            raise StoreError("no store here")

    agreed(world, lambda: agreed(world, fail))


def with_a_damaged_checkpoint(config: Config, run: Path, world: World) -> None:
    own = run / str(world.rank == UNLUCKY)
    if world.rank == UNLUCKY:
        (own / "checkpoints" / "here").mkdir(parents=True)
        (own / "checkpoints" / "here" / "state.json").write_text("{")
        (own / "checkpoints" / "last.json").write_text('{"folder": "here"}')
    fit(prepare(config, world), RunFolder(own), silent)


def without_images(config: Config, run: Path, world: World, batches: int) -> None:
    job = prepare(config, world)
    if world.rank == UNLUCKY:
        images = Failing(job.loader.images, batches)
        job = replace(job, loader=replace(job.loader, images=images))
    fit(job, RunFolder(run), silent)


def without_test_images(config: Config, run: Path, world: World) -> None:
    job = prepare(config, world)
    if world.rank == UNLUCKY and job.test is not None:
        job = replace(job, test=replace(job.test, images=Failing(job.test.images, 0)))
    fit(job, RunFolder(run), silent)


def without_room(config: Config, run: Path, world: World) -> None:
    """The first worker alone writes: a file is where its folder should be."""
    run.mkdir(parents=True, exist_ok=True)
    (run / "checkpoints").touch()
    fit(prepare(config, world), RunFolder(run), silent)


FAILURES: dict[str, Callable[[Config, Path, World], None]] = {
    "is gone, first batch": partial(without_images, batches=0),
    "is gone, later batch": partial(without_images, batches=2),
    "no store": without_a_store,
    "no store, after others agreed": without_neighbours,
    "no store, within": within_what_they_agree_on,
    "is damaged": with_a_damaged_checkpoint,
    "is gone, in the test": without_test_images,
    "cannot write a checkpoint": without_room,
}


def silent(epoch: int, metrics: Mapping[str, float]) -> None:
    del epoch, metrics


def ending(rank: int, folder: Path, fail: Callable[[Config, Path, World], None]) -> str:
    """What a worker says at its end."""
    world = World.current(CPU)
    config = load_config(str(folder / "one.yaml"))
    run = Path(tempfile.mkdtemp(dir=folder)) if rank == 0 else None
    shared = [run]
    dist.broadcast_object_list(shared)
    try:
        fail(config, shared[0], world)
    except EgapipeError as error:
        return f"{type(error).__name__}: {error}"
    return "finished"


@pytest.mark.parametrize("name", FAILURES)
def test_one_workers_error_ends_all_of_them(runs: dict[str, RunFolder], name: str) -> None:
    """At once: that the others wait for the time-out of four minutes would be seen."""
    folder = runs["one"].path.parent
    said = [json.loads((folder / f"{rank}.json").read_text())[name] for rank in range(SIZE)]
    told = [line for line in said if not line.startswith("OtherWorkerError: ")]
    assert len(told) == 1
    assert name.partition(",")[0] in told[0]
