"""A small comparison on real digits, and sweeps as `egapipe sweep` leaves them."""

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from egapipe.pipeline.config import load_config
from egapipe.pipeline.results.runs import RunFolder
from egapipe.stages import compare, extract, report
from egapipe.stages.compare.recorded import recorded
from egapipe.stages.sweep.folder import SweepFolder
from egapipe.stages.sweep.report import SweepReport, SweepTrial, finish
from tests.stages.copies import copy_with

EditRun = Callable[..., Path]
MakeSweep = Callable[..., Path]


@pytest.fixture(scope="session")
def comparison(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a comparison of two variants and two seeds."""
    folder = tmp_path_factory.mktemp("report")
    sets = [f"store.url={folder / 'stores'}", f"store.cache_dir={folder / 'cache'}"]
    few = ["views.count=1", "distill.epochs=2", "distill.threads=1", "compare.seeds=[0, 1]"]
    config = load_config("quickstart", [*sets, *few, f"runs={folder / 'runs'}"])
    for split in config.splits():
        extract.run(config, split=split, local=True)
    run = RunFolder(Path(compare.run(config).folder))
    # In the form of before there was an experiment.json: tests change what is in it.
    run.write_json("comparison.json", recorded(run))
    (run.path / "experiment.json").unlink()
    return run.path


@pytest.fixture(scope="session")
def finished(comparison: Path) -> Path:
    """A finished run folder: the second variant's, with EGA."""
    record = json.loads((comparison / "comparison.json").read_text("utf-8"))
    return (comparison / record["cells"][1]["run"]).resolve()


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


@pytest.fixture
def make_sweep(comparison: Path, tmp_path: Path) -> MakeSweep:
    """A sweep folder with these trials, each changes, status and value."""

    def make(*trials: tuple[Mapping[str, Any], str, float | None], mode: str = "max") -> Path:
        folder = SweepFolder(tmp_path / "sweep-00000000")
        found = [_trial(folder, number, *trial) for number, trial in enumerate(trials)]
        finished = [t for t in found if t.status == "finished"]
        best = (max if mode == "max" else min)(finished, key=lambda t: t.value, default=None)
        shutil.copy(comparison / "config.yaml", folder.path / "config.yaml")
        made = SweepReport(folder.path, found, best, "test/top1", mode, 12.5, 2)
        finish(folder.config(), folder, made)
        return folder.path

    return make


def _trial(
    folder: SweepFolder, number: int, changes: Mapping[str, Any], status: Any, value: float | None
) -> SweepTrial:
    run = folder.trial(number, None)
    run.path.mkdir(parents=True)
    epochs = 0 if value is None else 2
    lines = [{"epoch": epoch, "test/top1": value} for epoch in range(epochs)]
    run.metrics.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    error = f"trial {number} <b>failed</b>" if status == "failed" else None
    return SweepTrial(number, dict(changes), status, epochs, value, run.path, error)
