"""What was not finite, where, and since when: the words of a training that stops."""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from egapipe.pipeline.errors import TrainingError
from egapipe.stages.distill.data.batch import Batch
from egapipe.stages.distill.model.distillation import Distillation
from egapipe.stages.distill.model.forward import Losses
from egapipe.stages.distill.training.checkpoint import Checkpoints, Position
from egapipe.stages.distill.training.gradient import gradients
from egapipe.stages.distill.training.learner import Learner
from egapipe.stages.distill.training.step import Steps

_ADVICE = "lower distill.lr or the objective's weight"
_FEATURES = "the stored features"
# No training made these, and none would mend them.
_STORED = "extract again with teacher.precision and store.dtype float32"


def check_step(
    learner: Learner, batch: Batch, losses: Losses, at: Position, checkpoints: Checkpoints
) -> None:
    """Check loss and gradient of a step that is about to be made.

    at: the step. A float16 gradient may overflow: its scale is lowered
    and the step left out. Raises TrainingError that names the terms of the loss, the learning rate,
    and what was not finite first: a parameter, a row's features or outputs, or a gradient.
    """
    if not bool(torch.isfinite(losses.total)):
        what = "the loss is not finite"
    elif not learner.scaler.is_enabled() and not _finite(gradients(learner.model)):
        what = "a gradient is not finite"
    else:
        return
    _refuse(what, learner, batch, losses, at, at.step, checkpoints)


def _refuse(
    what: str,
    learner: Learner,
    batch: Batch,
    losses: Losses,
    at: Position,
    step: int,
    checkpoints: Checkpoints,
) -> None:
    terms = ", ".join(f"{name} {float(value):.4g}" for name, value in losses.parts.items())
    rate = float(learner.optimizers[0].param_groups[0]["lr"])
    first = _first(learner.model, batch)
    advice = _STORED if first.startswith(_FEATURES) else _ADVICE
    raise TrainingError(
        f"{what} at epoch {at.epoch}, step {step} (learning rate {rate:.4g}, {terms}): "
        f"{first}; {advice}; {_kept(checkpoints)}"
    )


def check_steps(steps: Steps, learner: Learner, at: Position, checkpoints: Checkpoints) -> None:
    """Check the steps that a GPU has made since the last look; `at` is the last of them.

    Raises TrainingError as `check_step` does.
    """
    bad = steps.first_bad_step()
    if bad is None:
        return
    batch, losses = steps.last
    if steps.batches.resident:
        steps.batches.step.fill_(bad)
        batch = steps.batches.batch()
        losses = learner.model(batch)
    _refuse("loss or gradient are not finite", learner, batch, losses, at, bad, checkpoints)


def check_weights(model: nn.Module, at: Position, checkpoints: Checkpoints) -> None:
    """Check what is about to be saved. Raises TrainingError with the first name."""
    states = {k: v for k, v in model.state_dict().items() if v.is_floating_point()}
    if not _finite(states.values()):
        raise TrainingError(
            f"{_name(states)} is not finite before epoch {at.epoch}, step {at.step}: "
            f"{_ADVICE}; {_kept(checkpoints)}"
        )


def _first(model: Distillation, batch: Batch) -> str:
    """The first thing that is not finite on the way of a step: from weights to gradients."""
    parameters = dict(model.named_parameters())
    if not _finite(parameters.values()):
        return f"parameter {_name(parameters)} was before it"
    for stored in (batch.features, *batch.outputs.values()):
        if not _finite([stored]):
            return f"{_FEATURES} of row {_row(batch, stored)} are not"
    with torch.no_grad():
        outputs = model.outputs(batch)
    for name, output in outputs.named().items():
        if not _finite([output]):
            return f"{name} of row {_row(batch, output)} is the first that is not"
    gradients = {k: p.grad for k, p in parameters.items() if p.grad is not None}
    if not _finite(gradients.values()):
        return f"the outputs are, the gradient of {_name(gradients)} is not"
    return "weights, features and outputs are"


def _row(batch: Batch, values: Tensor) -> int:
    return int(batch.rows[int((~values.isfinite()).flatten(1).any(dim=1).nonzero()[0])])


def _name(tensors: Mapping[str, Tensor]) -> str:
    return next(name for name, tensor in tensors.items() if not _finite([tensor]))


def _finite(tensors: Iterable[Tensor]) -> bool:
    """Whether all numbers are, with one look at the device."""
    found = [tensor.isfinite().all() for tensor in tensors]
    return not found or bool(torch.stack(found).all())


def _kept(checkpoints: Checkpoints) -> str:
    kept = checkpoints.find("last")
    return "no checkpoint was written yet" if kept is None else f"the last checkpoint is {kept}"
