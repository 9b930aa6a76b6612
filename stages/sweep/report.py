"""What a sweep found: a row a trial, the best configuration, a summary."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from egapipe.pipeline.config import Config, to_yaml
from egapipe.pipeline.config.sweep import SweepConfig
from egapipe.pipeline.disk.comma_separated import comma_separated
from egapipe.pipeline.disk.files import replace_file
from egapipe.pipeline.machine.versions import installed, source_commit
from egapipe.pipeline.results.learned import require_one_source
from egapipe.pipeline.results.runs import RunFolder
from egapipe.pipeline.results.tracking import read_metrics
from egapipe.stages.sweep.folder import SweepFolder
from egapipe.stages.sweep.plan import Changes, changed
from egapipe.stages.sweep.settings import SEED, Group, by_settings, unseparated
from egapipe.stages.sweep.slots import Slots
from egapipe.stages.sweep.state import Status, TrialState, best
from egapipe.stages.sweep.trial import threads

SUMMARY = "summary.json"
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
    run: Path
    """Its run folder."""
    error: str | None
    """Why it failed."""


@dataclass(frozen=True)
class SweepReport:
    """A finished sweep: its folder, its trials by number, and the best of those that finished."""

    folder: Path
    trials: list[SweepTrial]
    best: SweepTrial | None
    """None if no trial reached its last epoch."""
    metric: str
    mode: str
    seconds: float
    """Of the command that finished it."""
    concurrent: int
    """Most trials that were seen running at once, by that command."""
    finished_before: bool = False
    """True if the sweep was finished before and nothing was trained now."""

    @property
    def best_config(self) -> Path:
        """best.yaml, for `egapipe distill -c`."""
        return self.folder / "best.yaml"

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


def make_report(
    config: Config,
    folder: SweepFolder,
    states: Sequence[TrialState],
    concurrent: int,
    seconds: float,
) -> SweepReport:
    """The report of trials that have all ended. concurrent: most that ran at once."""
    sweep = config.sweep
    winner = best(states, sweep.mode)
    trials = [
        SweepTrial(s.number, s.changes, s.status, s.epochs, s.value, s.run, s.error) for s in states
    ]
    first = next((t for t in trials if winner is not None and t.number == winner.number), None)
    return SweepReport(folder.path, trials, first, sweep.metric, sweep.mode, seconds, concurrent)


def write_report(config: Config, folder: SweepFolder, report: SweepReport, slots: Slots) -> None:
    """Write the tables of trials and, where there is a best one, best.yaml.

    Raises UsageError if trials learned from different features.
    """
    require_one_source({f"trial {t.number}": RunFolder(t.run) for t in report.trials})
    rows = [_row(config, folder, trial) for trial in report.trials]
    _write_tables(folder, rows)
    if report.best is not None:
        text = best_yaml(config, report, slots)
        replace_file(report.best_config, text.encode())


def finish(config: Config, folder: SweepFolder, report: SweepReport) -> None:
    """Write summary.json: the sweep is finished."""
    folder.write_json(SUMMARY, _summary(config, folder, report))


def read_report(folder: SweepFolder) -> SweepReport:
    """The report of a finished sweep. Raises UsageError if it is damaged."""
    content = folder.read_json(SUMMARY)
    trials = [
        SweepTrial(**{**trial, "run": folder.path / trial["run"]}) for trial in content["trials"]
    ]
    first = next((trial for trial in trials if trial.number == content["best"]), None)
    return SweepReport(
        folder.path,
        trials,
        first,
        content["metric"],
        content["mode"],
        content["seconds"],
        content["concurrent"],
        finished_before=True,
    )


def best_yaml(config: Config, report: SweepReport, slots: Slots) -> str:
    """The configuration of the best trial, with where it comes from in a comment."""
    if report.best is None:
        raise ValueError("no trial has finished")
    tree = changed(config, report.best.changes)
    # With as many threads as the trial had, it is the same training to the last bit.
    distill = tree.distill.model_copy(update=threads(tree, slots))
    tree = tree.model_copy(update={"distill": distill, "sweep": SweepConfig()})
    value = f"{report.metric} {report.best.value:.6g}"
    comment = f"# Trial {report.best.number} of {report.folder.name}: {value}.\n"
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
            {**trial.__dict__, "run": str(trial.run.relative_to(folder.path))}
            for trial in report.trials
        ],
    }


def _row(config: Config, folder: SweepFolder, trial: SweepTrial) -> dict[str, Any]:
    lines = read_metrics(RunFolder(trial.run))
    metrics: Mapping[str, Any] = lines[-1] if lines else {}
    return {
        "trial": trial.number,
        "status": trial.status,
        **{path: _plain(trial.changes.get(path)) for path in config.sweep.space},
        "epochs": trial.epochs,
        **{name: value for name, value in metrics.items() if name != "epoch"},
        "run": str(trial.run.relative_to(folder.path)),
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
    replace_file(folder.path / "trials.csv", comma_separated(names, rows))
    columns = {name: _column([row.get(name) for row in rows]) for name in names}
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(columns), sink)
    replace_file(folder.path / "trials.parquet", sink.getvalue().to_pybytes())


def _column(values: Sequence[Any]) -> list[Any]:
    """Values of one type; numbers and texts in one column become texts."""
    kinds = {type(value) for value in values if value is not None}
    if kinds <= {int, float} or len(kinds) < 2:
        return [float(v) if v is not None and kinds == {int, float} else v for v in values]
    return [
        value if value is None or isinstance(value, str) else json.dumps(value) for value in values
    ]
