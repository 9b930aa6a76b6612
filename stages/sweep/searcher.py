"""Optuna proposes trials: each setting is asked for only where the trial has it."""

import json
from dataclasses import dataclass
from typing import Any

import optuna
from ray.tune.search.optuna import OptunaSearch

from egapipe.pipeline.config import Config
from egapipe.pipeline.config.sweep import Dimension
from egapipe.stages.sweep.plan import Changes, present
from egapipe.stages.sweep.trial import CHANGES, NUMBER


@dataclass(frozen=True)
class Proposal:
    """Asks an Optuna trial for the settings of the next training; stored with the sweep's state."""

    config: Config

    def __call__(self, trial: Any) -> dict[str, Any]:
        """The settings by dotted path, and the trial's number."""
        space = self.config.sweep.space
        always = [path for path, dimension in space.items() if not dimension.objectives]
        values: Changes = {path: _suggest(trial, path, space[path]) for path in always}
        later = {path: _suggest(trial, path, space[path]) for path in present(self.config, values)}
        return {CHANGES: {**values, **later}, NUMBER: trial.number}


def optuna_search(config: Config) -> OptunaSearch:
    """A searcher by tree-structured Parzen estimators, Optuna's default."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    sweep = config.sweep
    return OptunaSearch(
        Proposal(config), metric=sweep.metric, mode=sweep.mode, seed=sweep.search_seed
    )


def _suggest(trial: Any, path: str, dimension: Dimension) -> Any:
    if dimension.uniform is not None:
        return trial.suggest_float(path, *dimension.uniform)
    if dimension.loguniform is not None:
        return trial.suggest_float(path, *dimension.loguniform, log=True)
    if dimension.randint is not None:
        return trial.suggest_int(path, *dimension.randint)
    # Its categories are plain values; a setting may be a whole section.
    texts = [json.dumps(value) for value in dimension.choice or ()]
    return json.loads(trial.suggest_categorical(path, texts))
