"""The content of a comparison as plain values: cells, planned cells and rows."""

import math
from collections.abc import Mapping
from typing import Any

from egapipe.pipeline.errors import UsageError
from egapipe.pipeline.results.experiment import Cell, Experiment, read_experiment
from egapipe.pipeline.results.runs import RunFolder
from egapipe.pipeline.results.standing import Standing, standings


def is_comparison(folder: RunFolder) -> bool:
    """Whether a folder is of a comparison."""
    from egapipe.pipeline.results.experiment import is_experiment

    return is_experiment(folder) and read_experiment(folder).experiment.kind == "comparison"


def recorded(folder: RunFolder) -> dict[str, Any]:
    """What is recorded of a comparison. Raises UsageError if nothing of it is done yet."""
    return _content(read_experiment(folder).experiment, folder)


def without(
    content: dict[str, Any], folder: RunFolder, reasons: Mapping[str, str]
) -> dict[str, Any]:
    """The content as if some trainings had failed. reasons: run -> why.

    folder: the comparison's. Raises UsageError if none is left.
    """
    experiment = read_experiment(folder).experiment
    cells = tuple(
        cell.model_copy(update={"state": "failed", "error": reasons[cell.run]})
        if cell.run is not None and cell.run in reasons
        else cell
        for cell in experiment.cells
    )
    if not any(cell.state == "done" for cell in cells):
        reason = next(iter(reasons.values()))
        raise UsageError(f"no training of the comparison {folder.where} counts: {reason}")
    return _content(experiment.model_copy(update={"cells": cells}), folder)


def _content(found: Experiment, folder: RunFolder) -> dict[str, Any]:
    experiment = Experiment.model_validate(found.model_dump())
    done = [cell for cell in experiment.cells if cell.state == "done"]
    if not done:
        raise UsageError(
            f"no training of the comparison {folder.where} is done yet: run the same"
            " `egapipe compare` again"
        )
    return {
        "name": experiment.name,
        "confidence": experiment.confidence,
        "weights": experiment.weights,
        "teacher_top1": experiment.teacher,
        "finished": experiment.finished,
        "planned": [
            {**_key(experiment, c), "state": c.state, "error": c.error} for c in experiment.cells
        ],
        "cells": [
            {**_key(experiment, c), "run": c.run, "top1": c.value, "seconds": c.seconds or 0.0}
            for c in done
        ],
        "rows": [_row(row) for row in standings(experiment) if row.n],
    }


def _key(experiment: Experiment, cell: Cell) -> dict[str, Any]:
    setting = experiment.setting(cell.setting)
    return {"student": setting.group, "variant": setting.label, "seed": cell.seed}


def _row(row: Standing) -> dict[str, Any]:
    names = ("mean", "std", "gain", "low", "high", "pairs", "seconds", "n", "p", "separates")
    values = {name: getattr(row, name) for name in names}
    return {
        "student": row.setting.group,
        "variant": row.setting.label,
        **{k: None if isinstance(v, float) and math.isnan(v) else v for k, v in values.items()},
    }
