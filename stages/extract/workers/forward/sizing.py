"""`extract.batch_size: auto`: the smallest batch that is as fast as any that fits."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import torch

from egapipe.stages.extract.teachers import Teacher
from egapipe.stages.extract.workers.forward.memory import is_out_of_memory
from egapipe.stages.extract.workers.forward.passes import out_of_memory
from egapipe.stages.extract.workers.forward.tuned import TunedTeacher

FIRST, MOST = 8, 1024
"""Views of the first batch that is tried, and of the last."""
_GAIN = 1.1
"""A batch twice as large that is not faster by so much is not worth its memory."""
_PASSES = 2


def batch_for(
    asked: int | Literal["auto"],
    teacher: Teacher,
    device: torch.device,
    *,
    before: Sequence[Mapping[str, str]] = (),
    like: Mapping[str, str],
) -> int:
    """Views in one forward pass.

    asked: of the configuration. before: what shards of earlier runs were computed on, see `Commit`:
    they are continued with their batch. like: `device` and `precision` here. Puts the teacher on
    its device where something is to be tried. Raises TeacherError if the first batch does not fit.
    """
    if asked != "auto":
        return asked
    found = _used(before, like) or _tried(teacher, device)
    if isinstance(teacher, TunedTeacher):
        teacher.resize(found)
    return found


def _used(before: Sequence[Mapping[str, str]], like: Mapping[str, str]) -> int | None:
    """The batch that the last shards of the same device and precision ended with."""
    for computed in reversed(before):
        if all(computed.get(key) == like[key] for key in ("device", "precision")):
            return int(computed["batch"].partition(" x ")[0].rpartition(", ")[2])
    return None


def _tried(teacher: Teacher, device: torch.device) -> int:
    """The batch at which doubling ends, without what compiles for each size."""
    plain = teacher.plain if isinstance(teacher, TunedTeacher) else teacher
    plain.to(device)
    found = found_by_doubling(lambda size: _speed(plain, device, size))
    if found is None:
        raise out_of_memory(plain, device, FIRST)
    return found


def found_by_doubling(speed: Callable[[int], float | None]) -> int | None:
    """The size at which doubling ends: in memory, or because nothing is gained.

    speed: views a second in batches of a size; None if they do not fit. None if not even the first
    one does.
    """
    best: int | None = None
    fastest = 0.0
    size = FIRST
    while size <= MOST:
        found = speed(size)
        if found is None or found < fastest * _GAIN:
            break
        best, fastest, size = size, found, 2 * size
    return best


def _speed(teacher: Teacher, device: torch.device, size: int) -> float | None:
    shape = (size, *teacher.preprocessing.shape)
    try:
        pixels = torch.zeros(shape, dtype=torch.uint8, device=device)
        return size / min(_seconds(teacher, pixels) for _ in range(_PASSES))
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
    if device.type == "cuda":
        torch.cuda.empty_cache()
    return None


def _seconds(teacher: Teacher, pixels: torch.Tensor) -> float:
    began = time.perf_counter()
    for output in teacher.forward(pixels).values():
        # Waits for the device.
        output.cpu()
    return time.perf_counter() - began
