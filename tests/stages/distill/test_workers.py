"""How many workers train decides nothing: they share the same batches, and may change in number."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from egapipe.pipeline.config import to_yaml
from egapipe.pipeline.errors import UsageError
from egapipe.stages.distill.data.inputs.images import ResidentImages, StreamedImages
from egapipe.stages.distill.folder import training_folder
from egapipe.stages.distill.setup import prepare
from egapipe.stages.distill.workers.world import World
from tests.stages.distill import workers
from tests.stages.distill.conftest import MakeConfig
from tests.stages.distill.test_training import weights

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    "sets", [[], ["distill.sampler=class-balanced", "distill.unlabelled_ratio=3.0"]]
)
@pytest.mark.parametrize("size", [2, 4, 7])
def test_workers_share_the_batches_of_one(quick: MakeConfig, size: int, sets: list[str]) -> None:
    """Also from the middle of an epoch, where another number of workers goes on."""
    config = quick("distill.batch_size=30", *sets)
    alone = prepare(config, World.alone(CPU)).loader
    shared = [replace(alone, world=World(rank, size, CPU)) for rank in range(size)]
    for epoch, first in ((0, 0), (1, 2)):
        whole = list(alone.epoch(epoch, first))[:6]
        parts = [list(loader.epoch(epoch, first))[:6] for loader in shared]
        for step, batch in enumerate(whole):
            assert batch.outputs == {}
            for name in ("images", "features", "labels", "rows"):
                column = getattr(batch, name)
                together = torch.cat([getattr(part[step], name) for part in parts])
                assert torch.equal(together, column), name
    lengths = {len(part[0].rows) for part in parts}
    assert max(lengths) - min(lengths) <= 1


def test_who_only_starts_workers_decodes_nothing(quick: MakeConfig) -> None:
    images = [
        prepare(quick(f"distill.workers={workers}"), World.alone(CPU)).loader.images
        for workers in (0, 2)
    ]
    assert isinstance(images[0], ResidentImages)
    assert isinstance(images[1], StreamedImages)


def test_fewer_workers_go_on_where_their_number_decides_nothing(quick: MakeConfig) -> None:
    """The run is the one of a fixed number; with batch statistics of each it would be another."""
    fixed = ["distill.workers=3", "distill.sync_batchnorm=true"]
    elastic = quick(*fixed, "distill.min_workers=1")
    assert training_folder(elastic).path == training_folder(quick(*fixed)).path
    with pytest.raises(UsageError, match=r"min_workers is 1, .* 3 workers .*sync_batchnorm"):
        training_folder(quick("distill.workers=3", "distill.min_workers=1"))
    with pytest.raises(UsageError, match="min_workers 4 is above workers 3"):
        quick("distill.workers=3", "distill.min_workers=4")


OPTIONS = {
    "plain": [],
    "parts": ["micro_batch_size=30", "graph_batch=700", "ema_decay=0.9", "clip_grad_norm=1.0"],
    "automatic": ["objective={ega: auto, kd: auto}"],
    "mixtures": ["mix={kind: either}", "jitter={}", "unlabelled_ratio=3.0"],
    "adamw": ["optimizer=adamw", "lr=0.001"],
    "muon": [
        *("student.name=tests.stages.distill.workers:matrices", "optimizer=muon", "lr=0.001"),
    ],
    "bank": ["objective={crd: {weight: 0.1, negatives: 64}}", "ema_decay=0.9"],
}


# torch's Muon computes its matrices in bfloat16, of 2^-8: weights of 0.2 were seen 2e-4 apart.
ROUNDED = {"muon": 2e-3}


@pytest.mark.slow
@pytest.mark.parametrize("name", OPTIONS)
def test_a_training_goes_on_with_another_number_of_workers(
    quick: MakeConfig, tmp_path: Path, name: str
) -> None:
    """One worker, then two, then three, then one again. Sums are in another order: float32 rounds
    otherwise, and no more. Without batch norm, which normalises over a worker's rows."""
    few = ["student.name=torch.nn:Flatten", "batch_size=200", "checkpoint_steps=2", "lr=0.01"]
    config = quick(*(f"distill.{value}" for value in (*few, *OPTIONS[name])))
    file = tmp_path / "config.yaml"
    file.write_text(to_yaml(config))
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    workers.train(str(file), str(whole), World.alone(CPU), None)
    workers.train(str(file), str(parts), World.alone(CPU), 5)
    for size in (2, 3):
        workers.train_together(size, file, parts, 5)
    workers.train(str(file), str(parts), World.alone(CPU), None)
    one, other = weights(whole), weights(parts)
    assert one.keys() == other.keys()
    for key, value in one.items():
        atol = ROUNDED.get(name, 1e-5)
        torch.testing.assert_close(other[key], value, rtol=1e-3, atol=atol, msg=key)
    moved = [key for key, value in one.items() if np.abs(value.numpy()).max() > 1e-3]
    assert moved


@pytest.mark.slow
@pytest.mark.parametrize("size", [2, 3, 4])
def test_workers_continue_to_the_same_weights(quick: MakeConfig, tmp_path: Path, size: int) -> None:
    """Bit for bit, with batch norm: the order in which gradients are added is that of the ranks,
    in the first step after a resume as in any other."""
    few = [
        "batch_size=240",
        "checkpoint_steps=2",
        "epochs=2",
        "ema_decay=0.9",
        "objective.ega=auto",
    ]
    config = quick(*(f"distill.{value}" for value in few))
    file = tmp_path / "config.yaml"
    file.write_text(to_yaml(config))
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    workers.train_together(size, file, whole, None)
    workers.train_together(size, file, parts, 3)
    workers.train_together(size, file, parts, None)
    one, other = weights(whole), weights(parts)
    assert one.keys() == other.keys()
    assert all(torch.equal(value, other[key]) for key, value in one.items())
