"""`extract.batch_size: auto`: the smallest batch that is as fast as any that fits."""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from typing import Literal

import torch

from egapipe.pipeline.machine.memory import return_free_memory
from egapipe.stages.extract.teachers import Teacher
from egapipe.stages.extract.workers.forward.inference import (
    Inference,
    batch_of,
    kind_of,
    open_inference,
)
from egapipe.stages.extract.workers.forward.passes import out_of_memory

FIRST, MOST = 8, 1024
"""Views of the first batch that is tried, and of the last."""
Room = Callable[[int], int]
"""Passes at once that there is memory for with batches of a size; 0: not even one."""

_GAIN = 1.1
"""A batch twice as large that is not faster by so much is not worth its memory."""
_TRIES = 2
_IN_FLIGHT = 2


def settled_batch(
    asked: int | Literal["auto"],
    teacher: Teacher,
    device: torch.device,
    before: Sequence[Mapping[str, str]] = (),
) -> int | None:
    """Views in one forward pass; None where that is to be found out.

    asked: of the configuration. before: what shards of earlier runs were computed on, see `Commit`:
    on the same kind of device and in the same precision they are continued with the batch that the
    last of them ended with.
    """
    if asked != "auto":
        return asked
    here = kind_of(teacher, device).items()
    return next((batch_of(one) for one in reversed(before) if here <= one.items()), None)


def best_batch(teacher: Teacher, device: torch.device, room: Room, views: int = MOST) -> int:
    """The batch at which doubling ends, tried as a worker runs the teacher: on the CPU so many
    passes side by side as there is room for, of one thread each.

    views: of a shard, which no batch is larger than. Puts the teacher on its device. Raises
    TeacherError if not even a single image fits.
    """

    def speed(size: int) -> float | None:
        return _speed(teacher, device, size, room(size))

    found = found_by_doubling(speed, min(MOST, views))
    if found is None:
        raise out_of_memory(teacher, device)
    return found


def found_by_doubling(speed: Callable[[int], float | None], most: int = MOST) -> int | None:
    """The size at which doubling ends: in memory, or because nothing is gained.

    speed: views a second in batches of a size; None if they do not fit. Where the first size does
    not, it is halved until one does; None if none does.
    """
    size = FIRST
    fastest = speed(size)
    while fastest is None and size > 1:
        size //= 2
        fastest = speed(size)
        if fastest is not None:
            return size
    if fastest is None:
        return None
    while 2 * size <= most:
        found = speed(2 * size)
        if found is None or found < fastest * _GAIN:
            break
        size, fastest = 2 * size, found
    return size


def _speed(teacher: Teacher, device: torch.device, size: int, passes: int) -> float | None:
    """Views a second with so many passes at once; None if there is no memory for them."""
    if passes == 0:
        return None
    shape = (size, *teacher.preprocessing.shape)
    with closing(open_inference(teacher, device, passes, size)) as inference:
        pixels = torch.zeros(shape, dtype=torch.uint8, pin_memory=device.type == "cuda")
        count = max(_IN_FLIGHT, inference.ahead)
        seconds = min(_seconds(inference, pixels, count) for _ in range(_TRIES))
        fits = inference.passes.size == size
    # Whatever comes next begins with what the process needs, not with what it had.
    return_free_memory()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    return count * size / seconds if fits else None


def _seconds(inference: Inference, pixels: torch.Tensor, count: int) -> float:
    began = time.perf_counter()
    for pending in [inference.submit(pixels) for _ in range(count)]:
        pending.result()
    return time.perf_counter() - began
