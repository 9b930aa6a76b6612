"""The teacher on its device, one batch ahead of the host."""

from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from egapipe.pipeline.errors import TeacherError
from egapipe.stages.extract.teachers import Outputs, Teacher

Arrays = dict[str, npt.NDArray[np.float32]]
"""Name of an output -> float32 [B, *shape]."""


class Pending(Protocol):
    """A batch that the device may still be working on."""

    def result(self) -> Arrays:
        """Wait for its outputs."""
        ...


class Ready:
    """Outputs in host memory, copied there by the time an event has happened."""

    def __init__(self, outputs: Outputs, event: torch.cuda.Event | None = None) -> None:
        self._outputs = outputs
        self._event = event

    def result(self) -> Arrays:
        """Wait for the outputs."""
        if self._event is not None:
            self._event.synchronize()
        return {name: output.numpy() for name, output in self._outputs.items()}


def submit(teacher: Teacher, pixels: Tensor, device: torch.device) -> Pending:
    """Encode uint8 [B, 3, H, W] of host memory.

    On a GPU this returns as soon as the work is queued: copies go through pinned memory and are
    ordered by the stream, so that the next batch can be queued before this one is read. Raises
    TeacherError if the batch does not fit in the device's memory.
    """
    try:
        if device.type != "cuda":
            return Ready(teacher.forward(pixels))
        outputs = teacher.forward(pixels.to(device, non_blocking=True))
        host = {name: _to_pinned(output) for name, output in outputs.items()}
    except torch.OutOfMemoryError as error:
        raise TeacherError(
            f"teacher {teacher.spec['model']} runs out of {device} memory with {len(pixels)} images "
            f"at once: set extract.batch_size lower, e.g. {max(1, len(pixels) // 2)}"
        ) from error
    event = torch.cuda.Event()
    event.record()
    return Ready(host, event)


def _to_pinned(output: Tensor) -> Tensor:
    host = torch.empty(output.shape, dtype=output.dtype, pin_memory=True)
    return host.copy_(output, non_blocking=True)
