"""`egapipe extract --dry-run`: what it says is what a run does, and it leaves nothing behind."""

import re
from dataclasses import replace
from pathlib import Path

import fsspec
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from egapipe.pipeline.config import Config, load_config
from egapipe.pipeline.datasets import open_split
from egapipe.pipeline.errors import StoreError, UsageError
from egapipe.pipeline.results.pairing import copied_views
from egapipe.pipeline.store import Features, FeatureStore
from egapipe.pipeline.store.objects.location import open_objects
from egapipe.stages import extract
from egapipe.stages.extract.planning.dry_run import DryRun, dry_run, seconds_by
from egapipe.stages.extract.planning.dry_run_table import duration, table_lines
from egapipe.stages.extract.planning.plan import StorePlan, plan_store
from egapipe.stages.extract.planning.room import probe_writing, require_room
from egapipe.stages.extract.planning.speed import Speed
from egapipe.stages.extract.teachers import load_teacher
from tests.command import egapipe
from tests.stages.extract.conftest import MakeConfig, Sets, as_options

# More than any disk holds, and its layout is computed all the same.
TOO_MANY_VIEWS = "views.count=1000000000000"


def planned(config: Config) -> StorePlan:
    """The plan of the training images' store."""
    return plan_store(config, "train", open_split(config, "train"), load_teacher(config.teacher))


def redo(config: Config, *shards: int) -> None:
    """Take the records of some shards away, as if the run had been killed before them."""
    store = FeatureStore.open(config.store_url("train"))
    for shard in shards:
        store.objects.delete(f"commits/{shard:06d}.json")


def files(folder: Path) -> set[Path]:
    return set(folder.rglob("*"))


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_a_store_and_its_copy_are_as_large_as_planned(
    quick: MakeConfig, tmp_path: Path, dtype: str
) -> None:
    config = quick(f"store.dtype={dtype}")
    plan = planned(config)
    assert (plan.manifest.rows, plan.manifest.view_count, len(plan.shards)) == (70, 3, 5)
    assert plan.row_bytes == 3 * 16 * (2 if dtype == "float16" else 4)
    assert (plan.begun, plan.pending) == (False, tuple(range(5)))
    assert (plan.rows_left, plan.views_left) == (70, 210)
    extract.run(config, split="train", local=True)
    store = FeatureStore.open(config.store_url("train"))
    # The embeddings, and the digest of each image.
    chunks = [store.objects.sizes(f"{name}/c") for name in plan.manifest.arrays]
    assert sum(sum(sizes.values()) for sizes in chunks) == plan.bytes
    # With records, index and metadata, in blocks of the file system.
    assert plan.bytes < sum(store.objects.sizes().values()) < plan.bytes_left
    copied = Features.open(store, cache_dir=str(tmp_path / "cache")).path.stat().st_size
    assert plan.cache_bytes < copied < plan.cache_bytes + 4096


def test_the_copy_has_the_views_that_are_copied(quick: MakeConfig, tmp_path: Path) -> None:
    """The command says what doctor says, and what is taken."""
    config = quick("distill.student_view=clean")
    plan = planned(config)
    assert (plan.manifest.view_count, plan.copied) == (3, 1)
    extract.run(config, split="train", local=True)
    store = FeatureStore.open(config.store_url("train"))
    copy = Features.open(store, cache_dir=str(tmp_path / "c"), views=copied_views(config, "train"))
    assert plan.cache_bytes < copy.path.stat().st_size < plan.cache_bytes + 4096


def test_a_resumed_run_is_planned_without_what_is_there(quick: MakeConfig) -> None:
    config = quick()
    new = planned(config)
    extract.run(config, split="train", local=True)
    redo(config, 1, 4)
    left = planned(config)
    assert (left.begun, left.pending, left.rows_left) == (True, (1, 4), 16 + 6)
    assert left.bytes == new.bytes
    assert 0 < left.bytes_left < new.bytes_left * 2 / 5


def test_another_store_is_refused_as_by_a_run(quick: MakeConfig) -> None:
    extract.run(quick(), split="train", local=True)
    for change, said in (
        ("views.seed=5", r"views\.seed is 0"),
        ("dataset.train.limit=60", r"dataset\.rows is 70"),
        ("store.dtype=float32", "dtype is 'float16'"),
    ):
        with pytest.raises(StoreError, match=said):
            dry_run(quick(change), ["train"], local=True)
    with pytest.raises(UsageError, match=r"no dataset\.test"):
        dry_run(quick("dataset.test=null"), ["test"], local=True)


@pytest.fixture
def rehearsed(quick: MakeConfig) -> DryRun:
    """A dry run of both splits, the test images complete and two training shards left."""
    config = quick()
    for split in ("train", "test"):
        extract.run(config, split=split, local=True)
    redo(config, 0, 2)
    return dry_run(config, ["train", "test"], local=True)


def test_only_what_is_left_is_probed_and_estimated(rehearsed: DryRun) -> None:
    rehearsed.check()
    assert set(rehearsed.estimates) == {"train"}
    estimate = rehearsed.estimates["train"]
    # Two batches of 20 views are those of 14 rows in 3 views.
    assert (estimate.speed.rows, estimate.speed.unreadable) == (14, 0)
    assert 0 < estimate.one_worker == estimate.all_workers
    assert rehearsed.write
    found = [re.split(r"   +", line) for line in table_lines(rehearsed)]
    lines = {name: cells for name, *cells in found}
    assert table_lines(rehearsed)[0].split() == ["train", "test"]
    assert lines["rows"] == ["70", "20"]
    assert lines["shards committed"] == ["3", "2"]
    assert lines["rows left"] == ["32", "0"]
    assert lines["images unreadable"] == ["0 of 14", "-"]
    assert {"bytes a row", "size", "left to write", "space", "reader cache", "time"} <= lines.keys()


def test_nothing_is_left_to_do(quick: MakeConfig) -> None:
    config = quick("dataset.test=null")
    extract.run(config, split="train", local=True)
    dry = dry_run(config, ["train"], local=True)
    dry.check()
    # Nor does it matter which workers there are.
    dry_run(quick("extract.cpus_per_worker=1000"), ["train"]).check()
    assert (dry.estimates, dry.write) == ({}, None)
    assert "nothing is left to do" in table_lines(dry)[-1]


def test_it_leaves_nothing_behind(quick: MakeConfig, tmp_path: Path) -> None:
    before = files(tmp_path)
    dry_run(quick(), ["train", "test"], local=True).check()
    assert files(tmp_path) == before
    remote = "memory://dry/run"
    dry_run(quick(f"store.url={remote}"), ["train"], local=True).check()
    assert open_objects(remote).sizes() == {}
    assert not fsspec.filesystem("memory").exists("/dry")


def test_images_that_cannot_be_read_are_counted(quick: MakeConfig, tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    digits = open_split(quick(), "train")
    for row in range(6):
        digits.image(row).save(folder / f"{row}.png")
    (folder / "3.png").write_bytes(b"")
    dry = dry_run(quick(f"dataset.train={{kind: folder, path: {folder}}}"), ["train"], local=True)
    assert (dry.estimates["train"].speed.rows, dry.estimates["train"].speed.unreadable) == (6, 1)


def test_workers_of_a_local_ray_are_planned_without_starting_it(quick: MakeConfig) -> None:
    config = quick("extract.max_workers=2", "extract.cpus_per_worker=1", "cluster.cpus=4")
    dry = dry_run(config, ["train"])
    assert (dry.fleet.size, dry.fleet.usual_cpus) == (2, 1)
    estimate = dry.estimates["train"]
    # Five shards: one of the two workers does three of them, and stores but the last one meanwhile.
    assert 3 / 5 <= estimate.all_workers / estimate.one_worker < 4 / 5
    assert any(line.startswith("2 workers") for line in table_lines(dry))
    with pytest.raises(UsageError, match="have room for"):
        dry_run(quick("extract.cpus_per_worker=5", "cluster.cpus=4"), ["train"])


@pytest.mark.usefixtures("ray_cluster")
@pytest.mark.slow
def test_workers_of_a_cluster_are_planned_by_its_machines(quick: MakeConfig) -> None:
    dry = dry_run(quick("cluster.address=auto", "extract.max_workers=4"), ["train"])
    assert dry.fleet.size == 4
    assert set(dry.estimates) == {"train"}


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
@pytest.mark.usefixtures("ray_cluster")
def test_a_gpu_that_is_elsewhere_cannot_be_probed(quick: MakeConfig) -> None:
    config = quick("extract.device=cuda", "cluster.address=auto")
    dry = dry_run(config, ["train"])
    dry.check()
    assert (dry.fleet.device, dry.estimates) == ("cuda", {})
    assert "the workers' GPU is not on this machine" in table_lines(dry)[-1]
    with pytest.raises(UsageError, match="torch finds no GPU here"):
        dry_run(config, ["train"], local=True).check()


def test_what_cannot_fit_is_refused_before_anything_is_written(
    sets: Sets, quick: MakeConfig, tmp_path: Path
) -> None:
    before = files(tmp_path)
    dry = dry_run(quick(TOO_MANY_VIEWS), ["train", "test"], local=True)
    assert dry.estimates == {}
    with pytest.raises(UsageError, match=r"are to be written, only .* are free: make room"):
        dry.check()
    with pytest.raises(UsageError, match=r"are to be written, only .* are free: make room"):
        extract.run(quick(TOO_MANY_VIEWS), split="train", local=True)
    run = egapipe("extract", "--dry-run", "--local", *as_options(sets(TOO_MANY_VIEWS)))
    assert run.returncode == 2
    assert "not probed, the run cannot start" in run.stdout
    assert run.stderr.startswith("error: ")
    assert run.stderr.count("\n") == 1
    assert files(tmp_path) == before
    # An object store has no free space to ask for.
    require_room([planned(quick(TOO_MANY_VIEWS, "store.url=memory://large"))])


def test_a_place_that_cannot_be_written_to_is_refused(quick: MakeConfig, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    dry = dry_run(quick(f"store.url={tmp_path / 'file' / 'store'}"), ["train"], local=True)
    assert dry.write is None
    with pytest.raises(UsageError, match=r"cannot write .*a file is where a folder should be"):
        dry.check()
    assert "write probe    failed" in table_lines(dry)


def test_the_probe_is_of_the_nearest_folder_and_removed(tmp_path: Path) -> None:
    assert probe_writing(open_objects(str(tmp_path / "a/b/c"))) > 0
    assert files(tmp_path) == set()
    assert probe_writing(open_objects("memory://probe/a/train.zarr")) > 0
    assert open_objects("memory://probe").sizes() == {}


@pytest.fixture(scope="module")
def plan_of_200(teacher_folder: Path) -> StorePlan:
    sets = [f"teacher.model={teacher_folder}", "store.shard_rows=1", "store.url=memory://plan"]
    return planned(load_config("quickstart", [*sets, "dataset.train.limit=200"]))


def written_beside(shards: int, encoding: float, writing: float) -> float:
    """Seconds of a worker step by step: it holds an encoded shard until the one before is stored,
    and then encodes the next one."""
    now = stored = 0.0
    for _ in range(shards):
        now = max(now + encoding, stored)
        stored = now + writing
    return stored


@settings(deadline=None)
@given(
    pending=st.integers(1, 200),
    workers=st.integers(1, 50),
    view_seconds=st.floats(1e-6, 1e3),
    write=st.floats(1.0, 1e10),
)
def test_more_workers_share_whole_shards(
    plan_of_200: StorePlan, pending: int, workers: int, view_seconds: float, write: float
) -> None:
    plan = replace(plan_of_200, pending=tuple(range(pending)))
    encoding = plan.views_left * view_seconds / pending
    writing = plan.bytes_left / write / pending
    alone = seconds_by(plan, view_seconds, write, 1)
    shared = seconds_by(plan, view_seconds, write, workers)
    assert alone == pytest.approx(written_beside(pending, encoding, writing))
    assert shared == pytest.approx(written_beside(-(-pending // workers), encoding, writing))
    assert shared >= alone / workers * (1 - 1e-9)
    assert shared >= seconds_by(plan, view_seconds, write, workers + 1)
    assert seconds_by(plan, view_seconds, write, pending) == pytest.approx(encoding + writing)
    assert seconds_by(replace(plan, pending=()), view_seconds, write, workers) == 0


def test_a_view_takes_as_long_as_what_holds_it_up() -> None:
    gpu = Speed(decode=0.004, infer=0.001, cores=0, rows=1, unreadable=0)
    assert gpu.view_seconds(1) == pytest.approx(0.004)
    assert gpu.view_seconds(2) == pytest.approx(0.002)
    assert gpu.view_seconds(16) == pytest.approx(0.001)
    # Here teacher and decoding share the cores of one machine.
    cpu = Speed(decode=0.004, infer=0.001, cores=10**6, rows=1, unreadable=0)
    assert cpu.view_seconds(10**6) > 0.001


def test_a_duration_is_short() -> None:
    assert [duration(s) for s in (4.21, 75, 9000)] == ["4.2 s", "1.2 min", "2.5 h"]
