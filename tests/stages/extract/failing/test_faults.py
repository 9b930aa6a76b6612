"""What can happen to an extraction: nothing is lost or doubled, and the bytes are the same."""

import multiprocessing
import random
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import psutil
import pytest

from egapipe.pipeline.datasets import open_dataset
from egapipe.pipeline.errors import StoreError
from egapipe.pipeline.store import FeatureStore, check_store
from egapipe.pipeline.terminal.progress import Value
from egapipe.stages import extract
from tests.command import COMMAND as PROGRAM
from tests.command import start
from tests.pipeline.store import samples
from tests.stages.extract.conftest import MakeConfig, Sets, as_options
from tests.stages.extract.contents import content, every_byte
from tests.stages.extract.failing.disk import Disk, small_disk
from tests.stages.extract.failing.test_kills import COMMAND, finish
from tests.stages.extract.processes import workers_below
from tests.stages.extract.workers.test_pooled import Watching
from tests.warm import Process

FORK = multiprocessing.get_context("fork")
EXACT = "store.dtype=float32"


class After(Watching):
    """Does something once so many rows are done."""

    def __init__(self, rows: int, act: Callable[[], None]) -> None:
        super().__init__(lambda: None)
        self.rows, self.act = rows, act

    def show(self, state: Mapping[str, Value]) -> None:
        if float(state["done"]) >= self.rows:
            self.act()
            self.act = lambda: None


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    with small_disk(tmp_path / "disk", "4m") as mounted:
        yield mounted


@pytest.mark.parametrize(
    "local", [True, pytest.param(False, marks=pytest.mark.slow)], ids=["local", "ray"]
)
def test_a_disk_that_fills_costs_the_shards_in_flight(
    quick: MakeConfig, tmp_path: Path, disk: Disk, local: bool, request: pytest.FixtureRequest
) -> None:
    if not local:
        request.getfixturevalue("ray_cluster")
    alone = extract.run(quick(EXACT, f"store.url={tmp_path / 'alone'}"), split="train", local=True)
    config = quick(EXACT, f"store.url={disk.folder / 'stores'}")
    with pytest.raises(StoreError) as error:
        extract.run(config, split="train", local=local, progress=After(20, disk.fill))
    said = str(error.value)
    assert "No space left on device: free some space or set another store.url, then run" in said
    assert "\n" not in said
    store = FeatureStore.open(config.store_url("train"))
    assert 0 < len(store.commits()) < len(store.shards)
    assert check_store(store.url).problems == []
    disk.empty()
    extract.run(config, split="train", local=local)
    assert content(store.url) == content(alone.url)


def test_a_disk_that_is_full_from_the_start_leaves_nothing_that_counts(
    quick: MakeConfig, disk: Disk
) -> None:
    config = quick(f"store.url={disk.folder / 'stores'}")
    disk.fill()
    with pytest.raises(StoreError) as error:
        samples.create(config.store_url("train"))
    assert "No space left on device: free some space" in str(error.value)
    assert not FeatureStore.exists(config.store_url("train"))
    disk.empty()
    extract.run(config, split="train", local=True)
    assert check_store(config.store_url("train")).ok


def test_a_read_only_store_is_read_and_refused_in_one_line_where_it_is_not_finished(
    quick: MakeConfig, tmp_path: Path, disk: Disk
) -> None:
    alone = extract.run(quick(EXACT, f"store.url={tmp_path / 'alone'}"), split="train", local=True)
    config = quick(EXACT, f"store.url={disk.folder / 'stores'}")
    report = extract.run(config, split="train", local=True)
    record = Path(report.url, "commits/000003.json")
    with disk.read_only():
        assert extract.run(config, split="train", local=True).extracted == 0
        assert check_store(report.url).ok
    record.unlink()
    with disk.read_only():
        for local in (True, False):
            with pytest.raises(StoreError) as error:
                extract.run(config, split="train", local=local)
            assert "Read-only file system: make the folder writable or" in str(error.value)
            assert "\n" not in str(error.value)
    assert extract.run(config, split="train", local=True).extracted == 16
    assert content(report.url) == content(alone.url)


def test_a_flipped_byte_is_found_in_whichever_file_it_is(quick: MakeConfig, tmp_path: Path) -> None:
    """Every file of a finished store, each at a few positions of which one is random."""
    images = tmp_path / "images"
    images.mkdir()
    digits = open_dataset(quick().dataset.train)
    for row in range(20):
        digits.image(row).save(images / f"{row:02}.png")
    (images / "11.png").write_bytes(b"no image")
    source = f"dataset.test={{kind: folder, path: {images}}}"
    url = extract.run(quick(source, "extract.max_failures=1"), split="test", local=True).url
    rng = random.Random(11)  # noqa: S311
    files = every_byte(url)
    assert {path.partition("/")[0] for path in files} == {
        "commits",
        "commits.parquet",
        "embedding",
        "failures.parquet",
        "images",
        "index",
        "zarr.json",
    }
    for path, data in files.items():
        for position in (0, rng.randrange(len(data)), len(data) - 1):
            damaged = bytearray(data)
            damaged[position] ^= 1 << rng.randrange(8)
            Path(url, path).write_bytes(damaged)
            problems = check_store(url).problems
            assert problems, f"{path} byte {position}"
            assert not any("\n" in problem for problem in problems)
        Path(url, path).write_bytes(data)
    assert check_store(url).problems == []


@pytest.mark.slow
@pytest.mark.parametrize("options", [["--local"], []], ids=["local", "ray"])
def test_two_extractions_at_once_are_one(
    quick: MakeConfig, sets: Sets, tmp_path: Path, options: list[str]
) -> None:
    """One is refused, or comes when all is done; where it takes part, nothing is mixed."""
    many = ["dataset.train.limit=400", "store.shard_rows=8", EXACT]
    alone = extract.run(quick(*many, f"store.url={tmp_path / 'alone'}"), split="train", local=True)
    command = [*COMMAND, *options, *as_options(sets(*many))]
    both = [
        subprocess.Popen(
            [*PROGRAM, *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    said = [process.communicate(timeout=200)[1] for process in both]
    codes = sorted(process.returncode for process in both)
    assert codes in ([0, 0], [0, 1]), said
    assert not any("Traceback" in text for text in said)
    url = quick(*many).store_url("train")
    assert not [p for p in check_store(url).problems if "does not belong" not in p]
    finish(command)
    assert content(url) == content(alone.url)
    assert check_store(url).ok


def commit_in_a_loop(url: str) -> None:
    samples.complete(samples.create(url, COMMITS))


COMMITS = samples.make_manifest(rows=120, shard_rows=2)


@pytest.mark.slow
def test_thirty_eight_kills_in_the_middle_of_commits(tmp_path: Path) -> None:
    """A process that does nothing but commit, killed at random moments."""
    undisturbed = samples.snapshot(samples.finished(str(tmp_path / "undisturbed"), COMMITS))
    rng, kills, stores = random.Random(3), 0, 0  # noqa: S311
    while kills < 38:
        stores += 1
        url = str(tmp_path / f"store{stores}")
        ended = False
        while not ended:
            writer = FORK.Process(target=commit_in_a_loop, args=(url,))
            writer.start()
            time.sleep(rng.uniform(0, 0.3))
            writer.kill()
            writer.join()
            assert writer.exitcode in (0, -signal.SIGKILL)
            ended = writer.exitcode == 0
            kills += not ended
            problems = check_store(url).problems
            assert all("no store at" in p or "while it was created" in p for p in problems)
        assert samples.snapshot(FeatureStore.open(url)) == undisturbed
        assert check_store(url).ok


class Killed:
    """An extraction on Ray that is started again whenever it was killed."""

    def __init__(self, command: list[str], url: str, seed: int) -> None:
        self.command = command
        self.commits = Path(url, "commits")
        self.rng = random.Random(seed)  # noqa: S311
        self.drivers = self.workers = 0

    def wait_for_work(self, process: Process) -> bool:
        """Wait for a few more records, then a moment; whether it is still running."""
        enough = self.count() + self.rng.randint(1, 3)
        while process.poll() is None and self.count() < enough:
            time.sleep(0.002)
        time.sleep(self.rng.uniform(0, 0.1))
        return process.poll() is None

    def count(self) -> int:
        return len(list(self.commits.glob("0*.json")))

    def round(self) -> None:
        """Start it, kill its workers, then itself."""
        process = start(*self.command)
        if self.wait_for_work(process):
            for worker in workers_below(process.pid, "ExtractActor"):
                worker.kill()
                self.workers += 1
        running = self.wait_for_work(process)
        workers = workers_below(process.pid, "ExtractActor")
        process.kill()
        self.drivers += running
        assert process.wait(60) in (0, -signal.SIGKILL)
        assert not psutil.wait_procs(workers, timeout=60)[1]


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_twelve_kills_of_workers_and_drivers(quick: MakeConfig, sets: Sets, tmp_path: Path) -> None:
    many = ["dataset.train.limit=1400", "views.count=4", "store.shard_rows=8", EXACT]
    alone = extract.run(quick(*many, f"store.url={tmp_path / 'alone'}"), split="train", local=True)
    url = quick(*many).store_url("train")
    run = ["extract.max_workers=2", "extract.cpus_per_worker=1", "cluster.cpus=2"]
    run += ["extract.max_restarts=20"]
    command = [*COMMAND, *as_options(sets(*many, *run))]
    killed = Killed(command, url, seed=5)
    while killed.drivers + killed.workers < 12:
        before = killed.count()
        killed.round()
        assert killed.count() >= before
        assert killed.count() < 175, "it ended before it was killed twelve times"
        assert check_store(url).problems == []
    assert min(killed.drivers, killed.workers) >= 3
    finish(command)
    assert content(url) == content(alone.url)
    assert check_store(url).ok
