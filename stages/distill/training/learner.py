"""What changes from step to step, and the step."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.amp.grad_scaler import GradScaler

from egapipe.pipeline.config.distill import DistillConfig
from egapipe.stages.distill.model.average import WeightAverage
from egapipe.stages.distill.model.distillation import Distillation
from egapipe.stages.distill.model.precision import PRECISIONS, loss_scaler
from egapipe.stages.distill.training.optimizers import (
    clip_gradient,
    make_optimizers,
    student_groups,
)


@dataclass(frozen=True)
class Learner:
    """Everything that a checkpoint holds beside the position.

    optimizers: see `make_optimizers`. scaler: of the loss, idle unless the precision is float16.
    average: of the student's weights, where one is kept.
    """

    model: Distillation
    optimizers: tuple[torch.optim.Optimizer, ...]
    scaler: GradScaler
    average: WeightAverage | None

    def step(
        self, config: DistillConfig, weight: float | Tensor, *, skip: Tensor | None = None
    ) -> None:
        """Move by the gradients that a backward pass left.

        weight: of the moving average, see `WeightAverage.update`. skip: bool [1] on a GPU, whose
        optimisers then leave all weights as they are.
        """
        for optimizer in self.optimizers:
            self.scaler.unscale_(optimizer)
        clip_gradient(self.optimizers, config)
        for optimizer in self.optimizers:
            if skip is not None and not self.scaler.is_enabled():
                # As a GradScaler tells it; there is no other way that does not wait for the device.
                optimizer.found_inf = skip.float().squeeze()  # type: ignore[attr-defined]
            self.scaler.step(optimizer)
        self.scaler.update()
        if self.average is not None:
            self.average.update(weight)

    def set_rate(self, rate: float | Tensor) -> None:
        """Of the student and of what its objective learns; the teacher's head keeps its own."""
        for group in student_groups(self.optimizers):
            group["lr"] = rate

    def gradients(self) -> list[Tensor]:
        """Of all that learns."""
        groups = (group for optimizer in self.optimizers for group in optimizer.param_groups)
        return [p.grad for group in groups for p in group["params"] if p.grad is not None]


def make_learner(model: Distillation, config: DistillConfig, device: torch.device) -> Learner:
    """A learner at the beginning of a training."""
    if head_first(model, config):
        model.teacher_head.requires_grad_(False)
    for student, objective in model.learning.values():
        for part in objective.reused:
            student.head.get_submodule(part).requires_grad_(False)
    decay = config.ema_decay
    return Learner(
        model,
        make_optimizers(model, config, fused=device.type == "cuda"),
        loss_scaler(device, PRECISIONS[config.precision]),
        None if decay is None else WeightAverage(model.student, decay, model.average),
    )


def head_first(model: Distillation, config: DistillConfig) -> bool:
    """Whether the teacher's head is learned before the student."""
    return config.head.mode == "sequential" or bool(model.objective.reused)
