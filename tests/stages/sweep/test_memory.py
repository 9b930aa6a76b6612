"""All trials of a node read one memory-mapped file: it is in memory once, however many they are."""

import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from egapipe.pipeline.config import load_config, to_yaml
from egapipe.pipeline.results.runs import RunFolder
from egapipe.pipeline.results.tracking import read_metrics
from egapipe.stages import extract
from egapipe.stages.sweep.folder import SweepFolder, sweep_folder
from tests.command import COMMAND
from tests.stages.extract.processes import workers_below

WIDTH = 1 << 16
SECONDS = 400


@dataclass(frozen=True)
class Use:
    """Memory of the trials that read the feature file, in MB."""

    trials: int
    mapped: float
    """What each maps of the file, added up."""
    resident: float
    """What of it is in memory: each page shared by n processes counts 1/n in each."""


def make_config(folder: Path, trials: int) -> Path:
    """A sweep of so many trials over wide random embeddings of the digits."""
    rates = ", ".join(str(0.01 + 0.001 * trial) for trial in range(trials))
    config = load_config(
        "quickstart",
        [
            "teacher={backend: imported, model: noise}",
            "views={count: 0}",
            f"store.url={folder / 'store'}",
            f"store.cache_dir={folder / 'cache'}",
            f"runs={folder / 'runs'}",
            "distill.normalize={mean: [0.5, 0.5, 0.5], std: [0.5, 0.5, 0.5]}",
            "distill.epochs=5000",
            f"sweep.space={{distill.lr: {{grid: [{rates}]}}}}",
            "sweep.search=grid",
            "sweep.scheduler=fifo",
            "cluster.cpus=8",
        ],
    )
    if not (folder / "store").exists():
        noise = np.random.default_rng(0).standard_normal((1437, WIDTH), dtype=np.float32)
        np.save(folder / "noise.npy", noise.astype(np.float16))
        extract.import_embeddings(config, str(folder / "noise.npy"), split="train")
    file = folder / f"sweep-{trials}.yaml"
    file.write_text(to_yaml(config))
    return file


def measure(file: Path, trials: int) -> Use:
    """Run a sweep until each trial has read every row, look at its memory, and interrupt it."""
    folder = sweep_folder(load_config(str(file)))
    process = subprocess.Popen(
        [*COMMAND, "sweep", "-c", str(file)], stderr=subprocess.PIPE, text=True
    )
    try:
        deadline = time.monotonic() + SECONDS
        while epochs_done(folder) < trials and time.monotonic() < deadline:
            assert process.poll() is None
            time.sleep(0.2)
        maps = [m for p in workers_below(process.pid, "ImplicitFunc") for m in feature_maps(p)]
        mapped, resident = (sum(getattr(m, key) for m in maps) / 2**20 for key in ("rss", "pss"))
        return Use(len(maps), mapped, resident)
    finally:
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=120)
        assert process.returncode == 130, said
        assert "interrupted: run the same command again to continue" in said


def epochs_done(folder: SweepFolder) -> int:
    """Trials that have finished an epoch."""
    return sum(bool(read_metrics(RunFolder(path))) for path in folder.trials.glob("0*"))


def feature_maps(process: psutil.Process) -> list[Any]:
    return [m for m in process.memory_maps(grouped=False) if m.path.endswith(".arrow")]


@pytest.mark.slow  # eight processes that import torch on a machine of two cores
@pytest.mark.timeout(900)
def test_eight_trials_hold_the_features_once(tmp_path: Path) -> None:
    uses = {trials: measure(make_config(tmp_path, trials), trials) for trials in (1, 8)}
    size = next((tmp_path / "cache").rglob("*.arrow")).stat().st_size / 2**20
    for use in uses.values():
        print(
            f"{use.trials} trials: {use.mapped:.0f} MB mapped, {use.resident:.0f} MB in memory, "
            f"feature file {size:.0f} MB"
        )
    assert [use.trials for use in uses.values()] == [1, 8]
    assert size > 170
    assert uses[8].mapped > 7.5 * size
    # A page that only some of them have touched again counts the same.
    assert uses[8].resident < 1.02 * size
    assert uses[1].resident > 0.98 * size
