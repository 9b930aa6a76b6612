"""How the digits teacher was made: SimCLR on 1,437 unlabelled images, and how good it is.

    python -m egapipe.configs.teachers.digits.recipe --out DIR    # train and save: about 2 minutes
    python -m egapipe.configs.teachers.digits.recipe --measure    # print the table of the card

The objective is NT-Xent (Chen et al. 2020, "A simple framework for contrastive learning of visual
representations", arXiv 2002.05709, eq. 1). Labels are used by `measure` alone.
"""

import argparse
import json
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoModel, ResNetConfig, ResNetModel

from egapipe.configs.teachers.digits.probes import Scores, score, table

Bytes = npt.NDArray[np.uint8]
Halves = npt.NDArray[np.float16]
Ints = npt.NDArray[np.int64]

HERE = Path(__file__).resolve().parent
TRAIN_ROWS = 1437

SIZE = 32
WIDTHS = (32, 64, 128)
PROJECTION = 128
EPOCHS = 110
BATCH = 256
LEARNING_RATE = 2e-3
WEIGHT_DECAY = 1e-2
TEMPERATURE = 0.2


# ---------------------------------------------------------------------------------------- setup


class Digits(NamedTuple):
    """Rows of scikit-learn's digits. images: uint8 [N, 8, 8], 0..255. labels: int64 [N], 0..9."""

    images: Bytes
    labels: Ints


def read_digits() -> tuple[Digits, Digits]:
    """The train split (rows 0 to 1436) and the test split (the last 360 rows)."""
    bunch = load_digits()
    images = np.rint(bunch.images * (255 / 16)).astype(np.uint8)
    labels = bunch.target.astype(np.int64)
    cut = TRAIN_ROWS
    return Digits(images[:cut], labels[:cut]), Digits(images[cut:], labels[cut:])


def enlarge(images: Bytes, size: int = SIZE) -> Tensor:
    """Bicubic as PIL does it, which is what `preprocessor_config.json` asks of the image processor.

    images: uint8 [N, 8, 8]. Returns float32 [N, 1, size, size] in 0..1.
    """
    resized = [
        np.asarray(Image.fromarray(i).resize((size, size), Image.Resampling.BICUBIC))
        for i in images
    ]
    return torch.from_numpy(np.stack(resized)).unsqueeze(1).float() / 255


def build_encoder() -> ResNetModel:
    """A ResNet of three basic blocks: 0.3 M parameters, `pooler_output` [B, 128, 1, 1]."""
    config = ResNetConfig(
        num_channels=3,
        embedding_size=WIDTHS[0],
        hidden_sizes=list(WIDTHS),
        depths=[1, 1, 1],
        layer_type="basic",
    )
    return ResNetModel(config)


class Pixels(NamedTuple):
    """Mean and standard deviation of the enlarged training pixels, in 0..1."""

    mean: float
    std: float

    @classmethod
    def of(cls, images: Tensor) -> "Pixels":
        """Rounded to what the preprocessor config will say."""
        return cls(round(images.mean().item(), 4), round(images.std().item(), 4))


def embed(encoder: nn.Module, images: Tensor, pixels: Pixels) -> Tensor:
    """The pooled output, float32 [N, 128]. images: float32 [N, 1, S, S] in 0..1, seen as RGB."""
    normalised = (images - pixels.mean) / pixels.std
    output: Tensor = encoder(normalised.expand(-1, 3, -1, -1)).pooler_output
    return output.flatten(1)


# -------------------------------------------------------------------------------------- augment


def augment(images: Tensor) -> Tensor:
    """What leaves a digit the same digit: pose, pen, ink and noise. No flips.

    images: float32 [N, 1, S, S] in 0..1, as is the result. Draws from torch's global generator.
    """
    drawn = ink(thickness(warp(images)))
    coarse = 0.1 * torch.randn(len(images), 1, 8, 8)
    noise = F.interpolate(coarse, size=images.shape[-2:], mode="bilinear")
    return (drawn + noise * each(len(images), 0, 1)).clamp(0, 1)


def warp(images: Tensor) -> Tensor:
    """Rotation and shear to 0.3 rad, scale to 20 % a side, shift to 1.5 px of 8, elastic waves."""
    n = len(images)
    angle, shear = each(n, -0.3, 0.3).flatten(), each(n, -0.3, 0.3).flatten()
    shift = torch.rand(n, 2, 1) * 0.75 - 0.375  # of half the side: the grid runs from -1 to 1
    zoom = 1 / (torch.rand(n, 2, 1) * 0.4 + 0.8)
    cos, sin = angle.cos(), angle.sin()
    turn = torch.stack([cos, shear - sin, sin, cos], dim=1).view(n, 2, 2)
    pose = torch.cat([zoom * turn, shift], dim=2)
    grid = F.affine_grid(pose, list(images.shape), align_corners=False)
    waves = 0.08 * torch.randn(n, 2, 4, 4)
    waves = F.interpolate(waves, size=images.shape[-2:], mode="bicubic", align_corners=True)
    warped = F.grid_sample(images, grid + waves.permute(0, 2, 3, 1), align_corners=False)
    return warped.clamp(0, 1)


def thickness(images: Tensor) -> Tensor:
    """A quarter of the strokes one pixel (of 32) thicker on each side, a quarter thinner."""
    chance = each(len(images), 0, 1)
    thick = F.max_pool2d(images, 3, stride=1, padding=1)
    thin = -F.max_pool2d(-images, 3, stride=1, padding=1)
    return torch.where(chance < 0.25, thick, torch.where(chance > 0.75, thin, images))


def ink(images: Tensor) -> Tensor:
    """Gamma from 0.5 to 2, then contrast to 30 %."""
    n = len(images)
    return images ** each(n, -0.7, 0.7).exp() * each(n, 0.7, 1.3)


def each(n: int, low: float, high: float) -> Tensor:
    """One uniform number an image, [N, 1, 1, 1]."""
    return torch.rand(n, 1, 1, 1) * (high - low) + low


# ----------------------------------------------------------------------------------------- loss


def nt_xent(a: Tensor, b: Tensor, temperature: float = TEMPERATURE) -> Tensor:
    """SimCLR's loss, eq. 1: row i of `a` finds row i of `b` among all other 2B - 1 rows.

    a, b: [B, D], the projections of two augmentations. Returns a scalar.
    """
    n = len(a)
    z = F.normalize(torch.cat([a, b]), dim=1)
    similarity = z @ z.T / temperature
    others = similarity.masked_fill(torch.eye(2 * n, dtype=torch.bool), float("-inf"))
    partner = torch.arange(2 * n).roll(n)
    return F.cross_entropy(others, partner)


# ---------------------------------------------------------------------------------------- train


def train(images: Tensor, pixels: Pixels, seed: int = 0, epochs: int = EPOCHS) -> ResNetModel:
    """An encoder trained on images without labels, in evaluation mode.

    images: float32 [N, 1, S, S] in 0..1, at least a batch of 256. The same seed gives the same
    weights on one machine with one thread; the caller's random state is left as it was.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder, projector = build_encoder(), build_projector()
        fit(encoder, projector, images, pixels, epochs)
    return encoder


def build_projector() -> nn.Sequential:
    """The projection head, which is thrown away after training."""
    return nn.Sequential(
        nn.Linear(WIDTHS[-1], 256), nn.BatchNorm1d(256), nn.ReLU(), nn.Linear(256, PROJECTION)
    )


def fit(
    encoder: ResNetModel, projector: nn.Module, images: Tensor, pixels: Pixels, epochs: int
) -> None:
    """Train both in place, the one visible loop. Rows beyond whole batches sit an epoch out."""
    steps = len(images) // BATCH
    optimizer = build_optimizer(encoder, projector)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, LEARNING_RATE, total_steps=epochs * steps, pct_start=0.1
    )
    start = time.perf_counter()
    encoder.train()
    for epoch in range(1, epochs + 1):
        total = 0.0
        for rows in torch.randperm(len(images))[: steps * BATCH].view(steps, BATCH):
            pair = torch.cat([augment(images[rows]), augment(images[rows])])
            a, b = projector(embed(encoder, pair, pixels)).chunk(2)
            loss = nt_xent(a, b)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item()
        if epoch % 10 == 0 or epoch == epochs:
            seconds = time.perf_counter() - start
            print(f"epoch {epoch}/{epochs}  loss {total / steps:.3f}  {seconds:.0f} s", flush=True)
    encoder.train(mode=False)


def build_optimizer(*modules: nn.Module) -> torch.optim.Optimizer:
    """AdamW; biases and norms (vectors) are not decayed."""
    parameters = [p for module in modules for p in module.parameters()]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": WEIGHT_DECAY},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=LEARNING_RATE)


# ----------------------------------------------------------------------------------------- save


def save(encoder: ResNetModel, pixels: Pixels, folder: Path) -> None:
    """Write config.json, model.safetensors and preprocessor_config.json."""
    encoder.save_pretrained(folder)
    processor = {
        "image_processor_type": "ViTImageProcessor",
        "do_resize": True,
        "size": {"height": SIZE, "width": SIZE},
        "resample": int(Image.Resampling.BICUBIC),
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [pixels.mean] * 3,
        "image_std": [pixels.std] * 3,
    }
    text = json.dumps(processor, indent=2) + "\n"
    (folder / "preprocessor_config.json").write_text(text, encoding="utf-8")


# -------------------------------------------------------------------------------------- measure


def measure(folder: Path = HERE) -> dict[str, Scores]:
    """Scores of raw pixels and of the encoder saved in `folder`. Labels are used here alone."""
    known, asked = read_digits()
    pixels = [d.images.reshape(len(d.images), -1).astype(np.float32) for d in (known, asked)]
    rows = [embeddings(folder, d.images).astype(np.float32) for d in (known, asked)]
    return {
        "raw pixels": score(pixels[0], known.labels, pixels[1], asked.labels),
        "this teacher": score(rows[0], known.labels, rows[1], asked.labels),
    }


def embeddings(folder: Path, images: Bytes) -> Halves:
    """The saved encoder's embeddings, float16 [N, 128]: the precision that a store keeps."""
    encoder: nn.Module = AutoModel.from_pretrained(folder, use_safetensors=True)
    processor = json.loads((folder / "preprocessor_config.json").read_text(encoding="utf-8"))
    pixels = Pixels(processor["image_mean"][0], processor["image_std"][0])
    with torch.inference_mode():
        rows = embed(encoder.eval(), enlarge(images, processor["size"]["height"]), pixels)
    return rows.numpy().astype(np.float16)


# ----------------------------------------------------------------------------------------- main


def main(argv: list[str] | None = None) -> None:
    """Train and save (`--out`), measure (`--measure`), or both one after the other."""
    parser = argparse.ArgumentParser(description="Make or measure the digits teacher.")
    parser.add_argument("--out", type=Path, metavar="DIR", help="train, and save into this folder")
    parser.add_argument("--seed", type=int, default=0, help="seed of the training (default: 0)")
    parser.add_argument(
        "--measure",
        action="store_true",
        help="print the table of the card for the teacher in --out, or for the shipped one",
    )
    args = parser.parse_args(argv)
    if args.out is None and not args.measure:
        parser.error("nothing to do: give --out DIR to train, --measure to measure")
    if args.out is not None and args.out.exists() and not args.out.is_dir():
        parser.error(f"--out {args.out} is a file: name a folder")
    torch.set_num_threads(1)  # the order of sums, and so the weights, depend on the threads
    if args.out is not None:
        images = enlarge(read_digits()[0].images)
        pixels = Pixels.of(images)
        save(train(images, pixels, args.seed), pixels, args.out)
    if args.measure:
        print(table(measure(args.out or HERE)))


if __name__ == "__main__":
    main()
