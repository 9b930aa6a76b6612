"""Extraction in this process, without Ray."""

from collections.abc import Callable, Generator, Sequence
from contextlib import closing

import torch

from egapipe.pipeline.errors import UsageError
from egapipe.pipeline.store import Commit
from egapipe.stages.extract.decoding.crew import HungError
from egapipe.stages.extract.planning.job import Job
from egapipe.stages.extract.teachers import Teacher
from egapipe.stages.extract.workers.forward.inference import cpu_threads
from egapipe.stages.extract.workers.forward.passes import Note, unheard


def extract_inline(
    job: Job,
    teacher: Teacher,
    shards: Sequence[int],
    moved: Callable[[int], None],
    note: Note = unheard,
) -> Generator[Commit, None, None]:
    """Extract shards one after the other; `moved` is told the number of views of every batch,
    `note` what the user should know.

    A shard is stored beside the inference of the next one, and yielded after that. One in which an
    image hangs is done again with its images in processes of their own. Raises UsageError if the
    device is not there.
    """
    settings = job.config.extract
    cores = settings.cpus_per_worker or cpu_threads()
    worker = job.worker(teacher, _device(settings.device), cores, moved, note)
    with closing(worker):
        before: int | None = None
        for shard, upcoming in zip(shards, [*shards[1:], None], strict=True):
            try:
                worker.encode(shard, upcoming)
            except HungError:
                # Whether it was the image shows in a process that can be ended.
                worker.encode(shard, isolated=True)
            if before is not None:
                yield worker.written(before)
            before = shard
        if before is not None:
            yield worker.written(before)


def _device(asked: str) -> str:
    available = torch.cuda.is_available()
    if asked == "cuda" and not available:
        raise UsageError(
            "extract.device is cuda, but torch finds no GPU here: set it to cpu, or run on a "
            "cluster that has GPUs (without --local)"
        )
    return "cuda" if available and asked != "cpu" else "cpu"
