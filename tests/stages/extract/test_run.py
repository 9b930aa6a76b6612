"""Stage one in this process: what is stored, what is refused, and what an interruption leaves."""

import errno
import os
import shutil
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from torch import Tensor

from egapipe.pipeline.datasets import open_dataset
from egapipe.pipeline.datasets.decoding import reading
from egapipe.pipeline.datasets.fingerprint import listing_fingerprint
from egapipe.pipeline.errors import MachineError, StoreError, TeacherError, UsageError
from egapipe.pipeline.results.pairing import check_pair
from egapipe.pipeline.store import Failure, FeatureStore, check_store
from egapipe.pipeline.terminal.progress import OpenProgress, Progress, Silence, Value
from egapipe.pipeline.views import view_params
from egapipe.stages import extract
from egapipe.stages.extract.planning.job import Job
from egapipe.stages.extract.planning.manifest import Origin, index_of, manifest_for, software
from egapipe.stages.extract.teachers import Outputs, Preprocessing, load_teacher
from egapipe.stages.extract.verifying.verify import verify_store
from egapipe.stages.extract.workers.worker import Worker
from egapipe.stages.submit.package import absolute
from tests.stages.extract import models
from tests.stages.extract.conftest import MakeConfig
from tests.stages.extract.contents import content, every_byte

SHARDS = 5


class Interrupting(Silence):
    """A display at which the user presses Ctrl-C after so many updates."""

    def __init__(self, updates: int) -> None:
        self.left = updates

    def show(self, state: Mapping[str, Value]) -> None:
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt


def interrupted(updates: int) -> OpenProgress:
    def start(
        task: str, total: int, *, done: int = 0, unit: str = "rows"
    ) -> AbstractContextManager[Progress]:
        return Progress(Interrupting(updates), task, total, done=done, unit=unit)

    return start


def test_a_row_and_view_is_the_teachers_embedding_of_that_view(quick: MakeConfig) -> None:
    config = quick("store.dtype=float32")
    report = extract.run(config, split="train", local=True)
    assert (report.rows, report.views, report.failures, report.extracted) == (70, 3, 0, 70)
    store = FeatureStore.open(config.store_url("train"))
    assert store.complete
    assert len(store.shards) == SHARDS
    dataset, teacher = open_dataset(config.dataset.train), load_teacher(config.teacher)
    for row in (0, 15, 16, 69):
        stored = torch.from_numpy(store.read_shard(row // 16)[row % 16].copy())
        image, key = dataset.image(row), dataset.keys[row]
        views = [view_params(config.views, key, k, (8, 8)) for k in (1, 2)]
        pixels = [teacher.preprocessing.view(image, view) for view in views]
        pixels = np.stack([teacher.preprocessing.clean(image), *pixels])
        expected = teacher.forward(torch.from_numpy(pixels))["embedding"]
        torch.testing.assert_close(stored, expected, rtol=1e-4, atol=1e-5)
    index = store.index()
    assert index["key"].to_pylist() == list(dataset.keys)
    assert index["label"].to_pylist() == dataset.labels.tolist()


def test_test_images_are_seen_clean_alone(quick: MakeConfig) -> None:
    report = extract.run(quick(), split="test", local=True)
    assert (report.split, report.rows, report.views) == ("test", 20, 1)


def test_the_manifest_says_what_was_done(quick: MakeConfig) -> None:
    config = quick()
    extract.run(config, split="train", local=True)
    manifest = FeatureStore.open(config.store_url("train")).manifest
    dataset, teacher = open_dataset(config.dataset.train), load_teacher(config.teacher)
    assert manifest.dataset.fingerprint == listing_fingerprint(dataset)
    assert manifest.dataset.images == "sha256"
    assert manifest.teacher == {**teacher.spec, "files": manifest.teacher["files"]}
    assert len(manifest.teacher["files"]) == 64
    assert manifest.preprocessing == teacher.preprocessing.to_json()
    assert manifest.plan == config.views
    assert manifest.versions["torch"] == torch.__version__


def test_threads_and_interruptions_change_no_byte(quick: MakeConfig, tmp_path: Path) -> None:
    url = f"store.url={tmp_path / 'undisturbed'}"
    exact = "store.dtype=float32"
    extract.run(quick(exact, url), split="train", local=True)
    config = quick(exact, "extract.decode_threads=5", "extract.cpus_per_worker=3")
    for updates in (1, 5, 3, 2):
        with pytest.raises(KeyboardInterrupt):
            extract.run(config, split="train", local=True, progress=interrupted(updates))
    begun = FeatureStore.open(config.store_url("train"))
    pending, before = begun.pending(), every_byte(begun.url)
    assert 0 < len(pending) < SHARDS
    report = extract.run(config, split="train", local=True)
    assert report.extracted == sum(len(begun.shards[shard]) for shard in pending)
    assert before.items() <= every_byte(begun.url).items()
    assert content(begun.url) == content(quick(url).store_url("train"))


def test_a_complete_store_is_left_as_it_is(quick: MakeConfig) -> None:
    config = quick()
    first = extract.run(config, split="train", local=True)
    before = every_byte(first.url)
    again = extract.run(config, split="train", local=True)
    assert again.extracted == 0
    assert again.line().endswith("70 rows x 3 views in " + first.url + ": complete already")
    assert every_byte(first.url) == before


OTHER = {
    "dataset.train.limit=60": "dataset",
    "dataset.train.split=test": "key of row 0 is",
    "teacher.pooling=mean": "teacher.pooling is 'auto', the config asks for 'mean'",
    "teacher.precision=bfloat16": "teacher.precision",
    "views.seed=1": "views.seed is 0, the config asks for 1",
    "views.count=3": "views.count",
    "views.padding=0.25": "views.padding",
    "store.dtype=float32": "dtype is 'float16', the config asks for 'float32'",
    "store.shard_rows=32": "shard_rows",
}


@pytest.mark.parametrize("unfinished", [False, True])
def test_another_store_is_never_mixed_with_or_touched(
    quick: MakeConfig, tmp_path: Path, unfinished: bool
) -> None:
    config = quick()
    if unfinished:
        with pytest.raises(KeyboardInterrupt):
            extract.run(config, split="train", local=True, progress=interrupted(6))
    else:
        extract.run(config, split="train", local=True)
    before = every_byte(config.store_url("train"))
    other = f"teacher.model={models.vit(tmp_path / 'other', seed=1)}"
    for asked, difference in {**OTHER, other: "teacher.sha256"}.items():
        with pytest.raises(StoreError) as error:
            extract.run(quick(asked), split="train", local=True)
        assert difference in str(error.value)
        assert "run `egapipe extract` with another store.url" in str(error.value)
        assert "\n" not in str(error.value)
        assert every_byte(config.store_url("train")) == before


@pytest.mark.parametrize("kept", ["content", "place alone"])
def test_a_job_continues_with_the_teacher_that_a_command_named_from_its_folder(
    quick: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: str
) -> None:
    """`place alone`: as stores were before the content of files was in them."""
    models.vit(tmp_path / "models" / "own")
    monkeypatch.chdir(tmp_path)
    typed = quick("teacher.model=models/own")
    with pytest.MonkeyPatch.context() as patch:
        if kept == "place alone":
            planning = "egapipe.stages.extract.planning.manifest.with_files"
            patch.setattr(planning, lambda spec, _: dict(spec))
        with pytest.raises(KeyboardInterrupt):
            extract.run(typed, split="train", local=True, progress=interrupted(6))
    submitted = absolute(typed)
    (tmp_path / "job").mkdir()
    monkeypatch.chdir(tmp_path / "job")
    assert 0 < extract.run(submitted, split="train", local=True).extracted < 70
    assert verify_store(submitted, split="train", count=4).ok
    store = FeatureStore.open(submitted.store_url("train"))
    check_pair(store, submitted, open_dataset(submitted.dataset.train), "train")
    monkeypatch.chdir(tmp_path)
    assert extract.run(typed, split="train", local=True).extracted == 0
    (tmp_path / "models" / "own").rename(tmp_path / "renamed")
    renamed = quick(f"teacher.model={tmp_path / 'renamed'}")
    assert extract.run(renamed, split="train", local=True).extracted == 0
    assert ("files" in store.manifest.teacher) == (kept == "content")
    other = quick(f"teacher.model={models.vit(tmp_path / 'other', seed=1)}")
    with pytest.raises(StoreError, match=r"teacher\.sha256 is"):
        extract.run(other, split="train", local=True)
    with pytest.raises(StoreError, match=r"teacher\.(files|model) is"):
        check_pair(store, other, open_dataset(other.dataset.train), "train")


def test_an_unfinished_store_is_refused_to_other_software_on_demand(
    quick: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(KeyboardInterrupt):
        extract.run(quick(), split="train", local=True, progress=interrupted(6))
    newer = {**software(), "torch": "99.0"}
    monkeypatch.setattr("egapipe.stages.extract.planning.manifest.software", lambda: newer)
    before = every_byte(quick().store_url("train"))
    with pytest.raises(StoreError, match=r"begun with other software .*same_software=false"):
        extract.run(quick("extract.same_software=true"), split="train", local=True)
    assert every_byte(quick().store_url("train")) == before
    assert 0 < extract.run(quick(), split="train", local=True).extracted < 70


@pytest.fixture
def images(tmp_path: Path, quick: MakeConfig) -> Path:
    """Forty images, of which three cannot be read."""
    folder = tmp_path / "images"
    folder.mkdir()
    digits = open_dataset(quick().dataset.train)
    for row in range(40):
        digits.image(row).save(folder / f"{row:02}.png")
    for row in (0, 17, 18):
        (folder / f"{row:02}.png").write_bytes(b"")
    return folder


def test_unreadable_images_are_rows_without_an_embedding(quick: MakeConfig, images: Path) -> None:
    source = f"dataset.train={{kind: folder, path: {images}}}"
    config = quick(source, "extract.max_failures=3", "store.dtype=float32")
    report = extract.run(config, split="train", local=True)
    assert (report.extracted, report.failures) == (40, 3)
    assert "3 failed" in report.line()
    store = FeatureStore.open(config.store_url("train"))
    failures = [Failure(row, f"{row:02}.png", "the file is empty") for row in (0, 17, 18)]
    assert store.failures() == failures
    listed = pq.read_table(Path(store.url) / "failures.parquet").to_pylist()
    assert [row["key"] for row in listed] == ["00.png", "17.png", "18.png"]
    assert check_store(store.url).ok
    whole = np.concatenate([store.read_shard(shard) for shard in range(3)])
    empty = np.isnan(whole).all(axis=(1, 2))
    assert np.flatnonzero(empty).tolist() == [0, 17, 18]
    assert np.isfinite(whole[~empty]).all()


@pytest.mark.parametrize("allowed", ["2", "0.05", "0"])
def test_too_many_failures_stop_the_run_with_the_reasons(
    quick: MakeConfig, images: Path, allowed: str
) -> None:
    source = f"dataset.train={{kind: folder, path: {images}}}"
    with pytest.raises(StoreError) as error:
        extract.run(quick(source, f"extract.max_failures={allowed}"), split="train", local=True)
    assert "of 40 rows failed, extract.max_failures allows" in str(error.value)
    assert "00.png: the file is empty" in str(error.value)
    assert "\n" not in str(error.value)
    report = extract.run(quick(source, "extract.max_failures=3"), split="train", local=True)
    assert report.failures == 3
    assert check_store(report.url).ok


def test_embeddings_too_large_for_the_stored_type_are_failures(
    quick: MakeConfig, tmp_path: Path
) -> None:
    model = models.vit_model()
    with torch.no_grad():
        model.layernorm.weight.fill_(1e6)
    teacher = f"teacher.model={models.save(model, tmp_path / 'large', 'vit')}"
    with pytest.raises(StoreError, match=r"not finite in float16; .* store.dtype to float32"):
        extract.run(quick(teacher), split="train", local=True)
    wide = quick(teacher, "store.dtype=float32", f"store.url={tmp_path / 'wide'}")
    assert extract.run(wide, split="train", local=True).failures == 0


def test_a_teacher_that_cannot_be_used_leaves_nothing_behind(
    quick: MakeConfig, tmp_path: Path
) -> None:
    model = models.vit_model()
    with torch.no_grad():
        model.layernorm.weight[3] = torch.nan
    config = quick(f"teacher.model={models.save(model, tmp_path / 'nan', 'vit')}")
    with pytest.raises(TeacherError, match="non-finite outputs"):
        extract.run(config, split="train", local=True)
    assert not (tmp_path / "store").exists()


class Bright:
    """Counts white pixels: noise has some, and dark images have none."""

    def __init__(self) -> None:
        self.spec = {"backend": "bright", "model": "bright", "precision": "float32"}
        self.preprocessing = Preprocessing((16, 16), None, "nearest", 1.0, (0, 0, 0), (1, 1, 1))
        self.outputs = {"embedding": (1,)}

    def to(self, device: torch.device) -> None:
        pass

    def forward(self, pixels: Tensor) -> Outputs:
        return {"embedding": (pixels == 1).float().sum(dim=(1, 2, 3))[:, None]}


def test_a_constant_embedding_of_real_images_stops_before_anything_is_committed(
    quick: MakeConfig, tmp_path: Path
) -> None:
    config = quick()
    dataset, teacher = open_dataset(config.dataset.train), Bright()
    manifest = manifest_for(config, "train", Origin.of(teacher), dataset)
    store = FeatureStore.create(str(tmp_path / "bright.zarr"), manifest, index_of(dataset))
    job = Job(config, "train", dataset, store)
    worker: Worker = job.worker(teacher, "cpu", cores=2)
    try:
        with pytest.raises(TeacherError, match="bright gives the same embedding for different"):
            worker.extract(0)
    finally:
        worker.close()
    assert store.commits() == {}


@pytest.mark.parametrize(
    ("asked", "split", "message"),
    [
        ("extract.device=cuda", "train", "extract.device is cuda, but torch finds no GPU"),
        ("dataset.test=null", "test", "has no dataset.test: add it, there is train"),
        ("dataset.train={kind: folder, path: ./none}", "train", "is not a folder"),
    ],
)
def test_what_is_not_there_is_a_mistake_of_the_command(
    quick: MakeConfig, asked: str, split: str, message: str
) -> None:
    if "cuda" in asked and torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(UsageError, match=message) as error:
        extract.run(quick(asked), split=split, local=True)
    assert "\n" not in str(error.value)


def test_a_store_may_lie_at_any_url(quick: MakeConfig) -> None:
    config = quick("store.url=memory://extract-test")
    extract.run(config, split="test", local=True)
    assert check_store("memory://extract-test/test.zarr").ok
    near = quick()
    extract.run(near, split="test", local=True)
    remote = FeatureStore.open("memory://extract-test/test.zarr")
    assert remote.content_hash() == FeatureStore.open(near.store_url("test")).content_hash()


def test_a_damaged_shard_is_redone_when_its_record_is_deleted(quick: MakeConfig) -> None:
    config = quick()
    report = extract.run(config, split="train", local=True)
    before = content(report.url)
    shutil.rmtree(Path(report.url, "embedding/c/2"))
    Path(report.url, "commits/000002.json").unlink()
    assert extract.run(config, split="train", local=True).extracted == 16
    assert content(report.url) == before


def test_failures_that_were_none_of_the_images_are_done_again(
    quick: MakeConfig, images: Path, tmp_path: Path
) -> None:
    """What is stored then is what an undisturbed run stores, byte for byte."""
    for spoiled in (path for path in images.iterdir() if path.stat().st_size == 0):
        spoiled.unlink()
    here, undisturbed = (
        quick(
            f"dataset.train={{kind: folder, path: {images}}}",
            f"store.url={tmp_path / name}",
            "extract.max_failures=1",
        )
        for name in ("here", "undisturbed")
    )
    extract.run(undisturbed, split="train", local=True)
    [extraction] = extract.prepare(here, ["train"])
    broken = images / "20.png"
    data = broken.read_bytes()
    broken.write_bytes(b"gone for a moment")
    assert extraction.run(local=True).failures == 1
    broken.write_bytes(data)

    [extraction] = extract.prepare(here, ["train"])
    store = extraction.job.store
    assert extraction.complete
    with store.exclusive(), pytest.raises(StoreError, match="another process extracts"):
        extraction.retry_failures()
    [shard] = extraction.retry_failures()
    assert store.pending() == [shard]
    assert not extraction.complete
    # Killed here, the next run does the rest.
    report = extract.run(here, split="train", local=True)
    assert (report.failures, report.extracted) == (0, len(store.shards[shard]))
    assert content(store.url) == content(undisturbed.store_url("train"))
    assert extract.prepare(here, ["train"])[0].retry_failures() == []
    assert check_store(store.url).ok


def test_trouble_of_the_machine_ends_the_run_and_records_nothing(
    quick: MakeConfig, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "PAUSES", (0.0,))
    config = quick(f"dataset.train={{kind: folder, path: {images}}}")
    [extraction] = extract.prepare(config, ["train"])

    def stale(path: Path, most: int) -> bytes:
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))

    with monkeypatch.context() as patch:
        patch.setattr(reading, "read_regular", stale)
        with pytest.raises(MachineError, match=r"row \d+ .* cannot be read on .*ESTALE"):
            extraction.run(local=True)
    assert extraction.job.store.commits() == {}
