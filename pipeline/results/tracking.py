"""Metrics of a run: a JSON line and TensorBoard scalars an epoch."""

import json
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from egapipe.pipeline.disk.files import json_object, replace_file
from egapipe.pipeline.errors import UsageError
from egapipe.pipeline.machine.repeated import repeated
from egapipe.pipeline.results.runs import RunFolder

_LOOK_SECONDS = 0.5
# Each look is a request.
_LOOK_ELSEWHERE_SECONDS = 5.0
_log = logging.getLogger(__name__)


class Tracker:
    """Appends an epoch's metrics; on a resume, what lies past the checkpoint is dropped first."""

    def __init__(self, run: RunFolder, first_epoch: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._run, self._file = run, run.metrics
        _forget(self._file, first_epoch)
        self._board = SummaryWriter(str(run.tensorboard), purge_step=first_epoch)

    def log(self, epoch: int, metrics: Mapping[str, float]) -> None:
        """Record an epoch's metrics, at once on disk."""
        with self._file.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"epoch": epoch, **metrics}) + "\n")
            file.flush()
            os.fsync(file.fileno())
        for name, value in metrics.items():
            self._board.add_scalar(name, value, epoch)
        self._board.flush()
        # Before the checkpoint that goes on after this epoch.
        self._run.put("metrics.jsonl", "tensorboard/")

    def close(self) -> None:
        """Close the event file."""
        self._board.close()


def read_metrics(run: RunFolder) -> list[dict[str, Any]]:
    """The metrics of every finished epoch, in order."""
    if not run.has("metrics.jsonl"):
        return []
    return _whole_lines(run.read("metrics.jsonl"), f"{run.where}/metrics.jsonl")


@contextmanager
def following(run: RunFolder, report: Callable[[int, Mapping[str, float]], None]) -> Iterator[None]:
    """For the length of a block, `report(epoch, metrics)` of every epoch that other processes write
    into a run folder, once each. It is called in a thread, which an exception of it ends."""
    known = max((line["epoch"] for line in read_metrics(run)), default=-1)

    def follow() -> None:
        nonlocal known
        for line in read_metrics(run):
            if line["epoch"] > known:
                known = line["epoch"]
                report(known, line)

    seconds = _LOOK_SECONDS if run.url is None else _LOOK_ELSEWHERE_SECONDS
    with repeated(follow, seconds, "follow-metrics", last=True):
        yield


def _whole_lines(data: bytes, path: str) -> list[dict[str, Any]]:
    """The records up to the first line that is none, which a lost machine may leave."""
    lines = data.split(b"\n")
    records = []
    # A killed process can leave a last line without its end: it is not a record yet.
    for number, line in enumerate(lines[:-1], start=1):
        try:
            record = json_object(line, f"{path}, line {number},")
        except UsageError as error:
            _log.warning("%s: the rest is left out", error)
            break
        if not isinstance(record.get("epoch"), int):
            _log.warning(
                "%s, line %d, has no epoch: it and what follows are left out", path, number
            )
            break
        records.append(record)
    return records


def _forget(path: Path, first_epoch: int) -> None:
    if not path.exists():
        return
    kept = [
        line for line in _whole_lines(path.read_bytes(), str(path)) if line["epoch"] < first_epoch
    ]
    replace_file(path, "".join(json.dumps(line) + "\n" for line in kept).encode())
