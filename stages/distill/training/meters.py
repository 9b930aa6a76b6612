"""Running sums of an epoch and what they mean."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor

from egapipe.stages.distill.data.batch import Batch
from egapipe.stages.distill.model.forward import Losses


class Clock:
    """Seconds of the loop, and of those the seconds it waited for data.

    On a GPU the host runs ahead of the device: there a wait is the time between the end of the step
    before and the arrival of the batch, by the device's own events.
    """

    def __init__(self, device: torch.device) -> None:
        self._start = time.perf_counter()
        self._device = device
        self._waited = 0.0
        self._events: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Count a block as waiting for data."""
        if self._device.type == "cuda":
            before, after = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            before.record()
            yield
            after.record()
            self._events.append((before, after))
            return
        asked = time.perf_counter()
        yield
        self._waited += time.perf_counter() - asked

    @property
    def wait(self) -> float:
        """Seconds waited so far; waits for the device."""
        if self._events:
            torch.cuda.synchronize(self._device)
            self._waited += sum(a.elapsed_time(b) for a, b in self._events) / 1e3
            self._events.clear()
        return self._waited

    def lap(self) -> float:
        """Seconds since the start."""
        return time.perf_counter() - self._start


class Sums:
    """Running sums of an epoch, kept on the device so that no step waits for them."""

    def __init__(self) -> None:
        self._names: list[str] = []
        self._total: Tensor | None = None
        self._rows = self._steps = 0

    def begin(self) -> None:
        """Start an epoch."""
        self._rows = self._steps = 0
        if self._total is not None:
            self._total.zero_()

    def add(self, losses: Losses) -> None:
        """Add the losses of a step, on the device alone."""
        values = {**losses.parts, "correct": losses.correct, "labelled": losses.labelled}
        step = torch.stack([value.detach().double() for value in values.values()])
        if self._total is None:
            self._names, self._total = list(values), torch.zeros_like(step)
        self._total.add_(step)

    def count(self, batch: Batch) -> None:
        """Count a step and its rows, on the host alone."""
        self._rows += len(batch.rows)
        self._steps += 1

    def read(self, clock: Clock) -> dict[str, float]:
        """The sums so far. Waits for the device."""
        totals = [] if self._total is None else self._total.tolist()
        now = dict(zip(self._names, totals, strict=True))
        now |= {"rows": self._rows, "steps": self._steps}
        return now | {"wait": clock.wait, "seconds": clock.lap()}


def epoch_means(sums: Mapping[str, float]) -> dict[str, float]:
    """An epoch's metrics from its sums over steps and workers, see `over_workers`."""
    values = dict(sums)
    seconds, wait = values.pop("seconds"), values.pop("wait")
    steps, rows = values.pop("steps"), values.pop("rows")
    workers = values.pop("workers")
    correct, labelled = values.pop("correct"), values.pop("labelled")
    return {
        **{f"train/{name}": value / steps for name, value in values.items()},
        "train/top1": 100.0 * correct / max(1.0, labelled),
        "train/seconds": seconds / workers,
        "train/rows_per_s": rows / (seconds / workers),
        "train/data_wait": wait / seconds,
    }
