"""Memory goes by bytes: shards, what is decoded ahead, and passes beside each other."""

import math
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from egapipe.pipeline.config import Config
from egapipe.pipeline.errors import UsageError
from egapipe.pipeline.store import FeatureStore, check_store
from egapipe.pipeline.store.format.dtypes import NUMPY, DtypeName
from egapipe.stages import extract
from egapipe.stages.bench.synthetic import MEAN, STD
from egapipe.stages.extract.decoding.decode import AHEAD, ahead
from egapipe.stages.extract.planning import job
from egapipe.stages.extract.planning.dry_run import dry_run
from egapipe.stages.extract.planning.dry_run_table import table_lines
from egapipe.stages.extract.planning.memory import WorkerMemory, pass_bytes
from egapipe.stages.extract.planning.shards import SHARD_BYTES, USUAL_ROWS, fitting_rows
from egapipe.stages.extract.teachers import Outputs
from egapipe.stages.extract.teachers.preprocessing import Preprocessing
from tests.stages.extract import models
from tests.stages.extract.conftest import MakeConfig

MB = 2**20


@given(
    st.dictionaries(st.sampled_from("ab"), st.lists(st.integers(1, 4096), max_size=3), min_size=1),
    st.integers(1, 1000),
    st.sampled_from(list(NUMPY)),
)
def test_a_shard_has_as_many_rows_as_fit(
    outputs: Mapping[str, list[int]], views: int, dtype: DtypeName
) -> None:
    rows = fitting_rows(outputs, views, dtype)
    row = views * sum(map(math.prod, outputs.values())) * NUMPY[dtype].itemsize
    assert rows & (rows - 1) == 0
    assert 1 <= rows <= USUAL_ROWS
    assert rows == 1 or rows * row <= SHARD_BYTES
    assert rows == USUAL_ROWS or 2 * rows * row > SHARD_BYTES


def test_shards_of_usual_embeddings_are_what_they_were() -> None:
    assert fitting_rows({"embedding": (768,), "logits": (1000,)}, 6, "float32") == 4096
    assert fitting_rows({"embedding": (768,), "grid": (768, 16, 16)}, 5, "float16") == 128


def test_batches_of_large_pixels_are_fewer_ahead() -> None:
    assert ahead(128 * 3 * 224 * 224) == AHEAD
    assert ahead(90 * MB) == 2
    assert ahead(2**40) == 2


def test_a_store_keeps_its_own_layout(quick: MakeConfig) -> None:
    """As one that an older egapipe began, whose rows a shard were always said."""
    extract.run(quick("store.shard_rows=16"), split="train", local=True)
    config = quick("store.shard_rows=null")
    store = FeatureStore.open(config.store_url("train"))
    store.objects.delete("commits/000002.json")
    report = extract.run(config, split="train", local=True)
    assert (report.extracted, FeatureStore.open(store.url).manifest.shard_rows) == (16, 16)
    assert not check_store(store.url).problems


def test_fewer_passes_where_memory_is_short() -> None:
    need = WorkerMemory(process=500, images=100, shard=400, one_pass=300, passes=64)
    assert need.total == 1000 + 64 * 300
    assert need.within(10**6, "here").passes == 64
    assert need.within(2500, "here").passes == 5
    assert need.within(1300, "here").passes == 1
    with pytest.raises(UsageError, match=r"a worker needs 1\.3 kB of memory .* box has 1\.3 kB"):
        need.within(1299, "box")
    assert WorkerMemory(1, 1, 1, 0, 9).within(3, "here").passes == 9


class Hungry:
    """A teacher that takes a megabyte an image while it computes."""

    def __init__(self) -> None:
        self.spec: dict[str, str] = {}
        self.preprocessing = Preprocessing((2, 2), None, "bicubic", 1, MEAN, STD)

    def forward(self, pixels: Tensor) -> Outputs:
        held = torch.ones((len(pixels), MB), dtype=torch.uint8)
        time.sleep(0.05)
        return {"embedding": held[:, :1].float()}


def measured_pass() -> int:
    """What a pass of 100 images is found to take, where what was freed before would do for it."""
    for held in [[bytearray(100_000) for _ in range(1000)], None]:
        del held
    return pass_bytes(Hungry(), 100)  # type: ignore[arg-type]


def test_the_memory_of_a_pass_is_measured() -> None:
    """In a process of its own: threads that other tests left take and free memory meanwhile."""
    code = f"from {__name__} import measured_pass; print(measured_pass())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 90 * MB < int(done.stdout) < 110 * MB


def test_a_machine_with_too_little_is_refused_before_anything_is_decoded(
    quick: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = quick()
    monkeypatch.setattr(job, "total_memory", lambda: 10 * MB)
    with pytest.raises(UsageError, match=r"a worker needs .* has 9\.4 MB for it"):
        extract.run(config, split="train", local=True)


def test_the_dry_run_says_what_a_worker_needs(
    quick: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    dry = dry_run(quick(), ["train"], local=True)
    [line] = [line for line in table_lines(dry) if line.startswith("memory")]
    assert "a worker needs" in line
    assert "are there for one" in line
    assert dry.memory.total > psutil.Process().memory_info().rss / 2
    monkeypatch.setattr(f"{dry_run.__module__}.total_memory", lambda: 10 * MB)
    with pytest.raises(UsageError, match="the machine with most has"):
        dry_run(quick(), ["train"], local=True).check()
    monkeypatch.undo()
    extract.run(quick(), split="train", local=True)
    monkeypatch.setattr(f"{dry_run.__module__}.total_memory", lambda: 10 * MB)
    dry_run(quick(), ["train"], local=True).check()


@contextmanager
def highest_of_workers() -> Iterator[dict[int, int]]:
    """Process -> the most memory that each worker of this process's Ray was seen with."""
    seen: dict[int, int] = {}
    ended = threading.Event()

    def look() -> None:
        while not ended.wait(0.05):
            for process in psutil.Process().children(recursive=True):
                try:
                    if "ExtractActor" in " ".join(process.cmdline()):
                        rss = process.memory_info().rss
                        seen[process.pid] = max(seen.get(process.pid, 0), rss)
                except psutil.Error:
                    continue

    looking = threading.Thread(target=look, daemon=True)
    looking.start()
    try:
        yield seen
    finally:
        ended.set()
        looking.join()


@pytest.fixture
def wide(quick: MakeConfig, tmp_path: Path) -> Config:
    """A ViT of 768 numbers and 16 x 16 patches, all of which are kept."""
    folder = models.wide_vit(tmp_path / "wide")
    return quick(
        f"teacher.model={folder}",
        "teacher.grid=16",
        "store.shard_rows=null",
        "views.count=2",
        "dataset.train.limit=384",
        "extract.batch_size=32",
        "extract.min_workers=3",
        "extract.max_workers=3",
        "cluster.cpus=3",
    )


@pytest.mark.slow
def test_workers_of_a_wide_grid_need_what_was_said(wide: Config) -> None:
    """Slow: three shards of 256 MB, for only so much shows whether a copy was forgotten."""
    said = dry_run(wide, ["train"]).memory
    with highest_of_workers() as seen:
        extract.run(wide, split="train")
    store = FeatureStore.open(wide.store_url("train"))
    assert store.manifest.shard_rows == 128
    assert len(seen) == 3
    assert max(seen.values()) < 1.2 * said.total
