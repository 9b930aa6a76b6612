"""A training step with cached features: against plain cross-entropy, against a live teacher, and
what its options change."""

import shutil
import tempfile
from collections.abc import Callable
from itertools import count, islice
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from egapipe.pipeline.config.data import Normalize, ViewsConfig
from egapipe.pipeline.config.distill import DistillConfig
from egapipe.pipeline.store import Features
from egapipe.pipeline.views import key_hashes
from egapipe.stages.bench.measure import paired
from egapipe.stages.bench.synthetic import MEAN, STD, NoiseImages, noise_store
from egapipe.stages.distill.data.batches import Batches, LoadedBatches
from egapipe.stages.distill.data.inputs.images import Frame, Images, ResidentImages, StreamedImages
from egapipe.stages.distill.data.loader import Loader
from egapipe.stages.distill.data.resident import ResidentBatches
from egapipe.stages.distill.model.building import compile_step
from egapipe.stages.distill.model.distillation import Distillation
from egapipe.stages.distill.model.precision import PRECISIONS
from egapipe.stages.distill.model.student import Head, Student, TeacherHead
from egapipe.stages.distill.objectives import build_objective
from egapipe.stages.distill.students import build_student
from egapipe.stages.distill.training.gradient import make_gradient
from egapipe.stages.distill.training.learner import Learner, make_learner
from egapipe.stages.distill.training.meters import Clock
from egapipe.stages.distill.training.optimizers import sgd
from egapipe.stages.distill.training.step import Steps
from egapipe.stages.distill.workers.world import World

ROWS, DIM, SIDE, CLASSES, STEPS = 4096, 512, 32, 100, 8
TEACHER_SIDE = 224
CPU = torch.device("cpu")


class Bench:
    """resnet8x4 on 32 x 32 noise of 100 classes, with cached features of a teacher 512 wide."""

    def __init__(
        self, folder: Path, device: torch.device = CPU, *, rows: int = ROWS, views: int = 0
    ) -> None:
        """views: of each row, beside the clean one."""
        self.world = World.alone(device)
        self.data = NoiseImages(rows, SIDE, CLASSES)
        self.hashes = key_hashes(self.data.keys)
        size = (SIDE, SIDE)
        self.resident = ResidentImages(self.data.pixels, self.hashes, Frame(size), device)
        self.streamed = StreamedImages(self.data, self.hashes, Frame(size), device, threads=2)
        self.store = noise_store(folder, rows, DIM, ViewsConfig(count=views))
        self.features = Features.open(self.store, cache_dir=str(folder / "cache"))

    def loader(self, images: Images, config: DistillConfig) -> Loader:
        """Augmented batches of all rows."""
        return Loader(
            images=images,
            features=self.features,
            labels=self.data.labels,
            rows=np.arange(len(self.data)),
            hashes=self.hashes,
            teacher_plan=self.store.manifest.plan,
            config=config,
            world=self.world,
        )

    def batches(self, config: DistillConfig) -> ResidentBatches:
        """Batches of all rows, made on the device."""
        loader = self.loader(self.resident, config)
        return ResidentBatches(loader, [self.resident], [self.features])

    def learner(self, config: DistillConfig) -> Learner:
        """A student that learns by EGA, with the options of a configuration."""
        student = make_student()
        if not config.channels_last:
            student.set_memory_format(torch.contiguous_format)
        model = Distillation(
            student,
            TeacherHead(DIM, 256, CLASSES),
            build_objective(config.objective),
            ce_weight=1.0,
            precision=PRECISIONS[config.precision],
            world=self.world,
        ).to(self.world.device)
        if config.compile is not None:
            compile_step(model, config)
        model.train()
        return make_learner(model, config, self.world.device)

    def training(self, config: DistillConfig, batches: Batches) -> Steps:
        """The loop's own steps of such a student."""
        learner = self.learner(config)
        gradient = make_gradient(learner.model, self.world, config.micro_batch_size)
        steps = len(self.data) // config.batch_size
        return Steps(config, self.world, learner, gradient, batches, steps)

    def steps(self, config: DistillConfig, steps: int = STEPS) -> Callable[[], None]:
        """A call makes so many steps of a training with EGA, in the epochs one after another."""
        training, number = self.training(config, self.batches(config)), count()

        def run() -> None:
            for at in islice(number, steps):
                make_step(training, at, len(self.data) // config.batch_size)

        return run

    def plain(self, config: DistillConfig) -> Callable[[], None]:
        """A call makes as many steps of cross-entropy alone, on the same augmented images."""
        student = make_student()
        optimizer = sgd([(student, 0.01)], config)
        rng = np.random.default_rng(0)

        def run() -> None:
            for _ in range(STEPS):
                rows = rng.integers(0, ROWS, config.batch_size)
                logits = student(self.resident.batch(rows, config.augment, 1))[1]
                loss = F.cross_entropy(logits, torch.from_numpy(self.data.labels[rows]))
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()

        return run

    def live(self, config: DistillConfig) -> Callable[[], None]:
        """A call makes one step that asks a ViT-S/14 for the features first."""
        batches, teacher = self.batches(config), vit_small()
        training, number = self.training(config, batches), count()

        def run() -> None:
            with torch.inference_mode():
                teacher(batches.batch().images)
            make_step(training, next(number), len(self.data) // config.batch_size)

        return run

    def waiting(self, images: Images, config: DistillConfig) -> float:
        """Share of a training of 24 steps that it waits for its batches."""
        batches = (
            self.batches(config)
            if images is self.resident
            else LoadedBatches(self.loader(images, config))
        )
        training, clock = self.training(config, batches), Clock(self.world.device)
        with clock.waiting():
            training.begin(0, 0)
        for step in range(3 * STEPS):
            training.advance(clock)
            training.run(0, step)
        return clock.wait / clock.lap()


def make_step(training: Steps, number: int, epoch: int) -> None:
    """Make a step. number: of the steps of all epochs. epoch: how many one has."""
    at, step = divmod(number, epoch)
    if step == 0:
        training.begin(at, 0)
    training.advance(Clock(CPU))
    training.run(at, step)


def make_student() -> Student:
    """resnet8x4 with a head of 256 nodes."""
    backbone = build_student("resnet8x4", {})
    return Student(backbone, Head(256, 256, CLASSES), Normalize(mean=MEAN, std=STD))


def vit_small() -> Callable[[torch.Tensor], object]:
    """A ViT-S/14 with random weights on images enlarged to 224 px."""
    import transformers

    model = transformers.Dinov2Model(
        transformers.Dinov2Config(
            hidden_size=384,
            num_attention_heads=6,
            num_hidden_layers=12,
            image_size=TEACHER_SIDE,
            patch_size=14,
        )
    ).eval()

    def encode(images: torch.Tensor) -> object:
        size = (TEACHER_SIDE, TEACHER_SIDE)
        return model(pixel_values=F.interpolate(images.float() / 255, size=size))

    return encode


def options() -> dict[str, DistillConfig]:
    """The default configuration with one option set otherwise; compiled if there is a compiler."""
    changes: dict[str, dict[str, object]] = {
        "channels_last: false": {"channels_last": False},
        "precision: bfloat16": {"precision": "bfloat16"},
        "micro_batch_size: 16": {"micro_batch_size": 16},
        "ema_decay: 0.999": {"ema_decay": 0.999},
    }
    if any(shutil.which(name) for name in ("c++", "g++", "clang++")):
        changes["compile: default"] = {"compile": "default"}
    return {name: DistillConfig.model_validate(change) for name, change in changes.items()}


def report() -> list[str]:
    """The measurements as lines of text."""
    config = DistillConfig()
    with tempfile.TemporaryDirectory() as name:
        bench = Bench(Path(name))
        plain = paired(bench.steps(config), bench.plain(config), repeats=9)
        waits = [bench.waiting(images, config) for images in (bench.resident, bench.streamed)]
        live = paired(bench.steps(config, 1), bench.live(config), repeats=5)
        lines = [
            f"one step of resnet8x4, batch 64, {SIDE} x {SIDE}, {torch.get_num_threads()} threads",
            f"  cached features + EGA      {_ms(plain.ours / STEPS)}",
            f"  cross-entropy alone        {_ms(plain.reference / STEPS)}",
            f"  ratio                      {plain.ratio:8.3f}  (aim <= 1.05)",
            f"  with a live ViT-S/14       {_ms(live.reference)}",
            f"  cached to live             {live.ratio:8.3f}  (aim <= 0.05)",
            f"  waits for data, resident   {waits[0]:8.2%}  (aim <= 2 %)",
            f"  waits for data, streamed   {waits[1]:8.2%}",
            "the same step with an option, against the default",
        ]
        for option, changed in options().items():
            found = paired(bench.steps(changed), bench.steps(config), repeats=5)
            lines.append(f"  {option:24}   {found.ratio:8.3f}")
        return lines


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:8.1f} ms"
