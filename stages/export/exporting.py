"""`run`: write a student in every format, and trust none before it gave the same outputs."""

import math
import shutil
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from egapipe.pipeline.config.data import FolderSource
from egapipe.pipeline.datasets import Dataset, open_dataset
from egapipe.pipeline.disk.files import replace_file, replace_json
from egapipe.pipeline.disk.replacing import replacing
from egapipe.pipeline.errors import EgapipeError, UsageError
from egapipe.pipeline.locations.urls import text_of
from egapipe.pipeline.mathematics.timing import median_time, one_thread
from egapipe.pipeline.results.runs import RunFolder, open_run
from egapipe.pipeline.terminal.progress import OpenProgress, silent_progress
from egapipe.pipeline.views import key_hashes
from egapipe.stages.distill import TrainedStudent, load_student
from egapipe.stages.distill.data.inputs.images import StreamedImages, readable
from egapipe.stages.export import FORMATS, NATIVE
from egapipe.stages.export.agreement import Agreement, agreement
from egapipe.stages.export.card import model_card
from egapipe.stages.export.folder import CARD, LIBRARIES, OWN, PREPROCESSOR, RECORD
from egapipe.stages.export.formats import WRITERS
from egapipe.stages.export.measured import Accuracy, measured
from egapipe.stages.export.module import OUTPUTS, Inference
from egapipe.stages.export.native import native_of
from egapipe.stages.export.preprocessing import preprocessing
from egapipe.stages.export.written import Order, Run, Written, arrays

EXPORT = "export"
"""The folder in a run folder."""
TOLERANCE = 1e-4
IMAGES = 64
BATCHES = (1, 64)
MIN_OPSET = 18


@dataclass(frozen=True)
class Checked:
    """One exported file.

    error: largest difference of an output to the student's on real images, as a share of that
    output's largest value. milliseconds: batch size -> median of a batch on one CPU thread.
    agreement: with the student, of a file of lower precision.
    """

    format: str
    file: str
    bytes: int
    error: float
    milliseconds: dict[int, float]
    agreement: Agreement | None = None


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
    left_out: str | None = None
    """Why there is no checkpoint of the student's own library, where none was asked for by name."""


def run(
    run_folder: RunFolder | str | Path,
    *,
    checkpoint: str = "last",
    to: str | Path | None = None,
    formats: Sequence[str] | None = None,
    opset: int | None = None,
    images: str | Path | None = None,
    licence: str = "unknown",
    trust_remote_code: bool = False,
    progress: OpenProgress = silent_progress,
) -> ExportReport:
    """Export the student of a run's `last` or `best` checkpoint, or its average, `ema`.

    to: the folder, default `export` in the run folder; the files of an earlier export there are
    replaced, those of anybody else never. formats: see `FORMATS`; default: all of full precision
    that there are of this student. opset: of ONNX, default torch's own. images: a folder of images
    to check outputs on; default: the run's test images, else its training images. licence: an
    identifier for the model card, which has the accuracy of the weights that are exported, see
    `measured`. trust_remote_code: see `load_student`. Every file is read back, compared on real
    images and timed before any appears. Raises UsageError (no such run, checkpoint, format or
    images; a library is missing; a file there is somebody else's) or EgapipeError (the student
    cannot be traced; a file gives other outputs).
    """
    unknown = [name for name in formats or () if name not in WRITERS]
    if unknown or formats == []:
        raise UsageError(f"format {unknown or 'missing'}: choose from {', '.join(WRITERS)}")
    if opset is not None and opset < MIN_OPSET:
        raise UsageError(f"opset is {opset}: torch writes {MIN_OPSET} and later")
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
        wanted = formats or _all(student)
        optional = () if formats else (NATIVE,)
        report = _write(student, pixels, beside, wanted, optional, opset, accuracy)
        record = {
            "checkpoint": student.checkpoint.name,
            "which": checkpoint,
            "native": _library(student, report),
            **_plain(report),
        }
        replace_json(beside / PREPROCESSOR, preprocessing(student.spec))
        replace_json(beside / RECORD, record)
        card = model_card(student, _summary(folder), record, licence)
        replace_file(beside / CARD, card.encode())
    if to is not None:
        return replace(report, folder=out)
    folder.replace_there(f"{EXPORT}/")
    return replace(report, folder=out if folder.url is None else f"{folder.url}/{EXPORT}")


def _library(student: TrainedStudent, report: ExportReport) -> str | None:
    """Whose own format is among the files."""
    native = native_of(student.spec)
    return native.library if native and any(f.format == NATIVE for f in report.files) else None


def _all(student: TrainedStudent) -> list[str]:
    """The formats of full precision that there are of a student."""
    return [*FORMATS, *([NATIVE] if native_of(student.spec) else [])]


def sample_images(student: TrainedStudent, folder: str | Path | None) -> Tensor:
    """Real images at the student's input size, uint8 [up to IMAGES, 3, H, W].

    Raises UsageError if none can be read.
    """
    return _evenly(student, _open_images(student, folder))


def _evenly(student: TrainedStudent, dataset: Dataset) -> Tensor:
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
    optional: Collection[str],
    opset: int | None,
    accuracy: Accuracy | str,
) -> ExportReport:
    """optional: formats that are left out, with the reason, where they cannot be written."""
    module = Inference(student.student).eval()
    calibration = _calibration(student, pixels) if "onnx-int8" in formats else pixels
    order = Order(module, student.spec, folder, calibration, opset)
    reference = arrays(module)
    expected = dict(zip(OUTPUTS, reference(pixels), strict=True))
    files, left_out = [], None
    for name in dict.fromkeys(formats):
        try:
            done = WRITERS[name](order)
            error = _compare(name, done, pixels, expected)
        except EgapipeError as reason:
            if name not in optional:
                raise
            left_out = str(reason)
            for library in LIBRARIES:
                shutil.rmtree(folder / library, ignore_errors=True)
            continue
        measured = None if done.exact else agreement(done.run, student, reference, pixels)
        size = (folder / done.file).stat().st_size
        files.append(Checked(name, done.file, size, error, _time(done.run, pixels), measured))
    times = _time(reference, pixels)
    return ExportReport(folder, len(pixels), times, files, accuracy, left_out)


def _calibration(student: TrainedStudent, pixels: Tensor) -> Tensor:
    """Training images, so that the test images are none that a file was made with; without them
    those that files are checked on."""
    try:
        return _evenly(student, open_dataset(student.config.dataset.train))
    except UsageError:
        return pixels


def _compare(name: str, done: Written, pixels: Tensor, expected: Mapping[str, np.ndarray]) -> float:
    """The largest relative error, of the whole batch and of its first image alone.

    Raises EgapipeError above TOLERANCE in a file that must be exact, and if the outputs are none.
    """
    worst = 0.0
    for count in (len(pixels), 1):
        for output, found in zip(done.outputs, done.run(pixels[:count]), strict=True):
            true = expected[output]
            scale = max(float(np.abs(true).max()), 1e-12)
            error = float(np.abs(found - true[:count]).max()) / scale
            if not error <= (TOLERANCE if done.exact else math.inf):
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
