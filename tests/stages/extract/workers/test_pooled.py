"""Stage one on Ray: the store is the one that a single process makes, whoever dies meanwhile.

A worker takes a few seconds to import torch, so a run checks several things.
"""

import json
import os
import signal
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from PIL import Image

from egapipe.pipeline.errors import StoreError, TeacherError, UsageError
from egapipe.pipeline.store import FeatureStore
from egapipe.pipeline.store.format.layout import commit_key
from egapipe.pipeline.terminal.progress import Progress, Silence, Value
from egapipe.stages import extract
from egapipe.stages.extract.workers.forward.inference import batch_of
from tests.stages.extract import models
from tests.stages.extract.conftest import MakeConfig
from tests.stages.extract.contents import content, every_byte
from tests.stages.extract.processes import workers_below

pytestmark = pytest.mark.usefixtures("ray_cluster")


class Watching(Silence):
    """Calls something at the first finished rows, and keeps what was shown."""

    def __init__(self, at_first: Callable[[], None]) -> None:
        self.at_first = at_first
        self.notes: list[str] = []
        self.states: list[Mapping[str, Value]] = []

    def show(self, state: Mapping[str, Value]) -> None:
        if float(state["done"]) > 0 and not any(float(s["done"]) for s in self.states):
            self.at_first()
        self.states.append(dict(state))

    def note(self, text: str) -> None:
        self.notes.append(text)

    def __call__(
        self, task: str, total: int, *, done: int = 0, unit: str = "rows"
    ) -> AbstractContextManager[Progress]:
        return Progress(self, task, total, done=done, unit=unit)


@pytest.mark.slow  # a minute: Ray starts workers over and over
def test_two_workers_that_are_killed_mid_shard_make_the_store_of_one_process(
    quick: MakeConfig, tmp_path: Path
) -> None:
    many = ["dataset.train.limit=144", "views.count=9", "store.shard_rows=24"]
    many += ["store.dtype=float32"]
    alone = extract.run(quick(*many, f"store.url={tmp_path / 'alone'}"), split="train", local=True)
    killed: list[int] = []

    def kill_all() -> None:
        for process in workers_below(os.getpid(), "ExtractActor"):
            killed.append(process.pid)
            os.kill(process.pid, signal.SIGKILL)

    watching = Watching(kill_all)
    config = quick(*many, "extract.min_workers=2", "extract.cpus_per_worker=1")
    report = extract.run(config, split="train", progress=watching)
    assert len(killed) == 2
    # What each had just encoded was being stored, or was stored, when it died with the next one.
    assert len([note for note in watching.notes if "lost its worker" in note]) <= 4
    assert report.extracted == 144
    assert set(report.shares) == {"decode", "infer", "write"}
    assert watching.states[-1]["done"] == 144
    assert content(report.url) == content(alone.url)


@pytest.mark.slow
def test_relative_paths_and_unreadable_images_are_the_same_to_a_worker(
    quick: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    models.vit(tmp_path / "teacher")
    (tmp_path / "images").mkdir()
    for row in range(20):
        Image.new("RGB", (9, 9), (12 * row, 0, 0)).save(tmp_path / "images" / f"{row:02}.png")
    (tmp_path / "images/03.png").write_bytes(b"no image")
    sets = [
        "teacher.model=./teacher",
        "dataset.test={kind: folder, path: images}",
        "extract.max_failures=1",
        "store.dtype=float32",
    ]
    config = quick(*sets, "store.url=near")
    report = extract.run(config, split="test")
    assert report.url == str(tmp_path / "near/test.zarr")
    assert report.failures == 1
    extract.run(quick(*sets, "store.url=alone"), split="test", local=True)
    assert content("near/test.zarr") == content("alone/test.zarr")
    before = every_byte(report.url)
    assert extract.run(config, split="test").extracted == 0
    assert every_byte(report.url) == before


@pytest.mark.slow
def test_what_changed_on_a_host_since_the_manifest_is_refused(
    quick: MakeConfig, tmp_path: Path
) -> None:
    folder = models.vit(tmp_path / "teacher")
    config = quick(f"teacher.model={folder}")
    [extraction] = extract.prepare(config, ["test"])
    file = folder / "preprocessor_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "resample": 0}))
    with pytest.raises(TeacherError, match=r"^worker on .*: preprocessing.resample is 'nearest'"):
        extraction.run(local=False)
    assert FeatureStore.open(config.store_url("test")).commits() == {}


def test_a_second_extraction_into_a_store_is_refused_in_one_line(quick: MakeConfig) -> None:
    [extraction] = extract.prepare(quick(), ["test"])
    store = extraction.job.store
    with store.exclusive(), pytest.raises(StoreError, match="another process extracts") as error:
        extraction.run(local=False)
    assert "\n" not in str(error.value)
    assert store.commits() == {}


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ("extract.cpus_per_worker=64", "64 CPU each are needed, .* have room for 0"),
        ("extract.min_workers=9", "9 workers of 1 CPU each are needed, .* have room for 8"),
        ("extract.device=cuda", "1 CPU and 1 GPU each are needed, .* have room for 0"),
    ],
)
def test_resources_that_cannot_be_had_are_refused_at_once(
    quick: MakeConfig, asked: str, message: str
) -> None:
    with pytest.raises(UsageError, match=message) as error:
        extract.run(quick(asked), split="test")
    assert "\n" not in str(error.value)


@pytest.mark.slow
def test_what_another_batch_has_begun_is_refused_by_a_worker_too(quick: MakeConfig) -> None:
    url = extract.run(quick(), split="test", local=True).url
    missing = Path(url, commit_key(0))
    missing.unlink()
    with pytest.raises(UsageError, match=r"20 x .* 7 x .*set extract\.same_device=false"):
        extract.run(quick("extract.same_device=true", "extract.batch_size=7"), split="test")
    assert not missing.exists()


@pytest.mark.slow  # Ray starts three workers, and one of them two more times
def test_all_workers_take_the_batch_that_one_of_them_finds_whoever_dies(quick: MakeConfig) -> None:
    """Also those that come later, and those of a run that goes on."""
    many = ["dataset.train.limit=240", "views.count=9", "store.shard_rows=16"]
    many += ["store.dtype=float32", "extract.batch_size=auto"]
    config = quick(*many, "extract.min_workers=3", "extract.max_workers=3")
    killed: list[int] = []

    def kill_one() -> None:
        killed.append(workers_below(os.getpid(), "ExtractActor")[0].pid)
        os.kill(killed[0], signal.SIGKILL)

    watching = Watching(kill_one)
    url = extract.run(config, split="train", progress=watching).url
    assert killed
    assert not [note for note in watching.notes if "were computed on" in note]
    store = FeatureStore.open(url)
    [size] = {batch_of(commit.computed) for commit in store.commits().values()}
    assert len(store.commits()) == 15
    before = content(url)
    for shard in range(0, 15, 2):
        Path(url, commit_key(shard)).unlink()
    assert extract.run(config, split="train").extracted == 128
    assert content(url) == before
    # As with that size from the start.
    alone = quick(*many, f"extract.batch_size={size}", f"store.url={Path(url).parent}-alone")
    assert content(extract.run(alone, split="train", local=True).url) == before
