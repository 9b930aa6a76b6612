"""What a tracker is told of folders: a training, or an experiment with its trainings."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from egapipe.pipeline.results.experiment import Cell, Recorded
from egapipe.pipeline.results.runs import RunFolder
from egapipe.stages.track.client import Entry, Status


@dataclass(frozen=True)
class Training:
    """A run of a tracker, and the run folder whose epochs it has; None for an experiment's own."""

    entry: Entry
    run: RunFolder | None
    status: Status
    started: float | None = None
    ended: float | None = None


def of_run(run: RunFolder, status: Status) -> Training:
    """A training by itself."""
    name = run.path.name
    settings = flattened(run.config().model_dump(mode="json"))
    return Training(Entry(name, name, None, settings, {"egapipe": "run"}), run, status)


def of_experiment(recorded: Recorded) -> Training:
    """The experiment itself."""
    experiment, name = recorded.experiment, recorded.folder.path.name
    settings = flattened(recorded.folder.config().model_dump(mode="json"))
    status: Status = "done" if experiment.finished else "running"
    return Training(Entry(name, name, None, settings, {"egapipe": experiment.kind}), None, status)


def of_cell(recorded: Recorded, cell: Cell) -> Training | None:
    """A training of an experiment; None before it has begun."""
    run, setting = recorded.run(cell), recorded.experiment.setting(cell.setting)
    if run is None or not run.has("config.yaml"):
        return None
    parent = recorded.folder.path.name
    entry = Entry(
        f"{parent}/{cell.number}",
        f"{setting.name} seed {cell.seed}",
        parent,
        flattened(run.config().model_dump(mode="json")),
        {"egapipe": "cell", "setting": setting.name, "run": run.where},
    )
    status: Status = "running" if cell.state == "planned" else cell.state
    return Training(entry, run, status, cell.started, cell.ended)


def flattened(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Settings by dotted path, without those that are not set."""
    return dict(_flat(tree, prefix))


def _flat(tree: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{name}.")
        elif value is not None:
            yield f"{prefix}{name}", value
