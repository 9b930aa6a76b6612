"""Cells that run at once: Ray Tune starts, ends and retries them.

Tune's own state is not used to go on after a kill: the experiment's record says which cells are
over, the run folders how far the others are, and schedulers are told what was there before.
"""

import copy
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from ray import tune
from ray.exceptions import RayError
from ray.tune.error import TuneError
from ray.tune.search import Searcher

from egapipe.pipeline.errors import TrainingError, one_line
from egapipe.pipeline.results.runs import RunFolder
from egapipe.stages.distill.workers.launch import ray_storage
from egapipe.stages.experiment.cells import Changes, Planned, without_seed
from egapipe.stages.experiment.groups import Ended
from egapipe.stages.experiment.ledger import Ledger
from egapipe.stages.experiment.limited import Limited
from egapipe.stages.experiment.trial import (
    CHANGES,
    EPOCHS,
    ERROR,
    METRICS,
    NUMBER,
    RUN,
    Shared,
    place_of,
    run_trial,
)
from egapipe.stages.experiment.waiting import Source, every_cell

STATE = "ray/"
"""Folder of an experiment in which Ray Tune keeps what it needs while it runs."""
# Of other cells' checkpoints those that somebody may be about to copy.
_KEPT_COPIES = 4
_LONGEST_ERROR = 300
_ENVIRONMENT = {
    # The old one says nothing where it is told to be quiet.
    "RAY_AIR_NEW_OUTPUT": "0",
    # Metrics and event files are in the run folders already.
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    # An interrupt is answered by the command: it says how to continue.
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    # Nobody reads its snapshots.
    "TUNE_GLOBAL_CHECKPOINT_S": "3600",
}


def run_on_tune(
    shared: Shared,
    source: Source,
    ledger: Ledger,
    scheduler: Limited,
    *,
    most: int,
    max_failures: int,
    whole: bool = False,
    watch: Callable[[], None] = lambda: None,
) -> None:
    """Run the cells of a source, as many at once as the slots say.

    scheduler: ends some early. most: cells that the source may have. max_failures: times a cell
    goes on in a new process when it lost its own. whole: hand all cells to the scheduler at once,
    which lets them take turns. watch: called again and again. Raises TrainingError if Ray is lost.
    """
    folder, slots = ledger.folder, shared.slots
    folder.discard(STATE)
    given = _Given(source, shared.metric, slots.concurrent)
    space = None
    if whole:
        # Ray Tune takes no searcher beside a population.
        cells = list(every_cell(source))
        given.cells = {str(place): cell for place, cell in enumerate(cells)}
        shared = replace(shared, places=tuple(own_values(c)[RUN] for c in cells))
        space = {CHANGES: tune.grid_search([c.changes for c in cells])}
    follower = _Follower(shared, given, ledger, watch)
    # A population is there as a whole, or the first ones would not wait for a look at all.
    with _quiet(most if whole else slots.concurrent), _following(follower):
        tuner = tune.Tuner(
            _trainable(shared),
            param_space=space,
            tune_config=tune.TuneConfig(
                search_alg=None if whole else given,
                scheduler=scheduler,
                num_samples=1 if whole else most,
                # A new process imports torch for seconds. One that waits for Ray Train cannot
                # go on.
                reuse_actors=not slots.workers,
            ),
            run_config=tune.RunConfig(
                name="tune",
                **ray_storage(folder, STATE.rstrip("/")),
                callbacks=[_Told()],
                failure_config=tune.FailureConfig(max_failures=max_failures),
                checkpoint_config=tune.CheckpointConfig(num_to_keep=_KEPT_COPIES),
                verbose=0,
            ),
        )
        try:
            tuner.fit()
        except (RayError, TuneError) as error:
            raise TrainingError(
                f"Ray Tune gave up on {folder.where} ({one_line(error)}): run the same command"
                " again"
            ) from error
    follower.ended.free_all()
    folder.discard(STATE)


def _trainable(shared: Shared) -> Any:
    def trial(values: Mapping[str, Any]) -> None:
        run_trial(shared, values)

    bundle = {"CPU": shared.slots.cpus, "GPU": shared.slots.gpus}
    return tune.with_resources(trial, tune.PlacementGroupFactory([bundle]))


class _Given(Searcher):
    """Hands the cells of a source to Ray Tune, no more at once than there is room for."""

    def __init__(self, source: Source, metric: str | None, concurrent: int) -> None:
        super().__init__()
        self._source, self._value, self._concurrent = source, metric, concurrent
        self._live: set[str] = set()
        self.cells: dict[str, Planned] = {}

    def suggest(self, trial_id: str) -> Any:
        """The values of the next trial; None while there is no room."""
        if len(self._live) >= self._concurrent:
            return None
        cell = self._source.next()
        if cell is None:
            return Searcher.FINISHED if self._source.empty else None
        self.cells[trial_id] = cell
        self._live.add(trial_id)
        return own_values(cell)

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Make room, and tell the source."""
        self._live.discard(trial_id)
        value = None if error or not result else result.get(self._value or "")
        epoch = int((result or {}).get(EPOCHS, 0))
        self._source.over(self.cells[trial_id].number, epoch, value)

    def save_to_dir(self, checkpoint_dir: str, session_str: str = "default") -> None:
        """Nothing: the record has everything."""

    def save(self, checkpoint_path: str) -> None:
        """Nothing, see `save_to_dir`."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing, see `save_to_dir`."""

    def __getstate__(self) -> dict[str, Any]:
        """Tune stores its searcher; nobody reads it again."""
        return {}


def own_values(cell: Planned) -> dict[str, Any]:
    """What Ray Tune calls the configuration of a trial."""
    place = cell.run.url or str(cell.run.path.absolute())
    return {NUMBER: cell.number, RUN: place, CHANGES: copy.deepcopy(cell.changes)}


class _Follower:
    """Keeps the record up with what Ray Tune says of its trials."""

    def __init__(
        self,
        shared: Shared,
        given: _Given,
        ledger: Ledger,
        watch: Callable[[], None],
    ) -> None:
        self._shared, self._given, self._ledger, self._watch = shared, given, ledger, watch
        self._over: set[str] = set()
        self._completed: set[str] = set()
        self._changes: dict[str, Changes] = {}
        self.ended = Ended()

    def _cell(self, trial: Any) -> Planned:
        whole = self._shared.places is not None
        return self._given.cells[str(place_of(trial.trial_id)) if whole else trial.trial_id]

    def completed(self, trial: Any) -> None:
        """A trial was trained to its end, or its scheduler has ended it."""
        self._completed.add(trial.trial_id)

    def result(self, trial: Any, result: Mapping[str, Any]) -> None:
        """A trial has reported an epoch."""
        number = self._cell(trial).number
        self._ledger.epoch(number, int(result[EPOCHS]) - 1, result[METRICS])

    def tell(self, trials: Sequence[Any]) -> None:
        """Where all trials are."""
        for trial in trials:
            if trial.trial_id not in self._over:
                self._one(trial)
        self.ended.free()
        self._watch()

    def _one(self, trial: Any) -> None:
        cell, status = self._cell(trial), trial.status
        changes = trial.config[CHANGES]
        if self._shared.places and changes != self._changes.setdefault(trial.trial_id, changes):
            # Population based training has given it another's.
            self._changes[trial.trial_id] = changes
            self._ledger.move(cell.number, without_seed(changes))
        if status == "TERMINATED" and trial.trial_id not in self._completed:
            # The command is interrupted: another one goes on with it.
            return
        if status not in ("TERMINATED", "ERROR"):
            self._ledger.change(cell.number, state="running" if status == "RUNNING" else "planned")
            return
        self._over.add(trial.trial_id)
        if self._shared.slots.workers:
            self.ended.add(cell.run)
        if status == "ERROR":
            self._ledger.change(cell.number, state="failed", error=_error(trial, cell.run))
        elif cell.run.finished:
            self._ledger.finished(cell.number, cell.run)
        else:
            paused = self._shared.until is not None
            self._ledger.change(cell.number, state="planned" if paused else "stopped")


def _error(trial: Any, run: RunFolder) -> str:
    if run.has(ERROR):
        return str(run.read_json(ERROR)["error"])
    lines = [line.strip() for line in str(trial.get_error() or "").splitlines() if line.strip()]
    return lines[-1][:_LONGEST_ERROR] if lines else "its process was lost"


# Tune stores its callbacks with the experiment; a record and a display cannot be stored.
_followers: list[_Follower] = []


@contextmanager
def _following(follower: _Follower) -> Iterator[None]:
    _followers.append(follower)
    try:
        yield
    finally:
        _followers.pop()


class _Told(tune.Callback):
    """Is told by Ray Tune where its trials are."""

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        for follower in _followers[-1:]:
            follower.result(trial, result)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        for follower in _followers[-1:]:
            follower.completed(trial)

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        for follower in _followers[-1:]:
            follower.tell(trials)

    def on_experiment_end(self, trials: list[Any], **info: Any) -> None:
        for follower in _followers[-1:]:
            follower.tell(trials)


@contextmanager
def _quiet(concurrent: int) -> Iterator[None]:
    """For the length of a block, what Tune reads from the environment; its log without tracebacks:
    why a trial failed is told in one line. concurrent: processes that may start at once.
    """
    own = {**_ENVIRONMENT, "TUNE_MAX_PENDING_TRIALS_PG": str(concurrent)}
    before = {name: os.environ.get(name) for name in own}
    os.environ.update(own)
    log = logging.getLogger("ray.tune")
    level = log.level
    log.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        log.setLevel(level)
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
