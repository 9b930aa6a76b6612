"""Processes that decode: the same pixels as threads, and nothing of them outlives the command."""

import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import closing
from pathlib import Path

import numpy as np
import psutil
import pytest

from egapipe.pipeline.config.data import DigitsSource, FolderSource, ViewsConfig
from egapipe.pipeline.datasets import open_dataset
from egapipe.pipeline.errors import UsageError
from egapipe.pipeline.store import FeatureStore
from egapipe.stages import extract
from egapipe.stages.extract.decoding.crew import (
    Decoded,
    HungError,
    Limits,
    Task,
    awaited,
)
from egapipe.stages.extract.decoding.decode import AHEAD, ShardImages
from egapipe.stages.extract.decoding.processes import Processes
from egapipe.stages.extract.decoding.reader import Reader
from egapipe.stages.extract.decoding.threads import Threads
from egapipe.stages.extract.teachers import Preprocessing
from tests.stages.extract.conftest import MakeConfig
from tests.stages.extract.contents import content
from tests.stages.extract.decoding.harm import Harmful, Unopened

ROWS, VIEWS, CAPACITY = 24, 3, 8
BROKEN = (3, 17)
# A process imports torch before it decodes: a second or two, and far more on a busy machine.
DEADLINE = 120.0


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Reader:
    """Twenty-four images in three views, two of them unreadable."""
    folder = tmp_path_factory.mktemp("images")
    digits = open_dataset(DigitsSource(kind="digits", split="all"))
    for row in range(ROWS):
        digits.image(row).save(folder / f"{row:02}.png")
    for row in BROKEN:
        (folder / f"{row:02}.png").write_bytes(b"no image")
    plan = ViewsConfig(count=VIEWS - 1, crop="scale", seed=3)
    preprocessing = Preprocessing((6, 7), None, "bilinear", 1 / 255, (0, 0, 0), (1, 1, 1))
    return Reader(open_dataset(FolderSource(kind="folder", path=str(folder))), preprocessing, plan)


@pytest.fixture(scope="module")
def processes(reader: Reader) -> Iterator[Processes]:
    with closing(Processes(reader, 2, CAPACITY)) as made:
        yield made


def slots(rows: Sequence[int], reader: Reader) -> tuple[np.ndarray, list[Task]]:
    """Memory for rows, and the tasks that fill it; 7 is no pixel of theirs that was not written."""
    memory = np.full((len(rows), *reader.shape), 7, np.uint8)
    return memory, [Task(row, list(memory[i])) for i, row in enumerate(rows)]


def finished(futures: Sequence[Future[Decoded]]) -> list[Decoded]:
    return [future.result(timeout=DEADLINE) for future in futures]


def test_they_fill_the_slots_as_threads_do(processes: Processes, reader: Reader) -> None:
    rows = list(range(ROWS))
    memory, tasks = slots(rows, reader)
    # Three times as many rows as there is room for at once: `begin` waits, and goes on.
    found = finished(processes.begin(tasks[:CAPACITY]))
    found += finished(processes.begin(tasks[CAPACITY : 2 * CAPACITY]))
    found += finished(processes.begin(tasks[2 * CAPACITY :]))
    expected, same = slots(rows, reader)
    with closing(Threads(reader, 2)) as threads:
        by_threads = finished(threads.begin(same))
    assert np.array_equal(memory, expected)
    failures = [failure for decoded in found for failure in decoded.failures]
    assert failures == [failure for decoded in by_threads for failure in decoded.failures]
    assert [failure.row for failure in failures] == list(BROKEN)
    assert (memory[list(BROKEN)] == 0).all()
    assert all(decoded.seconds > 0 for decoded in found)


def test_nothing_to_do_is_done(processes: Processes) -> None:
    assert processes.begin([]) == []


@pytest.mark.parametrize("batch_size", [1, 2, 5, 6])
def test_batches_mix_images_and_views(
    processes: Processes, reader: Reader, batch_size: int
) -> None:
    """Whole batches whatever the number of views: V = 3 divides neither 2 nor 5."""
    rows = range(4, 16)
    images = ShardImages(reader, rows, batch_size, pinned=False)
    batches = []
    while images.waiting or not images.all_begun:
        while not images.all_begun and images.waiting < AHEAD:
            images.begin(processes)
        batches.append(images.take())
    assert all(len(batch.pixels) == batch_size for batch in batches[:-1])
    found = np.concatenate([batch.pixels.numpy() for batch in batches])
    assert np.array_equal(found, np.stack([view for row in rows for view in reader.views(row)]))


def test_what_is_abandoned_gives_its_room_back(processes: Processes, reader: Reader) -> None:
    for _ in range(5):
        _, tasks = slots(range(4, 4 + CAPACITY), reader)
        for future in processes.begin(tasks):
            future.cancel()
    memory, tasks = slots(range(4, 4 + CAPACITY), reader)
    finished(processes.begin(tasks))
    assert np.array_equal(memory, np.stack([reader.views(row) for row in range(4, 4 + CAPACITY)]))


def harmful(rows: int) -> tuple[np.ndarray, list[Task]]:
    memory = np.full((rows, *Harmful.shape), 255, np.uint8)
    return memory, [Task(row, list(memory[row])) for row in range(rows)]


REASONS = {
    1: "decoding it ends the process (exit code 9)",
    4: "decoding it ends the process (SIGSEGV)",
    5: "decoding it takes more than 1.5 s",
    6: "decoding it takes more than 209.7 MB of memory",
}


def test_a_row_that_ends_hangs_or_fills_its_process_is_a_failure_and_no_other_is() -> None:
    harm = {1: "exit", 4: "kill", 5: "hang", 6: "memory"}
    with closing(Processes(Harmful(harm), 1, 8, Limits(1.5, 200 * 2**20))) as crew:
        memory, tasks = harmful(8)
        found = finished(crew.begin(tasks))
    failures = {f.row: (f.key, f.reason) for one in found for f in one.failures}
    assert failures == {row: (f"key{row}", reason) for row, reason in REASONS.items()}
    assert memory[:, 0, 0, 0, 0].tolist() == [0, 0, 2, 3, 0, 0, 0, 7]


def test_a_process_that_is_lost_once_says_nothing_of_its_row(tmp_path: Path) -> None:
    with closing(Processes(Harmful({2: "kill"}, tmp_path), 1, 4)) as crew:
        memory, tasks = harmful(4)
        found = finished(crew.begin(tasks))
    assert not any(one.failures for one in found)
    assert memory[:, 0, 0, 0, 0].tolist() == [0, 1, 2, 3]


def test_what_is_no_fact_about_a_row_is_raised_as_it_is() -> None:
    with closing(Processes(Harmful({0: "bug"}), 1, 2)) as crew:
        _, tasks = harmful(1)
        with pytest.raises(ZeroDivisionError, match="a bug of the data set"):
            finished(crew.begin(tasks))


def test_a_data_set_that_a_process_cannot_open_is_named() -> None:
    with closing(Processes(Unopened({}), 1, 2)) as crew:
        _, tasks = harmful(1)
        with pytest.raises(UsageError, match="no such folder here"):
            finished(crew.begin(tasks))


def test_a_thread_that_hangs_is_named_and_keeps_nobody_waiting() -> None:
    limits = Limits(seconds=0.2)
    with closing(Threads(Harmful({1: "hang"}), 2, limits)) as crew:
        _, tasks = harmful(3)
        futures = crew.begin(tasks)
        assert awaited(futures[0], crew, limits).seconds == 0.5
        with pytest.raises(
            HungError, match=r"^row 1 \(key1\) is still being read after 0.2 s"
        ) as e:
            awaited(futures[1], crew, limits)
        assert e.value.row == 1
        assert awaited(futures[2], crew, limits).failures == []


def test_a_process_starts_without_what_it_does_not_need() -> None:
    """Torch and its like take seconds to import, which every image that does harm would cost."""
    script = """
import sys, pickle
import egapipe.stages.extract.decoding.child, egapipe.stages.extract.decoding.reader
assert not {"torch", "transformers", "pyarrow", "zarr", "ray"} & sys.modules.keys()
"""
    subprocess.run([sys.executable, "-c", script], check=True)


WAITING = """
import sys, time
import numpy as np
from egapipe.stages.extract.decoding.crew import Decoded, Task
from egapipe.stages.extract.decoding.processes import Processes

class Waiting:
    shape = (1, 3, 2, 2)

    def key(self, row):
        return "key"

    def extents(self, rows):
        return None

    def read(self, row, slots):
        print("decoding", flush=True)
        time.sleep(600)
        return Decoded([], 0.0)

if __name__ == "__main__":
    crew = Processes(Waiting(), 1, 1)
    crew.begin([Task(0, [np.zeros((3, 2, 2), np.uint8)])])
    time.sleep(600)
"""


def test_they_end_with_the_process_that_is_killed(tmp_path: Path) -> None:
    script = tmp_path / "waiting.py"
    script.write_text(WAITING)
    parent = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    assert parent.stdout.readline() == "decoding\n"
    below = psutil.Process(parent.pid).children(recursive=True)
    assert below
    parent.kill()
    parent.wait()
    parent.stdout.close()
    _, alive = psutil.wait_procs(below, timeout=DEADLINE)
    assert not alive


def test_the_store_is_the_same_byte_for_byte(quick: MakeConfig, tmp_path: Path) -> None:
    exact = "store.dtype=float32"
    by_threads = extract.run(
        quick(exact, f"store.url={tmp_path / 'threads'}"), split="train", local=True
    )
    config = quick(exact, "extract.decode=processes", "extract.decode_threads=1")
    before = set(psutil.Process().children())
    report = extract.run(config, split="train", local=True)
    assert report.extracted == 70
    assert FeatureStore.open(report.url).complete
    assert content(report.url) == content(by_threads.url)
    assert set(psutil.Process().children()) <= before
