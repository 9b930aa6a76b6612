"""Decoding alone: threads against processes."""

from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

from egapipe.pipeline.config.data import FolderSource, ViewsConfig
from egapipe.pipeline.config.extract import DecodeBy
from egapipe.pipeline.datasets import open_dataset
from egapipe.stages.bench.measure import Paired, paired
from egapipe.stages.bench.photos import save_photos
from egapipe.stages.extract.decoding.decode import Decoder
from egapipe.stages.extract.decoding.reader import Reader
from egapipe.stages.extract.teachers import Preprocessing

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


CASES = (
    Case("jpg", (375, 500), views=5, side=224, rows=32),
    Case("png", (32, 32), views=1, side=32, rows=1024),
    Case("png", (32, 32), views=5, side=32, rows=512),
)
COUNTS = (1, 2)


def measure(folder: Path, case: Case, count: int, repeats: int = 5) -> Paired:
    """Seconds in which so many processes (ours) or threads (the reference) decode all views.

    Threads and processes run before; only shared work is timed.
    """
    images = folder / case.name
    if not images.exists():
        save_photos(images, case.rows, case.size, case.suffix)
    dataset = open_dataset(FolderSource(kind="folder", path=str(images)))
    square = (case.side, case.side)
    preprocessing = Preprocessing(square, None, "bicubic", 1 / 255, (0, 0, 0), (1, 1, 1))
    reader = Reader(dataset, preprocessing, ViewsConfig(count=case.views - 1, crop="scale"))
    with ExitStack() as opened:

        def decoding(by: DecodeBy) -> Callable[[], object]:
            decoder = Decoder(reader, _BATCH, count, pinned=False, by=by)
            opened.enter_context(closing(decoder))
            return lambda: sum(1 for _ in decoder.batches(decoder.open(range(case.rows))))

        return paired(decoding("processes"), decoding("threads"), repeats=repeats)


def report(folder: Path) -> list[str]:
    """The measurements as lines of text."""
    lines = ["decoding alone, rows/s (ratio: processes over threads)"]
    for case in CASES:
        for count in COUNTS:
            found = measure(folder, case, count)
            lines.append(
                f"  {case.name:35} {count} threads {case.rows / found.reference:7.0f}  "
                f"processes {case.rows / found.ours:7.0f}  ratio {1 / found.ratio:6.2f}"
            )
    return lines
