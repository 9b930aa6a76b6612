"""The teacher's forward pass alone: memory layout and compiled code."""

from pathlib import Path

import torch

from egapipe.pipeline.config.teachers import TransformersTeacher
from egapipe.pipeline.mathematics.timing import one_thread, timed
from egapipe.stages.bench.measure import paired
from egapipe.stages.extract.teachers import Teacher, load_teacher
from egapipe.stages.extract.workers.forward.tuned import tuned

_CPU = torch.device("cpu")


def measure(folder: Path, batch: int, *, channels_last: bool, compiled: bool) -> str:
    """A line on a tuned teacher against the plain one; one thread, batches of uint8 noise."""
    plain = _load(folder)
    teacher = tuned(_load(folder), batch, channels_last=channels_last, compiled=compiled)
    shape = (batch, *plain.preprocessing.shape)
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    with one_thread():
        ready = timed(lambda: teacher.to(_CPU))
        found = paired(lambda: teacher.forward(pixels), lambda: plain.forward(pixels), repeats=7)
        ours, reference = teacher.forward(pixels), plain.forward(pixels)
    same = all(torch.equal(ours[name], reference[name]) for name in reference)
    name = " + ".join(key for key in ("channels_last", "compiled") if key in teacher.spec)
    return (
        f"  {name:14} {batch / found.ours:7.2f} against {batch / found.reference:7.2f} views/s, "
        f"ratio {1 / found.ratio:5.2f}, ready after {ready:.0f} s, "
        f"{'the same' if same else 'other'} bytes"
    )


def _load(folder: Path) -> Teacher:
    return load_teacher(TransformersTeacher(backend="transformers", model=str(folder)))


def report(folder: Path, batch: int) -> list[str]:
    """The measurements as lines of text."""
    return [
        f"forward pass alone, batch {batch}, CPU, 1 thread (ratio: speed over the plain one)",
        measure(folder, batch, channels_last=True, compiled=False),
        measure(folder, batch, channels_last=False, compiled=True),
    ]
