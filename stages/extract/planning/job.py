"""What there is to extract, without the teacher: small enough to be sent to every worker."""

import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch

from egapipe.pipeline.config import Config
from egapipe.pipeline.config.tree import Split
from egapipe.pipeline.datasets import Dataset, Images
from egapipe.pipeline.errors import UsageError
from egapipe.pipeline.machine.cores import available_cpus
from egapipe.pipeline.machine.memory import total_memory
from egapipe.pipeline.store import FeatureStore
from egapipe.pipeline.store.format.index import IndexKeys
from egapipe.stages.extract.decoding.crew import Limits
from egapipe.stages.extract.decoding.decoders import decoders_for
from egapipe.stages.extract.decoding.reader import Reader, with_partners
from egapipe.stages.extract.planning.manifest import software
from egapipe.stages.extract.planning.memory import room_of
from egapipe.stages.extract.planning.place import Place
from egapipe.stages.extract.teachers import Teacher
from egapipe.stages.extract.workers.forward.inference import computed_on
from egapipe.stages.extract.workers.forward.passes import Note, unheard
from egapipe.stages.extract.workers.forward.sizing import settled_batch
from egapipe.stages.extract.workers.forward.tuned import TunedTeacher
from egapipe.stages.extract.workers.worker import Worker

# Of a larger shard a worker holds no more at once.
_KEYS = 1 << 16


@dataclass(frozen=True)
class Job:
    """A split of a configuration, its images and its store."""

    config: Config
    split: Split
    dataset: Dataset
    store: FeatureStore
    software: dict[str, str] = field(default_factory=software)
    """Of the process that made the job: the workers' must be the same."""
    before: tuple[dict[str, str], ...] = ()
    """What shards of earlier runs were computed on, each kind once, see `Commit.computed`."""

    @cached_property
    def images(self) -> Images:
        """What a worker reads. Keys come from the store, those of a shard by themselves."""
        rows = min(self.store.manifest.shard_rows, _KEYS)
        return self.dataset.for_workers(IndexKeys(self.store.listing, rows))

    def extents(self, *shards: int | None) -> list[Any]:
        """Where the images of some shards lie, for a worker: see `Images.extents`."""
        rows, plan = self.store.shards, self.store.manifest.plan
        asked = [with_partners(plan, self.dataset, rows[s]) for s in shards if s is not None]
        return [self.dataset.extents(some) for some in asked]

    def __getstate__(self) -> dict[str, Any]:
        """To a worker travel the images, not the listing of all rows, and everything else."""
        return {**self.__dict__, "dataset": self.images}

    def batch(self, teacher: Teacher, device: str) -> int | None:
        """Views in one forward pass on a device; None where a worker is to find it out."""
        asked = self.config.extract.batch_size
        return settled_batch(asked, teacher, torch.device(device), self.before)

    def worker(
        self,
        teacher: Teacher,
        device: str,
        cores: int,
        moved: Callable[[int], None] = lambda views: None,
        note: Note = unheard,
        share: float | None = None,
        batch: int | None = None,
    ) -> Worker:
        """A worker of this job on a device; `moved` is told the number of views of every batch.

        cores: CPU cores for the teacher, on the CPU; fewer passes run at once where the memory does
        not do for so many. note: told what the user should know. share: of the machine that is the
        worker's; None: all of it, in the process of the command. batch: views in one pass, as a
        worker of the same kind has found; None: what is settled, or is found here. Raises
        UsageError where another device, precision or batch has begun the store and
        `extract.same_device` forbids that, and where the memory does not do for one pass.
        """
        settings = self.config.extract
        place = self._place(device, cores, share)
        batch = batch or self.batch(teacher, device) or place.best_batch(teacher)
        self._check_begun(computed_on(teacher, place.device, batch))
        if isinstance(teacher, TunedTeacher):
            teacher.resize(batch)
        passes = place.fitting(teacher, batch).passes
        if passes < cores:
            host = socket.gethostname()
            note(f"{host} has memory for {passes} passes at once, and {cores} cores")
        return Worker(
            teacher,
            Reader(self.images, teacher.preprocessing, self.store.manifest.plan),
            self.store,
            batch_size=batch,
            decoders=place.decoders,
            device=place.device,
            cores=passes,
            limits=Limits(seconds=settings.row_timeout),
            moved=moved,
            note=note,
        )

    def _place(self, device: str, cores: int, share: float | None) -> Place:
        own, part = share is not None and device != "cpu", share or 1.0
        # Beside a teacher on the CPU a few threads do.
        here = int(available_cpus() * part)
        decoders = decoders_for(self.config.extract, here, own_process=own)
        room = room_of(total_memory(), part)
        return Place(torch.device(device), cores, decoders, room, self.store.manifest)

    def _check_begun(self, here: Mapping[str, str]) -> None:
        if self.config.extract.same_device and self.before and here not in self.before:
            raise UsageError(
                f"{begun_elsewhere(self.store.url, self.before, here)}: continue it there, or set "
                "extract.same_device=false"
            )


def begun_elsewhere(url: str, before: Sequence[Mapping[str, str]], here: Mapping[str, str]) -> str:
    """What to say of a store of which other shards were computed on something else."""
    others = " and ".join(_words(one) for one in before)
    return f"store {url} has shards that were computed on {others}, others now on {_words(here)}"


def _words(computed: Mapping[str, str]) -> str:
    said = f"{computed['device']} in {computed['precision']}, {computed['batch']} at once"
    return f"{said}, JPEG by {computed['jpeg']}" if "jpeg" in computed else said
