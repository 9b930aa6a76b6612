"""SGD and its learning rates."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from egapipe.pipeline.config.distill import DistillConfig
from egapipe.pipeline.errors import UsageError


def learning_rate(config: DistillConfig, epoch: int, step: int = 0, steps: int = 1) -> float:
    """The student's rate in a step, the `step`-th (from 0) of the `steps` of an epoch.

    The schedule's rate; during `warmup_epochs` times the share of their steps begun, so that no
    step is wasted on a rate of 0. A pure function of the position, so it needs no state to resume.
    """
    at = epoch + step / steps
    share = _cosine(config, at) if config.schedule == "cosine" else _steps(config, epoch)
    begun = epoch * steps + step + 1
    warmup = config.warmup_epochs * steps
    return config.lr * share * (begun / warmup if begun < warmup else 1.0)


def check_milestones(config: DistillConfig) -> None:
    """Raise UsageError for a milestone that the training ends before."""
    late = [f"{mark:g}" for mark in config.milestones if mark >= max(1, config.epochs)]
    if config.schedule == "steps" and late:
        raise UsageError(
            f"distill.milestones {', '.join(late)}: the training ends before, with epoch "
            f"{config.epochs}, and the rate would not decay: give shares of the epochs, such as "
            f"{DistillConfig().milestones[0]:g}, or [] for a constant rate"
        )


def _steps(config: DistillConfig, epoch: int) -> float:
    """`decay` for each milestone passed; a milestone below 1 is a share of all epochs."""
    marks = (m * config.epochs if m < 1 else m for m in config.milestones)
    return config.decay ** sum(epoch >= mark for mark in marks)


def _cosine(config: DistillConfig, epoch: float) -> float:
    """From 1 after the warm-up to 0 at the end (arXiv 1608.03983, eq. 5, without restarts)."""
    span = config.epochs - config.warmup_epochs
    passed = max(0.0, epoch - config.warmup_epochs) / span
    return 0.5 * (1.0 + math.cos(math.pi * passed))


def make_optimizer(
    groups: Sequence[tuple[nn.Module, float]], config: DistillConfig, *, fused: bool = False
) -> torch.optim.SGD:
    """SGD over (module, learning rate) groups with the configuration's momentum and decay.

    Each group says in `place` whose parameters it has, by the module's place; of `decay_on:
    weights` a module has a group of weights and one of what does not decay. fused: in one kernel,
    with velocities that start as zeros: a first step like the others.
    """
    parameters = [
        {"params": some, "lr": lr, "weight_decay": decay, "place": place}
        for place, (module, lr) in enumerate(groups)
        for some, decay in _by_decay(module, config)
    ]
    optimizer = torch.optim.SGD(
        [group for group in parameters if group["params"]],
        lr=config.lr,
        momentum=config.momentum,
        nesterov=config.nesterov,
        fused=fused or None,
    )
    for group in optimizer.param_groups if fused and config.momentum > 0 else ():
        for parameter in group["params"]:
            optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return optimizer


def _by_decay(module: nn.Module, config: DistillConfig) -> list[tuple[list[nn.Parameter], float]]:
    """A module's parameters that learn, with the decay of each part."""
    learning = [p for p in module.parameters() if p.requires_grad]
    if config.decay_on == "all":
        return [(learning, config.weight_decay)]
    weights, others = ([p for p in learning if (p.dim() > 1) == wide] for wide in (True, False))
    return [(weights, config.weight_decay), (others, 0.0)]


def student_groups(optimizer: torch.optim.Optimizer) -> list[dict[str, Any]]:
    """The groups of the student and of what its objective learns: those of the first module."""
    return [group for group in optimizer.param_groups if group["place"] == 0]


def clip_gradient(optimizer: torch.optim.Optimizer, config: DistillConfig) -> None:
    """Scale the student's gradient down to a norm of `clip_grad_norm`, where there is one.

    That of the student and of what its objective learns. After `backward` all workers hold
    the gradient of the global loss, so all scale it alike.
    """
    if config.clip_grad_norm is not None:
        learning = [p for group in student_groups(optimizer) for p in group["params"]]
        nn.utils.clip_grad_norm_(learning, config.clip_grad_norm)
