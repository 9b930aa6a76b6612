"""Comparisons and sweeps of an egapipe that kept no `experiment.json`, as the same record.

A comparison left comparison.json, a finished sweep summary.json; of one that was under way there
are the run folders of its trials alone.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from egapipe.pipeline.config import Config
from egapipe.pipeline.errors import UsageError
from egapipe.pipeline.results.experiment import Cell, Experiment, Setting, State, settings_of
from egapipe.pipeline.results.runs import RunFolder

COMPARISON, SWEEP, TRIALS = "comparison.json", "summary.json", "trials"
_SEED = "distill.seed"
_STATES: dict[str, State] = {"finished": "done", "stopped": "stopped", "failed": "failed"}


def is_former(folder: RunFolder) -> bool:
    """Whether a folder is of such a comparison or sweep."""
    return folder.has(COMPARISON) or (folder.path / TRIALS).is_dir()


def read_former(folder: RunFolder) -> Experiment:
    """The record that this egapipe would have written. Raises UsageError if there is nothing."""
    if not is_former(folder):
        raise UsageError(
            f"{folder.where} is not the folder of a comparison or sweep: it has no experiment.json"
        )
    name = COMPARISON if folder.has(COMPARISON) else SWEEP
    try:
        if name == COMPARISON:
            return _comparison(folder.read_json(name), folder.config())
        trials = folder.read_json(name) if folder.has(name) else _under_way(folder)
        return _sweep(trials, folder.config())
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError):
        raise UsageError(
            f"{folder.where}/{name} is damaged: run the same command again, which writes it anew"
        ) from None


def _comparison(content: Mapping[str, Any], config: Config) -> Experiment:
    done = {_key(cell): cell for cell in content["cells"]}
    planned = content.get("planned") or [{**cell, "state": "done"} for cell in done.values()]
    pairs = list(dict.fromkeys((cell["student"], cell["variant"]) for cell in planned))
    several = len({student for student, _ in pairs}) > 1
    settings = [
        Setting(
            name=f"{student} {variant}" if several else variant,
            label=variant,
            group=student,
            changes=_changes(config, student, variant),
        )
        for student, variant in pairs
    ]
    of = dict(zip(pairs, settings, strict=True))
    cells = []
    for number, cell in enumerate(planned):
        setting, found = of[cell["student"], cell["variant"]], done.get(_key(cell))
        epochs = int(setting.changes.get("distill.epochs", config.distill.epochs))  # type: ignore[arg-type]
        cells.append(
            Cell(
                number=number,
                setting=setting.name,
                seed=cell["seed"],
                state=cell["state"],
                error=cell.get("error"),
                epochs=epochs,
                epoch=epochs if found else 0,
                run=found["run"] if found else None,
                value=found["top1"] if found else None,
                seconds=found["seconds"] if found else None,
            )
        )
    return Experiment(
        kind="comparison",
        name=content["name"],
        metric="test/top1",
        mode="max",
        weights=content.get("weights", "last"),
        confidence=content["confidence"],
        baseline=planned[0]["variant"],
        finished=content.get("finished", True),
        planned=len(planned),
        teacher=content.get("teacher_top1"),
        settings=tuple(settings),
        cells=tuple(cells),
    )


def _key(cell: Mapping[str, Any]) -> tuple[Any, ...]:
    return cell["student"], cell["variant"], cell["seed"]


def _changes(config: Config, student: str, variant: str) -> dict[str, Any]:
    compare = config.compare
    own = {"distill.student.name": student} if student in compare.students else {}
    return {**own, **compare.students.get(student, {}), **compare.variants.get(variant, {})}


def _sweep(content: Mapping[str, Any], config: Config) -> Experiment:
    trials, kinds = content["trials"], dict[str, dict[str, Any]]()
    for trial in trials:
        kinds.setdefault(_text(trial["changes"]), _without_seed(trial["changes"]))
    settings = dict(zip(kinds, settings_of(kinds.values()), strict=True))
    cells = tuple(
        Cell(
            number=trial["number"],
            setting=settings[_text(trial["changes"])].name,
            seed=trial["changes"].get(_SEED, config.distill.seed),
            state=_STATES.get(trial["status"], "running"),
            run=trial["run"],
            error=trial["error"],
            epoch=trial["epochs"],
            epochs=trial["changes"].get("distill.epochs", config.distill.epochs),
            value=trial["value"],
        )
        for trial in trials
    )
    return Experiment(
        kind="sweep",
        name=content["name"],
        metric=content["metric"],
        mode=content["mode"],
        finished="best" in content,
        planned=max(len(cells), int(content.get("planned", 0))),
        concurrent=content["concurrent"],
        seconds=content["seconds"],
        settings=tuple(settings.values()),
        cells=cells,
    )


def _without_seed(changes: Mapping[str, Any]) -> dict[str, Any]:
    return {path: value for path, value in changes.items() if path != _SEED}


def _text(changes: Mapping[str, Any]) -> str:
    return json.dumps(_without_seed(changes), sort_keys=True)


def _under_way(folder: RunFolder) -> dict[str, Any]:
    """What summary.json would have said, from the trials' run folders."""
    config = folder.config()
    sweep = config.sweep
    trials = [
        _trial(run, folder, config)
        for run in sorted((folder.path / TRIALS).iterdir())
        if (run / "config.yaml").is_file() and run.name.partition("-")[0].isdigit()
    ]
    asked = sweep.samples if sweep.search != "grid" else 0
    return {
        "name": config.name,
        "metric": sweep.metric,
        "mode": sweep.mode,
        "planned": asked,
        "concurrent": 1,
        "seconds": None,
        "trials": trials,
    }


def _trial(path: Path, sweep: RunFolder, config: Config) -> dict[str, Any]:
    from egapipe.pipeline.results.tracking import read_metrics

    run = RunFolder(path)
    own, lines = run.config().model_dump(mode="json"), read_metrics(run)
    error = run.read_json("error.json")["error"] if run.has("error.json") else None
    values = {setting: _at(own, setting) for setting in config.sweep.space}
    return {
        "number": int(path.name.partition("-")[0]),
        "changes": {setting: value for setting, value in values.items() if value is not None},
        "status": "failed" if error else "finished" if run.finished else "running",
        "epochs": len(lines),
        "value": lines[-1].get(config.sweep.metric) if lines else None,
        "run": sweep.relative(run),
        "error": error,
    }


def _at(tree: Any, path: str) -> Any:
    """The value at a dotted path; None where there is none."""
    for name in path.split("."):
        tree = tree.get(name) if isinstance(tree, dict) else None
    return tree
