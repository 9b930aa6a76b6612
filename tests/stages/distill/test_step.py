"""A step makes everything from tensors: it looks at no value and makes none of Python numbers."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from egapipe.stages.distill.objectives.shared import repeats
from egapipe.stages.distill.setup import prepare
from egapipe.stages.distill.training.learner import make_learner
from egapipe.stages.distill.training.loop import make_steps
from egapipe.stages.distill.workers.world import World
from tests.stages.distill.conftest import MakeConfig
from tests.stages.distill.objectives.samples import ON_VECTORS

# On a GPU each of them waits for the device or copies from memory that is not pinned. `full` and
# `scalar_tensor` take their number as an argument of a kernel.
LOOKS = (
    "aten::_local_scalar_dense",
    "aten::equal",
    "aten::is_nonzero",
    "aten::lift_fresh",
    "aten::masked_select",
    "aten::nonzero",
    "aten::unique",
)


class Looks(TorchDispatchMode):
    """Counts what a GPU's step would wait for, and all operations."""

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()
        self.all = 0
        self.steady = False
        """Of the model, afterwards."""

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        name = func.name()
        self.all += 1
        # A mask as an index is `nonzero` inside the kernel.
        masks = name.startswith("aten::index") and any(
            getattr(part, "dtype", None) == torch.bool
            for arg in args
            if isinstance(arg, list | tuple)
            for part in arg
        )
        if masks or name.split(".")[0].startswith(LOOKS):
            self.found[name] += 1
        return func(*args, **(kwargs or {}))


def watched(quick: MakeConfig, *sets: str, steps: int = 4) -> Looks:
    """What the last of some steps of a training did: the first ones may make what lasts."""
    job = prepare(quick(*sets), World.alone(torch.device("cpu")))
    made = make_steps(job, make_learner(job.model, job.config.distill, torch.device("cpu")))
    job.model.train()
    made.begin(0, 0)
    for step in range(steps - 1):
        made.run(0, step)
    with Looks() as looks:
        made.run(0, steps - 1)
    assert looks.all > 50
    looks.steady = job.model.steady
    return looks


OPTIONS = [
    *(f"distill.objective={{{name}: 0.1}}" for name in ON_VECTORS),
    "distill.standardize=phi-s",
    "distill.objective={ega: auto, kd: auto, sp: 0.1}",
    "distill.augment={crop: scale, flip: 0.5}",
    "distill.augment={crop: pad, flip: 0.5}",
    "distill.augment={crop: pad, flip: alternating}",
    "distill.jitter={probability: 0.8}",
    "distill.mix={kind: either}",
    "distill.mix={teacher: own}",
    "distill.ema_decay=0.99",
    "distill.clip_grad_norm=1.0",
    "distill.label_smoothing=0.1",
    "distill.precision=bfloat16",
    "distill.optimizer=adamw",
    "distill.optimizer=muon",
]


@pytest.mark.parametrize("option", OPTIONS)
def test_a_step_looks_at_no_value(quick: MakeConfig, option: str) -> None:
    assert watched(quick, option).found == {}


@pytest.mark.parametrize(
    "sets",
    [
        ["distill.graph_batch=256"],
        ["distill.sampler=class-balanced", "distill.labels_per_class=null"],
        ["distill.sampler=neighbours", "distill.graph_batch=640"],
    ],
    ids=" ".join,
)
def test_a_graph_of_rows_that_come_again_looks_at_none(
    quick: MakeConfig, monkeypatch: pytest.MonkeyPatch, sets: list[str]
) -> None:
    """As a GPU compares them; and the step may be recorded as soon as the memory is full."""
    monkeypatch.setattr(repeats, "looking_waits", lambda tensor: True)
    factored = "distill.objective={ega: {weight: 0.1, form: factored}}"
    looks = watched(quick, *sets, factored, steps=13)
    assert looks.found == {}
    assert looks.steady


def test_such_a_look_would_be_found() -> None:
    values = torch.arange(4.0)
    with Looks() as looks:
        float(values[0])
        torch.tensor(1.5)
        values[values > 1]
    assert set(looks.found) == {
        "aten::_local_scalar_dense",
        "aten::lift_fresh",
        "aten::index.Tensor",
    }
