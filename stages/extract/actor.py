"""The worker as a Ray actor."""

import os
import socket
from collections.abc import Mapping

import torch

from egapipe.pipeline.errors import TeacherError
from egapipe.pipeline.store import Commit
from egapipe.stages.extract.job import Job
from egapipe.stages.extract.manifest import software
from egapipe.stages.extract.teachers import load_teacher


class ExtractActor:
    """Answers with small records; images and embeddings never leave the worker."""

    def __init__(self, job: Job, device: str, threads: int, folder: str) -> None:
        """Load nothing yet.

        threads: of the network on the CPU. folder: working directory of the command, where relative
        paths of the configuration start.
        """
        self._job = job
        self._device = device
        self._threads = threads
        self._folder = folder

    def prepare(self) -> str:
        """Load the teacher. Returns the name of the host.

        Raises TeacherError if the host has other weights or other software than the manifest says.
        """
        if os.path.isdir(self._folder):
            os.chdir(self._folder)
        # Ray sets OMP_NUM_THREADS from the CPUs it was asked for, which may be more than there are.
        torch.set_num_threads(min(self._threads, os.cpu_count() or 1))
        teacher = load_teacher(self._job.config.teacher)
        manifest = self._job.store.manifest
        _check_same("teacher", teacher.spec, manifest.teacher)
        _check_same("versions", software(), manifest.versions)
        self._worker = self._job.worker(teacher, self._device)
        return socket.gethostname()

    def extract(self, shard: int, upcoming: int | None) -> Commit:
        """See `Worker.extract`."""
        return self._worker.extract(shard, upcoming)


def _check_same(section: str, here: Mapping[str, object], manifest: Mapping[str, object]) -> None:
    for key, expected in manifest.items():
        if here.get(key) != expected:
            raise TeacherError(
                f"worker on {socket.gethostname()}: {section}.{key} is {here.get(key)!r} there, the "
                f"manifest says {expected!r}: give every host the same software and model"
            )
