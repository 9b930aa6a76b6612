"""Decoding alone: what a core does in a second, and threads against processes."""

import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from egapipe.pipeline.config.data import FolderSource, ViewsConfig
from egapipe.pipeline.config.extract import DecodeBy
from egapipe.pipeline.datasets import open_dataset
from egapipe.pipeline.mathematics.timing import one_thread
from egapipe.stages.bench.measure import Paired, paired
from egapipe.stages.bench.photos import save_photos
from egapipe.stages.extract.decoding.decode import Decoder
from egapipe.stages.extract.decoding.reader import Reader
from egapipe.stages.extract.decoding.reduced import Reduced
from egapipe.stages.extract.teachers import Outputs, Preprocessing
from egapipe.stages.extract.teachers.on_device import OnDevice
from egapipe.stages.extract.teachers.undecoded import Undecoded

_BATCH = 64


@dataclass(frozen=True)
class Case:
    """Image files of a size (height, width), and the views of them that a teacher sees."""

    suffix: str
    size: tuple[int, int]
    views: int
    side: int
    rows: int

    @property
    def name(self) -> str:
        """In words."""
        height, width = self.size
        return f"{self.suffix} {height} x {width}, {self.views} views of {self.side} px"

    @property
    def canvas(self) -> int:
        """The square that its images fit in, of 512 pixels at most."""
        return min(512, max(self.size))

    @property
    def files(self) -> str:
        """Of the files alone."""
        height, width = self.size
        return f"{self.suffix}-{height}-{width}-{self.rows}"


CASES = (
    Case("jpg", (375, 500), views=5, side=224, rows=32),
    Case("png", (32, 32), views=1, side=32, rows=1024),
    Case("png", (32, 32), views=5, side=32, rows=512),
)
COUNTS = (1, 2)
RATES = (
    Case("jpg", (375, 500), views=1, side=224, rows=64),
    Case("jpg", (375, 500), views=5, side=224, rows=32),
    Case("jpg", (1500, 2000), views=1, side=224, rows=8),
    Case("png", (32, 32), views=1, side=32, rows=1024),
)
# What is left to do of an image of so few pixels is the interpreter's.
_TINY = 8
_TRIES = range(7)
_RESIZED = 32


@dataclass(frozen=True)
class Rate:
    """CPU milliseconds a row: all of them, those that one thread of a process has at a time, with
    `extract.jpeg: reduced`, with `extract.canvas`, and with `extract.jpeg: device` beside that.

    resizing: what `extract.canvas` leaves to the device, where the device is one core.
    """

    whole: float
    interpreter: float
    reduced: float
    canvas: float
    undecoded: float
    resizing: float


def rate(folder: Path, case: Case) -> Rate:
    """Of one core, by the clock of the thread: other work on the machine does not count."""
    reader = _reader(folder, case)
    tiny = _reader(folder, replace(case, size=(_TINY, _TINY), side=_TINY))
    small = replace(reader, preprocessing=Reduced(reader.preprocessing))
    canvas = OnDevice(_Pixels(_preprocessing(case.side)), case.canvas)
    packed = replace(reader, preprocessing=canvas.preprocessing)
    left = Undecoded(_preprocessing(case.side), case.canvas)
    readers = (reader, tiny, small, packed, replace(reader, preprocessing=left))
    found = [
        [*(_reading(one, case.rows) for one in readers), _resizing(canvas, packed)] for _ in _TRIES
    ]
    return Rate(*(statistics.median(column) for column in zip(*found, strict=True)))


class _Pixels:
    """A teacher of which only the transform counts."""

    def __init__(self, preprocessing: Preprocessing) -> None:
        self.spec = {"backend": "pixels"}
        self.outputs: dict[str, tuple[int, ...]] = {}
        self.preprocessing = preprocessing

    def to(self, device: torch.device) -> None:
        """It has no weights."""

    def forward(self, pixels: Tensor) -> Outputs:
        """It has no outputs."""
        del pixels
        return {}


def _resizing(canvas: OnDevice, reader: Reader) -> float:
    """Milliseconds for the views of a row, of one thread."""
    views = reader.views(0)
    batch = torch.from_numpy(np.stack([views[n % len(views)] for n in range(_RESIZED)]))
    with one_thread():
        canvas.pixels(batch)
        began = time.thread_time()
        canvas.pixels(batch)
    return 1000 * (time.thread_time() - began) / _RESIZED * len(views)


def _reading(reader: Reader, rows: int) -> float:
    slots = list(np.empty(reader.shape, np.uint8))
    began = time.thread_time()
    for row in range(rows):
        reader.read(row, slots)
    return 1000 * (time.thread_time() - began) / rows


def measure(folder: Path, case: Case, count: int, repeats: int = 5) -> Paired:
    """Seconds in which so many processes (ours) or threads (the reference) decode all views.

    Threads and processes run before; only shared work is timed.
    """
    reader = _reader(folder, case)
    with ExitStack() as opened:

        def decoding(by: DecodeBy) -> Callable[[], object]:
            decoder = Decoder(reader, _BATCH, count, pinned=False, by=by)
            opened.enter_context(closing(decoder))
            return lambda: sum(1 for _ in decoder.batches(decoder.open(range(case.rows))))

        return paired(decoding("processes"), decoding("threads"), repeats=repeats)


def _reader(folder: Path, case: Case) -> Reader:
    images = folder / case.files
    if not images.exists():
        save_photos(images, case.rows, case.size, case.suffix)
    dataset = open_dataset(FolderSource(kind="folder", path=str(images)))
    plan = ViewsConfig(count=case.views - 1, crop="scale")
    return Reader(dataset, _preprocessing(case.side), plan)


def _preprocessing(side: int) -> Preprocessing:
    return Preprocessing((side, side), None, "bicubic", 1 / 255, (0, 0, 0), (1, 1, 1))


def report() -> list[str]:
    """The measurements as lines of text."""
    with tempfile.TemporaryDirectory() as temporary:
        return [*_rates(Path(temporary)), "", *_crews(Path(temporary))]


def _rates(folder: Path) -> list[str]:
    lines = [
        "one core, rows/s by its own clock (of it the interpreter's; jpeg: reduced; canvas; jpeg:"
    ]
    lines += ["device; what canvas leaves to the device, were it one core)"]
    for case in RATES:
        found = rate(folder, case)
        lines.append(
            f"  {case.name:36} {1000 / found.whole:7.0f}  {found.whole:7.3f} ms a row  interpreter "
            f"{found.interpreter / found.whole:4.0%}  reduced {1000 / found.reduced:7.0f}  "
            f"canvas {1000 / found.canvas:7.0f}  device {1000 / found.undecoded:7.0f}  "
            f"{found.resizing:7.3f} ms a row"
        )
    return lines


def _crews(folder: Path) -> list[str]:
    lines = ["decoding alone, rows/s (ratio: processes over threads)"]
    for case in CASES:
        for count in COUNTS:
            found = measure(folder, case, count)
            lines.append(
                f"  {case.name:35} {count} threads {case.rows / found.reference:7.0f}  "
                f"processes {case.rows / found.ours:7.0f}  ratio {1 / found.ratio:6.2f}"
            )
    return lines
