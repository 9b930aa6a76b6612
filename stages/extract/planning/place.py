"""Where a worker computes, and what fits there."""

import socket
from dataclasses import dataclass

import torch

from egapipe.pipeline.errors import UsageError
from egapipe.pipeline.store import Manifest
from egapipe.stages.extract.decoding.decoders import Decoders
from egapipe.stages.extract.planning.memory import WorkerMemory, worker_memory
from egapipe.stages.extract.teachers import Teacher
from egapipe.stages.extract.workers.forward.sizing import best_batch
from egapipe.stages.extract.workers.forward.tuned import uncompiled


@dataclass(frozen=True)
class Place:
    """A device, and what of its machine is the worker's.

    cores: CPU cores for the teacher, on the CPU. room: bytes of memory. manifest: of the store that
    it works for.
    """

    device: torch.device
    cores: int
    decoders: Decoders
    room: int
    manifest: Manifest

    def fitting(self, teacher: Teacher, batch: int) -> WorkerMemory:
        """With as many passes at once, of batches of a size, as there is room for. Raises
        UsageError where there is none for one."""
        memory = worker_memory(
            teacher, self.manifest, self.decoders, self.device, self.cores, batch
        )
        return memory.within(self.room, socket.gethostname())

    def best_batch(self, teacher: Teacher) -> int:
        """Views in one pass with which a teacher is fastest here.

        Raises UsageError or TeacherError if not even a single image fits.
        """
        tried = uncompiled(teacher)

        def passes(batch: int) -> int:
            try:
                return self.fitting(tried, batch).passes
            except UsageError:
                if batch == 1:
                    raise
                return 0

        rows = min(self.manifest.shard_rows, self.manifest.rows)
        return best_batch(tried, self.device, passes, rows * self.manifest.view_count)
