"""`run`: write a student in every format, and trust none before it gave the same outputs."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from egapipe.pipeline.config.data import FolderSource
from egapipe.pipeline.datasets import Dataset, open_dataset
from egapipe.pipeline.disk.files import replace_file
from egapipe.pipeline.disk.replacing import replacing
from egapipe.pipeline.errors import EgapipeError, UsageError
from egapipe.pipeline.locations.urls import text_of
from egapipe.pipeline.mathematics.timing import median_time, one_thread
from egapipe.pipeline.results.runs import RunFolder, open_run
from egapipe.pipeline.terminal.progress import OpenProgress, silent_progress
from egapipe.pipeline.views import key_hashes
from egapipe.stages.distill import TrainedStudent, load_student
from egapipe.stages.distill.data.images import StreamedImages, readable
from egapipe.stages.export import FORMATS
from egapipe.stages.export.card import model_card
from egapipe.stages.export.folder import CARD, OWN, RECORD
from egapipe.stages.export.measured import Accuracy, measured
from egapipe.stages.export.module import OUTPUTS, Inference
from egapipe.stages.export.preprocessing import KEY, preprocessing
from egapipe.stages.export.programs import FILES, WRITERS, Arrays, Run, arrays

EXPORT = "export"
"""The folder in a run folder."""
TOLERANCE = 1e-4
IMAGES = 64
BATCHES = (1, 64)


@dataclass(frozen=True)
class Checked:
    """One exported file.

    error: largest difference of an output to the student's on real images, as a share of that
    output's largest value. milliseconds: batch size -> median of a batch on one CPU thread.
    """

    format: str
    file: str
    bytes: int
    error: float
    milliseconds: dict[int, float]


@dataclass(frozen=True)
class ExportReport:
    """The folder and its files. images: real images that every file was checked on. reference:
    milliseconds of the student itself, as in `Checked`. accuracy: of the weights that were
    exported, or why it is not known."""

    folder: str | Path
    images: int
    reference: dict[int, float]
    files: list[Checked]
    accuracy: Accuracy | str


def run(
    run_folder: RunFolder | str | Path,
    *,
    checkpoint: str = "last",
    to: str | Path | None = None,
    formats: Sequence[str] = FORMATS,
    images: str | Path | None = None,
    licence: str = "unknown",
    trust_remote_code: bool = False,
    progress: OpenProgress = silent_progress,
) -> ExportReport:
    """Export the student of a run's `last` or `best` checkpoint, or its average, `ema`.

    to: the folder, default `export` in the run folder; the files of an earlier export there are
    replaced, those of anybody else never. formats: see `FORMATS`. images: a folder of images to
    check outputs on; default: the run's test images, else its training images. licence: an
    identifier for the model card, which has the accuracy of the weights that are exported, see
    `measured`. trust_remote_code: see `load_student`. Every file is read back, compared on real
    images and timed before any appears. Raises UsageError (no such run, checkpoint, format or
    images; a library is missing; a file there is somebody else's) or EgapipeError (the student
    cannot be traced; a file gives other outputs).
    """
    unknown = [name for name in formats if name not in WRITERS]
    if unknown or not formats:
        raise UsageError(f"format {unknown or 'missing'}: choose from {', '.join(WRITERS)}")
    folder = open_run(run_folder)
    student = load_student(folder, checkpoint, "cpu", trust_remote_code=trust_remote_code)
    out = Path(to) if to is not None else folder.path / EXPORT
    if to is None:
        folder.fetch(f"{EXPORT}/")
    pixels = sample_images(student, images)
    accuracy = measured(folder, student, checkpoint, progress)
    # What an earlier export wrote is known by its record; everything else there is somebody's.
    before = OWN if (out / RECORD).is_file() else None
    with replacing(out, RECORD, before, b"{}\n") as beside:
        report = _write(student, pixels, beside, formats, accuracy)
        record = {
            "checkpoint": student.checkpoint.name,
            "which": checkpoint,
            KEY: preprocessing(student.spec),
            **_plain(report),
        }
        replace_file(beside / RECORD, (json.dumps(record, indent=2) + "\n").encode())
        card = model_card(student, _summary(folder), record, licence)
        replace_file(beside / CARD, card.encode())
    if to is not None:
        return replace(report, folder=out)
    folder.replace_there(f"{EXPORT}/")
    return replace(report, folder=out if folder.url is None else f"{folder.url}/{EXPORT}")


def sample_images(student: TrainedStudent, folder: str | Path | None) -> Tensor:
    """Real images at the student's input size, uint8 [up to IMAGES, 3, H, W].

    Raises UsageError if none can be read.
    """
    dataset = _open_images(student, folder)
    rows = np.arange(len(dataset))
    rows = rows[:: max(1, len(rows) // IMAGES)][:IMAGES]
    hashes, device = key_hashes(dataset.keys), torch.device("cpu")
    stream = StreamedImages(dataset, hashes, student.spec.frame, device, threads=1)
    _, pixels = readable(stream, rows)
    if len(pixels) == 0:
        raise UsageError(f"{dataset.name} has no readable image to check the files on")
    return pixels


def _open_images(student: TrainedStudent, folder: str | Path | None) -> Dataset:
    if folder is not None:
        return open_dataset(FolderSource(kind="folder", path=text_of(Path(folder))))
    source = student.config.dataset.test or student.config.dataset.train
    try:
        return open_dataset(source)
    except UsageError as error:
        raise UsageError(f"{error}; or name a folder of images to check on: --images DIR") from None


def _write(
    student: TrainedStudent,
    pixels: Tensor,
    folder: Path,
    formats: Sequence[str],
    accuracy: Accuracy | str,
) -> ExportReport:
    module = Inference(student.student).eval()
    reference = arrays(module)
    expected = reference(pixels)
    files = []
    for name in dict.fromkeys(formats):
        run = WRITERS[name](module, student.spec, folder)
        error = _compare(name, run, pixels, expected)
        file = folder / FILES[name]
        files.append(Checked(name, file.name, file.stat().st_size, error, _time(run, pixels)))
    return ExportReport(folder, len(pixels), _time(reference, pixels), files, accuracy)


def _compare(name: str, run: Run, pixels: Tensor, expected: Arrays) -> float:
    """The largest relative error, of the whole batch and of its first image alone.

    Raises EgapipeError above TOLERANCE.
    """
    worst = 0.0
    for count in (len(pixels), 1):
        for output, found, true in zip(OUTPUTS, run(pixels[:count]), expected, strict=True):
            scale = max(float(np.abs(true).max()), 1e-12)
            error = float(np.abs(found - true[:count]).max()) / scale
            if not error <= TOLERANCE:
                raise EgapipeError(
                    f"the {name} file gives other {output} than the student (relative difference "
                    f"{error:.1e}, allowed {TOLERANCE:.0e}): nothing was exported"
                )
            worst = max(worst, error)
    return worst


def _time(run: Run, pixels: Tensor) -> dict[int, float]:
    repeated = pixels[torch.arange(max(BATCHES)) % len(pixels)]
    batches = {length: repeated[:length] for length in BATCHES}
    with one_thread():
        return {n: median_time(partial(run, batch)).milliseconds for n, batch in batches.items()}


def _plain(report: ExportReport) -> dict[str, Any]:
    found = report.accuracy
    return {
        "accuracy": {"left_out": found} if isinstance(found, str) else asdict(found),
        "images": report.images,
        "reference_milliseconds": report.reference,
        "files": [asdict(file) for file in report.files],
    }


def _summary(folder: RunFolder) -> dict[str, Any]:
    """Results for the card; an unfinished run has none yet."""
    return folder.summary() if folder.finished else {}
