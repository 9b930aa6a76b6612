"""A training step with cached features and EGA against a plain cross-entropy step."""

import tempfile
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from egapipe.pipeline.config.data import Normalize, ViewsConfig
from egapipe.pipeline.config.distill import DistillConfig
from egapipe.pipeline.store import Features
from egapipe.pipeline.views import key_hashes
from egapipe.stages.bench.measure import Paired, paired
from egapipe.stages.bench.synthetic import MEAN, STD, NoiseImages, noise_store
from egapipe.stages.distill.images import ResidentImages
from egapipe.stages.distill.loader import Batch, Loader
from egapipe.stages.distill.model import Distillation, Head, Student
from egapipe.stages.distill.objectives import build_objective
from egapipe.stages.distill.schedule import make_optimizer
from egapipe.stages.distill.students import build_student
from egapipe.stages.distill.world import World

ROWS, DIM, SIDE, CLASSES, STEPS = 4096, 512, 32, 100, 8


def measure(repeats: int = 9) -> Paired:
    """Seconds of 8 steps of resnet8x4, batch 64, 32 x 32, 100 classes.

    Both take the same augmented resident images; ours adds feature gathering, the teacher's head
    and EGA.
    """
    config = DistillConfig()
    images = NoiseImages(ROWS, SIDE, CLASSES)
    hashes = key_hashes(images.keys)
    world = World.alone(torch.device("cpu"))
    resident = ResidentImages(images.pixels, hashes, (SIDE, SIDE), world.device)
    with tempfile.TemporaryDirectory() as name:
        store = noise_store(Path(name), ROWS, DIM, ViewsConfig())
        features = Features.open(store, cache_dir=str(Path(name) / "cache"))
        loader = Loader(
            images=resident,
            features=features,
            labels=images.labels,
            rows=np.arange(ROWS),
            hashes=hashes,
            teacher_plan=store.manifest.views,
            config=config,
            world=world,
        )
        return paired(
            _cached(loader, config, world), _plain(resident, images, config), repeats=repeats
        )


def _student() -> Student:
    backbone = build_student("resnet8x4", {})
    return Student(backbone, Head(256, 256, CLASSES), Normalize(mean=MEAN, std=STD))


def _cached(loader: Loader, config: DistillConfig, world: World) -> Callable[[], None]:
    model = Distillation(
        _student(),
        Head(DIM, 256, CLASSES),
        build_objective(config.objective),
        ce_weight=1.0,
        precision=torch.float32,
        world=world,
    )
    optimizer = make_optimizer([(model.student, 0.01), (model.teacher_head, 0.01)], config)
    batches = _forever(loader)

    def steps() -> None:
        for _ in range(STEPS):
            losses = model(next(batches))
            optimizer.zero_grad()
            losses.total.backward()
            optimizer.step()

    return steps


def _plain(images: ResidentImages, data: NoiseImages, config: DistillConfig) -> Callable[[], None]:
    student = _student()
    optimizer = make_optimizer([(student, 0.01)], config)
    rng = np.random.default_rng(0)

    def steps() -> None:
        for _ in range(STEPS):
            rows = rng.integers(0, ROWS, config.batch_size)
            logits = student(images.batch(rows, config.augment, 1))[1]
            loss = F.cross_entropy(logits, torch.from_numpy(data.labels[rows]))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    return steps


def _forever(loader: Loader) -> Iterator[Batch]:
    for epoch in count():
        yield from loader.epoch(epoch)


def report() -> list[str]:
    """The measurement as lines of text."""
    found = measure()
    ours, plain = found.ours / STEPS * 1e3, found.reference / STEPS * 1e3
    return [
        f"one step of resnet8x4, batch 64, {SIDE} x {SIDE}, {torch.get_num_threads()} threads",
        f"  cached features + EGA  {ours:8.1f} ms",
        f"  cross-entropy alone    {plain:8.1f} ms",
        f"  ratio                  {found.ratio:8.3f}  (aim <= 1.05)",
    ]
