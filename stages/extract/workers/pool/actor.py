"""The worker as a Ray actor."""

import os
import pickle
import socket
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import ray
import torch

from egapipe.pipeline.datasets import Images
from egapipe.pipeline.datasets.decoding.reading import explaining
from egapipe.pipeline.machine.cores import available_cpus
from egapipe.pipeline.store import Commit
from egapipe.stages.extract.planning.host import Samples, check_images, check_teacher, named_host
from egapipe.stages.extract.planning.job import Job
from egapipe.stages.extract.workers.failures.faults import reported
from egapipe.stages.extract.workers.forward.inference import kind_of
from egapipe.stages.extract.workers.forward.tuned import open_teacher
from egapipe.stages.extract.workers.metrics import Metrics
from egapipe.stages.extract.workers.pool.member import Begun, Encoded, Loaded, Pulse, Where
from egapipe.stages.extract.workers.worker import Worker


class ExtractActor:
    """Answers with small records; images and embeddings never leave the worker."""

    # Everything is given to `prepare`: an error in a constructor would come back as the death of an
    # actor instead of as itself.
    _worker: Worker | None = None
    _open: Callable[[int | None], Worker]
    _metrics: Metrics
    _images: Images
    _views = 0
    _notes: list[str]
    _doing = ""

    def __init__(self) -> None:
        self._notes = []

    def where(self) -> Where:
        """The machine that it is on: the first answer, as soon as Ray has room for the worker."""
        machine = ray.get_runtime_context().get_node_id()
        return Where(machine, socket.gethostname(), available_cpus())

    def prepare(
        self, job: bytes, samples: Samples, device: str, folder: str, cores: int, share: float
    ) -> Loaded:
        """Load the teacher.

        job: a pickled `Job`; unpickled here, because an error on Ray's way to an argument comes
        back as text. samples: of its images. folder: working directory of the command, where
        relative paths of the configuration start. cores: for the teacher, on the CPU. share: of the
        machine, for this worker. Raises a FaultError if the host has another model, other software
        or other images.
        """
        if os.path.isdir(folder):
            os.chdir(folder)
        with reported(), named_host(), explaining("the start of a worker"):
            work: Job = pickle.loads(job)  # noqa: S301  (from the command that started this actor)
            self._doing = "compares images with those of the command"
            check_images(work.dataset, samples)
            self._doing = "loads the teacher"
            teacher = open_teacher(work.config, work.store.manifest)
            check_teacher(teacher, work.store.manifest, work.software)
            self._images = work.images
            said = self._notes.append
            self._open = partial(work.worker, teacher, device, cores, self._move, said, share)
            self._doing = "waits for the batch that another worker looks for"
            kind = kind_of(teacher, torch.device(device))
            self._metrics = Metrics(work.config.name, work.split, kind["device"])
            return Loaded(kind, work.batch(teacher, device))

    def begin(self, batch: int | None) -> Begun:
        """Bring the teacher to its device, after `prepare`.

        batch: views in one pass; None: as many as are best here. Raises a FaultError.
        """
        look = "" if batch else ", and looks for the batch with which it is fastest"
        self._doing = f"brings the teacher to its device{look}"
        with reported(), named_host(), explaining("the start of a worker"):
            self._worker = self._open(batch)
        return Begun(self._worker.computed, self._worker.batch)

    def encode(
        self, shard: int, upcoming: int | None, isolated: bool, extents: Sequence[Any]
    ) -> Encoded:
        """See `Worker.encode`; raises a FaultError. extents: of both shards, see `Job.extents`."""
        assert self._worker is not None  # noqa: S101  (the pool asks the ready ones)
        before = self._views
        with reported(), explaining(f"shard {shard}"):
            for one in extents:
                self._images.learn(one)
            self._worker.encode(shard, upcoming, isolated)
        notes, self._notes[:] = list(self._notes), []
        return Encoded(self._views - before, self._worker.computed, notes)

    def written(self, shard: int) -> Commit:
        """See `Worker.written`; raises a FaultError."""
        assert self._worker is not None  # noqa: S101  (the pool asks for what is encoded)
        with reported(), explaining(f"shard {shard}"):
            commit = self._worker.written(shard)
        self._metrics.stored(commit)
        return commit

    def pulse(self) -> Pulse:
        """How far it is."""
        if self._worker is None:
            return Pulse(0, 0, self._doing)
        point = self._views + self._worker.decoded
        return Pulse(point, self._views, self._worker.doing)

    def _move(self, views: int) -> None:
        self._views += views
