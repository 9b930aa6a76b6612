"""Batches of other kinds on a GPU: views that are turned or mixed, rows in pairs, arrays."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from egapipe.pipeline.config import Config
from egapipe.stages import distill, extract
from egapipe.stages.distill.setup import prepare
from egapipe.stages.distill.workers.world import World
from tests.gpu.test_parts import assert_batches_are_the_loaders
from tests.gpu.test_training import STRICT, again, same, steps_without_waits
from tests.stages.distill.conftest import configured, extracted
from tests.stages.distill.test_embeddistill import ONLY, pairs_of
from tests.stages.words import of_words

DIGITS = "dataset.train={kind: digits, split: train, limit: 300}"
VIEWS = {
    "turned": "views={count: 8, turns: 4, crop: pad, padding: 0.125, flip: 0.5}",
    "mixed": "views={count: 2, crop: pad, padding: 0.125, flip: 0.5, mix: {probability: 0.8}}",
    "paired": "views={count: 2, crop: pad, padding: 0.125}",
}
OPTIONS = {
    "turned": (
        *("student_view=paired", "views_per_row=4", "batch_size=48"),
        "objective={kd: 0.9, sskd: {fit_epochs: 2, dim: 16}}",
    ),
    "mixed": ("student_view=paired", "batch_size=48", "objective={kd: 1.0, ega: 0.1}"),
    "paired": ("batch_size=48",),
}
KINDS = (*VIEWS, "arrays")
Kind = Callable[..., Config]


@pytest.fixture(scope="session", params=KINDS)
def kind(
    request: pytest.FixtureRequest, device: torch.device, tmp_path_factory: pytest.TempPathFactory
) -> Kind:
    """A short training over a store of one kind; arguments as `--set` takes them."""
    folder = tmp_path_factory.mktemp(request.param)
    here = f"distill.device={device.type}"
    if request.param == "arrays":
        sets = (here, "distill.epochs=2", "distill.recipe=default")
        for split in ("train", "test"):
            extract.run(of_words(folder), split=split, local=True)
        return lambda *more: of_words(folder, *sets, *more)
    views = (DIGITS, VIEWS[request.param])
    sets = (*views, here, *(f"distill.{one}" for one in ("epochs=2", *OPTIONS[request.param])))
    if request.param == "paired":
        pairs = pairs_of(folder / "pairs.parquet", rows=300)
        sets = (*sets, f"dataset.pairs={pairs}", "distill.ema_decay=null", *ONLY)
    return configured(extracted(folder / "stores", *views), folder, *sets)


def test_batches_are_the_loaders(kind: Kind, device: torch.device) -> None:
    assert_batches_are_the_loaders(prepare(kind(), World.alone(device)))


def test_a_recorded_step_does_what_an_eager_one_does(kind: Kind, tmp_path: Path) -> None:
    recorded = again(kind(STRICT), tmp_path, "recorded")
    eager = again(kind(STRICT, "distill.cuda_graphs=false"), tmp_path, "eager")
    streamed = again(kind(STRICT, "distill.data=stream"), tmp_path, "streamed")
    assert same(recorded, eager)
    assert same(recorded, streamed)


def test_no_step_waits_for_the_device(kind: Kind, gpu: torch.device) -> None:
    """But where edges are counted: there a graph of the same rows stands for it."""
    config = kind("distill.epochs=8")
    if config.distill.edges.of == "pairs":
        config = kind("distill.epochs=8", "distill.objective={ega: 0.1}")
    assert steps_without_waits(prepare(config, World.alone(gpu)), gpu)


def test_a_student_of_it_predicts(kind: Kind, tmp_path: Path) -> None:
    """What was trained on the device loads, and answers as it did."""
    run = again(kind("distill.precision=bfloat16"), tmp_path, "half")
    done = distill.load_student(run, trust_remote_code=True).accuracy()
    assert 0 <= done.top1 <= 100
