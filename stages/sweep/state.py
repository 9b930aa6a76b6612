"""Where each trial stands, as Ray Tune and the run folders tell it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from egapipe.pipeline.results.runs import RunFolder
from egapipe.stages.sweep.folder import ERROR
from egapipe.stages.sweep.plan import Changes
from egapipe.stages.sweep.reports import EPOCHS
from egapipe.stages.sweep.settings import by_settings
from egapipe.stages.sweep.trial import CHANGES, Setting, trial_number

Status = Literal["waiting", "running", "finished", "stopped", "failed"]
_LIVE: dict[str, Status] = {"PENDING": "waiting", "PAUSED": "waiting", "RUNNING": "running"}
_LONGEST_ERROR = 300


@dataclass(frozen=True)
class TrialState:
    """One trial at one moment."""

    number: int
    changes: Changes
    """Its settings by dotted path."""
    status: Status
    """`stopped`: ended early by the scheduler; `failed`: by an error."""
    epochs: int
    """Epochs done."""
    total: int
    """Epochs of its training."""
    value: float | None
    """The sweep's metric after the last of them."""
    eta: float | None
    """Seconds to its last epoch; None unless it is running."""
    run: Path
    """Its run folder."""
    error: str | None = None
    """Why it failed, in one line."""

    @property
    def ended(self) -> bool:
        """Whether nothing more is to come."""
        return self.status in ("finished", "stopped", "failed")


def states(trials: Iterable[Any], setting: Setting) -> list[TrialState]:
    """The states of Ray Tune's trials, by number."""
    found = (_state(trial, setting) for trial in trials)
    return sorted(found, key=lambda state: state.number)


def best(states: Iterable[TrialState], mode: str) -> TrialState | None:
    """The first finished trial of the best settings by their mean over seeds, see `by_settings`."""
    groups = by_settings(states, mode)
    return groups[0].trials[0] if groups else None


def _state(trial: Any, setting: Setting) -> TrialState:
    number = trial_number(trial.trial_id, trial.config)
    changes = trial.config[CHANGES]
    run = setting.run(number, changes)
    last: Mapping[str, Any] = trial.last_result or {}
    status = _status(trial.status, run)
    total = int(changes.get("distill.epochs", setting.config["distill"]["epochs"]))
    value = last.get(setting.config["sweep"]["metric"])
    return TrialState(
        number=number,
        changes=changes,
        status=status,
        epochs=int(last.get(EPOCHS, 0)),
        total=total,
        value=None if value is None else float(value),
        eta=_eta(last, total) if status == "running" else None,
        run=run.path,
        error=_error(trial, run) if status == "failed" else None,
    )


def _status(status: str, run: RunFolder) -> Status:
    if status == "ERROR":
        return "failed"
    if status == "TERMINATED":
        return "finished" if run.finished else "stopped"
    return _LIVE.get(status, "waiting")


def _eta(last: Mapping[str, Any], total: int) -> float | None:
    """From the epochs that this process of the trial has done, evaluation included."""
    reports = last.get("iterations_since_restore", 0)
    if not reports:
        return None
    return float((total - last[EPOCHS]) * last["time_since_restore"] / reports)


def _error(trial: Any, run: RunFolder) -> str:
    if (run.path / ERROR).is_file():
        return str(run.read_json(ERROR)["error"])
    lines = [line.strip() for line in str(trial.get_error() or "").splitlines() if line.strip()]
    return lines[-1][:_LONGEST_ERROR] if lines else "its process was lost"
