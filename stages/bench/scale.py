"""A million rows through all of stage one: whether memory stays flat and the driver's work a shard
constant."""

import functools
import hashlib
import itertools
import os
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt
import psutil
import torch
from PIL import Image
from torch import nn

from egapipe.pipeline.config import Config
from egapipe.pipeline.datasets.decoding.images import Divisor
from egapipe.pipeline.datasets.fingerprint import fingerprint_of, image_digests
from egapipe.pipeline.keys import NumberedKeys
from egapipe.pipeline.machine.memory import resident_bytes
from egapipe.pipeline.machine.quiet import quiet
from egapipe.pipeline.store import Features, FeatureStore, check_store
from egapipe.pipeline.store.format import layout
from egapipe.pipeline.terminal.progress import Progress, Silence, Value
from egapipe.stages.bench.synthetic import Whole
from egapipe.stages.extract import Extraction
from egapipe.stages.extract.planning.job import Job
from egapipe.stages.extract.planning.manifest import Origin, index_of, manifest_for
from egapipe.stages.extract.teachers import load_teacher

SHARD_ROWS, SIDE, DIM, WORKERS = 2048, 8, 64, 2
ROWS = "EGAPIPE_BENCH_ROWS"
PARTS = 5
MB = 2**20


class Numbered(Whole):
    """Tiny RGB images, each made from the number of its row, so that none is ever kept."""

    name = "numbered"
    classes: list[str] | None = None

    def __init__(self, rows: int) -> None:
        self.rows = rows

    @functools.cached_property
    def keys(self) -> Sequence[str]:
        """The numbers."""
        return NumberedKeys([("", range(self.rows))], 8)

    @functools.cached_property
    def labels(self) -> npt.NDArray[np.int64]:
        """A hundred classes in turn."""
        return np.arange(self.rows) % 100

    @property
    def label_numbers(self) -> npt.NDArray[np.int64]:
        """The labels."""
        return self.labels

    def __len__(self) -> int:
        return self.rows

    def encoded(self, row: int) -> bytes:
        """The pixels' bytes: the hash of the number."""
        return hashlib.shake_128(str(row).encode()).digest(SIDE * SIDE * 3)

    def image(
        self, row: int, divisor: Divisor | None = None, data: bytes | None = None
    ) -> Image.Image:
        """The RGB image of a row."""
        return Image.frombytes("RGB", (SIDE, SIDE), self.encoded(row))

    def fingerprint(self) -> str:
        """Of every row, as that of a real data set."""
        return fingerprint_of(self)

    def digests(self, rows: int) -> list[bytes]:
        """Of every row, as those of a real data set."""
        return image_digests(self, rows)

    def __reduce__(self) -> tuple[Any, ...]:
        return (type(self), (self.rows,))


def teacher() -> nn.Module:
    """A random projection of the pixels."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(SIDE * SIDE * 3, DIM))


class Sample(NamedTuple):
    """A moment of a run."""

    rows: int
    """Rows done."""
    seconds: float
    """Wall-clock time."""
    driver_seconds: float
    """CPU time of all of the driver's threads."""
    driver_bytes: int
    """Resident memory of the driver."""
    worker_bytes: int
    """Resident memory of all workers together."""


class Probe(Silence):
    """Takes a sample whenever rows were finished; what that costs counts in none."""

    def __init__(self) -> None:
        self.samples: list[Sample] = []
        self._own = 0.0

    def show(self, state: Mapping[str, Value]) -> None:
        """Take a sample."""
        began = time.process_time()
        rows = int(state["done"])
        if not self.samples or rows > self.samples[-1].rows:
            memory = resident_bytes()
            self.samples.append(
                Sample(rows, time.perf_counter(), began - self._own, memory, _worker_bytes())
            )
        self._own += time.process_time() - began

    @contextmanager
    def __call__(
        self, task: str, total: int, *, done: int = 0, unit: str = "rows"
    ) -> Iterator[Progress]:
        """As `open_progress`."""
        yield Progress(self, task, total, done=done, unit=unit)


def _worker_bytes() -> int:
    found = 0
    for process in psutil.Process().children(recursive=True):
        try:
            if "ray::ExtractActor" in " ".join(process.cmdline()):
                found += process.memory_info().rss
        except psutil.NoSuchProcess:
            continue
    return found


class Part(NamedTuple):
    """A stretch of a run. Memory: the median of resident bytes."""

    rows_per_second: float
    driver_seconds: float
    """CPU seconds of the driver, a shard."""
    driver_bytes: float
    worker_bytes: float

    @classmethod
    def of(cls, samples: Sequence[Sample]) -> Self:
        """The part between the first and the last of these samples."""
        first, last = samples[0], samples[-1]
        rows = last.rows - first.rows
        return cls(
            rows / (last.seconds - first.seconds),
            (last.driver_seconds - first.driver_seconds) / (rows / SHARD_ROWS),
            statistics.median(s.driver_bytes for s in samples),
            statistics.median(s.worker_bytes for s in samples),
        )


@dataclass(frozen=True)
class Scaled:
    """A run. seconds: by step, in their order. sizes: bytes in the store, by what they are of.
    problems: what the check found."""

    rows: int
    samples: list[Sample]
    seconds: dict[str, float]
    sizes: dict[str, float]
    problems: list[str]

    def parts(self) -> list[Part]:
        """The fifths of the rows, from the first finished shard on."""
        count = len(self.samples) - 1
        edges = [count * i // PARTS for i in range(PARTS + 1)]
        return [Part.of(self.samples[a : b + 1]) for a, b in itertools.pairwise(edges)]


def rows_asked() -> int:
    """A million, or what the environment asks for."""
    return int(os.environ.get(ROWS, 1_000_000))


def measure(rows: int) -> Scaled:
    """Index, extraction over Ray workers, check, node-local copy and gathering, of 8 x 8 images."""
    with tempfile.TemporaryDirectory() as name, quiet():
        probe, watch = Probe(), Watch()
        extraction = _extraction(_config(Path(name)), rows, watch)
        with watch("extraction"):
            extraction.run(local=False, progress=probe)
        store = extraction.job.store
        with watch("check"):
            problems = check_store(store.url).problems
        with watch("command on it"):
            # What the start of each command costs, once the store is finished.
            FeatureStore.open(store.url).finished().content_hash()
        with watch("node-local copy"):
            features = Features.open(store, cache_dir=str(Path(name, "cache")))
        with watch("gather every row once"):
            for batch in np.array_split(np.random.default_rng(0).permutation(rows), rows // 100):
                features.take(batch, 0)
        return Scaled(rows, probe.samples, watch.seconds, _sizes(store), problems)


def _sizes(store: FeatureStore) -> dict[str, float]:
    sizes, shards = store.objects.sizes(), len(store.shards)
    records = sum(sizes[layout.commit_key(shard)] for shard in range(shards))
    return {
        "index, a row": sizes[layout.INDEX] / store.manifest.rows,
        "record, a shard": records / shards,
        "table of records, a shard": sizes[layout.COMMIT_TABLE] / shards,
    }


class Watch:
    """Wall-clock seconds of steps, by name."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, step: str) -> Iterator[None]:
        """Time a block."""
        began = time.perf_counter()
        yield
        self.seconds[step] = time.perf_counter() - began


def _config(folder: Path) -> Config:
    return Config.model_validate(
        {
            "name": "scale",
            # Its place is taken by the numbered images.
            "dataset": {"train": {"kind": "digits"}},
            "teacher": {
                "backend": "python",
                "model": f"{__name__}:teacher",
                "preprocessing": {"size": SIDE},
            },
            "views": {"count": 0},
            "store": {"url": str(folder / "stores"), "shard_rows": SHARD_ROWS},
            "extract": {"max_workers": WORKERS, "cpus_per_worker": 1, "device": "cpu"},
        }
    )


def _extraction(config: Config, rows: int, watch: "Watch") -> Extraction:
    """As `prepare` makes it of a configuration that names a data set."""
    dataset, teacher = Numbered(rows), load_teacher(config.teacher)
    with watch("fingerprint"):
        manifest = manifest_for(config, "train", Origin.of(teacher), dataset)
    with watch("index"):
        store = FeatureStore.create(config.store_url("train"), manifest, index_of(dataset))
    return Extraction(Job(config, "train", dataset, store), teacher)


def report() -> list[str]:
    """The measurement as lines of text."""
    found = measure(rows_asked())
    parts = found.parts()
    peaks = (max(s.driver_bytes for s in found.samples), max(s.worker_bytes for s in found.samples))
    return [
        f"{found.rows:,} rows in shards of {SHARD_ROWS}, {WORKERS} Ray workers of one thread",
        "                  rows/s  driver ms a shard  driver MB  workers MB",
        *(
            f"  fifth {number}       {part.rows_per_second:8.0f}  "
            f"{1000 * part.driver_seconds:17.2f}  "
            f"{part.driver_bytes / MB:9.0f}  {part.worker_bytes / MB:10.0f}"
            for number, part in enumerate(parts, start=1)
        ),
        f"  peak                                       {peaks[0] / MB:9.0f}  {peaks[1] / MB:10.0f}",
        "  last / first fifth: driver time "
        f"{parts[-1].driver_seconds / parts[0].driver_seconds:.2f}, "
        f"driver memory {parts[-1].driver_bytes / parts[0].driver_bytes:.2f}, "
        f"workers' memory {parts[-1].worker_bytes / parts[0].worker_bytes:.2f}",
        *(f"  {step:22} {seconds:7.1f} s" for step, seconds in found.seconds.items()),
        *(f"  {what:26} {size:6.1f} bytes" for what, size in found.sizes.items()),
        f"  problems found by the check: {len(found.problems)}",
    ]
