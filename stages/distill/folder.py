"""Which folder a training has."""

import torch

from egapipe.pipeline.config import Config
from egapipe.pipeline.errors import UsageError
from egapipe.pipeline.results.runs import RunFolder, run_folder
from egapipe.stages.distill.model.synchronised import has_batch_statistics
from egapipe.stages.distill.objectives import REGISTRY
from egapipe.stages.distill.students import build_student


def training_folder(config: Config) -> RunFolder:
    """The run folder of a configuration: the same configuration finds the same folder again.

    With another number of workers too, unless it changes what is learned. Raises UsageError if the
    student cannot be built, which has to be known for that, and for a number that may change
    (`distill.min_workers`) where it decides.
    """
    workers, fewest = deciding_workers(config), config.distill.min_workers
    if workers is not None and fewest not in (None, workers):
        raise UsageError(
            f"distill.min_workers is {fewest}, but each of {workers} workers normalises over its "
            "own rows, so that fewer of them learn something else: set distill.sync_batchnorm=true"
        )
    return run_folder(config, workers)


def deciding_workers(config: Config) -> int | None:
    """The number of workers where it is part of what is learned: each normalises over its rows."""
    distill = config.distill
    if distill.workers <= 1 or distill.sync_batchnorm:
        return None
    with torch.random.fork_rng(devices=[]):
        students = [
            build_student(s.name, s.args) for s in (distill.student, *distill.peers.values())
        ]
    local = any(REGISTRY[name].local_statistics for name in distill.sides if name in REGISTRY)
    return distill.workers if local or any(map(has_batch_statistics, students)) else None
