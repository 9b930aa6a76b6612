"""Memory that runs out costs speed, and neither a worker nor a row."""

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from egapipe.pipeline.errors import TeacherError
from egapipe.pipeline.store import FeatureStore
from egapipe.pipeline.store.format.layout import commit_key
from egapipe.stages import extract
from egapipe.stages.extract.teachers import Outputs, Preprocessing
from egapipe.stages.extract.workers.forward.inference import batch_of, kind_of
from egapipe.stages.extract.workers.forward.memory import is_out_of_memory
from egapipe.stages.extract.workers.forward.passes import Passes, smaller
from egapipe.stages.extract.workers.forward.sizing import (
    FIRST,
    MOST,
    best_batch,
    found_by_doubling,
    settled_batch,
)
from tests.stages.extract.conftest import MakeConfig, Sets
from tests.stages.extract.contents import content
from tests.stages.extract.workers import hungry

CPU = torch.device("cpu")
ROOM = 700 * hungry.MIB


def teacher(*, batch: int) -> list[str]:
    """24 MiB a view: batches of 64 are 1.5 GiB."""
    return [
        f"teacher={{backend: python, model: '{hungry.__name__}:build', "
        "preprocessing: {size: 8, resample: nearest}}",
        f"extract.batch_size={batch}",
        "extract.cpus_per_worker=1",
        "extract.decode_threads=1",
        "store.dtype=float32",
        "views.count=1",
    ]


@pytest.mark.slow  # a process of its own that loads a teacher
def test_a_batch_that_does_not_fit_is_halved_and_its_rows_are_tried_again(
    quick: MakeConfig, sets: Sets, tmp_path: Path
) -> None:
    """A process with a real limit: the allocator says no, and nothing is pretended."""
    limited = sets(*teacher(batch=32), f"store.url={tmp_path / 'limited'}")
    done = subprocess.run(
        [sys.executable, "-m", hungry.__name__, str(ROOM), *limited],
        env={**os.environ, "MALLOC_ARENA_MAX": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    said = [line for line in done.stderr.splitlines() if "are too much for the memory" in line]
    assert said[0].count("32 images at once are too much for the memory of cpu: going on with 16")
    store = FeatureStore.open(str(tmp_path / "limited/train.zarr"))
    sizes = [commit.computed["batch"].partition(" x ")[0] for commit in store.commits().values()]
    assert sizes[0].startswith("32, 16")
    last = int(sizes[-1])
    assert last < 32
    # The same bytes as with batches of that size from the start.
    config = quick(*teacher(batch=last), f"store.url={tmp_path / 'alone'}")
    extract.run(config, split="train", local=True)
    alone, found = content(config.store_url("train")), content(store.url)
    arrays = {key for key in alone if "/c/" in key}
    assert arrays
    assert all(alone[key] == found[key] for key in arrays)


class Room:
    """A teacher that has memory for so many views at once, counted over all threads."""

    def __init__(self, views: int) -> None:
        self.spec = {"backend": "room", "model": "room", "precision": "float32"}
        self.preprocessing = Preprocessing((2, 2), None, "nearest", 1.0, (0, 0, 0), (1, 1, 1))
        self.outputs = {"embedding": (1,)}
        self.views = views
        self.lock = threading.Lock()
        self.there = 0
        self.passes: list[int] = []

    def to(self, device: torch.device) -> None: ...

    def forward(self, pixels: Tensor) -> Outputs:
        with self.lock:
            self.there += len(pixels)
            full = self.there > self.views
            self.passes.append(len(pixels))
        try:
            if full:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return {"embedding": pixels.flatten(1).float().sum(1, keepdim=True)}
        finally:
            with self.lock:
                self.there -= len(pixels)


def views(count: int) -> Tensor:
    return torch.arange(count * 12, dtype=torch.uint8).reshape(count, 3, 2, 2)


def test_parts_are_those_of_a_run_with_smaller_batches() -> None:
    room, notes = Room(3), list[str]()
    passes = Passes(room, CPU, 12, notes.append)
    plain = Room(12).forward(views(12))["embedding"]
    assert torch.equal(passes.forward(views(12))["embedding"], plain)
    # 12 and 6 do not fit.
    assert room.passes == [12, 6, 3, 3, 3, 3]
    assert len(notes) == 2
    assert passes.sizes() == [12, 6, 3]
    room.passes.clear()
    passes.forward(views(7))
    assert room.passes == [3, 3, 1]
    assert passes.sizes() == [3]


@given(st.integers(1, 500), st.data())
def test_a_part_divides_the_batch(batch: int, data: st.DataObject) -> None:
    size = data.draw(st.integers(2, max(2, batch)))
    part = smaller(batch, size)
    assert batch % part == 0
    assert 1 <= part <= size // 2


def test_a_view_that_does_not_fit_alone_is_said_in_one_line() -> None:
    room = Room(0)
    said = r"runs out of cpu memory with a single image: end what .* set teacher\.precision="
    with pytest.raises(TeacherError, match=said) as error:
        Passes(room, CPU, 8).forward(views(8))
    assert "\n" not in str(error.value)
    assert room.passes == [8, 4, 2, 1]


@pytest.mark.parametrize(
    ("error", "is_memory"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB"), True),
        (MemoryError(), True),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you"), True),
        (RuntimeError("CUDA error: out of memory"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), True),
        (RuntimeError("CUDA error: uncorrectable ECC error encountered"), False),
        (RuntimeError("shape mismatch"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_what_says_that_memory_ran_out(error: Exception, is_memory: bool) -> None:
    assert is_out_of_memory(error) is is_memory


def test_threads_that_share_the_memory_take_turns() -> None:
    room = Room(8)
    passes = Passes(room, CPU, 8)
    found: list[Tensor] = []

    def encode() -> None:
        for _ in range(20):
            found.append(passes.forward(views(8))["embedding"])

    threads = [threading.Thread(target=encode) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    expected = Room(8).forward(views(8))["embedding"]
    assert len(found) == 80
    assert all(torch.equal(one, expected) for one in found)


def rate(best: int, fits: int) -> Callable[[int], float | None]:
    """As fast as it gets at one size, and no memory above another."""
    return lambda size: None if size > fits else 1.0 + min(size, best)


@pytest.mark.parametrize(
    ("best", "fits", "expected"),
    [
        (64, 10**9, 64),
        (10**9, 10**9, MOST),
        (10**9, 100, 64),
        (1, 10**9, FIRST),
        (9, 7, 4),
        (9, 1, 1),
        (9, 0, None),
    ],
)
def test_doubling_ends_with_speed_or_memory(best: int, fits: int, expected: int | None) -> None:
    assert found_by_doubling(rate(best, fits)) == expected


def test_no_batch_is_larger_than_a_shard() -> None:
    assert found_by_doubling(rate(10**9, 10**9), most=100) == 64
    assert found_by_doubling(rate(10**9, 10**9), most=3) == FIRST


def test_a_batch_is_tried_as_it_is_run_and_only_where_there_is_room() -> None:
    """Eight images do not fit, and of four there is room for two passes of the three asked for."""
    room, asked = Room(10**6), list[int]()

    def passes(size: int) -> int:
        asked.append(size)
        return 2 if size <= 4 else 0

    assert best_batch(room, CPU, passes) == 4
    assert asked == [8, 4]
    assert room.passes == [4, 4] * 2


def test_what_does_not_fit_although_there_seemed_to_be_room_is_left() -> None:
    assert best_batch(Room(5), CPU, lambda size: 1) == 4
    with pytest.raises(TeacherError, match="with a single image"):
        best_batch(Room(0), CPU, lambda size: 1)


class Threads(Room):
    """Remembers with how many threads torch computes in a pass."""

    def forward(self, pixels: Tensor) -> Outputs:
        self.spec["threads"] = torch.get_num_threads()
        return super().forward(pixels)


def test_a_pass_that_is_timed_has_one_thread_as_a_workers_have() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        teacher = Threads(10**6)
        best_batch(teacher, CPU, lambda size: 2, views=FIRST)
        assert teacher.spec["threads"] == 1
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_the_batch_is_found_and_recorded_and_kept_by_a_resumed_run(quick: MakeConfig) -> None:
    config = quick("extract.batch_size=auto", "extract.same_device=true")
    report = extract.run(config, split="train", local=True)
    store = FeatureStore.open(report.url)
    [size] = {batch_of(commit.computed) for commit in store.commits().values()}
    assert FIRST <= (size or 0) <= MOST
    alone = content(report.url)
    # Whatever would be found now, the missing shards are of that size.
    for shard in (1, 3):
        Path(report.url, commit_key(shard)).unlink()
    assert extract.run(config, split="train", local=True).extracted == 32
    assert content(report.url) == alone


def test_a_found_batch_is_that_of_the_last_shards_of_the_same_kind() -> None:
    room = Room(10**6)
    like = kind_of(room, CPU)
    before = [{**like, "batch": "7 x 3 x 2 x 2"}, {**like, "batch": "64, 32 x 3 x 2 x 2"}]
    assert settled_batch("auto", room, CPU, before) == 32
    other = [{**one, "precision": "bfloat16"} for one in before]
    assert settled_batch("auto", room, CPU, other) is None
    # Of an egapipe that recorded less.
    assert settled_batch("auto", room, CPU, [{}, {"device": like["device"]}]) is None
    assert settled_batch(5, room, CPU, before) == 5
