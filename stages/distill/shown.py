"""Progress of a training: rows seen of all epochs' rows, and the last epoch's results."""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from egapipe.pipeline.progress import OpenProgress, Progress
from egapipe.pipeline.runs import RunFolder
from egapipe.pipeline.tracking import read_metrics
from egapipe.stages.distill.checkpoint import Checkpoints, Position
from egapipe.stages.distill.setup import Job

_LOOK_SECONDS = 1.0
_FIELDS = {"train/loss": "loss", "train/data_wait": "data_wait_share", "test/top1": "top1"}


class Shown:
    """A training on a display."""

    def __init__(self, progress: Progress, steps: int, rows: int) -> None:
        """steps: of an epoch. rows: of a step, over all workers."""
        self._progress = progress
        self._steps, self._rows = steps, rows
        self._fields: dict[str, float] = {}

    def stepped(self, at: Position) -> None:
        """A step is done; `at` is the next one."""
        self._progress.update((at.epoch * self._steps + at.step) * self._rows, **self._fields)

    def report(self, epoch: int, metrics: Mapping[str, float]) -> None:
        """An epoch is done."""
        known = {name: metrics[key] for key, name in _FIELDS.items() if key in metrics}
        self._fields = {name: float(f"{value:.4g}") for name, value in known.items()}
        self.stepped(Position(epoch=epoch + 1))


@contextmanager
def shown(job: Job, run: RunFolder, title: str, progress: OpenProgress) -> Iterator[Shown]:
    """Show a training for the length of a block, starting where its last checkpoint stands."""
    config, steps = job.config.distill, job.loader.steps
    rows = min(config.batch_size, len(job.loader.rows))
    at = Checkpoints(run.checkpoints).position()
    done = (at.epoch * steps + at.step) * rows
    with progress(title, config.epochs * steps * rows, done=done) as bar:
        yield Shown(bar, steps, rows)


@contextmanager
def following(run: RunFolder, view: Shown) -> Iterator[None]:
    """For the length of a block, show the epochs that other processes write into the run folder."""
    stop = threading.Event()

    def follow() -> None:
        seen = len(read_metrics(run))
        while not stop.wait(_LOOK_SECONDS):
            lines = read_metrics(run)
            if len(lines) != seen:
                seen = len(lines)
                for line in lines[-1:]:
                    view.report(line["epoch"], line)

    thread = threading.Thread(target=follow, name="follow-metrics", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
