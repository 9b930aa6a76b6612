"""`send`: what is in folders, to a tracker, once each epoch."""

import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from egapipe.pipeline.config.track import Tracking
from egapipe.pipeline.errors import EgapipeError, TrainingError, UsageError
from egapipe.pipeline.results.experiment import is_experiment, read_experiment
from egapipe.pipeline.results.runs import RunFolder, open_run
from egapipe.pipeline.results.tracking import read_metrics
from egapipe.stages.track.client import Client, connect, explained
from egapipe.stages.track.entries import Training, of_cell, of_experiment, of_run

PAGE = "report.html"


class Sender:
    """Tells a tracker of trainings, each epoch once; one that goes on is found again."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._sent: dict[str, int] = {}

    def sync(self, training: Training, times: Mapping[int, float] | None = None) -> None:
        """Send the epochs that are not there yet, and the end if it has ended.

        times: epoch -> when it ended, in seconds since 1970, where that is known.
        """
        key = training.entry.key
        if key not in self._sent:
            self._sent[key] = self._client.begin(training.entry, training.started)
        lines = [] if training.run is None else read_metrics(training.run)
        new = [line for line in lines if line["epoch"] >= self._sent[key]]
        known = dict(times or {})
        if training.run is not None and any(line["epoch"] not in known for line in new):
            known = {**wall_times(training.run), **known}
        for line in new:
            metrics = {name: value for name, value in line.items() if name != "epoch"}
            at = known.get(line["epoch"], time.time())
            self._client.log(key, line["epoch"], metrics, at)
            self._sent[key] = line["epoch"] + 1

    def end(self, training: Training) -> None:
        """End a run that `sync` was told of."""
        self._client.end(training.entry.key, training.status, training.ended)
        del self._sent[training.entry.key]

    def attach(self, training: Training, page: Path | None) -> None:
        """Send the page of a run that `sync` was told of; None: there is none."""
        if page is not None:
            self._client.attach(training.entry.key, page)


@contextmanager
def page_of(folder: RunFolder) -> Iterator[Path | None]:
    """The page of a folder for the length of a block, made if it is not there; None where nothing
    can be drawn, or the libraries for it are not installed."""
    from egapipe.stages import report

    folder.fetch(PAGE)
    with tempfile.TemporaryDirectory() as made:
        page: Path | None = folder.path / PAGE
        if not (folder.path / PAGE).is_file():
            try:
                page = report.run(folder.place, to=made).page
            except EgapipeError:
                page = None
        yield page


def wall_times(run: RunFolder) -> dict[int, float]:
    """Epoch -> when it ended, in seconds since 1970, as the run's TensorBoard files have it."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run.fetch("tensorboard/")
    if not run.tensorboard.is_dir():
        return {}
    board = EventAccumulator(str(run.tensorboard)).Reload()
    names = board.Tags()["scalars"]
    return {event.step: event.wall_time for event in board.Scalars(names[0])} if names else {}


def send(place: str | Path, options: Tracking | None = None) -> int:
    """Send a run, a comparison or a sweep that is there already; how many trainings it has.

    options: where to; None: what its configuration says. Raises UsageError if that says nothing,
    or the tracker does not answer.
    """
    folder = open_run(place)
    config = folder.config()
    options = options or config.track or config.sweep.track
    if options is None:
        raise UsageError(
            f"{folder.where} does not say where to: give --to mlflow or --to wandb, and its --uri"
        )
    sender = Sender(connect(options, config.name, folder.path))
    kind = options.kind

    def refusal(why: str) -> TrainingError:
        return TrainingError(
            f"{kind} was not told all of {folder.where} ({why}): run the same command again, which"
            " sends the rest"
        )

    with explained(refusal):
        return _send(folder, sender)


def _send(folder: RunFolder, sender: Sender) -> int:
    if not is_experiment(folder):
        training = of_run(folder, "done" if folder.finished else "running")
        sender.sync(training)
        with page_of(folder) as page:
            sender.attach(training, page)
        sender.end(training)
        return 1
    recorded = read_experiment(folder)
    parent = of_experiment(recorded)
    sender.sync(parent)
    found = [of_cell(recorded, cell) for cell in recorded.experiment.cells]
    trainings = [training for training in found if training is not None]
    for training in trainings:
        sender.sync(training)
        sender.end(training)
    with page_of(folder) as page:
        sender.attach(parent, page)
    sender.end(parent)
    return len(trainings)
