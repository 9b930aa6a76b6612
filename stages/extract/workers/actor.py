"""The worker as a Ray actor."""

import os
import pickle
import socket

import ray

from egapipe.pipeline.datasets.reading import explaining
from egapipe.pipeline.machine.cores import available_cpus
from egapipe.pipeline.store import Commit
from egapipe.stages.extract.planning.host import Samples, check_images, check_teacher, named_host
from egapipe.stages.extract.planning.job import Job
from egapipe.stages.extract.workers.faults import reported
from egapipe.stages.extract.workers.member import Where
from egapipe.stages.extract.workers.tuned import open_teacher
from egapipe.stages.extract.workers.worker import Worker

PULSE = "pulse"
"""The concurrency group of `pulse`, which is answered while the worker works."""


class ExtractActor:
    """Answers with small records; images and embeddings never leave the worker."""

    # Everything is given to `prepare`: an error in a constructor would come back as the death of an
    # actor instead of as itself.
    _worker: Worker
    _moved = 0

    def where(self) -> Where:
        """The machine that it is on: the first answer, as soon as Ray has room for the worker."""
        machine = ray.get_runtime_context().get_node_id()
        return Where(machine, socket.gethostname(), available_cpus())

    def prepare(self, job: bytes, samples: Samples, device: str, folder: str, cores: int) -> None:
        """Load the teacher.

        job: a pickled `Job`; unpickled here, because an error on Ray's way to an argument comes
        back as text. samples: of its images. folder: working directory of the command, where
        relative paths of the configuration start. cores: for the teacher, on the CPU. Raises a
        FaultError if the host has another model, other software or other images.
        """
        if os.path.isdir(folder):
            os.chdir(folder)
        with reported(), named_host(), explaining("the start of a worker"):
            work: Job = pickle.loads(job)  # noqa: S301  (from the command that started this actor)
            check_images(work.dataset, samples)
            teacher = open_teacher(work.config)
            check_teacher(teacher, work.store.manifest, work.software)
            self._worker = work.worker(teacher, device, cores, self._move)

    def extract(self, shard: int, upcoming: int | None, isolated: bool) -> Commit:
        """See `Worker.extract`; raises a FaultError."""
        with reported(), explaining(f"shard {shard}"):
            return self._worker.extract(shard, upcoming, isolated)

    def pulse(self) -> int:
        """A number that grows as the worker comes further."""
        return self._moved + self._worker.decoded

    def _move(self, views: int) -> None:
        self._moved += views
