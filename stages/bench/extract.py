"""Extraction end to end against the bare forward pass of its teacher on ready tensors."""

import itertools
import json
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import transformers
from PIL import Image
from sklearn.datasets import load_sample_images

from egapipe.pipeline.config import Config
from egapipe.pipeline.store import FeatureStore
from egapipe.stages.bench.measure import Paired, paired
from egapipe.stages.extract import Extraction, prepare
from egapipe.stages.extract.teachers.quiet import quiet

BATCH, SIDE = 8, 224
ROWS_PER_CORE = 32
PHOTO = (375, 500)
PROCESSOR = {
    "image_processor_type": "BitImageProcessor",
    "size": {"shortest_edge": 256},
    "crop_size": {"height": SIDE, "width": SIDE},
}


def measure(repeats: int = 5) -> Paired:
    """Seconds of photos of 375 x 500 pixels, a view each, through a ViT-S/14 at 224 px.

    Ours reads and decodes JPEG files, resizes, crops, encodes in batches of 8 and writes a whole
    store; the reference runs the same network on as many normalised images in memory, in the same
    batches. Both on the CPU with the same number of threads, and 32 images for each.
    """
    with tempfile.TemporaryDirectory() as name, quiet():
        folder = Path(name)
        _save_photos(folder / "photos", rows())
        _save_teacher(folder / "teacher")
        return paired(_extraction(folder), _bare(folder / "teacher"), repeats=repeats)


def rows() -> int:
    """Images of a measurement."""
    return ROWS_PER_CORE * max(2, torch.get_num_threads())


def _save_photos(folder: Path, count: int) -> None:
    """Crops of scikit-learn's two photographs: natural content, none like another."""
    folder.mkdir()
    photos = load_sample_images().images
    rng = np.random.default_rng(0)
    height, width = PHOTO
    for row in range(count):
        photo = photos[row % len(photos)]
        top = rng.integers(photo.shape[0] - height + 1)
        left = rng.integers(photo.shape[1] - width + 1)
        crop = photo[top : top + height, left : left + width]
        Image.fromarray(crop).save(folder / f"{row:03d}.jpg", quality=90)


def _save_teacher(folder: Path) -> None:
    """A ViT-S/14 with random weights: as fast as a trained one."""
    torch.manual_seed(0)
    config = transformers.Dinov2Config(
        hidden_size=384, num_attention_heads=6, num_hidden_layers=12, image_size=SIDE, patch_size=14
    )
    transformers.Dinov2Model(config).save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(PROCESSOR))


def _extraction(folder: Path) -> Callable[[], object]:
    config = Config.model_validate(
        {
            "name": "bench",
            "dataset": {"train": {"kind": "folder", "path": str(folder / "photos")}},
            "teacher": {"backend": "transformers", "model": str(folder / "teacher")},
            "views": {"count": 0},
            "store": {"url": str(folder / "stores"), "shard_rows": rows()},
            "extract": {"batch_size": BATCH, "device": "cpu"},
        }
    )
    [first] = prepare(config, ["train"])
    manifest, index, number = first.job.store.manifest, first.job.store.index(), itertools.count()

    def ours() -> None:
        store = FeatureStore.create(str(folder / f"store{next(number)}.zarr"), manifest, index)
        Extraction(replace(first.job, store=store), first.teacher).run(local=True)

    return ours


def _bare(teacher: Path) -> Callable[[], object]:
    model = transformers.Dinov2Model.from_pretrained(teacher).eval()
    pixels = torch.randn(rows(), 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))

    @torch.inference_mode()
    def reference() -> None:
        for batch in pixels.split(BATCH):
            model(pixel_values=batch)

    return reference


def report() -> list[str]:
    """The measurement as lines of text."""
    found = measure()
    return [
        f"ViT-S/14 at {SIDE} px on {rows()} JPEG files, batch {BATCH}, CPU, "
        f"{torch.get_num_threads()} threads",
        f"  extraction    {rows() / found.ours:8.2f} rows/s",
        f"  bare forward  {rows() / found.reference:8.2f} rows/s",
        f"  speed ratio   {1 / found.ratio:8.3f}  (aim >= 0.95)",
    ]
