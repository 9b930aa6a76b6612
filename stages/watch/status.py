"""Where a run stands, read from its folder: no process is asked."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from egapipe.pipeline.errors import UsageError
from egapipe.pipeline.runs import RunFolder
from egapipe.pipeline.tracking import read_metrics

# A run that was quiet for so many times its usual epoch is shown as such; it may have been killed.
_QUIET_EPOCHS, _QUIET_SECONDS = 3.0, 60.0


@dataclass(frozen=True)
class RunStatus:
    """One run after its last finished epoch; None where nothing is known yet.

    state: finished, running, quiet (no epoch for unusually long) or starting. epoch: of `epochs`
    that are finished. top1: of the images that epochs are chosen by, %. rows_per_s, data_wait (a
    share): of the last epoch. eta: seconds until the last epoch, at the pace of the epochs so far.
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


def run_status(path: str | Path, now: float | None = None) -> RunStatus:
    """The status of one run folder. now: seconds since the epoch, for tests.

    Raises UsageError if the folder is no run.
    """
    folder = RunFolder(Path(path))
    epochs = folder.config().distill.epochs
    metrics = read_metrics(folder)
    if not metrics:
        return RunStatus(folder.path, "starting", 0, epochs)
    last, seconds = metrics[-1], [line["train/seconds"] for line in metrics]
    pace = sum(seconds) / len(seconds)
    # With a validation, test images are measured at the end.
    named = next((name for name in ("test/top1", "validation/top1") if name in last), "")
    tops = [line[named] for line in metrics if named in line]
    return RunStatus(
        path=folder.path,
        state=_state(folder, pace, time.time() if now is None else now),
        epoch=len(metrics),
        epochs=epochs,
        loss=last.get("train/loss"),
        top1=tops[-1] if tops else None,
        best_top1=max(tops, default=None),
        rows_per_s=last.get("train/rows_per_s"),
        data_wait=last.get("train/data_wait"),
        eta=pace * (epochs - len(metrics)),
    )


def find_runs(path: Path) -> list[Path]:
    """The folder itself if it is a run, else the run folders below it, by name.

    Raises UsageError if there is none.
    """
    runs = list(_runs(path))
    if not runs:
        raise UsageError(f"{path} has no run folder: name one that `egapipe distill` printed")
    return runs


def _runs(path: Path) -> Iterator[Path]:
    if _is_run(path):
        yield path
        return
    for config in sorted(path.rglob("config.yaml")):
        if _is_run(config.parent):
            yield config.parent


def _is_run(path: Path) -> bool:
    """A comparison or sweep has a configuration too, but no model."""
    return (path / "config.yaml").is_file() and (path / "store.json").is_file()


def _state(folder: RunFolder, pace: float, now: float) -> str:
    if folder.finished:
        return "finished"
    silent = now - folder.metrics.stat().st_mtime
    return "quiet" if silent > max(_QUIET_EPOCHS * pace, _QUIET_SECONDS) else "running"


def sparkline(values: list[float], width: int = 16) -> str:
    """The last values as a row of blocks, from the lowest to the highest of them."""
    blocks = "▁▂▃▄▅▆▇█"
    shown = values[-width:]
    low, high = min(shown, default=0.0), max(shown, default=0.0)
    span = high - low or 1.0
    return "".join(blocks[round((value - low) / span * (len(blocks) - 1))] for value in shown)


def losses(path: Path) -> list[float]:
    """The loss of every finished epoch."""
    lines: list[dict[str, Any]] = read_metrics(RunFolder(path))
    return [float(line["train/loss"]) for line in lines if "train/loss" in line]
