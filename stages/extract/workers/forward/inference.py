"""The teacher on its device, a few batches ahead of the host."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from egapipe.pipeline.machine.cores import available_cpus
from egapipe.pipeline.machine.versions import installed
from egapipe.stages.extract.teachers import Outputs, Teacher
from egapipe.stages.extract.teachers.base import Damaged, ignored
from egapipe.stages.extract.teachers.undecoded import Undecoded
from egapipe.stages.extract.workers.forward.passes import Note, Passes, unheard

Arrays = dict[str, npt.NDArray[np.float32]]
"""Name of an output -> float32 [B, *shape]."""


# Batches of any size are taken whole; halving it gives every power of two.
_ANY = 1 << 20


class Pending(Protocol):
    """A batch that the device may still be working on."""

    def result(self) -> Arrays:
        """Wait for its outputs."""
        ...


class Inference(Protocol):
    """A teacher on a device."""

    ahead: int
    """Batches worth having in flight before the first of them is waited for."""
    passes: Passes
    """Where batches are taken in parts if memory runs out."""

    def submit(self, pixels: Tensor, damaged: Damaged = ignored) -> Pending:
        """Encode uint8 [B, *shape] of host memory.

        damaged: told, before there is a result, of images that turn out to be.
        """
        ...

    def close(self) -> None:
        """Stop."""
        ...


def cpu_threads() -> int:
    """Cores for a CPU teacher in this process: what it may use, and OMP_NUM_THREADS at most."""
    return min(available_cpus(), torch.get_num_threads())


def kind_of(teacher: Teacher, device: torch.device) -> dict[str, str]:
    """What decides the last bits of a teacher's outputs, whatever the batch: `device` with its
    kind, `precision` of the forward pass, and what decodes its `jpeg` images on the device."""
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    else:
        name = torch.backends.cpu.get_cpu_capability()
    precision = str(teacher.spec.get("precision", "float32"))
    kind = {"device": f"{device.type} {name}", "precision": precision}
    if isinstance(teacher.preprocessing, Undecoded):
        kind["jpeg"] = " ".join(("torchcodec", *installed(["torchcodec"]).values()))
    return kind


def computed_on(teacher: Teacher, device: torch.device, *batch_sizes: int) -> dict[str, str]:
    """All that decides them, for the record of a shard: `kind_of` it and the shape of a `batch`, of
    which there are several sizes where memory ran out."""
    sizes = ", ".join(map(str, batch_sizes))
    batch = " x ".join(map(str, (sizes, *teacher.preprocessing.shape)))
    return {**kind_of(teacher, device), "batch": batch}


def batch_of(computed: Mapping[str, str]) -> int | None:
    """Views in one pass at the end of a shard, of what its record says; None if it does not."""
    sizes = computed.get("batch", "").partition(" x ")[0]
    return int(sizes.rpartition(", ")[2]) if sizes else None


def open_inference(
    teacher: Teacher,
    device: torch.device,
    threads: int,
    batch_size: int | None = None,
    note: Note = unheard,
) -> Inference:
    """Put a teacher on a device.

    threads: CPU cores it may use, on the CPU. batch_size: views in one pass; fewer are tried where
    memory runs out, and `note` is told. None: as many as are submitted at once.
    """
    teacher.to(device)
    passes = Passes(teacher, device, batch_size or _ANY, note)
    return OnCpu(passes, threads) if device.type == "cpu" else OnGpu(passes)


class OnCpu:
    """Forward passes of one thread each, side by side.

    Threads inside a pass would split its sums, and how many there are would show in the last bits:
    the stored bytes would depend on the cores of whoever computed them.
    """

    def __init__(self, passes: Passes, threads: int) -> None:
        self.ahead = threads
        self.passes = passes
        self._threads_before = torch.get_num_threads()
        self._pool = ThreadPoolExecutor(
            threads, "infer", initializer=torch.set_num_threads, initargs=(1,)
        )

    def submit(self, pixels: Tensor, damaged: Damaged = ignored) -> Pending:
        """Encode as soon as a thread is free."""
        return self._pool.submit(self._forward, pixels, damaged)

    def close(self) -> None:
        """Stop the threads; what they have not begun is dropped."""
        self._pool.shutdown(cancel_futures=True)
        torch.set_num_threads(self._threads_before)

    def _forward(self, pixels: Tensor, damaged: Damaged) -> Arrays:
        outputs = self.passes.forward(pixels, damaged)
        return {name: output.numpy() for name, output in outputs.items()}


class OnGpu:
    """Forward passes queued one behind the other, so that the GPU is never idle between two.

    Copies go through pinned memory and are ordered by the stream.
    """

    ahead = 1

    def __init__(self, passes: Passes) -> None:
        self.passes = passes

    def submit(self, pixels: Tensor, damaged: Damaged = ignored) -> Pending:
        """Queue a batch of pinned memory.

        Raises TeacherError if not even one of its views fits in the device's memory.
        """
        outputs = self.passes.forward(pixels, damaged)
        host = {name: _to_pinned(output) for name, output in outputs.items()}
        event = torch.cuda.Event()
        event.record()
        return _Copied(host, event)

    def close(self) -> None:
        """Nothing is to be stopped."""


class _Copied:
    """Outputs in host memory, copied there by the time an event has happened."""

    def __init__(self, outputs: Outputs, event: torch.cuda.Event) -> None:
        self._outputs = outputs
        self._event = event

    def result(self) -> Arrays:
        self._event.synchronize()
        return {name: output.numpy() for name, output in self._outputs.items()}


def _to_pinned(output: Tensor) -> Tensor:
    host = torch.empty(output.shape, dtype=output.dtype, pin_memory=True)
    return host.copy_(output, non_blocking=True)
