"""Running sums of an epoch and what they mean."""

import time
from collections.abc import Iterator, Mapping

from torch import Tensor

from egapipe.stages.distill.loader import Batch
from egapipe.stages.distill.model import Losses


class Clock:
    """Seconds of the loop, and of those the seconds it waited for data."""

    def __init__(self) -> None:
        self._start = time.perf_counter()
        self.wait = 0.0

    def waiting(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """The batches, timing how long each is waited for."""
        while True:
            asked = time.perf_counter()
            batch = next(batches, None)
            self.wait += time.perf_counter() - asked
            if batch is None:
                return
            yield batch

    def lap(self) -> float:
        """Seconds since the start."""
        return time.perf_counter() - self._start


class Sums:
    """Running sums of an epoch, kept on the device so that no step waits for them."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._rows = self._steps = 0

    def add(self, losses: Losses, batch: Batch) -> None:
        """Count a step."""
        values = {**losses.parts, "correct": losses.correct, "labelled": losses.labelled}
        for name, value in values.items():
            self._sums[name] = self._sums.get(name, 0) + value.detach().double()
        self._rows += len(batch.rows)
        self._steps += 1

    def read(self, clock: Clock) -> dict[str, float]:
        """The sums so far."""
        now = {name: float(value) for name, value in self._sums.items()}
        now |= {"rows": self._rows, "steps": self._steps}
        return now | {"seconds": clock.lap(), "wait": clock.wait}


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
