"""Extraction: end to end against its teacher alone, and the choices of inference."""

import itertools
import json
import statistics
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import transformers

from egapipe.pipeline.config import Config
from egapipe.pipeline.machine.quiet import quiet
from egapipe.pipeline.store import FeatureStore
from egapipe.stages.bench import batches, forward
from egapipe.stages.bench.measure import Paired, paired
from egapipe.stages.bench.photos import save_photos
from egapipe.stages.extract import Extraction, ExtractReport, prepare

BATCH, SIDE = 8, 224
ROWS_PER_CORE = 32
PROCESSOR = {
    "image_processor_type": "BitImageProcessor",
    "size": {"shortest_edge": 256},
    "crop_size": {"height": SIDE, "width": SIDE},
}


@dataclass(frozen=True)
class EndToEnd:
    """Seconds of extraction and of the bare forward pass. shares: of the extraction's phases."""

    seconds: Paired
    shares: dict[str, float]


def measure(folder: Path, repeats: int = 5) -> EndToEnd:
    """Seconds of photos of 375 x 500 pixels, a view each, through the teacher in a folder.

    Ours reads and decodes JPEG files, resizes, crops, encodes in batches of 8 and writes a whole
    store; the reference runs the same network on as many normalised images in memory, in the same
    batches. Both on the CPU with the same number of threads, and 32 images for each.
    """
    save_photos(folder / "photos", rows(), (375, 500), "jpg")
    reports: list[ExtractReport] = []
    seconds = paired(_extraction(folder, reports), _bare(folder / "teacher"), repeats=repeats)
    phases = reports[0].shares
    medians = {phase: statistics.median(r.shares[phase] for r in reports) for phase in phases}
    return EndToEnd(seconds, medians)


def rows() -> int:
    """Images of a measurement."""
    return ROWS_PER_CORE * max(2, torch.get_num_threads())


def _save_teacher(folder: Path) -> None:
    """A ViT-S/14 with random weights: as fast as a trained one."""
    torch.manual_seed(0)
    config = transformers.Dinov2Config(
        hidden_size=384, num_attention_heads=6, num_hidden_layers=12, image_size=SIDE, patch_size=14
    )
    transformers.Dinov2Model(config).save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(PROCESSOR))


def _extraction(folder: Path, reports: list[ExtractReport]) -> Callable[[], object]:
    """Extracts into another store at every call, and reports."""
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
        reports.append(Extraction(replace(first.job, store=store), first.teacher).run(local=True))

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
    """The measurements as lines of text."""
    with tempfile.TemporaryDirectory() as name, quiet():
        folder = Path(name)
        _save_teacher(folder / "teacher")
        found = measure(folder)
        return [
            f"ViT-S/14 at {SIDE} px on {rows()} JPEG files, batch {BATCH}, CPU, "
            f"{torch.get_num_threads()} threads",
            f"  extraction    {rows() / found.seconds.ours:8.2f} rows/s",
            f"  bare forward  {rows() / found.seconds.reference:8.2f} rows/s",
            f"  speed ratio   {1 / found.seconds.ratio:8.3f}  (aim >= 0.95)",
            "  shares        " + ", ".join(f"{n} {v:.1%}" for n, v in found.shares.items()),
            *forward.report(folder / "teacher", BATCH),
            *batches.report(),
        ]
