"""The shapes of what a student gives."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import cast

import torch
from torch import Tensor, nn

from egapipe.pipeline.config.sources import ArrayType
from egapipe.pipeline.errors import UsageError
from egapipe.pipeline.machine.imports import typed_line
from egapipe.stages.distill.students.taps import MAPS, Taps

Seen = int | tuple[int, int] | ArrayType


def feature_width(module: nn.Module, seen: Seen) -> int:
    """F of the features [B, F] that a student gives for images [B, 3, H, W], or arrays.

    seen: H and W, or the side of a square, or what an array is. Runs one forward pass over two
    black images, or arrays of zeros, in evaluation mode; parameters, buffers, training flags and
    the random state stay as they were. Raises UsageError: the student fails on such images, its
    output is not a floating [B, F], or F is not the `num_features` it declares.
    """
    output, what = _output(module, module, seen)
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


def tap_shapes(module: nn.Module, names: Sequence[str], seen: Seen) -> dict[str, tuple[int, ...]]:
    """What each tap of a student gives of one image [3, H, W], or array, see `Taps`.

    As `feature_width`. Raises UsageError: there is no such tap, the student fails on such images,
    or a tap gives no floating [B, ...].
    """
    taps = Taps(module, names)
    try:
        output, what = _output(module, _Tapped(module, taps), seen)
    finally:
        taps.remove()
    found = cast(dict[str, Tensor], output)
    for name, value in found.items():
        whole = value.ndim > 1 and len(value) == 2 and value.is_floating_point()
        if not whole or (name == MAPS and value.ndim != 4):
            wanted = "maps [B, C, h, w]" if name == MAPS else f"{name} [B, ...]"
            raise UsageError(
                f"{what} gives no floating {wanted}, but {value.dtype} {list(value.shape)}"
            )
    return {name: tuple(value.shape[1:]) for name, value in found.items()}


class _Tapped(nn.Module):
    """A student of which what is tapped is the output."""

    def __init__(self, student: nn.Module, taps: Taps) -> None:
        super().__init__()
        self.student = student
        self._taps = taps

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return self._taps.run(images)[1]


def _output(student: nn.Module, module: nn.Module, seen: Seen) -> tuple[object, str]:
    kind = "arrays" if isinstance(seen, ArrayType) else "images"
    shape = _shape(seen)
    what = f"student {type(student).__name__} on {kind} {[2, *shape]}"
    try:
        return _evaluate(module, shape, whole=_whole(seen)), what
    except UsageError:
        raise
    except Exception as error:  # a network of the user's own raises anything
        raise UsageError(f"{what} fails: {typed_line(error)}") from error


def _shape(seen: Seen) -> tuple[int, ...]:
    """Of what the network is given for a row."""
    if isinstance(seen, ArrayType):
        return seen.shape
    return (3, seen, seen) if isinstance(seen, int) else (3, *seen)


def _whole(seen: Seen) -> bool:
    return isinstance(seen, ArrayType) and seen.dtype == "int64"


def _evaluate(module: nn.Module, shape: tuple[int, ...], *, whole: bool) -> object:
    parameter = next(module.parameters(), torch.empty(0))
    kind = torch.int64 if whole else parameter.dtype
    images = torch.zeros(2, *shape, dtype=kind, device=parameter.device)
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
