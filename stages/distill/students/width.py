"""How wide a student's features are."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from egapipe.pipeline.errors import UsageError
from egapipe.stages.distill.students.imported import one_line


def feature_width(module: nn.Module, image_size: int | tuple[int, int]) -> int:
    """F of the features [B, F] that a student gives for images [B, 3, H, W].

    image_size: H and W, or the side of a square. Runs one forward pass over two black images in
    evaluation mode; parameters, buffers, training flags and the random state stay as they were.
    Raises UsageError: the student fails on such images, its output is not a floating [B, F], or F
    is not the `num_features` it declares.
    """
    height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
    what = f"student {type(module).__name__} on images [2, 3, {height}, {width}]"
    try:
        output = _evaluate(module, height, width)
    except Exception as error:
        raise UsageError(f"{what} fails: {one_line(error)}") from error
    if not isinstance(output, Tensor):
        raise UsageError(f"{what} gives {type(output).__name__}: it must give one tensor [B, F]")
    shape = list(output.shape)
    if len(shape) != 2 or shape[0] != 2 or shape[1] < 1 or not output.is_floating_point():
        raise UsageError(f"{what} gives {output.dtype} {shape}: it must give floating [B, F]")
    declared = getattr(module, "num_features", None)
    if isinstance(declared, int) and declared != shape[1]:
        raise UsageError(
            f"{what} gives {shape[1]} features but says num_features = {declared}: "
            "leave out its classifier, or correct num_features"
        )
    return shape[1]


def _evaluate(module: nn.Module, height: int, width: int) -> object:
    parameter = next(module.parameters(), torch.empty(0))
    images = torch.zeros(2, 3, height, width, dtype=parameter.dtype, device=parameter.device)
    # Copies, since a module may write its buffers in evaluation mode too.
    buffers = {name: buffer.clone() for name, buffer in module.named_buffers()}
    with torch.no_grad(), _evaluation_mode(module), torch.random.fork_rng():
        return torch.func.functional_call(module, buffers, (images,))


@contextmanager
def _evaluation_mode(module: nn.Module) -> Iterator[None]:
    """`eval()` that gives every part its own flag back: some may be frozen in evaluation mode."""
    training = {part: part.training for part in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for part, flag in training.items():
            part.training = flag
