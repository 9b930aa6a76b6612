"""A convolutional teacher on the CPU by the size of its batches, and the size that is found."""

import resource
import statistics
from collections import deque
from contextlib import closing
from typing import NamedTuple

import torch

from egapipe.pipeline.machine.cores import available_cpus
from egapipe.pipeline.mathematics.timing import timed
from egapipe.stages.distill.students import build_student
from egapipe.stages.extract.teachers import Preprocessing
from egapipe.stages.extract.teachers.network import NetworkTeacher
from egapipe.stages.extract.teachers.pooled import Pooled
from egapipe.stages.extract.workers.forward.inference import open_inference
from egapipe.stages.extract.workers.forward.sizing import best_batch

SIDE, SIZES, VIEWS = 128, (8, 16, 64), 256
_CPU = torch.device("cpu")
_TRIES = range(3)


class Sample(NamedTuple):
    """Views a second, and seconds of the process's own and of the system's for them."""

    rate: float
    user: float
    system: float


def measure(teacher: NetworkTeacher, size: int) -> Sample:
    """Medians of three times 256 views in passes as a worker runs them, in batches of a size."""
    pixels = torch.zeros((size, *teacher.preprocessing.shape), dtype=torch.uint8)
    found: list[Sample] = []
    with closing(open_inference(teacher, _CPU, available_cpus(), size)) as inference:

        def encode() -> None:
            flight = deque([inference.submit(pixels) for _ in range(inference.ahead)])
            for _ in range(VIEWS // size - inference.ahead):
                flight.popleft().result()
                flight.append(inference.submit(pixels))
            for pending in flight:
                pending.result()

        encode()
        for _ in _TRIES:
            before = resource.getrusage(resource.RUSAGE_SELF)
            seconds = timed(encode)
            after = resource.getrusage(resource.RUSAGE_SELF)
            user, system = after.ru_utime - before.ru_utime, after.ru_stime - before.ru_stime
            found.append(Sample(VIEWS / seconds, user, system))
    return Sample(*(statistics.median(column) for column in zip(*found, strict=True)))


def report() -> list[str]:
    """The measurements as lines of text."""
    teacher, cores = _teacher(), available_cpus()
    lines = [f"MobileNetV2 of half width at {SIDE} px by extract.batch_size, CPU, {cores} passes"]
    for size in SIZES:
        rate, user, system = measure(teacher, size)
        lines.append(
            f"  {size:4} {rate:8.1f} views/s  {user:6.2f} s of its own  "
            f"{system:6.2f} s of the system"
        )
    return [*lines, f"  auto finds {best_batch(teacher, _CPU, lambda size: cores)}"]


def _teacher() -> NetworkTeacher:
    torch.manual_seed(0)
    network = build_student("mobilenet_v2_half", {}).eval().requires_grad_(False)
    square = Preprocessing((SIDE, SIDE), None, "bicubic", 1 / 255, (0.5,) * 3, (0.5,) * 3)
    spec = {"model": "mobilenet_v2_half", "precision": "float32"}
    return NetworkTeacher(spec, Pooled(network, "auto", 0, {}), square)
