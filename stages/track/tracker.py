"""A tracker that is told while trainings run: in a thread, so that none of them waits for it."""

import logging
import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import Any

from egapipe.pipeline.config import Config
from egapipe.pipeline.config.track import Tracking
from egapipe.pipeline.errors import one_line
from egapipe.pipeline.results.experiment import Cell, Experiment, Recorded, read_experiment
from egapipe.pipeline.results.runs import RunFolder
from egapipe.stages.track.client import connect
from egapipe.stages.track.entries import of_cell, of_experiment, of_run
from egapipe.stages.track.sending import Sender, page_of

Report = Callable[[int, Mapping[str, float]], None]
# A tracker that does not answer for so long at the end is left alone: `egapipe track` tells it the
# rest.
_LAST_SECONDS, _LOOK_SECONDS = 120.0, 1.0
_log = logging.getLogger(__name__)


class Tracker:
    """Does what is put in it, one after another, until something fails: then it warns, once."""

    def __init__(self, options: Tracking, name: str, folder: RunFolder) -> None:
        """Raises UsageError if the tracker does not answer."""
        self.sender = Sender(connect(options, name, folder.path))
        self._kind, self._where = options.kind, folder.where
        self._jobs: queue.Queue[Callable[[], None] | None] = queue.Queue()
        self._failed, self._answered = False, time.monotonic()
        self._thread = threading.Thread(target=self._work, name="tracker", daemon=True)
        self._thread.start()

    def put(self, job: Callable[[], None]) -> None:
        """Do something later."""
        self._jobs.put(job)

    @contextmanager
    def page(self, folder: RunFolder) -> Iterator[Path | None]:
        """The folder's page for the length of a block; None if there is none, or nobody to see it.

        It is made here and not among what is put: how long that takes says nothing of a tracker.
        """
        with ExitStack() as kept:
            found: list[Path | None] = []
            self._attempt(lambda: found.append(kept.enter_context(page_of(folder))))
            yield found[0] if found else None

    def close(self) -> None:
        """Wait for what was put, but not for ever for any of it."""
        self._jobs.put(None)
        self._answered = time.monotonic()
        while self._thread.is_alive():
            self._thread.join(_LOOK_SECONDS)
            if time.monotonic() > self._answered + _LAST_SECONDS:
                self._warn(f"no answer for {_LAST_SECONDS:.0f} s")
                return

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            self._attempt(job)
            self._answered = time.monotonic()

    def _attempt(self, job: Callable[[], None]) -> None:
        """Do something, unless something has failed before."""
        if self._failed:
            return
        try:
            job()
        except Exception as error:  # of two clients and their servers, with dozens of types
            self._failed = True
            self._warn(one_line(error))

    def _warn(self, reason: str) -> None:
        _log.warning(
            "%s is not told any more (%s); the training goes on, `egapipe track %s` sends the rest",
            *(self._kind, reason, self._where),
        )


class _Followed:
    """An experiment that is tracked: its record's listener."""

    def __init__(self, tracker: Tracker, folder: RunFolder, experiment: Experiment) -> None:
        self._tracker, self._folder, self._now = tracker, folder, experiment
        self._times: dict[int, dict[int, float]] = {}

    def changed(self, experiment: Experiment, cell: Cell) -> None:
        """A cell has another state."""
        self._now = experiment
        if cell.over:
            self._tracker.put(lambda: self._sync(experiment, cell))

    def epoch(self, cell: Cell, epoch: int, metrics: Mapping[str, float]) -> None:
        """An epoch of a cell is done."""
        self._times.setdefault(cell.number, {})[epoch] = time.time()
        experiment = self._now
        self._tracker.put(lambda: self._sync(experiment, cell))

    def _sync(self, experiment: Experiment, cell: Cell) -> None:
        training = of_cell(Recorded(self._folder, experiment), cell)
        if training is not None:
            self._tracker.sender.sync(training, self._times.get(cell.number))
            if cell.over:
                self._tracker.sender.end(training)


@contextmanager
def tracked_experiment(
    options: Tracking | None, config: Config, folder: RunFolder, experiment: Experiment
) -> Iterator[list[Any]]:
    """Track an experiment for the length of a block, which is given the listeners of its record.

    Raises UsageError before anything if the tracker does not answer.
    """
    if options is None:
        yield []
        return
    tracker = Tracker(options, config.name, folder)
    tracker.put(lambda: tracker.sender.sync(of_experiment(Recorded(folder, experiment))))
    followed = _Followed(tracker, folder, experiment)
    try:
        yield [followed]
    finally:
        last = of_experiment(read_experiment(folder))
        with tracker.page(folder) as page:
            tracker.put(lambda: tracker.sender.attach(last, page))
            tracker.put(lambda: tracker.sender.end(last))
            tracker.close()


@contextmanager
def tracked_run(config: Config, run: RunFolder, report: Report | None) -> Iterator[Report | None]:
    """Track a training for the length of a block, which is given who is told of its epochs.

    Raises UsageError before anything if the tracker does not answer.
    """
    if config.track is None:
        yield report
        return
    tracker, times = Tracker(config.track, config.name, run), dict[int, float]()

    def told(epoch: int, metrics: Mapping[str, float]) -> None:
        times[epoch] = time.time()
        tracker.put(lambda: tracker.sender.sync(of_run(run, "running"), dict(times)))
        if report is not None:
            report(epoch, metrics)

    try:
        yield told
    finally:
        # One without results has failed, or was ended.
        training = of_run(run, "done" if run.finished else "failed")
        with tracker.page(run) if run.finished else nullcontext() as page:
            tracker.put(lambda: tracker.sender.sync(training, times))
            tracker.put(lambda: tracker.sender.attach(training, page))
            tracker.put(lambda: tracker.sender.end(training))
            tracker.close()
