"""Where a run stands, read from its folder: no process is asked."""

import math
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from egapipe.pipeline.errors import EgapipeError, UsageError, one_line
from egapipe.pipeline.locations.remote import states_below
from egapipe.pipeline.results.runs import RunFolder, open_run
from egapipe.pipeline.results.tracking import read_metrics
from egapipe.pipeline.store.location import open_objects

# A comparison or sweep has a configuration too, but has learned from no store itself.
_OF_A_RUN = ("config.yaml", "store.json")
# A run that was quiet for so many times its usual epoch is shown as such; it may have been killed.
_QUIET_EPOCHS, _QUIET_SECONDS = 3.0, 60.0


@dataclass(frozen=True)
class RunStatus:
    """One run after its last finished epoch; None where nothing is known yet.

    state: finished, running, quiet (no epoch for unusually long) or starting. epoch: of `epochs`
    that are finished. top1: of the images that epochs are chosen by, %. rows_per_s, data_wait (a
    share): of the last epoch. eta: seconds until the last epoch, at the pace of the epochs so far.
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


def run_status(path: str | Path, now: float | None = None) -> RunStatus:
    """The status of one run folder. now: seconds since the epoch, for tests.

    Raises UsageError if the folder is no run.
    """
    folder = open_run(path)
    epochs = folder.config().distill.epochs
    metrics = read_metrics(folder)
    if not metrics:
        return RunStatus(folder.path, "starting", 0, epochs)
    last, seconds = metrics[-1], _numbers(metrics, "train/seconds")
    pace = sum(seconds) / max(1, len(seconds))
    # With a validation, test images are measured at the end.
    named = next((name for name in ("test/top1", "validation/top1") if name in last), "")
    tops = _numbers(metrics, named)
    return RunStatus(
        path=folder.path,
        state=_state(folder, pace, time.time() if now is None else now),
        epoch=len(metrics),
        epochs=epochs,
        loss=_number(last, "train/loss"),
        top1=tops[-1] if tops else None,
        best_top1=max(tops, default=None),
        rows_per_s=_number(last, "train/rows_per_s"),
        data_wait=_number(last, "train/data_wait"),
        eta=pace * (epochs - len(metrics)),
        losses=tuple(_numbers(metrics, "train/loss")),
    )


def statuses(path: str | Path) -> tuple[list[RunStatus], list[UsageError]]:
    """The status of every run that `find_runs` finds, and why others cannot be shown.

    Raises UsageError if there is nothing of either.
    """
    runs, failures = find_runs(path)
    if not runs and not failures:
        raise UsageError(f"{path} has no run folder: name one that `egapipe distill` printed")
    found = []
    for run in runs:
        try:
            found.append(run_status(run))
        except (OSError, EgapipeError) as error:
            failures.append(UsageError(f"{run} cannot be shown: {one_line(error)}"))
    return found, failures


def find_runs(path: str | Path) -> tuple[list[str | Path], list[UsageError]]:
    """Path or URL itself if it is of a run, else those of the run folders below it, by name; and
    the reason for each folder that cannot be looked into, which hides no other."""
    folder, runs, failures = open_run(path), list[Path](), list[UsageError]()
    if folder.url is not None:
        return list(_runs_there(folder.url)), failures

    def note(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError | NotADirectoryError):
            failures.append(UsageError(f"cannot look into {error.filename}: {one_line(error)}"))

    for here, folders, files in os.walk(folder.path, onerror=note):
        if all(name in files for name in _OF_A_RUN):
            runs.append(Path(here))
            folders.clear()
    return sorted(runs), failures


def _runs_there(url: str) -> Iterator[str]:
    """URLs of the run folders at a URL or below it. Raises StoreError."""
    with open_objects(url).explained("list", ""):
        names = [f"/{name}" for name in states_below(url)]
    ends = [f"/{name}" for name in _OF_A_RUN]
    having = [{n.removesuffix(end) for n in names if n.endswith(end)} for end in ends]
    return (url + folder for folder in sorted(set.intersection(*having)))


def _state(folder: RunFolder, pace: float, now: float) -> str:
    if folder.finished:
        return "finished"
    silent = now - folder.changed("metrics.jsonl")
    return "quiet" if silent > max(_QUIET_EPOCHS * pace, _QUIET_SECONDS) else "running"


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
