"""The page of a folder of runs: everything that is in it, newest first."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from egapipe.pipeline.errors import EgapipeError, one_line
from egapipe.pipeline.results.experiment import Experiment, is_experiment, read_experiment
from egapipe.pipeline.results.runs import RunFolder
from egapipe.pipeline.results.standing import leading, standings
from egapipe.pipeline.results.tracking import read_metrics
from egapipe.stages.report.pages.document import Link, Section

# Below the folder that is named: of a project, and of a run in it.
_DEPTH = 3
_DIGITS = 8
# What is asked for first stands where a narrow screen begins.
_HEADING = (
    *("name", "top-1 %", "n", "state", "changed", "kind", "student", "objective", "features"),
    *("project", "seeds", "epochs", "seconds"),
)
_CHANGED = _HEADING.index("changed")
_TEXTS = (0, *range(3, 10))


@dataclass(frozen=True)
class Entry:
    """A run, comparison or sweep. changed: seconds since 1970. cells: as the table shows them,
    without name and date."""

    path: Path
    changed: float
    cells: tuple[str, ...]


def is_index(path: Path) -> bool:
    """Whether a folder is none of a run, and has some in it."""
    return not (path / "config.yaml").exists() and next(_folders(path), None) is not None


def index_sections(root: Path, out: Path, page: str) -> list[Section]:
    """One table of all runs, comparisons and sweeps below a folder; trials of a sweep are its own.

    out: the folder of the index. page: the name of a report, which the table leads to where there
    is one. A folder that cannot be
    read is left out with a line.
    """
    section, entries = Section("Runs, comparisons and sweeps"), []
    damaged = []
    for path in _folders(root):
        try:
            entries.append(_entry(RunFolder(path)))
        except (EgapipeError, OSError, LookupError, TypeError, ValueError, AttributeError) as error:
            damaged.append((str(path.relative_to(root)), one_line(error)))
    entries.sort(key=lambda entry: -entry.changed)
    section.text(
        f"{len(entries):,} in all, the newest first. n counts trainings; the accuracy of a "
        "comparison or a sweep is the mean of its best setting. Students of the same features can "
        "be compared: filter by their digits. A name leads to its report, where there is one: "
        "`egapipe report FOLDER` writes it."
    )
    if entries:
        section.index(_HEADING, [_row(entry, out, page) for entry in entries], _TEXTS)
    if damaged:
        section.heading("Cannot be read")
        section.long_texts(["folder", "why"], damaged)
    return [section]


def _folders(root: Path, depth: int = _DEPTH) -> Iterator[Path]:
    """Folders with a configuration, none of which is inside of another."""
    try:
        inside = sorted(path for path in root.iterdir() if path.is_dir() and not path.is_symlink())
    except OSError:
        return
    for path in inside:
        if (path / "config.yaml").is_file():
            yield path
        elif depth > 1 and not path.name.startswith("."):
            yield from _folders(path, depth - 1)


def _entry(folder: RunFolder) -> Entry:
    config = folder.config()
    objective = "+".join(config.distill.objective.model_dump(exclude_none=True)) or "ce"
    known = (config.name, config.distill.student.name, objective)
    if is_experiment(folder):
        experiment = read_experiment(folder).experiment
        return Entry(folder.path, _changed(folder), _of_experiment(experiment, folder, known))
    return Entry(folder.path, _changed(folder), _of_run(folder, known))


def _of_run(folder: RunFolder, known: tuple[str, str, str]) -> tuple[str, ...]:
    config, metrics = folder.config(), read_metrics(folder)
    summary: dict[str, Any] = folder.summary() if folder.finished else {}
    top1 = summary.get("top1", metrics[-1].get("test/top1") if metrics else None)
    state = "done" if folder.finished else "failed" if folder.has("error.json") else "unfinished"
    project, student, objective = known
    return (
        *(_number(top1, ".2f"), "1", state, "run", student, objective, _source(folder), project),
        *(str(config.distill.seed), f"{len(metrics)} of {config.distill.epochs}"),
        _number(summary.get("train_seconds"), ",.0f"),
    )


def _of_experiment(
    experiment: Experiment, folder: RunFolder, known: tuple[str, str, str]
) -> tuple[str, ...]:
    project, student, _ = known
    best = leading(experiment, standings(experiment))
    counts = experiment.counts
    groups = [group for group in experiment.groups if group]
    runs = [run for cell in experiment.cells if cell.run for run in [folder.beside(cell.run)]]
    seeds = sorted({cell.seed for cell in experiment.cells})
    of = "varied" if experiment.kind == "sweep" else f"{len(experiment.settings)} variants"
    seconds = sum(cell.seconds or 0.0 for cell in experiment.cells)
    return (
        "" if best is None else f"{best.mean:.2f}",
        *(str(counts["done"]), _state(experiment), experiment.kind),
        *(", ".join(groups) or student, of),
        *(next((_source(run) for run in runs if run.has("store.json")), ""), project),
        ", ".join(map(str, seeds)),
        str(max((cell.epochs for cell in experiment.cells), default="")),
        f"{seconds:,.0f}" if seconds else "",
    )


def _state(experiment: Experiment) -> str:
    """`done`, or how many trainings are in which state."""
    counts = {state: count for state, count in experiment.counts.items() if count}
    if experiment.finished and set(counts) <= {"done"}:
        return "done"
    return ", ".join(f"{count:,} {state}" for state, count in counts.items())


def _source(folder: RunFolder) -> str:
    """Digits of the features that a run learned from: equal ones can be compared."""
    record = folder.read_json("store.json") if folder.has("store.json") else {}
    return str(record.get("content_hash", ""))[:_DIGITS]


def _changed(folder: RunFolder) -> float:
    """When something of a run was last written, in seconds since 1970."""
    names = ("summary.json", "experiment.json", "comparison.json", "metrics.jsonl", "config.yaml")
    return max(folder.changed(name) for name in names if folder.has(name))


def _row(entry: Entry, out: Path, page: str) -> list[object]:
    name: object = entry.path.name
    if (entry.path / page).is_file():
        relative = Path(os.path.relpath(entry.path / page, out)).as_posix()
        # From here, whatever a name looks like.
        name = Link(entry.path.name, f"./{quote(relative)}")
    # In local time, and to the second, so that text sorts as time does.
    when = datetime.fromtimestamp(entry.changed).astimezone()
    cells = [name, *entry.cells]
    return [*cells[:_CHANGED], f"{when:%Y-%m-%d %H:%M:%S}", *cells[_CHANGED:]]


def _number(value: Any, form: str) -> str:
    return format(value, form) if isinstance(value, int | float) else ""
