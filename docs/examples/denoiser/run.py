"""DreamTeacher from a denoiser, without labels. `python run.py --help`; README.md says more."""

import argparse
import os
import sys
import time
from pathlib import Path
from statistics import mean, stdev

import numpy as np
import torch
from networks import Denoiser
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

import egapipe
from egapipe.pipeline.datasets import open_dataset
from egapipe.stages import evaluate

CONFIG = Path(__file__).resolve().with_name("denoiser.yaml")
WEIGHTS, MISSING = Path("denoiser.safetensors"), 3
FILES = ("train.parquet", "test.parquet")
EPOCHS, BATCH, RATE, MOST_NOISE = 12, 64, 0.002, 0.8
QUICK = {
    "dataset.train.limit.rows": 640,
    "dataset.test.limit.rows": 200,
    "distill.epochs": 1,
    "compare.seeds": [0, 1],
}


def main() -> None:
    """Train the denoiser, extract its maps, train the students and print a table."""
    asked = arguments()
    images = asked.cifar100.resolve()
    require(images)
    folder = asked.folder / ("quick" if asked.quick else "all")
    folder.mkdir(parents=True, exist_ok=True)
    os.chdir(folder)
    places = {f"dataset.{name[:-8]}.files": str(images / name) for name in FILES}
    config = egapipe.load_config(CONFIG, {**places, **(QUICK if asked.quick else {})})
    torch.set_num_threads(1)
    if not WEIGHTS.is_file():
        train_denoiser(config, 1 if asked.quick else EPOCHS)
    egapipe.extract(config, local=True, progress=True)
    print("| variant | linear probe, % | seconds a student |\n| --- | ---: | ---: |")
    for name, changes in config.compare.variants.items():
        found, seconds = [], []
        for seed in config.compare.seeds:
            done = egapipe.distill(config, {**changes, "distill.seed": seed}).report
            measured = evaluate.run(done.run, device="cpu").embeddings
            found.append(measured["features"].linear)
            seconds.append(done.summary["seconds"])
        line = f"| {name} | {mean(found):.2f} ± {stdev(found):.2f} | {mean(seconds):.0f} |"
        print(line, flush=True)
    print(f"| the denoiser's coarse maps, averaged | {measured['teacher'].linear:.2f} | |")


def arguments() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--folder", type=Path, default=Path("denoiser-example"), help="all it writes"
    )
    parser.add_argument(
        "--cifar100", type=Path, default=Path("data/cifar100"), help=" and ".join(FILES)
    )
    parser.add_argument("--quick", action="store_true", help="few images, one epoch")
    return parser.parse_args()


def require(folder: Path) -> None:
    """End with code 3, and in one line, where the images are not there."""
    missing = [name for name in FILES if not (folder / name).is_file()]
    if missing:
        says = f"no {missing[0]} in {folder}: --cifar100 FOLDER with the parquet files of CIFAR-100"
        print(says, file=sys.stderr)
        sys.exit(MISSING)


def train_denoiser(config: egapipe.Config, epochs: int) -> None:
    """Of the training images alone, without labels: noise of any strength up to MOST_NOISE."""
    images, began = normalised(config), time.perf_counter()
    torch.manual_seed(0)
    denoiser = Denoiser().to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(denoiser.parameters(), lr=RATE)
    steps = epochs * (len(images) // BATCH)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for epoch in range(epochs):
        losses = []
        for rows in torch.randperm(len(images)).split(BATCH)[: len(images) // BATCH]:
            clean = flipped(images[rows])
            strength = MOST_NOISE * torch.rand(len(clean), 1, 1, 1)
            loss = F.mse_loss(denoiser(clean + strength * torch.randn_like(clean)), clean)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
        print(f"denoiser, epoch {epoch + 1}: squared error {mean(losses):.4f}", flush=True)
    print(f"denoiser: {time.perf_counter() - began:.0f} s\n")
    save_file({k: v.contiguous() for k, v in denoiser.state_dict().items()}, WEIGHTS)


def normalised(config: egapipe.Config) -> Tensor:
    """float32 [N, 3, 32, 32]: the training images as the teacher is shown them."""
    dataset, seen = open_dataset(config.dataset.train), config.teacher.preprocessing
    pixels = np.stack([np.asarray(dataset.image(row)) for row in range(len(dataset))])
    levels = (torch.from_numpy(pixels) / 255 - torch.tensor(seen.mean)) / torch.tensor(seen.std)
    return levels.permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)


def flipped(images: Tensor) -> Tensor:
    """Each with a probability of one half."""
    return torch.where(torch.rand(len(images), 1, 1, 1) < 0.5, images.flip(3), images)


if __name__ == "__main__":
    main()
