"""The learning rate of every step."""

import math

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
