"""The worker as a Ray actor."""

import os
import pickle

from egapipe.pipeline.datasets.reading import explaining
from egapipe.pipeline.store import Commit
from egapipe.stages.extract.planning.host import Samples, check_images, check_teacher, named_host
from egapipe.stages.extract.planning.job import Job
from egapipe.stages.extract.workers.tuned import open_teacher
from egapipe.stages.extract.workers.worker import Worker


class ExtractActor:
    """Answers with small records; images and embeddings never leave the worker."""

    # Everything is given to `prepare`: an error in a constructor would come back as the death of an
    # actor instead of as itself.
    _worker: Worker

    def prepare(self, job: bytes, samples: Samples, device: str, cores: int, folder: str) -> None:
        """Load the teacher.

        job: a pickled `Job`; unpickled here, because an error on Ray's way to an argument comes
        back as text. samples: of its images. cores: for the teacher, on the CPU. folder: working
        directory of the command, where relative paths of the configuration start. Raises
        TeacherError or UsageError if the host has another model, other software or other images.
        """
        if os.path.isdir(folder):
            os.chdir(folder)
        with named_host(), explaining("the start of a worker"):
            work: Job = pickle.loads(job)  # noqa: S301  (from the command that started this actor)
            check_images(work.dataset, samples)
            teacher = open_teacher(work.config)
            check_teacher(teacher, work.store.manifest, work.software)
            # Ray's CPUs are a number that its user chose: there may be fewer.
            self._worker = work.worker(teacher, device, min(cores, os.cpu_count() or 1))

    def extract(self, shard: int, upcoming: int | None) -> Commit:
        """See `Worker.extract`."""
        with explaining(f"shard {shard}"):
            return self._worker.extract(shard, upcoming)
