"""What a GPU makes of training and extraction: python -m egapipe.stages.bench.device.

Runs on a CPU too, with the sizes of `--size tiny`, where its numbers mean nothing but that the same
code works. Needs neither Ray nor a network.
"""

import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from egapipe.pipeline.config import Config, load_config
from egapipe.pipeline.config.distill import DistillConfig
from egapipe.pipeline.machine.cores import available_cpus
from egapipe.pipeline.terminal.options import as_path
from egapipe.pipeline.terminal.progress import open_progress
from egapipe.stages import distill, extract
from egapipe.stages.bench.distill import Bench
from egapipe.stages.distill.data.batch import Batch
from egapipe.stages.distill.data.batches import Check
from egapipe.stages.distill.training.meters import Clock
from egapipe.stages.distill.training.step import Steps, device_settings
from egapipe.stages.extract.teachers import Teacher
from egapipe.stages.extract.workers.forward.inference import open_inference
from egapipe.stages.extract.workers.forward.tuned import open_teacher

VIEWS = 4
"""Augmented ones of every row, as in the paper's configuration."""


class Size(StrEnum):
    """How much is measured."""

    TINY = "tiny"
    QUICK = "quick"
    FULL = "full"


@dataclass(frozen=True)
class Amount:
    """rows: of noise to train on. steps: of one timing. repeats: of a timing. epochs: of the
    training on CIFAR-100. images: of CIFAR-100, train and test. forwards: batches of a teacher."""

    rows: int
    steps: int
    repeats: int
    epochs: int
    images: tuple[int | None, int | None]
    forwards: int


AMOUNTS = {
    Size.TINY: Amount(512, 6, 1, 2, (256, 128), 2),
    Size.QUICK: Amount(16_384, 200, 3, 4, (10_000, 2_500), 20),
    Size.FULL: Amount(16_384, 500, 5, 240, (None, None), 40),
}

OPTIONS: dict[str, dict[str, Any]] = {
    "float32": {"tf32": "none"},
    "tf32": {},
    "tf32, all products": {"tf32": "all"},
    "bfloat16": {"precision": "bfloat16"},
    "float16": {"precision": "float16"},
    "tf32, deterministic": {"deterministic": True},
    "bfloat16, eager": {"precision": "bfloat16", "cuda_graphs": False},
    "bfloat16, contiguous": {"precision": "bfloat16", "channels_last": False},
    "bfloat16, average": {"precision": "bfloat16", "ema_decay": 0.999},
    "bfloat16, batch 256": {"precision": "bfloat16", "batch_size": 256},
    "bfloat16, batch 1024": {"precision": "bfloat16", "batch_size": 1024},
    "bfloat16, compiled": {"precision": "bfloat16", "compile": "default"},
    "tf32, compiled": {"compile": "default"},
    "bfloat16, autotuned": {"precision": "bfloat16", "compile": "max-autotune"},
}
EXTRACT = {
    "cpu": (),
    "cuda": (
        "batch_size=512",
        f"decode_threads={max(2, available_cpus() - 1)}",
        "decode=processes",
    ),
}
TRAININGS = ("bfloat16, compiled", "tf32")
TINY_OPTIONS = ("tf32", "bfloat16", "bfloat16, average")


class FixedBatches:
    """One batch of random tensors on the device, again and again: a step without its data."""

    fixed = resident = True

    def __init__(self, like: Batch) -> None:
        self.step = torch.zeros(1, dtype=torch.int64, device=like.images.device)
        self._batch = Batch(
            like.images.clone(), like.features.clone(), like.labels.clone(), like.rows.clone()
        )

    def begin(self, epoch: int, first_step: int) -> None:
        """Stand at a step."""
        self.step.fill_(first_step)

    def advance(self) -> None:
        """Nothing comes."""

    def checked(self, check: Check) -> Check:
        """Nothing can be missing."""
        return check

    def batch(self) -> Batch:
        """The batch."""
        return self._batch

    def bare(self) -> Batch:
        """The same: random numbers are not changed."""
        return self._batch


def bench_step(noise: Bench, amount: Amount, name: str) -> dict[str, float]:
    """Steps a second with the rows on the device, and of the same step on fixed random tensors."""
    config = DistillConfig.model_validate(OPTIONS[name])
    device = noise.world.device
    epoch = len(noise.data) // config.batch_size
    with device_settings(config, device):
        ours = noise.batches(config)
        ours.begin(0, 0)
        both = [noise.training(config, ours), noise.training(config, FixedBatches(ours.batch()))]
        for steps in both:
            run_steps(steps, device, min(20, epoch), epoch)
        seconds: list[tuple[float, float]] = []
        for repeat in range(amount.repeats):
            order = both if repeat % 2 else both[::-1]
            timed = {id(s): run_steps(s, device, amount.steps, epoch) for s in order}
            seconds.append((timed[id(both[0])], timed[id(both[1])]))
        recorded = both[0].recorded
    ratio = statistics.median(b / a for a, b in seconds)
    a, b = (statistics.median(column) for column in zip(*seconds, strict=True))
    return {
        "steps_per_s": amount.steps / a,
        "fixed_steps_per_s": amount.steps / b,
        "ratio": ratio,
        "recorded": float(recorded),
    }


def run_steps(steps: Steps, device: torch.device, count: int, epoch: int) -> float:
    """Seconds of so many steps, the draws of their epochs included."""
    clock = Clock(device)
    synchronize(device)
    began = time.perf_counter()
    for step in range(count):
        if step % epoch == 0:
            steps.begin(step // epoch, 0)
        steps.advance(clock)
        steps.run(step // epoch, step % epoch)
    synchronize(device)
    return time.perf_counter() - began


def synchronize(device: torch.device) -> None:
    """Wait for a GPU."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def cifar(data: Path, folder: Path, teacher: Path, amount: Amount, device: str) -> Config:
    """CIFAR-100 from DATA/train-0.parquet, train-1.parquet and test.parquet, four augmented views
    of 112 pixels, the paper's protocol."""
    train, test = amount.images
    sets = [
        f"name=gpu-{device}",
        f"dataset.train.files=[{data}/train-0.parquet, {data}/train-1.parquet]",
        f"dataset.test.files=[{data}/test.parquet]",
        f"store.url={folder / 'stores'}",
        f"runs={folder / 'runs'}",
        f"extract.device={device}",
        *(f"extract.{value}" for value in EXTRACT[device]),
        f"distill.device={device}",
        f"distill.epochs={amount.epochs}",
        f"distill.checkpoint_epochs={max(1, amount.epochs // 10)}",
        *(f"dataset.{n}.limit={v}" for n, v in (("train", train), ("test", test)) if v),
    ]
    config = load_config("cifar100+paper", sets)
    return config.model_copy(update={"teacher": teacher_config(teacher, device)})


def teacher_config(folder: Path, device: str, side: int = 112) -> Any:
    """Block 10 of a Dinov2Model in a folder, class token and mean of the patches."""
    from egapipe.pipeline.config.teachers import PythonTeacher

    low = "bfloat16" if device == "cuda" else "float32"
    return PythonTeacher.model_validate(
        {
            "backend": "python",
            "model": "transformers:AutoModel.from_pretrained",
            "args": {"pretrained_model_name_or_path": str(folder), "dtype": "float32"},
            "output": "encoder.layer.10",
            "pooling": "cls_mean",
            "preprocessing": {"size": side},
            "precision": low,
        }
    )


def bench_forward(
    teacher: Teacher, batch: int, amount: Amount, device: torch.device
) -> dict[str, float]:
    """Images a second of a teacher: bare, from uint8 on the device, and from pinned host memory
    with the outputs copied back."""
    shape = (batch, *teacher.preprocessing.shape)
    generator = torch.Generator().manual_seed(0)
    host = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    if device.type == "cuda":
        host = host.pin_memory()
    with closing(open_inference(teacher, device, 1)) as inference:
        pixels = host.to(device)

        def bare() -> None:
            for _ in range(amount.forwards):
                teacher.forward(pixels)
            synchronize(device)

        def ours() -> None:
            pending = inference.submit(host)
            for _ in range(amount.forwards - 1):
                following = inference.submit(host)
                pending.result()
                pending = following
            pending.result()

        seconds = []
        bare()
        ours()
        for _ in range(amount.repeats):
            seconds.append((_seconds(bare), _seconds(ours)))
    images = batch * amount.forwards
    ratio = statistics.median(a / b for a, b in seconds)
    a, b = (statistics.median(column) for column in zip(*seconds, strict=True))
    return {"bare_images_per_s": images / a, "images_per_s": images / b, "ratio": ratio}


def _seconds(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def vit_b16(folder: Path) -> Path:
    """A ViT-B/16 with random weights, as fast as a trained one."""
    import transformers

    config = transformers.Dinov2Config(patch_size=16, image_size=224)
    transformers.Dinov2Model(config).save_pretrained(folder)
    return folder


@dataclass(frozen=True)
class Results:
    """Named figures, printed as they come."""

    figures: dict[str, dict[str, Any]]
    file: Path | None

    def add(self, name: str, found: dict[str, Any]) -> None:
        """Print a figure and keep it in the file."""
        self.figures[name] = found
        words = (f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in found.items())
        print(f"{name:28}  " + "  ".join(words), flush=True)
        if self.file is not None:
            self.file.write_text(json.dumps(self.figures, indent=1))


def machine(device: torch.device) -> dict[str, Any]:
    """What the figures were measured on."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    return {"device": name, "torch": torch.__version__, "cuda": str(torch.version.cuda)}


def parts(
    device: torch.device, amount: Amount, folder: Path, data: Path | None, teacher: Path | None
) -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
    """What is measured, in this order."""
    noise = Bench(folder / "noise", device, rows=amount.rows, views=VIEWS)
    for name in TINY_OPTIONS if amount.rows < 1024 else OPTIONS:
        yield f"step {name}", partial(bench_step, noise, amount, name)
    if teacher is None:
        return
    sizes = (4,) if amount.rows < 1024 else (128, 512)
    for label, place in (("ViT-S/14", teacher), ("ViT-B/16", vit_b16(folder / "vit-b16"))):
        loaded = open_teacher(_with_teacher(teacher_config(place, device.type, 224)))
        for batch in sizes:
            yield (
                f"{label} at 224, batch {batch}",
                partial(bench_forward, loaded, batch, amount, device),
            )
    if data is not None:
        config = cifar(data, folder, teacher, amount, device.type)
        for split in ("train", "test"):
            yield f"extract CIFAR-100 {split}", partial(extraction, config, split)
        for name in TRAININGS:
            yield f"CIFAR-100 {name}", partial(training, config, name)


def _with_teacher(teacher: Any) -> Config:
    return load_config("quickstart").model_copy(update={"teacher": teacher})


def extraction(config: Config, split: Any) -> dict[str, Any]:
    """Rows a second from PNG files to the store, and shares of the time."""
    done = extract.run(config, split=split, local=True, progress=open_progress)
    rate = done.extracted * done.views / done.seconds
    shares = {f"{name}_share": float(value) for name, value in done.shares.items()}
    return {"rows": done.rows, "views_per_s": rate, "seconds": done.seconds, **shares}


def training(config: Config, name: str) -> dict[str, Any]:
    """A whole training with an evaluation an epoch."""
    changed = config.distill.model_copy(update=OPTIONS[name])
    done = distill.run(config.model_copy(update={"distill": changed}), progress=open_progress)
    wanted = ("epochs", "train_seconds", "seconds", "rows_per_s", "data_wait", "top1", "best_top1")
    return {name: done.summary[name] for name in (*wanted, "teacher_top1")}


def main(
    size: Annotated[Size, typer.Option(help="How much is measured.")] = Size.FULL,
    data: Annotated[
        Path | None, typer.Option(parser=as_path, help="Folder of CIFAR-100's parquet files.")
    ] = None,
    teacher: Annotated[
        Path | None, typer.Option(parser=as_path, help="Folder of a Dinov2Model.")
    ] = None,
    file: Annotated[
        Path | None, typer.Option("--json", parser=as_path, help="Where figures are kept.")
    ] = None,
    only: Annotated[str, typer.Option(help="Measure what has this in its name.")] = "",
) -> None:
    """Measure training and extraction on this machine's GPU."""
    device = torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
    results = Results({}, file)
    results.add("machine", machine(device))
    with tempfile.TemporaryDirectory() as name:
        for title, measure in parts(device, AMOUNTS[size], Path(name), data, teacher):
            if only in title:
                results.add(title, measure())


if __name__ == "__main__":
    typer.run(main)
