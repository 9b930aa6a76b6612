"""Progress of a training: rows seen of all epochs' rows, and the last epoch's results."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from egapipe.pipeline.results.runs import RunFolder
from egapipe.pipeline.terminal.progress import OpenProgress, Progress
from egapipe.stages.distill.setup import Job
from egapipe.stages.distill.training.checkpoint import Checkpoints, Position
from egapipe.stages.distill.training.loop import Report

_FIELDS = {"train/loss": "loss", "train/data_wait": "data_wait_share", "test/top1": "top1"}
_FIELDS |= {"validation/top1": "validation_top1"}


class Shown:
    """A training on a display."""

    def __init__(
        self, progress: Progress, steps: int, rows: int, report: Report | None = None
    ) -> None:
        """steps: of an epoch. rows: of a step, over all workers. report: who else is told of an
        epoch."""
        self._progress, self._also = progress, report
        self._steps, self._rows = steps, rows
        self._fields: dict[str, float] = {}

    @property
    def told(self) -> bool:
        """Whether somebody else is told of an epoch, and may take its checkpoint."""
        return self._also is not None

    def note(self, text: str) -> None:
        """Something that the user should know."""
        self._progress.note(text)

    def stepped(self, at: Position) -> None:
        """A step is done; `at` is the next one."""
        self._progress.update((at.epoch * self._steps + at.step) * self._rows, **self._fields)

    def report(self, epoch: int, metrics: Mapping[str, float]) -> None:
        """An epoch is done."""
        known = {name: metrics[key] for key, name in _FIELDS.items() if key in metrics}
        self._fields = {name: float(f"{value:.4g}") for name, value in known.items()}
        self.stepped(Position(epoch=epoch + 1))
        if self._also is not None:
            self._also(epoch, metrics)


@contextmanager
def shown(
    job: Job, run: RunFolder, title: str, progress: OpenProgress, report: Report | None
) -> Iterator[Shown]:
    """Show a training for the length of a block, starting where its last checkpoint stands."""
    config, steps = job.config.distill, job.loader.steps
    rows = min(config.batch_size, len(job.loader.rows))
    at = Checkpoints(run.checkpoints).position()
    done = (at.epoch * steps + at.step) * rows
    with progress(title, config.epochs * steps * rows, done=done) as bar:
        yield Shown(bar, steps, rows, report)
