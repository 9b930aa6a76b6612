"""What a sweep found: a row a trial, the best configuration, a summary."""

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from egapipe.pipeline.config import Config, to_yaml
from egapipe.pipeline.config.sweep import SweepConfig
from egapipe.pipeline.disk.comma_separated import comma_separated
from egapipe.pipeline.machine.versions import installed, source_commit
from egapipe.pipeline.mathematics.importance import importance
from egapipe.pipeline.results.experiment import Experiment, State, read_experiment
from egapipe.pipeline.results.learned import require_one_source
from egapipe.pipeline.results.runs import open_run
from egapipe.pipeline.results.tracking import read_metrics
from egapipe.stages.experiment.cells import SEED, Changes
from egapipe.stages.experiment.slots import Slots
from egapipe.stages.experiment.trial import threads
from egapipe.stages.sweep.folder import SweepFolder
from egapipe.stages.sweep.plan import changed
from egapipe.stages.sweep.settings import Group, by_settings, unseparated

SUMMARY = "summary.json"
Status = Literal["waiting", "running", "finished", "stopped", "failed"]
_STATUS: dict[State, Status] = {
    "planned": "waiting",
    "running": "running",
    "done": "finished",
    "stopped": "stopped",
    "failed": "failed",
}
_VERSIONED = ("egapipe", "torch", "ray")


@dataclass(frozen=True)
class SweepTrial:
    """A trial that has ended."""

    number: int
    changes: Changes
    """Its settings by dotted path."""
    status: Status
    """finished, stopped or failed."""
    epochs: int
    """Epochs done."""
    value: float | None
    """The sweep's metric after the last of them."""
    run: Path | str
    """Path or URL of its run folder."""
    error: str | None
    """Why it failed."""


@dataclass(frozen=True)
class SweepReport:
    """A finished sweep: path or URL of its folder, its trials by number, and the best of those that
    finished."""

    folder: Path | str
    trials: list[SweepTrial]
    best: SweepTrial | None
    """None if no trial reached its last epoch."""
    metric: str
    mode: str
    seconds: float
    """Of all commands that ran it."""
    concurrent: int
    """Most trials that ran at once."""
    importance: dict[str, float] = field(default_factory=dict)
    """Setting -> its share of what the settings explain; empty where too little is known."""
    finished_before: bool = False
    """True if the sweep was finished before and nothing was trained now."""

    @property
    def best_config(self) -> Path | str:
        """best.yaml, for `egapipe distill -c`."""
        folder = self.folder
        return f"{folder}/best.yaml" if isinstance(folder, str) else folder / "best.yaml"

    def count(self, status: Status) -> int:
        """Trials that ended so."""
        return sum(trial.status == status for trial in self.trials)

    def settings(self) -> list[Group[SweepTrial]]:
        """The settings without their seeds, the best first."""
        return by_settings(self.trials, self.mode)

    @property
    def several_seeds(self) -> bool:
        """Whether a seed is among what trials differ in."""
        return len({trial.changes.get(SEED) for trial in self.trials}) > 1

    def verdict(self) -> str:
        """The best settings in words, and how sure that is; empty if no trial finished."""
        groups = self.settings()
        if not groups:
            return ""
        first, others, tied = groups[0], len(groups) - 1, unseparated(groups)
        spread = "" if math.isnan(first.std) else f" ± {first.std:.2g}"
        n = len(first.trials)
        of = "" if n == first.planned else f" of {first.planned}"
        text = f"{self.metric} {first.mean:.4g}{spread} over {n}{of} seed{'s'[: n != 1]}"
        if not others:
            return text
        if tied:
            text += f", which does not separate from {tied} of {others} other settings"
        else:
            text += f", which separates from all {others} other settings"
        return text + ("" if self.several_seeds else " (one seed says nothing of chance)")

    def ranked(self) -> list[SweepTrial]:
        """Finished trials first, the best first, those without a value last."""
        sign = -1 if self.mode == "max" else 1
        order = ("finished", "stopped", "failed")
        return sorted(
            self.trials,
            key=lambda t: (order.index(t.status), t.value is None, sign * (t.value or 0.0)),
        )


def make_report(config: Config, folder: SweepFolder, experiment: Experiment) -> SweepReport:
    """The report of trials that have all ended."""
    several = len({cell.seed for cell in experiment.cells}) > 1
    seeded = several or SEED in config.sweep.space or config.sweep.seeds is not None
    trials = [
        SweepTrial(
            cell.number,
            {**experiment.setting(cell.setting).changes, **({SEED: cell.seed} if seeded else {})},
            _STATUS[cell.state],
            cell.epoch,
            cell.value,
            folder.beside(str(cell.run)).place,
            cell.error,
        )
        for cell in experiment.cells
    ]
    groups = by_settings(trials, experiment.mode)
    return SweepReport(
        folder.place,
        trials,
        groups[0].trials[0] if groups else None,
        experiment.metric,
        experiment.mode,
        experiment.seconds or 0.0,
        experiment.concurrent,
        _importance(experiment),
    )


def _importance(experiment: Experiment) -> dict[str, float]:
    """By the mean over seeds of every setting with a finished training."""
    means = {s.name: experiment.values_of(s) for s in experiment.settings}
    known = [s for s in experiment.settings if means[s.name]]
    values = [statistics.fmean(means[s.name].values()) for s in known]
    return importance([s.changes for s in known], values)


def write_report(config: Config, folder: SweepFolder, report: SweepReport, slots: Slots) -> None:
    """Write the tables of trials and, where there is a best one, best.yaml.

    Raises UsageError if trials learned from different features.
    """
    require_one_source({f"trial {t.number}": open_run(t.run) for t in report.trials})
    rows = [_row(config, folder, trial) for trial in report.trials]
    _write_tables(folder, rows)
    if report.best is not None:
        folder.write("best.yaml", best_yaml(config, report, slots).encode())


def finish(config: Config, folder: SweepFolder, report: SweepReport) -> None:
    """Write summary.json: the sweep is finished."""
    folder.write_json(SUMMARY, _summary(config, folder, report))


def read_report(folder: SweepFolder) -> SweepReport:
    """The report of a finished sweep. Raises UsageError if it is damaged."""
    experiment = read_experiment(folder).experiment
    return replace(make_report(folder.config(), folder, experiment), finished_before=True)


def best_yaml(config: Config, report: SweepReport, slots: Slots) -> str:
    """The configuration of the best trial, with where it comes from in a comment."""
    if report.best is None:
        raise ValueError("no trial has finished")
    tree = changed(config, report.best.changes)
    # With as many threads as the trial had, it is the same training to the last bit.
    distill = tree.distill.model_copy(update=threads(tree, slots))
    tree = tree.model_copy(update={"distill": distill, "sweep": SweepConfig()})
    value = f"{report.metric} {report.best.value:.6g}"
    comment = f"# Trial {report.best.number} of {open_run(report.folder).path.name}: {value}.\n"
    if report.several_seeds:
        comment += f"# Of its settings: {report.verdict()}.\n"
    return comment + to_yaml(tree)


def _summary(config: Config, folder: SweepFolder, report: SweepReport) -> dict[str, Any]:
    return {
        "name": config.name,
        "metric": report.metric,
        "mode": report.mode,
        "best": None if report.best is None else report.best.number,
        "verdict": report.verdict(),
        "importance": report.importance,
        "settings": [
            {
                "changes": group.changes,
                "trials": [trial.number for trial in group.trials],
                "planned": group.planned,
                "mean": group.mean,
                "std": None if math.isnan(group.std) else group.std,
            }
            for group in report.settings()
        ],
        "seconds": report.seconds,
        "concurrent": report.concurrent,
        "commit": source_commit(),
        "versions": installed(_VERSIONED),
        "trials": [
            {**trial.__dict__, "run": folder.relative(open_run(trial.run))}
            for trial in report.trials
        ],
    }


def _row(config: Config, folder: SweepFolder, trial: SweepTrial) -> dict[str, Any]:
    run = open_run(trial.run)
    lines = read_metrics(run)
    metrics: Mapping[str, Any] = lines[-1] if lines else {}
    return {
        "trial": trial.number,
        "status": trial.status,
        **{path: _plain(trial.changes.get(path)) for path in config.sweep.space},
        "epochs": trial.epochs,
        **{name: value for name, value in metrics.items() if name != "epoch"},
        "run": folder.relative(run),
        "error": trial.error,
    }


def _plain(value: Any) -> Any:
    """A number or text as it is, a section or list as JSON."""
    return value if value is None or isinstance(value, str | int | float) else json.dumps(value)


def _write_tables(folder: SweepFolder, rows: Sequence[Mapping[str, Any]]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = list(dict.fromkeys(name for row in rows for name in row))
    # What ends a row: metrics of trials that failed early come later than those of others.
    names = [name for name in names if name not in ("run", "error")] + ["run", "error"]
    folder.write("trials.csv", comma_separated(names, rows))
    columns = {name: _column([row.get(name) for row in rows]) for name in names}
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(columns), sink)
    folder.write("trials.parquet", sink.getvalue().to_pybytes())


def _column(values: Sequence[Any]) -> list[Any]:
    """Values of one type; numbers and texts in one column become texts."""
    kinds = {type(value) for value in values if value is not None}
    if kinds <= {int, float} or len(kinds) < 2:
        return [float(v) if v is not None and kinds == {int, float} else v for v in values]
    return [
        value if value is None or isinstance(value, str) else json.dumps(value) for value in values
    ]
