"""The record of an experiment while its cells change: the one writer of experiment.json."""

import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

from egapipe.pipeline.machine.repeated import repeated
from egapipe.pipeline.results.experiment import (
    Cell,
    Experiment,
    Setting,
    settings_of,
    write_experiment,
)
from egapipe.pipeline.results.runs import RunFolder

BEAT_SECONDS = 15.0
"""Between two writings of a record whose command lives."""
# Epochs of short trainings come faster than anybody reads them; elsewhere each is a request.
_EPOCH_SECONDS, _EPOCH_SECONDS_ELSEWHERE = 1.0, 10.0


class Listener(Protocol):
    """Who is told of an experiment besides its record: displays and trackers."""

    def changed(self, experiment: Experiment, cell: Cell) -> None:
        """A cell has another state."""

    def epoch(self, cell: Cell, epoch: int, metrics: Mapping[str, float]) -> None:
        """An epoch of a cell, from 0, is done."""


class Ledger:
    """Cells and their states, written to the experiment's folder whenever one changes.

    Every method may be called by several threads.
    """

    def __init__(
        self,
        folder: RunFolder,
        experiment: Experiment,
        measured: Callable[[RunFolder], float | None],
        listeners: Sequence[Listener] = (),
        clock: Callable[[], float] = time.time,
    ) -> None:
        """measured: the experiment's metric of a finished run."""
        self.folder, self._measured = folder, measured
        self._listeners, self._clock = list(listeners), clock
        self._fields = {name: getattr(experiment, name) for name in Experiment.model_fields}
        self._settings = {setting.name: setting for setting in experiment.settings}
        self._cells = {cell.number: cell for cell in experiment.cells}
        self._lock = threading.RLock()
        self._written = -math.inf
        self._earlier = experiment.seconds or 0.0
        self._began = clock()

    def listen(self, listener: Listener) -> None:
        """Tell somebody else, too."""
        self._listeners.append(listener)

    @property
    def experiment(self) -> Experiment:
        """Everything as it is now."""
        with self._lock:
            parts = {
                "settings": tuple(self._settings.values()),
                "cells": tuple(self._cells[number] for number in sorted(self._cells)),
            }
            return Experiment.model_construct(**{**self._fields, **parts})

    def cell(self, number: int) -> Cell:
        """A cell as it is now."""
        with self._lock:
            return self._cells[number]

    def add(self, setting: Setting, cell: Cell) -> None:
        """Plan a cell, at once on disk: what a searcher has proposed is not proposed twice."""
        with self._lock:
            self._settings.setdefault(setting.name, setting)
            self._cells[cell.number] = cell
            self.write()

    def new_setting(self, changes: Mapping[str, Any]) -> Setting:
        """A setting of a sweep with a name of its own; `add` puts it there with its first cell."""
        with self._lock:
            [made] = settings_of([changes])
            name, count = made.name, 1
            while name in self._settings:
                count += 1
                name = f"{made.label} ({count})"
            return made.model_copy(update={"name": name})

    def move(self, number: int, changes: Mapping[str, Any]) -> None:
        """The setting of a cell, which no other has, has changed in the middle of its training."""
        with self._lock:
            name = self._cells[number].setting
            self._settings[name] = self._settings[name].model_copy(update={"changes": changes})
            self.write()

    def finished(self, number: int, run: RunFolder) -> None:
        """A cell's training is finished: what it came to is in its run folder."""
        summary = run.summary()
        self.change(
            number,
            state="done",
            error=None,
            epoch=self._cells[number].epochs,
            value=self._measured(run),
            seconds=summary.get("train_seconds"),
        )

    def change(self, number: int, **fields: Any) -> None:
        """Change a cell; a new state is on disk at once, and its times are the present."""
        with self._lock:
            before = self._cells[number]
            if _finite(fields.get("value")) is None and "value" in fields:
                fields["value"] = None
            cell = before.model_copy(update=fields)
            if cell == before:
                return
            moved = cell.state != before.state
            if moved:
                cell = cell.model_copy(update=self._times(before, cell))
            self._cells[number] = cell
            running = sum(other.state == "running" for other in self._cells.values())
            self._fields["concurrent"] = max(self._fields["concurrent"], running)
            if moved:
                self.write()
            experiment = self.experiment
        for listener in self._listeners if moved else ():
            listener.changed(experiment, cell)

    def epoch(self, number: int, epoch: int, metrics: Mapping[str, float]) -> None:
        """An epoch of a cell, from 0, is done; metrics: as in metrics.jsonl."""
        value = _finite(metrics.get(self._fields["metric"]))
        self.change(number, epoch=epoch + 1, value=value)
        with self._lock:
            cell = self._cells[number]
            elsewhere = self.folder.url is not None
            rest = _EPOCH_SECONDS_ELSEWHERE if elsewhere else _EPOCH_SECONDS
            if self._clock() - self._written >= rest:
                self.write()
        for listener in self._listeners:
            listener.epoch(cell, epoch, metrics)

    def set(self, **fields: Any) -> None:
        """Change what the experiment itself says, at once on disk."""
        with self._lock:
            self._fields.update(fields)
            self.write()

    def write(self) -> None:
        """Write the record."""
        with self._lock:
            self._written = self._clock()
            self._fields["seconds"] = self._earlier + self._written - self._began
            write_experiment(self.folder, self.experiment)

    @contextmanager
    def alive(self) -> Iterator[None]:
        """Say for the length of a block that a command runs this experiment."""
        self.set(beat=self._clock(), finished=False)
        try:
            with repeated(lambda: self.set(beat=self._clock()), BEAT_SECONDS, "beat"):
                yield
        finally:
            self._rest()

    def _rest(self) -> None:
        """Nothing runs any more: what was under way is still to be done."""
        with self._lock:
            for number, cell in self._cells.items():
                if cell.state == "running":
                    self._cells[number] = cell.model_copy(update={"state": "planned"})
            self.set(beat=None, finished=self._finished())

    def _finished(self) -> bool:
        """Whether all cells are there and over; a failed one may be tried again."""
        over = sum(cell.over for cell in self._cells.values())
        return bool(over == len(self._cells) >= self._fields["planned"])

    def _times(self, before: Cell, cell: Cell) -> dict[str, float | None]:
        now = self._clock()
        if cell.state == "running":
            return {"started": before.started or now, "ended": None}
        # Of one that was over before, its own end stays.
        return {"ended": cell.ended or now} if cell.over else {}


def _finite(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None
