"""Gathering random rows: `Features.take` against a plain numpy memmap, in memory and from disk."""

import tempfile
from pathlib import Path

import numpy as np
import torch

from egapipe.pipeline.config.data import ViewsConfig
from egapipe.pipeline.store import Features
from egapipe.stages.bench import cold
from egapipe.stages.bench.measure import Paired, paired
from egapipe.stages.bench.synthetic import noise_store

ROWS, VIEWS, DIM, BATCH, BATCHES = 50_000, 5, 512, 256, 200


def measure(repeats: int = 15) -> Paired:
    """Seconds of 200 random batches of 256 x 512 float16 rows, one view a row."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        store = noise_store(folder, ROWS, DIM, ViewsConfig(count=VIEWS - 1))
        features = Features.open(store, cache_dir=str(folder / "cache"))
        memmap = _memmap(features, folder / "plain.npy")
        rng = np.random.default_rng(0)
        rows = rng.integers(0, ROWS, (BATCHES, BATCH))
        views = rng.integers(0, VIEWS, (BATCHES, BATCH))

        def ours() -> None:
            for i in range(BATCHES):
                features.take(rows[i], views[i])

        def reference() -> None:
            for i in range(BATCHES):
                torch.from_numpy(memmap[rows[i] * VIEWS + views[i]])

        return paired(ours, reference, repeats=repeats, warmup=2)


def _memmap(features: Features, path: Path) -> np.ndarray:
    """The same rows as a plain .npy file, mapped."""
    plain = np.lib.format.open_memmap(path, "w+", np.float16, (ROWS * VIEWS, DIM))
    every = np.arange(ROWS)
    for view in range(VIEWS):
        plain[view::VIEWS] = features.take(every, view).numpy()
    plain.flush()
    mapped: np.ndarray = np.load(path, mmap_mode="r")
    return mapped


def report() -> list[str]:
    """The measurement as lines of text."""
    found = measure()
    rate = BATCH * BATCHES / 1e6
    return [
        f"gather of {BATCH} x {DIM} float16 rows, {VIEWS} views, {ROWS} rows",
        f"  Features.take   {rate / found.ours:8.2f} M rows/s",
        f"  numpy memmap    {rate / found.reference:8.2f} M rows/s",
        f"  speed ratio     {1 / found.ratio:8.2f}  (aim >= 0.80)",
        *cold.report(),
    ]
