"""A small comparison on real digits, and sweeps as `egapipe sweep` leaves them."""

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from egapipe.pipeline.config import load_config
from egapipe.pipeline.results.experiment import (
    Cell,
    Experiment,
    Setting,
    State,
    read_experiment,
    settings_of,
    write_experiment,
)
from egapipe.pipeline.results.runs import RunFolder
from egapipe.stages import compare, extract, report
from tests.stages.copies import copy_with

EditRun = Callable[..., Path]
MakeSweep = Callable[..., Path]
MadeComparison = Callable[..., Path]


@pytest.fixture(scope="session")
def comparison(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a comparison of two variants and two seeds."""
    folder = tmp_path_factory.mktemp("report")
    sets = [f"store.url={folder / 'stores'}", f"store.cache_dir={folder / 'cache'}"]
    few = ["views.count=1", "distill.epochs=2", "distill.threads=1", "compare.seeds=[0, 1]"]
    config = load_config("quickstart", [*sets, *few, f"runs={folder / 'runs'}"])
    for split in config.splits():
        extract.run(config, split=split, local=True)
    return compare.run(config).folder


@pytest.fixture(scope="session")
def finished(comparison: Path) -> Path:
    """A finished run folder: the second variant's, with EGA."""
    recorded = read_experiment(str(comparison))
    cell = next(cell for cell in recorded.experiment.cells if cell.setting == "ega")
    return (comparison / str(cell.run)).resolve()


@pytest.fixture(scope="session")
def run_page(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> report.Report:
    """The report of that run."""
    return report.run(finished, to=tmp_path_factory.mktemp("run-page"))


@pytest.fixture(scope="session")
def comparison_page(comparison: Path, tmp_path_factory: pytest.TempPathFactory) -> report.Report:
    """The report of that comparison."""
    return report.run(comparison, to=tmp_path_factory.mktemp("comparison-page"))


@pytest.fixture
def edit_run(finished: Path, tmp_path: Path) -> EditRun:
    """A copy of that run whose configuration has other values, by dotted path."""

    def edit(**values: object) -> Path:
        return copy_with(finished, tmp_path / "copy", values)

    return edit


@pytest.fixture(scope="session")
def made_comparison(comparison: Path, tmp_path_factory: pytest.TempPathFactory) -> MadeComparison:
    """The folder of a comparison with these variants, whose numbers are made up."""

    def make(variants: Sequence[str], seeds: int = 1) -> Path:
        folder = RunFolder(tmp_path_factory.mktemp("made") / "compare-made")
        folder.path.mkdir()
        shutil.copy(comparison / "config.yaml", folder.path)
        settings = [
            Setting(name=name, label=name, group="net", changes={"distill.lr": 0.01 * number})
            for number, name in enumerate(variants)
        ]
        pairs = [(setting.name, seed) for setting in settings for seed in range(seeds)]
        values = [70 + place // seeds * 0.5 + (place * 7 % 5) / 10 for place in range(len(pairs))]
        cells = [
            _cell(folder, number, name, seed, "done", value)
            for number, ((name, seed), value) in enumerate(zip(pairs, values, strict=True))
        ]
        kinds = {"kind": "comparison", "baseline": variants[0], "finished": True}
        write_experiment(folder, _experiment(settings, cells, **kinds))
        return folder.path

    return make


@pytest.fixture
def make_sweep(comparison: Path, tmp_path: Path) -> MakeSweep:
    """A sweep folder with these trials, each changes, state and value."""

    def make(
        *trials: tuple[Mapping[str, Any], State, float | None], mode: str = "max", planned: int = 0
    ) -> Path:
        folder = RunFolder(tmp_path / "sweep-00000000")
        folder.path.mkdir(exist_ok=True)
        shutil.copy(comparison / "config.yaml", folder.path)
        kinds: dict[str, dict[str, Any]] = {}
        for changes, _, _ in trials:
            kinds.setdefault(_text(changes), {k: v for k, v in changes.items() if k != SEED})
        settings = dict(zip(kinds, settings_of(kinds.values()), strict=True))
        cells = [
            _cell(folder, number, settings[_text(c)].name, c.get(SEED, 0), state, value)
            for number, (c, state, value) in enumerate(trials)
        ]
        more = {"kind": "sweep", "mode": mode, "planned": max(planned, len(cells))}
        finished = planned <= len(cells) and all(cell.over for cell in cells)
        write_experiment(
            folder, _experiment([*settings.values()], cells, **more, finished=finished)
        )
        return folder.path

    return make


SEED = "distill.seed"


def _text(changes: Mapping[str, Any]) -> str:
    return json.dumps({k: v for k, v in changes.items() if k != SEED}, sort_keys=True)


def _experiment(settings: Sequence[Setting], cells: Sequence[Cell], **more: Any) -> Experiment:
    content = {"name": "made", "metric": "test/top1", "mode": "max", "planned": len(cells)}
    given = {"settings": tuple(settings), "cells": tuple(cells), "concurrent": 2, "seconds": 12.5}
    return Experiment.model_validate({**content, **given, **more})


def _cell(
    folder: RunFolder, number: int, setting: str, seed: int, state: State, value: float | None
) -> Cell:
    """With the curve of a run folder that ends in the value."""
    epochs = 12 if value is not None else 0
    run = folder.path / "trials" / f"{number:04d}"
    run.mkdir(parents=True)
    lines = [
        {"epoch": epoch, "test/top1": (value or 0.0) * (1 - 0.6 ** (epoch + 3))}
        for epoch in range(epochs - 1)
    ]
    lines += [{"epoch": epochs - 1, "test/top1": value}] if epochs else []
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    return Cell(
        number=number,
        setting=setting,
        seed=seed,
        state=state,
        run=f"trials/{number:04d}",
        error=f"trial {number} <b>failed</b>" if state == "failed" else None,
        epoch=epochs,
        epochs=12 if state == "done" else 20,
        value=value,
        seconds=10.0,
    )
