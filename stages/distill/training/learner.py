"""What changes from step to step, and the step."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler

from egapipe.pipeline.config.distill import DistillConfig
from egapipe.stages.distill.model.average import WeightAverage
from egapipe.stages.distill.model.precision import PRECISIONS, loss_scaler
from egapipe.stages.distill.model.student import Distillation
from egapipe.stages.distill.training.schedule import (
    clip_gradient,
    make_optimizer,
    student_groups,
)


@dataclass(frozen=True)
class Learner:
    """Everything that a checkpoint holds beside the position.

    scaler: of the loss, idle unless the precision is float16. average: of the student's weights,
    where one is kept.
    """

    model: Distillation
    optimizer: torch.optim.SGD
    scaler: GradScaler
    average: WeightAverage | None

    def step(
        self, config: DistillConfig, weight: float | Tensor, *, skip: Tensor | None = None
    ) -> None:
        """Move by the gradients that a backward pass left.

        weight: of the moving average, see `WeightAverage.update`. skip: bool [1] on a GPU, whose
        fused optimiser then leaves all weights as they are.
        """
        self.scaler.unscale_(self.optimizer)
        clip_gradient(self.optimizer, config)
        if skip is not None and not self.scaler.is_enabled():
            # As a GradScaler tells it; there is no other way that does not wait for the device.
            self.optimizer.found_inf = skip.float()  # type: ignore[attr-defined]
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.average is not None:
            self.average.update(weight)

    def set_rate(self, rate: float | Tensor) -> None:
        """Of the student and of what its objective learns; the teacher's head keeps its own."""
        for group in student_groups(self.optimizer):
            group["lr"] = rate

    def gradients(self) -> list[Tensor]:
        """Of all that learns."""
        groups = self.optimizer.param_groups
        return [p.grad for group in groups for p in group["params"] if p.grad is not None]


def make_learner(model: Distillation, config: DistillConfig, device: torch.device) -> Learner:
    """A learner at the beginning of a training."""
    if config.head_first:
        model.teacher_head.requires_grad_(False)
    if config.objective.simkd is not None:
        model.student.head.classifier.requires_grad_(False)
    learners = nn.ModuleList([model.student, model.objective])
    groups = [(learners, config.lr), (model.teacher_head, config.head.lr)]
    decay = config.ema_decay
    return Learner(
        model,
        make_optimizer(groups, config, fused=device.type == "cuda"),
        loss_scaler(device, PRECISIONS[config.precision]),
        None if decay is None else WeightAverage(model.student, decay),
    )
