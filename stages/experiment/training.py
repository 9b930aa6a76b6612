"""One cell's training, wherever it runs: to its last epoch, or up to a look at the others."""

import math
from collections.abc import Callable, Mapping

from egapipe.pipeline.config import Config
from egapipe.pipeline.results.runs import RunFolder
from egapipe.pipeline.results.tracking import read_metrics
from egapipe.pipeline.terminal.progress import OpenProgress, silent_progress
from egapipe.stages import distill

Epoch = Callable[[int, Mapping[str, float]], None]


class PausedError(Exception):
    """A training has come as far as it was asked to; its checkpoint is written."""


def train(
    config: Config,
    run: RunFolder,
    epoch: Epoch,
    *,
    until: int | None = None,
    progress: OpenProgress = silent_progress,
    title: str = "distill",
) -> bool:
    """Train a cell in its run folder; whether it is finished.

    epoch: told of every epoch that is trained now. until: epochs after which it pauses, if it has
    more; the same call goes on from there. Raises as `distill.run` does.
    """
    last = until is None or until >= config.distill.epochs
    if not last and not run.finished and arrived(run, until):
        return False

    def told(number: int, metrics: Mapping[str, float]) -> None:
        epoch(number, metrics)
        if not last and number + 1 == until:
            raise PausedError

    try:
        # The experiment is tracked, with its cells.
        own = config.model_copy(update={"track": None})
        distill.run(own, folder=run, report=told, progress=progress, title=title)
    except PausedError:
        return False
    return True


def arrived(run: RunFolder, until: int | None) -> bool:
    """Whether a training has come as far as it is asked to."""
    return until is not None and (run.finished or len(read_metrics(run)) >= until)


def saving_at(config: Config, epochs: int | None) -> Config:
    """The configuration with a checkpoint at every multiple of so many epochs; None: as it is."""
    own = config.distill.checkpoint_epochs
    if epochs is None or epochs % own == 0:
        return config
    saving = config.distill.model_copy(update={"checkpoint_epochs": math.gcd(epochs, own)})
    return config.model_copy(update={"distill": saving})
