"""A training that is interrupted and continues ends with the same bits, whatever it is made of."""

from pathlib import Path

import pytest
import torch

from egapipe.pipeline.config import Config, to_yaml
from egapipe.pipeline.results.runs import RunFolder
from egapipe.pipeline.results.tracking import read_metrics
from egapipe.stages.distill.training.checkpoint import Checkpoints
from egapipe.stages.distill.workers.world import World
from tests.stages.distill import workers
from tests.stages.distill.conftest import MakeConfig
from tests.stages.distill.test_training import assert_same_weights

CLOCK = {"train/seconds", "train/rows_per_s", "train/data_wait"}
# A student with what could go astray: running statistics, and randomness.
STUDENT = """
from torch import nn

def small():
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Dropout(0.1)
    )
"""
COMBINATIONS = {
    "average": ["ema_decay=0.9", "clip_grad_norm=0.5", "schedule=cosine", "warmup_epochs=1.5"],
    "bfloat16": ["precision=bfloat16", "ema_decay=0.99", "clip_grad_norm=1.0"],
    "float16": ["precision=float16", "ema_decay=0.9", "clip_grad_norm=1.0"],
    "float16 in parts": ["precision=float16", "micro_batch_size=100"],
    "parts": ["micro_batch_size=60", "ema_decay=0.9", "clip_grad_norm=1.0"],
    "bank in parts": ["micro_batch_size=60", "objective={crd: {weight: 0.1, negatives: 64}}"],
    "anchors": ["objective={rrd: {count: 300}, simkd: 1.0}", "head.epochs=2", "ema_decay=0.9"],
    "solved head": ["head={mode: sequential, solver: lbfgs}", "nesterov=true", "decay_on=weights"],
    "automatic weights": [
        *("objective={ega: auto, kd: {weight: auto, ratio: 0.5}}", "graph_batch=400"),
    ],
    "long graph": ["graph_batch=700", "ema_decay=0.9", "channels_last=false"],
    "long graph in parts": ["graph_batch=700", "micro_batch_size=60", "precision=bfloat16"],
    "head first": [
        *("head.mode=sequential", "head.epochs=2", "student_view=paired", "standardize=phi-s")
    ],
    "mixtures": [
        *("mix={kind: either}", "jitter={}", "augment={crop: pad, flip: alternating}"),
        *("objective={ega: auto, kd: auto}", "data=stream", "micro_batch_size=60"),
    ],
    "adamw": ["optimizer=adamw", "clip_grad_norm=1.0", "decay_on=weights"],
    "muon": ["optimizer=muon", "objective={ega: auto, unic: 1}", "ema_decay=0.9", "nesterov=true"],
    "peers": [
        *("peers={wide: {name: digits_cnn}}", "teacher=peers", "views_per_row=2"),
        "objective={dogo: {hidden: 16, dim: 8}, kd: 1.0, ega: {weight: auto, teacher: store}}",
    ],
    "edges": ["objective={lsp: 10.0, hashing: 0.1}", "sampler=neighbours", "edges.nearest=4"],
    "own average": [
        *("teacher=average", "ema_decay=0.9", "views_per_row=2", "micro_batch_size=60"),
        *("objective={igsd: {hidden: 16}, ega: 0.5, kd: {teacher: store}}", "student_view=paired"),
    ],
    "balanced": ["sampler=class-balanced", "unlabelled_ratio=1.0", "batch_size=20"],
}
MORE = {
    "bare": [],
    "bank": ["objective={crd: {weight: 0.1, negatives: 64}, kd: 1.0}", "ema_decay=0.9"],
    "bank in float16": ["objective={crd: {weight: 0.1, negatives: 64}}", "precision=float16"],
    "muon in float16": ["optimizer=muon", "precision=float16", "micro_batch_size=60"],
    "adamw in float16": ["optimizer=adamw", "precision=float16"],
    "mixtures of images alone": ["mix={teacher: own}", "unlabelled_ratio=1.0", "batch_size=20"],
    "streamed": ["data=stream", "student_view=clean", "label_smoothing=0.1"],
    "streamed in parts": ["data=stream", "micro_batch_size=60", "precision=bfloat16"],
    "automatic in float16": ["objective={ega: auto}", "precision=float16", "micro_batch_size=60"],
    "head first in parts": ["head.mode=sequential", "head.epochs=2", "micro_batch_size=60"],
    "neighbours": ["sampler=neighbours", "graph_batch=700", "micro_batch_size=60"],
}
# What of them is in no other.
QUICK = (
    *("average", "float16", "bank in parts", "anchors", "automatic weights", "head first"),
    *("long graph in parts", "mixtures", "muon", "peers", "edges", "own average"),
)
EVERY = [
    *QUICK,
    *(
        pytest.param(name, marks=pytest.mark.slow)
        for name in [*COMBINATIONS, *MORE]
        if name not in QUICK
    ),
]


@pytest.fixture
def small(quick: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MakeConfig:
    (tmp_path / "small_student.py").write_text(STUDENT)
    monkeypatch.syspath_prepend(str(tmp_path))

    def make(*sets: str) -> Config:
        few = ["student.name=small_student:small", "batch_size=200", "checkpoint_steps=2"]
        return quick(*(f"distill.{value}" for value in (*few, *sets)))

    return make


def train(config: Config, folder: Path, *interruptions: int) -> RunFolder:
    """Train in `folder`, beginning anew after so many steps each time."""
    file = folder.with_suffix(".yaml")
    file.write_text(to_yaml(config))
    for stop in (*interruptions, None):
        reached = workers.train(str(file), str(folder), World.alone(torch.device("cpu")), stop)
        assert reached == (stop is None)
    return RunFolder(folder)


@pytest.mark.parametrize("name", EVERY)
def test_an_interrupted_training_ends_with_the_same_bits(
    small: MakeConfig, tmp_path: Path, name: str
) -> None:
    """Seven steps an epoch, three epochs: interrupted within the first, and in a later one."""
    config = small(*{**COMBINATIONS, **MORE}[name])
    whole = train(config, tmp_path / "whole")
    parts = train(config, tmp_path / "parts", 5, 10)
    assert_same_weights(whole.path, parts.path)
    states = [Checkpoints(run.checkpoints).position() for run in (whole, parts)]
    assert states[0].scaler == states[1].scaler
    assert bool(states[0].scaler) == (config.distill.precision == "float16")
    lines = [
        [{k: v for k, v in line.items() if k not in CLOCK} for line in read_metrics(run)]
        for run in (whole, parts)
    ]
    assert lines[0] == lines[1]
    assert len(lines[0]) == config.distill.epochs


@pytest.mark.slow
def test_a_compiled_training_too(small: MakeConfig, tmp_path: Path) -> None:
    """Compiling takes a C++ compiler a minute."""
    config = small("compile=default", "ema_decay=0.9", "micro_batch_size=100")
    whole = train(config, tmp_path / "whole")
    assert_same_weights(whole.path, train(config, tmp_path / "parts", 5).path)
