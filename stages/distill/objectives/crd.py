"""Contrastive Representation Distillation (CRD), arXiv 1910.10699."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from egapipe.pipeline.errors import UsageError
from egapipe.stages.distill.objectives.base import Facts, Objective, Pair, required
from egapipe.stages.distill.objectives.shared.allreduce import count_workers, global_sums
from egapipe.stages.distill.objectives.shared.autocast import full_precision
from egapipe.stages.distill.objectives.shared.directions import directions
from egapipe.stages.distill.objectives.shared.gather import global_rows
from egapipe.stages.distill.objectives.shared.gradients import with_gradients
from egapipe.stages.distill.objectives.shared.negatives import Negatives

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

    from egapipe.pipeline.config.objectives import CrdOptions

EPS = 1e-7
DENSE = 64
"""Banks of up to so many times more rows than a row has negatives are multiplied whole: reading the
negatives' rows one by one costs more."""


@dataclass(frozen=True, eq=False)
class CrdState:
    """What CRD carries from step to step, by the names of the public code.

    embed_s_linear_weight, _bias: [F, D] and [F], from the student's embedding to the contrast.
    embed_t_linear_weight, _bias: [F, D'] and [F], from the teacher's.
    contrast_memory_v1, _v2: [N, F], the banks of the student's and of the teacher's rows.
    contrast_params: [5], of which [2] and [3] are the normalisers Z of student and teacher, both
    negative before the first step. The others (K, temperature, momentum) are not read.
    """

    embed_s_linear_weight: Tensor
    embed_s_linear_bias: Tensor
    embed_t_linear_weight: Tensor
    embed_t_linear_bias: Tensor
    contrast_memory_v1: Tensor
    contrast_memory_v2: Tensor
    contrast_params: Tensor


def crd_loss(
    student: Tensor,
    teacher: Tensor,
    index: Tensor,
    contrast_index: Tensor,
    *,
    state: CrdState,
    temperature: float = 0.07,
    momentum: float = 0.5,
) -> tuple[Tensor, CrdState]:
    """The loss of a step, a scalar, and the state after it:

        L = mean_i l(u_i; V, Z_s) + l(v_i; U, Z_t),  u, v = unit embeddings of student and teacher
        l(x; M, Z) = -log h(M_0) - sum_(k = 1 .. K) log(1 - h(M_k))
        h(m) = q / (q + K/N + eps),  1 - h(m) = (K/N) / (q + K/N + eps),  q = exp(<x, m> / tau) / Z

    U, V: the banks' rows of student and teacher. Z: N times the mean exp of the first step, kept
    from there on. Afterwards the banks' rows i are u_i and v_i moved into them, momentum * old +
    (1 - momentum) * new, at unit length.

    student: [B, D]. teacher: [B, D']. index: int64 [B], rows of the data set. contrast_index: int64
    [B, 1 + K], each row itself and then its negatives. tau is `temperature`.

    Source: Tian, Krishnan and Isola 2020, section 3.1, with the memory buffer of its experiments.
    eps = 1e-7, the moving banks and the constant Z are the public code's.

    Computed in float32 at least; exponentials stay logarithms. A row that is given twice keeps the
    last of its moves.
    """
    weights = (
        state.embed_s_linear_weight,
        state.embed_s_linear_bias,
        state.embed_t_linear_weight,
        state.embed_t_linear_bias,
    )
    banks = (state.contrast_memory_v1, state.contrast_memory_v2)
    with full_precision(student, teacher, *weights, *banks) as tensors:
        student, teacher, ws, bs, wt, bt, bank_u, bank_v = tensors
        u, v = directions(F.linear(student, ws, bs)), directions(F.linear(teacher, wt, bt))
        z = state.contrast_params[2:4]
        log_z = None if bool((z < 0).any()) else z.to(u.dtype).log()
        loss, log_z = _contrast(u, v, (bank_u, bank_v), contrast_index, temperature, log_z, None)
    params = state.contrast_params.clone()
    params[2:4] = log_z.exp()
    return loss, replace(
        state,
        contrast_memory_v1=bank_u.index_copy(0, index, _moved(bank_u, index, u, momentum)),
        contrast_memory_v2=bank_v.index_copy(0, index, _moved(bank_v, index, v, momentum)),
        contrast_params=params,
    )


class Crd(Objective):
    """CRD with the options of the configuration, and with its state.

    The linear layers are parameters. Banks, normalisers and the number of steps are buffers: with
    them a training resumes exactly, as the negatives follow from (seed, step, row). They are drawn
    with replacement; the public code's data set draws different ones where there are enough.

    With several workers each holds the whole banks (2 N F numbers), moves the rows of all workers
    in them, and so keeps them equal to the others'. A row's negatives are the same on any worker.
    """

    needs = frozenset({"student", "teacher", "rows"})
    replicated: ClassVar[frozenset[str]] = frozenset(
        {
            "bank_student",
            "bank_teacher",
            "log_z",
            "step",
            "negatives.order",
            "negatives.start",
            "negatives.excluded",
        }
    )
    bank_student: Tensor
    bank_teacher: Tensor
    log_z: Tensor
    step: Tensor

    def __init__(self, options: CrdOptions, facts: Facts) -> None:
        super().__init__()
        self.options = options
        self.embed_student = nn.Linear(facts.student_dim, options.dim)
        self.embed_teacher = nn.Linear(facts.teacher_dim, options.dim)
        labels = facts.labels if options.other_classes else torch.full_like(facts.labels, -1)
        self.negatives = Negatives(labels, facts.seed)
        generator = torch.Generator().manual_seed(facts.seed)
        for side in ("student", "teacher"):
            # As the public code begins: uniform, with rows of length 1 on average.
            rows = torch.rand(len(labels), options.dim, generator=generator)
            self.register_buffer(f"bank_{side}", (2 * rows - 1) * math.sqrt(3 / options.dim))
        self.register_buffer("log_z", torch.full((2,), math.nan))
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))
        # Kept so that a step need not look at the device, which would have to wait for it.
        self._measured = False

    @classmethod
    def build(cls, options: CrdOptions, facts: Facts | None) -> Self:
        """Raises UsageError for a data set of fewer than two rows, ValueError without facts."""
        facts = required("crd", facts)
        if len(facts.labels) < 2:
            raise UsageError(
                f"distill.objective.crd contrasts rows, the data set has {len(facts.labels)}: "
                "leave crd out, or train on more images"
            )
        return cls(options, facts)

    def forward(self, pair: Pair) -> Tensor:
        """The loss of the global batch. In training mode the banks move on by a step."""
        options, rows = self.options, pair.need("rows")
        negatives = self.negatives(rows, self.step, options.negatives)
        contrast_index = torch.cat([rows[:, None], negatives], dim=1)
        banks = (self.bank_student, self.bank_teacher)
        with full_precision(pair.student, pair.teacher) as (student, teacher):
            u, v = directions(self.embed_student(student)), directions(self.embed_teacher(teacher))
            loss, log_z = _contrast(
                u, v, banks, contrast_index, options.temperature, self._known_z(), pair.group
            )
            if self.training:
                self._remember(rows, u, v, log_z, pair.group)
        return loss

    @torch.no_grad()
    def _remember(
        self, rows: Tensor, u: Tensor, v: Tensor, log_z: Tensor, group: ProcessGroup | None
    ) -> None:
        rows, u, v = global_rows([rows, u.detach(), v.detach()], group)
        for bank, moved in ((self.bank_student, u), (self.bank_teacher, v)):
            bank.index_copy_(0, rows, _moved(bank, rows, moved, self.options.momentum))
        self.log_z.copy_(log_z)
        self.step += 1

    @property
    def steady(self) -> bool:
        """Once the normalisers are known, which the first step measures."""
        return self._measured

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self._measured = False

    def _known_z(self) -> Tensor | None:
        if not self._measured:
            self._measured = not bool(self.log_z.isnan().any())
        return self.log_z if self._measured else None


def _contrast(
    u: Tensor,
    v: Tensor,
    banks: tuple[Tensor, Tensor],
    contrast_index: Tensor,
    temperature: float,
    log_z: Tensor | None,
    group: ProcessGroup | None,
) -> tuple[Tensor, Tensor]:
    """Mean loss over the rows of all workers, and log Z of both sides, [2], as given or measured.

    banks: of the student's and of the teacher's rows. The gradient is taken at once, since the
    banks move before the backward pass.
    """
    z_u, z_v = (None, None) if log_z is None else log_z.unbind()
    # Each side is contrasted with the other's bank.
    of_u = _side(u, banks[1], contrast_index, temperature, z_u, group)
    of_v = _side(v, banks[0], contrast_index, temperature, z_v, group)
    total, rows = global_sums([of_u.loss + of_v.loss, u.new_full((), len(u))], group)
    rows = rows.clamp(min=1)
    share = count_workers(group) / rows
    known = [(u, share * of_u.gradient), (v, share * of_v.gradient)]
    return with_gradients(total / rows, known), torch.stack([of_u.log_z, of_v.log_z])


class _Side(NamedTuple):
    """Sum of l(x; M, Z) over this worker's rows, its gradient by them [B, F], and log Z."""

    loss: Tensor
    gradient: Tensor
    log_z: Tensor


def _side(
    unit: Tensor,
    bank: Tensor,
    contrast_index: Tensor,
    temperature: float,
    log_z: Tensor | None,
    group: ProcessGroup | None,
) -> _Side:
    leaf = unit.detach().requires_grad_()
    with torch.enable_grad():
        scores = _similarities(leaf, bank, contrast_index) / temperature
        if log_z is None:
            log_z = _measure(scores.detach(), len(bank), 1 / temperature, group)
        loss = _contrast_loss(scores - log_z, len(bank))
    (gradient,) = torch.autograd.grad(loss, leaf)
    return _Side(loss.detach(), gradient, log_z)


def _similarities(unit: Tensor, bank: Tensor, contrast_index: Tensor) -> Tensor:
    """<unit_i, bank_k> for each k of contrast_index_i: [B, 1 + K]."""
    if len(bank) <= DENSE * contrast_index.shape[1]:
        return (unit @ bank.T).gather(1, contrast_index)
    return (bank[contrast_index] @ unit[:, :, None]).squeeze(2)


def _measure(scores: Tensor, rows: int, bound: float, group: ProcessGroup | None) -> Tensor:
    """log Z = log(N mean exp(score)) over all workers' rows. bound: near the largest score."""
    terms = (scores - bound).exp().sum(dtype=torch.float64)
    total, count = global_sums([terms, terms.new_full((), scores.numel())], group)
    return ((total / count).log() + bound + math.log(rows)).to(scores.dtype)


def _contrast_loss(log_q: Tensor, rows: int) -> Tensor:
    """sum_i -log h(q_i0) - sum_k log(1 - h(q_ik)) from log q, [B, 1 + K]; h as in `crd_loss`."""
    noise = (log_q.shape[1] - 1) / rows
    log_noise, log_sum = math.log(noise), math.log(noise + EPS)
    positive = F.softplus(log_sum - log_q[:, 0])
    negative = F.softplus(log_q[:, 1:] - log_sum) + (log_sum - log_noise)
    return positive.sum() + negative.sum()


def _moved(bank: Tensor, index: Tensor, unit: Tensor, momentum: float) -> Tensor:
    """The bank's rows `index` after a step, [B, F]; the same for every time that a row is given."""
    unit = unit.detach().to(bank.dtype)
    rows = directions(momentum * bank[index] + (1 - momentum) * unit)
    # Without this, which of them is written last would be up to the device.
    place = torch.arange(len(index), device=index.device)
    last = place.new_zeros(len(bank)).scatter_reduce(0, index, place, "amax")
    return rows[last[index]]
