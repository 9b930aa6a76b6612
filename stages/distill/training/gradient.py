"""The gradient of one step: in one pass, or of a large batch in two passes over its parts."""

from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from typing import Protocol, cast

import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler

from egapipe.stages.distill.data.batch import Batch
from egapipe.stages.distill.model.distillation import Distillation
from egapipe.stages.distill.model.forward import Forward, Losses
from egapipe.stages.distill.workers.world import World


class Gradient(Protocol):
    """Leaves a step's gradient in the parameters, the same on all workers."""

    def __call__(self, batch: Batch, scaler: GradScaler) -> Losses:
        """The losses of this worker's part of a batch.

        scaler: of the loss; the gradient stays scaled. What is random in the pass (dropout in a
        student, for example) follows from torch's generators as they stand.
        """
        ...


def make_gradient(model: Distillation, world: World, micro_batch_size: int | None) -> Gradient:
    """How the model's gradient is taken."""
    if micro_batch_size is not None:
        return TwoPasses(model, world, micro_batch_size)
    return OnePass(model, world)


def step_seed(seed: int, epoch: int, step: int, rank: int) -> int:
    """63 random bits for one step on one worker."""
    digest = blake2b(f"{seed}:{epoch}:{step}:{rank}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


@dataclass(frozen=True)
class OnePass:
    """Forward and backward over all rows at once."""

    model: Distillation
    world: World

    def __call__(self, batch: Batch, scaler: GradScaler) -> Losses:
        """See `Gradient`."""
        self.model.zero_grad()
        losses = cast(Losses, self.model(batch))
        scaler.scale(losses.total).backward()
        self.model.observe(scaler.scale(torch.ones_like(losses.total)))
        self.world.average(gradients(self.model))
        return losses


@dataclass(frozen=True)
class TwoPasses:
    """The gradient of the whole batch with the memory of a part of it (arXiv 2101.06983).

    L is a function of all rows' outputs o = f(x), and dL/dw = sum_i (dL/do_i) (do_i/dw). The first
    pass collects o part by part and keeps nothing else; L and dL/do follow; the second pass makes
    each part again and sends its rows' dL/do through it. It is the exact gradient for any loss, of
    graphs and memory banks too: adding up the gradients of the parts' own losses would not be.

    Both passes over a part are the same: random numbers are seeded by part, and what the first pass
    changed in the student (the running statistics of batch normalisation) is put back before the
    second. Batch normalisation normalises over the rows of a part.
    """

    model: Distillation
    world: World
    rows: int
    """Most rows of a part."""

    def __call__(self, batch: Batch, scaler: GradScaler) -> Losses:
        """See `Gradient`."""
        model = self.model
        parts = list(enumerate(_parts(batch, self.rows)))
        if len(parts) == 1:
            return OnePass(model, self.world)(batch, scaler)
        model.zero_grad()
        seed = torch.initial_seed()
        students = nn.ModuleList(model.students)
        before = [buffer.clone() for buffer in students.buffers()]
        with torch.no_grad():
            outputs = [_copied(self._outputs(part, seed + i)) for i, part in parts]
        leaves = _leaves(outputs, self._learning)
        _put_back(students, before)
        losses = model.losses(leaves, batch)
        scaler.scale(losses.total).backward()
        model.observe(scaler.scale(torch.ones_like(losses.total)))
        length = [len(part.rows) for _, part in parts]
        grads = zip(*(_split(leaf, length) for leaf in leaves.named().values()), strict=True)
        for (i, part), gradient in zip(parts, grads, strict=True):
            _send(self._outputs(part, seed + i), gradient)
        self.world.average(gradients(model))
        return losses

    @property
    def _learning(self) -> set[str]:
        """Whose outputs need a gradient, by the first part of their names."""
        parts: dict[str, nn.Module] = {"teacher": self.model.teacher_head}
        parts |= {name: one.student for name, one in self.model.learning.items()}
        return {k for k, part in parts.items() if any(p.requires_grad for p in part.parameters())}

    def _outputs(self, part: Batch, seed: int) -> Forward:
        torch.manual_seed(seed)
        return self.model.outputs(part)


def _parts(batch: Batch, rows: int) -> list[Batch]:
    """Parts of at most so many rows and nearly the same length: batch norm likes no small ones."""
    count = -(-max(1, len(batch.rows)) // rows)
    return [batch.mapped(partial(_piece, count=count, number=i)) for i in range(count)]


def _piece(values: Tensor, count: int, number: int) -> Tensor:
    return values.tensor_split(count)[number]


def _copied(outputs: Forward) -> dict[str, Tensor]:
    # Cloned: the memory of compiled code is written over by its next call.
    return {name: output.clone() for name, output in outputs.named().items()}


def _leaves(parts: list[dict[str, Tensor]], learning: set[str]) -> Forward:
    """The parts' outputs behind each other, as the leaves of the loss's graph."""
    joined = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    wanted = {name: name.partition(".")[0] in learning for name in joined}
    return Forward.of({name: o.requires_grad_(wanted[name]) for name, o in joined.items()})


def _split(leaf: Tensor, length: list[int]) -> tuple[Tensor | None, ...]:
    """The parts of a leaf's gradient; of none where nothing asked for it."""
    if leaf.grad is None:
        return (None,) * len(length)
    return cast(tuple[Tensor, ...], leaf.grad.split(length))


def _send(outputs: Forward, gradients: tuple[Tensor | None, ...]) -> None:
    """Backward through a part's outputs from the gradients by them, where there are any."""
    both = zip(outputs.named().values(), gradients, strict=True)
    pairs = [(o, g) for o, g in both if g is not None]
    torch.autograd.backward([o for o, _ in pairs], [g for _, g in pairs])


@torch.no_grad()
def _put_back(module: nn.Module, values: list[Tensor]) -> None:
    for buffer, value in zip(module.buffers(), values, strict=True):
        buffer.copy_(value)


def gradients(model: nn.Module) -> list[Tensor]:
    """Of all parameters that have one."""
    return [p.grad for p in model.parameters() if p.grad is not None]
