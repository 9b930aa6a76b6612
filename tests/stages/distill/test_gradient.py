"""The gradient of a large batch in two passes is that of one pass over all of it."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

from egapipe.pipeline.config.data import Normalize
from egapipe.pipeline.config.objectives import ObjectiveConfig
from egapipe.stages.distill.data.batch import Batch
from egapipe.stages.distill.model.distillation import Distillation
from egapipe.stages.distill.model.forward import Forward, Losses
from egapipe.stages.distill.model.memory import GraphMemory
from egapipe.stages.distill.model.precision import loss_scaler
from egapipe.stages.distill.model.student import Head, Student, TeacherHead
from egapipe.stages.distill.objectives import Facts, build_objective
from egapipe.stages.distill.training.gradient import OnePass, TwoPasses, make_gradient, step_seed
from egapipe.stages.distill.workers.world import World
from tests.stages.distill.objectives.samples import ON_VECTORS

CPU = torch.device("cpu")
ALONE = World.alone(CPU)
IDLE = loss_scaler(CPU, torch.float32)
ROWS, DIM, CLASSES, TEACHER, WIDTH = 50, 16, 5, 20, 36
LABELS = torch.arange(200) % (CLASSES + 1) - 1


def plain() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(192, WIDTH), nn.Tanh())


def normed() -> nn.Module:
    conv = nn.Conv2d(3, 1, 3)
    return nn.Sequential(conv, nn.BatchNorm2d(1), nn.ReLU(), nn.Flatten(), nn.Dropout(0.3))


def anchors(kind: str, count: int) -> torch.Tensor:
    return torch.randn(min(count, 70), TEACHER, generator=torch.Generator().manual_seed(3))


def distillation(
    backbone: Callable[[], nn.Module] = plain,
    objective: str = "ega",
    precision: torch.dtype = torch.float32,
    memory: int = 0,
) -> Distillation:
    torch.manual_seed(0)
    options = {"weight": 1.0, **({"negatives": 32} if objective == "crd" else {})}
    return Distillation(
        Student(backbone(), Head(WIDTH, DIM, CLASSES), Normalize(mean=(0.5,) * 3, std=(0.5,) * 3)),
        TeacherHead(TEACHER, DIM, CLASSES),
        build_objective(
            ObjectiveConfig.model_validate({objective: options}),
            Facts(DIM, DIM, LABELS, teacher_features=TEACHER, anchors=anchors),
        ),
        ce_weight=1.0,
        label_smoothing=0.1,
        precision=precision,
        world=ALONE,
        memory=GraphMemory(memory, DIM, CLASSES) if memory else None,
    )


def batch(first: int = 0, rows: int = ROWS) -> Batch:
    rng = np.random.default_rng(first)
    numbers = torch.from_numpy(rng.permutation(len(LABELS))[:rows])
    return Batch(
        images=torch.from_numpy(rng.integers(0, 256, (rows, 3, 8, 8), dtype=np.uint8)),
        features=torch.from_numpy(rng.standard_normal((rows, TEACHER)).astype(np.float16)),
        labels=LABELS[numbers],
        rows=numbers,
    )


def gradients(model: Distillation) -> torch.Tensor:
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


def close(actual: torch.Tensor, expected: torch.Tensor, tolerance: float) -> bool:
    assert expected.norm() > 0
    return bool((actual - expected).norm() <= tolerance * expected.norm())


@pytest.mark.parametrize(
    ("objective", "rows"),
    [*((name, 16) for name in ON_VECTORS), ("ega", 1), ("ega", 49), ("ega", 64)],
)
def test_without_batch_norm_the_gradient_is_that_of_one_pass(objective: str, rows: int) -> None:
    """Also of losses that are no sums over rows. Float32 rounds sums of 50 rows to about 1e-6."""
    one, two = (distillation(plain, objective) for _ in range(2))
    losses = [OnePass(one, ALONE)(batch(), IDLE), TwoPasses(two, ALONE, rows)(batch(), IDLE)]
    assert close(gradients(two), gradients(one), 1e-5)
    torch.testing.assert_close(losses[1].parts, losses[0].parts)
    assert losses[0].correct == losses[1].correct


def test_losses_of_the_parts_alone_have_another_gradient() -> None:
    """What plain accumulation would give: the graphs of the parts lack the edges between them."""
    one, parts = (distillation(plain, "sp") for _ in range(2))
    OnePass(one, ALONE)(batch(), IDLE)
    whole = batch()
    for rows in (slice(0, 25), slice(25, 50)):
        half = Batch(whole.images[rows], whole.features[rows], whole.labels[rows], whole.rows[rows])
        (parts(half).total / 2).backward()
    assert not close(gradients(parts), gradients(one), 1e-2)


def test_a_training_with_a_bank_moves_it_once_a_step() -> None:
    one, two = (distillation(plain, "crd") for _ in range(2))
    for step in range(3):
        OnePass(one, ALONE)(batch(step), IDLE)
        TwoPasses(two, ALONE, 16)(batch(step), IDLE)
        assert close(gradients(two), gradients(one), 1e-5)
    torch.testing.assert_close(two.objective.state_dict(), one.objective.state_dict())


def by_parts_in_one_graph(
    model: Distillation, whole: Batch, bounds: list[int], seed: int
) -> Losses:
    """What two passes should do, with everything in memory at once."""
    outputs = []
    for i, (first, last) in enumerate(pairwise(bounds)):
        rows = slice(first, last)
        torch.manual_seed(seed + i)
        images, features = whole.images[rows], whole.features[rows]
        outputs.append(model.outputs(Batch(images, features, whole.labels[rows], whole.rows[rows])))
    losses = model.losses(
        Forward.of({n: torch.cat([o.named()[n] for o in outputs]) for n in outputs[0].named()}),
        whole,
    )
    losses.total.backward()
    return losses


@pytest.mark.parametrize(
    ("precision", "tolerance"), [(torch.float32, 1e-6), (torch.bfloat16, 1e-2)]
)
def test_dropout_and_batch_norm_are_the_same_in_both_passes(
    precision: torch.dtype, tolerance: float
) -> None:
    """Batch norm is over a part; its running statistics move once a part, not once a pass."""
    wanted, two = (distillation(normed, precision=precision) for _ in range(2))
    for step in range(3):
        wanted.zero_grad()
        expected = by_parts_in_one_graph(wanted, batch(step), [0, 17, 34, 50], 10 * step)
        torch.manual_seed(10 * step)
        found = TwoPasses(two, ALONE, 20)(batch(step), IDLE)
        torch.testing.assert_close(found.parts, expected.parts, rtol=0, atol=0)
        assert close(gradients(two), gradients(wanted), tolerance)
        statistics = dict(wanted.student.named_buffers())
        for name, value in two.student.named_buffers():
            assert torch.equal(value, statistics[name]), name


def test_a_frozen_head_of_the_teacher_stays_without_gradient() -> None:
    model = distillation()
    model.teacher_head.requires_grad_(False)
    TwoPasses(model, ALONE, 16)(batch(), IDLE)
    assert all(p.grad is None for p in model.teacher_head.parameters())
    assert all(p.grad is not None for p in model.student.parameters())


def test_a_scaled_loss_gives_a_scaled_gradient() -> None:
    one, two = (distillation() for _ in range(2))
    scaler = loss_scaler(CPU, torch.float16)
    OnePass(one, ALONE)(batch(), IDLE)
    TwoPasses(two, ALONE, 16)(batch(), scaler)
    assert close(gradients(two) / scaler.get_scale(), gradients(one), 1e-5)


def test_a_batch_without_labels_is_harmless() -> None:
    model = distillation()
    whole = batch()
    unlabelled = Batch(whole.images, whole.features, torch.full_like(whole.labels, -1), whole.rows)
    losses = TwoPasses(model, ALONE, 16)(unlabelled, IDLE)
    assert losses.parts["ce"] == 0
    assert gradients(model).isfinite().all()


def test_the_setting_decides() -> None:
    model = distillation()
    assert isinstance(make_gradient(model, ALONE, None), OnePass)
    assert isinstance(make_gradient(model, ALONE, 8), TwoPasses)


def test_steps_workers_and_epochs_have_seeds_of_their_own() -> None:
    places = [(s, e, t, r) for s in range(4) for e in range(4) for t in range(4) for r in range(4)]
    seeds = {step_seed(*place) + part for place in places for part in range(100)}
    assert len(seeds) == 100 * len(places)
    assert all(0 <= seed < 2**63 for seed in seeds)


@contextmanager
def evaluating(model: Distillation) -> Iterator[None]:
    model.eval()
    yield
    model.train()


def test_a_remembered_graph_is_the_graph_of_the_rows_together() -> None:
    """While the student stands still nothing is out of date: its value is that of a larger batch,
    and it knows the last rows."""
    model, whole = distillation(memory=80), distillation()
    whole.repeats = True
    steps = [batch(step, 40) for step in range(4)]
    for step in steps:
        last = model(step)
    named = [name for name, value in vars(steps[0]).items() if torch.is_tensor(value)]
    columns = {name: [getattr(s, name) for s in steps[1:][::-1]] for name in named}
    together = Batch(**{name: torch.cat(column) for name, column in columns.items()})
    expected = whole(together)
    torch.testing.assert_close(last.parts["ega"], expected.parts["ega"])
    newest = [whole.outputs(step).students["student"].node.detach() for step in steps[2:]]
    assert torch.equal(model.memory.student, torch.cat(newest))


REMEMBERING = ["ega", "sp", "cc", "pkt", "rkd", "nce", "irg", "ccl", "dist", "cka", "itrd"]


@pytest.mark.parametrize("objective", ON_VECTORS)
def test_only_graphs_are_longer(objective: str) -> None:
    models = [distillation(plain, objective, memory=memory) for memory in (0, 60)]
    first = [model(batch(0)).parts[objective] for model in models]
    assert first[0] == first[1]
    second = [model(batch(1)).parts[objective] for model in models]
    assert (second[0] != second[1]) == (objective in REMEMBERING)


def test_evaluation_remembers_nothing() -> None:
    model = distillation(memory=60)
    with evaluating(model):
        model(batch())
    assert model.memory.seen == 0


def test_a_memory_continues_from_its_state() -> None:
    model, other = (distillation(memory=70) for _ in range(2))
    model(batch(0))
    other.load_state_dict(model.state_dict())
    for step in range(1, 4):
        assert torch.equal(model(batch(step)).total, other(batch(step)).total)
    assert all(torch.equal(b, dict(other.named_buffers())[n]) for n, b in model.named_buffers())


LARGE, WIDE = 65_536, 256
PEAK = f"""
import json, re, sys
import torch
from torch import nn
from egapipe.pipeline.config.data import Normalize
from egapipe.pipeline.config.objectives import ObjectiveConfig
from egapipe.stages.distill.training.gradient import make_gradient
from egapipe.stages.distill.data.batch import Batch
from egapipe.stages.distill.model.memory import GraphMemory
from egapipe.stages.distill.model.distillation import Distillation
from egapipe.stages.distill.model.student import Head, Student, TeacherHead
from egapipe.stages.distill.objectives import build_objective
from egapipe.stages.distill.model.precision import loss_scaler
from egapipe.stages.distill.workers.world import World

batch_size, graph = int(sys.argv[1]), {LARGE}

def peak():
    with open("/proc/self/status") as file:
        return int(re.search(r"VmHWM:\\s+(\\d+) kB", file.read())[1]) * 1024

def make(rows):
    return Batch(
        images=torch.randint(0, 256, (rows, 3, 8, 8), dtype=torch.uint8),
        features=torch.randn(rows, {WIDE}).half(),
        labels=torch.randint(0, 10, (rows,)),
        rows=torch.arange(rows),
    )

def start(memory):
    alone = World.alone(torch.device("cpu"))
    backbone = nn.Sequential(nn.Flatten(), nn.Linear(192, 1024), nn.ReLU(), nn.Linear(1024, 1024))
    model = Distillation(
        Student(backbone, Head(1024, {WIDE}, 10), Normalize(mean=(0.5,) * 3, std=(0.5,) * 3)),
        TeacherHead({WIDE}, {WIDE}, 10),
        build_objective(ObjectiveConfig.model_validate({{"ega": {{"form": "factored"}}}})),
        ce_weight=1.0, precision=torch.float32, world=alone,
        memory=GraphMemory(memory, {WIDE}, 10) if memory else None,
    )
    return model, make_gradient(model, alone, 512), loss_scaler(alone.device, torch.float32)

_, gradient, scaler = start(64)
for step in range(2):
    gradient(make(64), scaler)
before = peak()
model, gradient, scaler = start(graph - batch_size)
for step in range(graph // batch_size + (batch_size < graph)):
    gradient(make(batch_size), scaler)
finite = all(bool(p.grad.isfinite().all()) for p in model.parameters())
print(json.dumps({{"finite": finite, "bytes": peak() - before}}))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="/proc is of Linux alone")
@pytest.mark.parametrize("batch_size", [LARGE, 16_384])
def test_a_step_with_a_graph_of_65536_rows_in_a_gigabyte(batch_size: int) -> None:
    """The whole step, its images too: of so many rows, or of 16,384 and the others remembered.

    One pass would keep 268 MB for each of the student's layers. In a process of its own, as the
    peak of a process never falls.
    """
    command = [sys.executable, "-c", PEAK, str(batch_size)]
    seen = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert seen["finite"]
    # At least what the graph is of: two sides' nodes in float32.
    assert 2 * LARGE * WIDE * 4 < seen["bytes"] < 10**9
