"""Optuna proposes trials: each setting is asked for only where the trial has it.

What it learns from is in the sweep's record: of a sweep that goes on, and of an earlier one that it
starts from, it is told before it proposes anything.
"""

import json
import statistics
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import TrialState, create_trial

from egapipe.pipeline.config import Config
from egapipe.pipeline.config.sweep import Dimension
from egapipe.pipeline.results.experiment import Cell, Setting
from egapipe.stages.experiment.cells import Changes, Planned, without_seed
from egapipe.stages.experiment.ledger import Ledger
from egapipe.stages.sweep.folder import SweepFolder
from egapipe.stages.sweep.plan import assemble, present, seeded
from egapipe.stages.sweep.warm import Known

# Of a setting that is over: epochs and value of each trial, None where it failed.
Outcome = tuple[int, float | None]


class Proposals:
    """The trials of a search by tree-structured Parzen estimators, Optuna's default.

    pending: trials that were proposed before, and are not over. known: settings of an earlier sweep
    with their values. first: settings to begin with.
    """

    def __init__(
        self,
        config: Config,
        folder: SweepFolder,
        ledger: Ledger,
        pending: Sequence[Planned],
        known: Iterable[Known] = (),
        first: Iterable[Changes] = (),
    ) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._config, self._folder, self._ledger = config, folder, ledger
        self._waiting = deque(pending)
        self._asked: dict[str, optuna.Trial] = {}
        self._outcomes: dict[str, list[Outcome]] = {}
        settings = ledger.experiment.settings
        self._proposed = len(settings)
        # Not the numbers again that were drawn before.
        seed = config.sweep.search_seed + 1009 * self._proposed
        self._study = optuna.create_study(
            direction="maximize" if config.sweep.mode == "max" else "minimize",
            sampler=optuna.samplers.TPESampler(seed=seed),
        )
        for one in known:
            self._tell_known(one.changes, [(config.distill.epochs, one.value)])
        for setting in settings:
            self._restore(setting, ledger.experiment.cells_of(setting))
        for changes in first if not settings else ():
            self._study.enqueue_trial(_texts(config, changes))

    @property
    def empty(self) -> bool:
        """Whether as many are proposed as there are to be, and none waits."""
        return not self._waiting and self._proposed >= self._config.sweep.samples

    def next(self) -> Planned | None:
        """A trial that waits, or one of the next proposal."""
        if not self._waiting and not self.empty:
            self._propose()
        return self._waiting.popleft() if self._waiting else None

    def over(self, number: int, epoch: int, value: float | None) -> None:
        """A trial is over; of a setting whose trials all are, Optuna is told."""
        setting = self._ledger.cell(number).setting
        outcomes = self._outcomes.setdefault(setting, [])
        outcomes.append((epoch, value))
        trial = self._asked.get(setting)
        if trial is None or len(outcomes) < len(self._config.sweep.seeds or (0,)):
            return
        state, steps, value = self._verdict(outcomes)
        for step, at in steps.items():
            trial.report(at, step)
        self._study.tell(trial, value, state)

    def _propose(self) -> None:
        trial = self._study.ask()
        made = assemble(self._config, self._suggested(trial))
        setting = self._ledger.new_setting(made.changes)
        first = self._proposed * len(self._config.sweep.seeds or (0,))
        self._asked[setting.name] = trial
        self._proposed += 1
        for number, one in enumerate(seeded(self._config, made), start=first):
            run = self._folder.trial(number, one.changes)
            distill = one.config.distill
            cell = Cell(
                number=number,
                setting=setting.name,
                seed=distill.seed,
                state="planned",
                epochs=distill.epochs,
                run=self._folder.relative(run),
            )
            self._ledger.add(setting, cell)
            self._waiting.append(Planned(number, one.changes, one.config, run))

    def _suggested(self, trial: optuna.Trial) -> Changes:
        space = self._config.sweep.space
        always = [path for path, dimension in space.items() if not dimension.objectives]
        values: Changes = {path: _suggest(trial, path, space[path]) for path in always}
        later = {path: _suggest(trial, path, space[path]) for path in present(self._config, values)}
        return {**values, **later}

    def _restore(self, setting: Setting, cells: Sequence[Cell]) -> None:
        """Tell of a setting that this sweep has had, or ask for it again if it is not over."""
        over = [(c.epoch, c.value if c.state != "failed" else None) for c in cells if c.over]
        if len(over) == len(cells):
            self._tell_known(setting.changes, over)
            return
        self._study.enqueue_trial(_texts(self._config, setting.changes))
        trial = self._study.ask()
        self._suggested(trial)
        self._asked[setting.name], self._outcomes[setting.name] = trial, over

    def _tell_known(self, changes: Mapping[str, Any], outcomes: Sequence[Outcome]) -> None:
        state, steps, value = self._verdict(outcomes)
        own = without_seed(changes)
        self._study.add_trial(
            create_trial(
                state=state,
                params=_texts(self._config, own),
                distributions={p: _distribution(self._config.sweep.space[p]) for p in own},
                value=value,
                intermediate_values=steps,
            )
        )

    def _verdict(
        self, outcomes: Sequence[Outcome]
    ) -> tuple[TrialState, dict[int, float], float | None]:
        """State, values by epoch and value: the mean over seeds, if all came to the end."""
        values = [value for _, value in outcomes if value is not None]
        if not values:
            return TrialState.FAIL, {}, None
        epoch, mean = min(epoch for epoch, _ in outcomes), statistics.fmean(values)
        if len(values) == len(outcomes) and epoch >= self._config.distill.epochs:
            return TrialState.COMPLETE, {}, mean
        return TrialState.PRUNED, {epoch: mean}, None


def _suggest(trial: optuna.Trial, path: str, dimension: Dimension) -> Any:
    if dimension.uniform is not None:
        return trial.suggest_float(path, *dimension.uniform)
    if dimension.loguniform is not None:
        return trial.suggest_float(path, *dimension.loguniform, log=True)
    if dimension.randint is not None:
        return trial.suggest_int(path, *dimension.randint)
    texts = [json.dumps(value) for value in dimension.choice or ()]
    return json.loads(trial.suggest_categorical(path, texts))


def _distribution(dimension: Dimension) -> BaseDistribution:
    if dimension.uniform is not None:
        return FloatDistribution(*dimension.uniform)
    if dimension.loguniform is not None:
        return FloatDistribution(*dimension.loguniform, log=True)
    if dimension.randint is not None:
        return IntDistribution(*dimension.randint)
    # Its categories are plain values; a setting may be a whole section.
    return CategoricalDistribution([json.dumps(value) for value in dimension.choice or ()])


def _texts(config: Config, changes: Mapping[str, Any]) -> Changes:
    """Values as Optuna has them."""
    space = config.sweep.space
    return {
        path: json.dumps(value) if space[path].choice is not None else value
        for path, value in without_seed(changes).items()
    }
