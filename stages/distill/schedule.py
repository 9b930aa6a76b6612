"""SGD and its learning rates."""

from collections.abc import Sequence

import torch
from torch import nn

from egapipe.pipeline.config.distill import DistillConfig


def learning_rate(config: DistillConfig, epoch: int) -> float:
    """The student's rate in an epoch: `lr`, times `decay` at each milestone passed.

    A milestone below 1 is a share of all epochs.
    """
    marks = (m * config.epochs if m < 1 else m for m in config.milestones)
    return config.lr * config.decay ** sum(epoch >= mark for mark in marks)


def make_optimizer(
    groups: Sequence[tuple[nn.Module, float]], config: DistillConfig
) -> torch.optim.SGD:
    """SGD over (module, learning rate) groups with the configuration's momentum and decay."""
    parameters = [
        {"params": [p for p in module.parameters() if p.requires_grad], "lr": lr}
        for module, lr in groups
    ]
    return torch.optim.SGD(
        [group for group in parameters if group["params"]],
        lr=config.lr,
        momentum=config.momentum,
        weight_decay=config.weight_decay,
    )
