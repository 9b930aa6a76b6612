"""A tracker that is told while trainings run: in a thread, so that none of them waits for it."""

import logging
import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from egapipe.pipeline.config import Config
from egapipe.pipeline.config.track import Tracking
from egapipe.pipeline.errors import one_line
from egapipe.pipeline.results.experiment import Cell, Experiment, Recorded, read_experiment
from egapipe.pipeline.results.runs import RunFolder
from egapipe.stages.track.client import connect
from egapipe.stages.track.entries import of_cell, of_experiment, of_run
from egapipe.stages.track.sending import Sender

Report = Callable[[int, Mapping[str, float]], None]
# A tracker that does not come to its end is left alone then: `egapipe track` tells it the rest.
_LAST_SECONDS = 120.0
_log = logging.getLogger(__name__)


class Tracker:
    """Does what is put in it, one after another, until something fails: then it warns, once."""

    def __init__(self, options: Tracking, name: str, folder: RunFolder) -> None:
        """Raises UsageError if the tracker does not answer."""
        self.sender = Sender(connect(options, name, folder.path))
        self._kind, self._where = options.kind, folder.where
        self._jobs: queue.Queue[Callable[[], None] | None] = queue.Queue()
        self._thread = threading.Thread(target=self._work, name="tracker", daemon=True)
        self._thread.start()

    def put(self, job: Callable[[], None]) -> None:
        """Do something later."""
        self._jobs.put(job)

    def close(self) -> None:
        """Wait for what was put, but not for ever."""
        self._jobs.put(None)
        self._thread.join(_LAST_SECONDS)
        if self._thread.is_alive():
            self._warn(f"no answer for {_LAST_SECONDS:.0f} s")

    def _work(self) -> None:
        failed = False
        while (job := self._jobs.get()) is not None:
            if failed:
                continue
            try:
                job()
            except Exception as error:  # of two clients and their servers, with dozens of types
                failed = True
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
        tracker.put(lambda: tracker.sender.attach_report(last, folder))
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
        tracker.put(lambda: _finish(tracker, run, times))
        tracker.close()


def _finish(tracker: Tracker, run: RunFolder, times: Mapping[int, float]) -> None:
    """The end of a training; one without results has failed, or was ended."""
    training = of_run(run, "done" if run.finished else "failed")
    tracker.sender.sync(training, times)
    if run.finished:
        tracker.sender.attach_report(training, run)
    tracker.sender.end(training)
