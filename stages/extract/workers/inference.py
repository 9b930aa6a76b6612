"""The teacher on its device, a few batches ahead of the host."""

from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from egapipe.pipeline.errors import TeacherError
from egapipe.pipeline.machine.cores import available_cpus
from egapipe.stages.extract.teachers import Outputs, Teacher

Arrays = dict[str, npt.NDArray[np.float32]]
"""Name of an output -> float32 [B, *shape]."""


class Pending(Protocol):
    """A batch that the device may still be working on."""

    def result(self) -> Arrays:
        """Wait for its outputs."""
        ...


class Inference(Protocol):
    """A teacher on a device."""

    ahead: int
    """Batches worth having in flight before the first of them is waited for."""

    def submit(self, pixels: Tensor) -> Pending:
        """Encode uint8 [B, *shape] of host memory."""
        ...

    def close(self) -> None:
        """Stop."""
        ...


def cpu_threads() -> int:
    """Cores for a CPU teacher in this process: what it may use, and OMP_NUM_THREADS at most."""
    return min(available_cpus(), torch.get_num_threads())


def computed_on(teacher: Teacher, device: torch.device, batch_size: int) -> dict[str, str]:
    """What decides the last bits of a teacher's outputs, for the record of a shard: `device` with
    its kind, `precision` of the forward pass, and the shape of a `batch`."""
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    else:
        name = torch.backends.cpu.get_cpu_capability()
    return {
        "device": f"{device.type} {name}",
        "precision": str(teacher.spec.get("precision", "float32")),
        "batch": " x ".join(map(str, (batch_size, *teacher.preprocessing.shape))),
    }


def open_inference(teacher: Teacher, device: torch.device, threads: int) -> Inference:
    """Put a teacher on a device. threads: CPU cores it may use, on the CPU."""
    teacher.to(device)
    return OnCpu(teacher, threads) if device.type == "cpu" else OnGpu(teacher, device)


def out_of_memory(teacher: Teacher, device: torch.device, views: int) -> TeacherError:
    """What to say of a teacher that so many views at once are too much for."""
    return TeacherError(
        f"teacher {teacher.spec['model']} runs out of {device} memory with {views} images at once: "
        f"set extract.batch_size lower, e.g. {max(1, views // 2)}"
    )


class OnCpu:
    """Forward passes of one thread each, side by side.

    Threads inside a pass would split its sums, and how many there are would show in the last bits:
    the stored bytes would depend on the cores of whoever computed them.
    """

    def __init__(self, teacher: Teacher, threads: int) -> None:
        self.ahead = threads
        self._teacher = teacher
        self._threads_before = torch.get_num_threads()
        self._pool = ThreadPoolExecutor(
            threads, "infer", initializer=torch.set_num_threads, initargs=(1,)
        )

    def submit(self, pixels: Tensor) -> Pending:
        """Encode as soon as a thread is free."""
        return self._pool.submit(self._forward, pixels)

    def close(self) -> None:
        """Stop the threads; what they have not begun is dropped."""
        self._pool.shutdown(cancel_futures=True)
        torch.set_num_threads(self._threads_before)

    def _forward(self, pixels: Tensor) -> Arrays:
        return {name: output.numpy() for name, output in self._teacher.forward(pixels).items()}


class OnGpu:
    """Forward passes queued one behind the other, so that the GPU is never idle between two.

    Copies go through pinned memory and are ordered by the stream.
    """

    ahead = 1

    def __init__(self, teacher: Teacher, device: torch.device) -> None:
        self._teacher = teacher
        self._device = device

    def submit(self, pixels: Tensor) -> Pending:
        """Queue a batch of pinned memory.

        Raises TeacherError if it does not fit in the device's memory.
        """
        try:
            outputs = self._teacher.forward(pixels.to(self._device, non_blocking=True))
            host = {name: _to_pinned(output) for name, output in outputs.items()}
        except torch.OutOfMemoryError as error:
            raise out_of_memory(self._teacher, self._device, len(pixels)) from error
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
