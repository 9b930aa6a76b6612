"""Where a run stands, read from its folder: no process is asked."""

import math
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from egapipe.pipeline.errors import EgapipeError, UsageError, one_line
from egapipe.pipeline.locations.remote import states_below
from egapipe.pipeline.results.experiment import (
    RECORD,
    Cell,
    Experiment,
    is_experiment,
    read_experiment,
)
from egapipe.pipeline.results.former import COMPARISON, TRIALS
from egapipe.pipeline.results.runs import RunFolder, open_run
from egapipe.pipeline.results.tracking import read_metrics
from egapipe.pipeline.store.objects.location import open_objects

# A comparison or sweep has a configuration too, but has learned from no store itself.
_OF_A_RUN = ("config.yaml", "store.json")
# A run that was quiet for so many times its usual epoch is shown as such.
_QUIET_EPOCHS, _QUIET_SECONDS = 3.0, 60.0
OVER = frozenset({"finished", "stopped", "failed", "interrupted"})
"""States of runs of which nothing more is to come."""
_OF_CELLS = {"stopped": "stopped", "failed": "failed"}


@dataclass(frozen=True)
class RunStatus:
    """One run after its last finished epoch; None where nothing is known yet.

    state: finished, running, quiet (no epoch for unusually long), starting; stopped (ended early)
    or failed, as the record of its experiment says; interrupted (no process has it any more).
    epoch: of `epochs` that are finished. top1: of the images that epochs are chosen by, %.
    rows_per_s, data_wait (a share): of the last epoch. eta: seconds until the last epoch, at the
    pace of the epochs so far. changed: when it was last written to, seconds since 1970.
    losses: of every finished epoch, as far as it is a finite number.
    """

    path: Path
    state: str
    epoch: int
    epochs: int
    loss: float | None = None
    top1: float | None = None
    best_top1: float | None = None
    rows_per_s: float | None = None
    data_wait: float | None = None
    eta: float | None = None
    losses: tuple[float, ...] = ()
    changed: float = 0.0

    @property
    def over(self) -> bool:
        """Whether nothing more is to come."""
        return self.state in OVER


def run_status(path: str | Path, now: float | None = None, cell: Cell | None = None) -> RunStatus:
    """The status of one run folder. now: seconds since the epoch, for tests. cell: what the record
    of an experiment says of it.

    Raises UsageError if the folder is no run.
    """
    folder = open_run(path)
    epochs = folder.config().distill.epochs
    metrics = read_metrics(folder)
    now = time.time() if now is None else now
    own = _OF_CELLS.get(cell.state) if cell is not None and not folder.finished else None
    changed = folder.changed("metrics.jsonl" if metrics else "config.yaml")
    if not metrics:
        fresh = now - changed <= _QUIET_SECONDS or folder.in_use()
        state = own or ("starting" if fresh else "interrupted")
        return RunStatus(folder.path, state, 0, epochs, changed=changed)
    last, seconds = metrics[-1], _numbers(metrics, "train/seconds")
    pace = sum(seconds) / max(1, len(seconds))
    # With a validation, test images are measured at the end.
    named = next((name for name in ("test/top1", "validation/top1") if name in last), "")
    tops = _numbers(metrics, named)
    return RunStatus(
        path=folder.path,
        state=own or _state(folder, pace, now - changed),
        epoch=len(metrics),
        epochs=epochs,
        loss=_number(last, "train/loss"),
        top1=tops[-1] if tops else None,
        best_top1=max(tops, default=None),
        rows_per_s=_number(last, "train/rows_per_s"),
        data_wait=_number(last, "train/data_wait"),
        eta=pace * (epochs - len(metrics)),
        losses=tuple(_numbers(metrics, "train/loss")),
        changed=changed,
    )


@dataclass(frozen=True)
class Look:
    """What is found at a place: runs, those that go on first and then the newest; experiments whose
    cells they are, in the same order; why others cannot be shown."""

    runs: list[RunStatus]
    experiments: list[Experiment]
    failures: list[UsageError]

    @property
    def over(self) -> bool:
        """Whether nothing more is to come: no run goes on, and no command runs an experiment."""
        now = time.time()
        lives = (e for e in self.experiments if not e.finished and e.beat is not None)
        waiting = any(now - (e.beat or 0.0) < _QUIET_SECONDS for e in lives)
        return not waiting and all(run.over for run in self.runs)


def look(path: str | Path) -> Look:
    """The status of every run at a place or below it: a run, a comparison, a sweep, or a folder of
    them. Raises UsageError if there is nothing."""
    found, places, failures = _found(path)
    experiments, cells = _experiments(places, failures)
    for run in cells:
        if run not in found and open_run(run).has("store.json"):
            found.append(run)
    if not found and not failures and not experiments:
        raise UsageError(
            f"{path} has no run folder: name one that `egapipe distill`, `compare` or `sweep` "
            "printed"
        )
    runs = []
    for run in found:
        try:
            runs.append(run_status(run, cell=cells.get(run)))
        except (OSError, EgapipeError) as error:
            failures.append(UsageError(f"{run} cannot be shown: {one_line(error)}"))
    runs.sort(key=lambda status: (status.over, -status.changed))
    experiments.sort(key=lambda one: (one.beat is None, -_latest(one)))
    return Look(runs, experiments, failures)


def _latest(experiment: Experiment) -> float:
    """When something of an experiment last happened, in seconds since 1970; 0 if nobody knows."""
    times = [time for cell in experiment.cells for time in (cell.started, cell.ended)]
    return max(time or 0.0 for time in (0.0, experiment.beat, *times))


def _experiments(
    places: Sequence[RunFolder], failures: list[UsageError]
) -> tuple[list[Experiment], dict[str | Path, Cell]]:
    """The experiments in folders, and run -> its cell there."""
    experiments, cells = [], dict[str | Path, Cell]()
    for place in places:
        try:
            recorded = read_experiment(place)
        except (OSError, EgapipeError) as error:
            failures.append(UsageError(f"{place.where} cannot be shown: {one_line(error)}"))
            continue
        experiments.append(recorded.experiment)
        for cell in recorded.experiment.cells:
            run = recorded.run(cell)
            if run is not None:
                own = run.url or Path(os.path.normpath(run.path))
                cells.setdefault(own, cell)
    return experiments, cells


def find_runs(path: str | Path) -> tuple[list[str | Path], list[UsageError]]:
    """Path or URL itself if it is of a run, else those of the run folders below it, by name; and
    the reason for each folder that cannot be looked into, which hides no other."""
    runs, _, failures = _found(path)
    return runs, failures


def _found(path: str | Path) -> tuple[list[str | Path], list[RunFolder], list[UsageError]]:
    """What `find_runs` finds, and the folders of experiments."""
    folder, runs, places = open_run(path), list[str | Path](), list[RunFolder]()
    failures = list[UsageError]()
    if folder.url is not None:
        here = [folder] if is_experiment(folder) else []
        return list(_runs_there(folder.url)), here, failures

    def note(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError | NotADirectoryError):
            failures.append(UsageError(f"cannot look into {error.filename}: {one_line(error)}"))

    for name, folders, files in os.walk(folder.path, onerror=note):
        if all(one in files for one in _OF_A_RUN):
            runs.append(Path(name))
            folders.clear()
        elif RECORD in files or COMPARISON in files or TRIALS in folders:
            places.append(RunFolder(Path(name)))
    return sorted(runs, key=str), places, failures


def _runs_there(url: str) -> Iterator[str]:
    """URLs of the run folders at a URL or below it. Raises StoreError."""
    with open_objects(url).explained("list", ""):
        names = [f"/{name}" for name in states_below(url)]
    ends = [f"/{name}" for name in _OF_A_RUN]
    having = [{n.removesuffix(end) for n in names if n.endswith(end)} for end in ends]
    return (url + folder for folder in sorted(set.intersection(*having)))


def _state(folder: RunFolder, pace: float, silent: float) -> str:
    if folder.finished:
        return "finished"
    if silent <= max(_QUIET_EPOCHS * pace, _QUIET_SECONDS):
        return "running"
    return "quiet" if folder.in_use() else "interrupted"


def _number(line: Mapping[str, Any], name: str) -> float | None:
    """A value of an epoch; None if it is no finite number, or not there."""
    value = line.get(name)
    return value if isinstance(value, int | float) and math.isfinite(value) else None


def _numbers(lines: list[dict[str, Any]], name: str) -> list[float]:
    values = (_number(line, name) for line in lines)
    return [value for value in values if value is not None]


def sparkline(values: list[float], width: int = 16) -> str:
    """The last values, finite numbers, as a row of blocks from the lowest to the highest."""
    blocks = "▁▂▃▄▅▆▇█"
    shown = values[-width:]
    low, high = min(shown, default=0.0), max(shown, default=0.0)
    span = high - low or 1.0
    return "".join(blocks[round((value - low) / span * (len(blocks) - 1))] for value in shown)
