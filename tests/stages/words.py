"""Rows that are token ids, and networks of them: small, real, and importable by name."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from egapipe.pipeline.config import Config, load_config

LENGTH, CLASSES, VOCABULARY = 6, 4, 48
MODEL = "tests.stages.words:bag_of_words"
TEXT = """
name: words
dataset:
  train: {train}
  test: {test}
teacher: {{backend: python, model: "{model}", array: {{shape: [{length}], dtype: int64}}}}
views: {{count: 2}}
store: {{url: {folder}/stores}}
runs: {folder}/runs
distill:
  student: {{name: "{model}", args: {{width: 8, seed: 1}}}}
  epochs: 3
  batch_size: 16
  threads: 1
"""


class BagOfWords(nn.Module):
    """Ids [B, L] to the mean of their vectors, mixed: [B, width]."""

    def __init__(self, width: int, seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.words = nn.Embedding(VOCABULARY, width)
        self.mix = nn.Linear(width, width)
        with torch.no_grad():
            self.words.weight.normal_(generator=generator)
            self.mix.weight.normal_(0.0, 0.2, generator=generator)
            self.mix.bias.zero_()

    def forward(self, ids: Tensor) -> Tensor:
        features: Tensor = self.mix(self.words(ids).mean(dim=1))
        return features


def bag_of_words(width: int = 16, seed: int = 0) -> BagOfWords:
    """A network of the user's own."""
    return BagOfWords(width, seed)


class BagOfSomeWords(BagOfWords):
    """It leaves out the padding, id 0."""

    def forward(self, ids: Tensor) -> Tensor:
        kept = (ids != 0).unsqueeze(-1).float()
        features: Tensor = self.mix((self.words(ids) * kept).sum(1) / kept.sum(1).clamp(min=1))
        return features


def bag_of_some_words() -> BagOfSomeWords:
    """A network to which all arrays of the ids 0 and 1 look alike."""
    return BagOfSomeWords(16, 0)


def projected(width: int = 8) -> nn.Module:
    """A network of six numbers."""
    torch.manual_seed(0)
    return nn.Linear(LENGTH, width)


def write_words(folder: Path, split: str, rows: int, variants: int = 3) -> None:
    """Ids [N, V, 6] of so many rows, and their classes: a class has words of its own."""
    rng = np.random.default_rng(len(split))
    labels = np.arange(rows) % CLASSES
    drawn = rng.integers(0, VOCABULARY // CLASSES, (rows, variants, LENGTH))
    ids = drawn + (labels * VOCABULARY // CLASSES)[:, None, None]
    np.save(folder / f"{split}.npy", ids.astype(np.int32))
    np.save(folder / f"{split}_labels.npy", labels)


def of_words(folder: Path, *sets: str, rows: int = 96) -> Config:
    """A configuration of such rows below a folder, which has them afterwards."""
    for split, count in (("train", rows), ("test", 24)):
        if not (folder / f"{split}.npy").exists():
            write_words(folder, split, count)
    source = "kind: arrays, variants: true, files: {0}/{1}.npy, labels: {0}/{1}_labels.npy"
    file = folder / "words.yaml"
    file.write_text(
        TEXT.format(
            train="{" + source.format(folder, "train") + "}",
            test="{" + source.format(folder, "test") + ", split: test}",
            model=MODEL,
            length=LENGTH,
            folder=folder,
        )
    )
    return load_config(str(file), sets)
