"""SGD, AdamW and Muon: which parameters an optimiser has, and what decays."""

from collections.abc import Callable, Collection, Iterable, Sequence
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn

from egapipe.pipeline.config.distill import DistillConfig
from egapipe.pipeline.errors import UsageError
from egapipe.stages.distill.model.distillation import Distillation

Group = dict[str, Any]
STUDENT, HEAD = 0, 1
"""Places of the groups: of the student and what its objective learns, and of the teacher's head."""


def make_optimizers(
    model: Distillation, config: DistillConfig, *, fused: bool = False
) -> tuple[torch.optim.Optimizer, ...]:
    """The optimisers of a training; a parameter has one of them.

    SGD is one, of all. Beside AdamW the teacher's head has SGD, as by itself. Muon has the
    backbone's matrices, and AdamW the rest of the student at the same rate. Peers learn as the
    student does. fused: of a GPU.
    """
    learners = nn.ModuleList(part for one in model.learning.values() for part in one)
    backbones = _backbones(model)
    head = (model.teacher_head, config.head.lr)
    spared = set(map(id, _spared(backbones, config)))
    if config.optimizer == "sgd":
        return (sgd([(learners, config.lr), head], config, fused=fused, spared=spared),)
    made: list[torch.optim.Optimizer] = []
    apart: set[int] = set()
    if config.optimizer == "muon":
        matrices = _matrices(backbones)
        apart = set(map(id, matrices))
        groups = _by_decay(matrices, config, spared)
        made.append(Muon(_grouped(groups, config.lr, STUDENT), config))
    rest = [p for p in _learning(learners) if id(p) not in apart]
    groups = _by_decay(rest, config, spared)
    # Fused on a CPU too: its steps are counted in a tensor that nobody looks at. On a GPU it has to
    # say that it may be recorded.
    adamw = torch.optim.AdamW(
        _grouped(groups, config.lr, STUDENT),
        lr=config.lr,
        betas=(config.momentum, config.beta2),
        fused=True,
        capturable=fused,
    )
    made.append(adamw)
    if _learning(model.teacher_head):
        made.append(sgd([head], config, fused=fused, first=HEAD))
    return tuple(made)


def check_optimizers(model: Distillation, config: DistillConfig) -> None:
    """Raise UsageError for an optimiser that this torch lacks, or that has nothing to do, and for a
    name of `no_decay` that no parameter has."""
    _spared(_backbones(model), config)
    if config.optimizer != "muon":
        return
    _torch_muon()
    if not _matrices(model.student.backbone):
        raise UsageError(
            "distill.optimizer is muon, and the student's backbone has no matrices to learn: set "
            "adamw or sgd"
        )


def sgd(
    modules: Sequence[tuple[nn.Module, float]],
    config: DistillConfig,
    *,
    fused: bool = False,
    spared: Collection[int] = (),
    first: int = STUDENT,
) -> torch.optim.SGD:
    """SGD over (module, learning rate) with the configuration's momentum and decay.

    Each group says in `place` whose parameters it has, by the module's place from `first` on; of
    `decay_on: weights` a module has a group of weights and one of what does not decay. spared: ids
    of parameters that do not decay either. fused: in one kernel, with velocities that start as
    zeros: a first step like the others.
    """
    groups = [
        group
        for place, (module, lr) in enumerate(modules, first)
        for group in _grouped(_by_decay(_learning(module), config, spared), lr, place)
    ]
    optimizer = torch.optim.SGD(
        groups,
        lr=config.lr,
        momentum=config.momentum,
        nesterov=config.nesterov,
        fused=fused or None,
    )
    for group in optimizer.param_groups if fused and config.momentum > 0 else ():
        for parameter in group["params"]:
            optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return optimizer


class Muon(torch.optim.Optimizer):
    """Muon on the matrices [out, rest] that weights of two and more dimensions are, torch's own:
    the momentum's nearest orthogonal matrix, scaled to the size of AdamW's steps.

    torch looks at the rate as a number. Here it makes its step at the rate 1 on matrices of zeros,
    and what came of it is added at the rate, which may be a tensor: nothing waits for a device.

    Source: https://kellerjordan.github.io/posts/muon, and arXiv 2502.16982 for rate and decay,
    which are AdamW's.
    """

    # A scaler of losses tells it in `found_inf` what overflowed, and reads nothing.
    _step_supports_amp_scaling = True

    def __init__(self, groups: Sequence[Group], config: DistillConfig) -> None:
        """groups: parameters with `lr` and `weight_decay`. Raises UsageError before torch 2.9."""
        super().__init__(groups, {"lr": config.lr, "weight_decay": 0.0})
        # Not of the optimiser's state: torch would take them for parameters of a group.
        self._steps: dict[nn.Parameter, nn.Parameter] = {}
        for parameter in self._parameters():
            step = nn.Parameter(torch.zeros_like(parameter.flatten(1)).contiguous())
            self._steps[parameter] = step
            self.state[parameter]["momentum_buffer"] = torch.zeros_like(step)
        self._muon = _torch_muon()(
            list(self._steps.values()),
            lr=1.0,
            weight_decay=0.0,
            momentum=config.momentum,
            nesterov=config.nesterov,
            adjust_lr_fn="match_rms_adamw",
        )

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Move all weights that have a gradient; none, where `found_inf` is set to 1."""
        del closure
        found: Tensor | None = getattr(self, "found_inf", None)
        moving = [p for p in self._parameters() if p.grad is not None]
        before = [self.state[p]["momentum_buffer"] for p in moving]
        after = [momentum.clone() for momentum in before]
        for parameter, momentum in zip(moving, after, strict=True):
            step = self._steps[parameter].zero_()
            step.grad = None if parameter.grad is None else parameter.grad.flatten(1).to(step.dtype)
            self._muon.state[step]["momentum_buffer"] = momentum
        self._muon.step()
        for old, new in zip(before, after, strict=True):
            old.copy_(new if found is None else torch.where(found > 0, old, new))
        for group in self.param_groups:
            rate, decay = group["lr"], group["weight_decay"]
            for parameter in group["params"]:
                if parameter.grad is not None:
                    step = self._steps[parameter].view(parameter.shape)
                    moved = parameter * (1 - rate * decay) + step * rate
                    parameter.copy_(
                        moved if found is None else torch.where(found > 0, parameter, moved)
                    )
        for step in self._steps.values():
            step.grad = None

    def _parameters(self) -> Iterable[nn.Parameter]:
        return (parameter for group in self.param_groups for parameter in group["params"])


def _torch_muon() -> Callable[..., torch.optim.Optimizer]:
    found: Callable[..., torch.optim.Optimizer] | None = getattr(torch.optim, "Muon", None)
    if found is None:
        raise UsageError(
            "distill.optimizer is muon, which torch has from 2.9 on, and this is "
            f"{torch.__version__}: install a later one, or set adamw or sgd"
        )
    return found


def student_groups(optimizers: Iterable[torch.optim.Optimizer]) -> list[Group]:
    """The groups of the student and of what its objective learns."""
    groups = (group for optimizer in optimizers for group in optimizer.param_groups)
    return [group for group in groups if group["place"] == STUDENT]


def clip_gradient(optimizers: Iterable[torch.optim.Optimizer], config: DistillConfig) -> None:
    """Scale the student's gradient down to a norm of `clip_grad_norm`, where there is one.

    That of the student and of what its objective learns. After `backward` all workers hold
    the gradient of the global loss, so all scale it alike.
    """
    if config.clip_grad_norm is not None:
        learning = [p for group in student_groups(optimizers) for p in group["params"]]
        nn.utils.clip_grad_norm_(learning, config.clip_grad_norm)


def _learning(module: nn.Module) -> list[nn.Parameter]:
    return [p for p in module.parameters() if p.requires_grad]


def _matrices(backbone: nn.Module) -> list[nn.Parameter]:
    """Weights of several rows and columns; tokens and embeddings of positions have one row."""
    learning = _learning(backbone)
    return [p for p in learning if p.dim() > 1 and 1 < p.shape[0] < p.numel()]


def _grouped(
    parts: Iterable[tuple[list[nn.Parameter], float]], lr: float, place: int
) -> list[Group]:
    """Groups of an optimiser; none of no parameters."""
    return [
        {"params": some, "lr": lr, "weight_decay": decay, "place": place}
        for some, decay in parts
        if some
    ]


def _by_decay(
    learning: Sequence[nn.Parameter], config: DistillConfig, spared: Collection[int]
) -> list[tuple[list[nn.Parameter], float]]:
    """Parameters by what of the weight decay is on them: all of it, or none."""
    weights: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for parameter in learning:
        decays = id(parameter) not in spared and (config.decay_on == "all" or parameter.dim() > 1)
        (weights if decays else others).append(parameter)
    return [(weights, config.weight_decay), (others, 0.0)]


def _backbones(model: Distillation) -> nn.ModuleList:
    return nn.ModuleList(student.backbone for student in model.students)


def _spared(backbones: nn.ModuleList, config: DistillConfig) -> list[nn.Parameter]:
    """The backbones' parameters that `no_decay` names."""
    named = [pair for backbone in backbones for pair in backbone.named_parameters()]
    for pattern in config.no_decay:
        if not any(fnmatchcase(name, pattern) for name, _ in named):
            raise UsageError(
                f"distill.no_decay names {pattern!r}, and no parameter of the student is called "
                f"so: they are {', '.join(name for name, _ in named[:4])} ..."
            )
    return [p for n, p in named if any(fnmatchcase(n, one) for one in config.no_decay)]
