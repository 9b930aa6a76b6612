"""Stage one into an object store, and stage two from it."""

import subprocess
import sys
from pathlib import Path

import pytest

from egapipe.pipeline.config import Config
from egapipe.pipeline.store import FeatureStore
from egapipe.stages import distill, extract
from tests.objectstore import S3, SECRET, s3, s3_server
from tests.stages.extract.conftest import MakeConfig, Sets, as_options
from tests.stages.extract.contents import content

__all__ = ["s3", "s3_server"]

EXTRACT = [sys.executable, "-m", "egapipe.pipeline.cli", "extract", "--split", "train"]
EXACT = "store.dtype=float32"
SIGKILLED = -9


@pytest.fixture
def undisturbed(quick: MakeConfig, tmp_path: Path) -> dict[str, object]:
    """The content of a store on a disk."""
    config = quick(EXACT, f"store.url={tmp_path / 'disk'}")
    return content(extract.run(config, split="train", local=True).url)


def downloaded(s3: S3, folder: Path) -> dict[str, object]:
    """The content of the only store in the bucket."""
    for key, data in s3.objects().items():
        path = folder / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return content(str(folder / "train.zarr"))


def killed_after(s3: S3, step: int, command: list[str]) -> None:
    """Run a command that is killed when its step-th request to write is done."""
    # The shell waits until the server knows whom to kill, and becomes the command.
    waiting = ["sh", "-c", 'read go && exec "$@"', "sh", *command]
    process = subprocess.Popen(waiting, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    with s3.killing(process.pid, step, after=True):
        _, said = process.communicate("go\n")
    assert process.returncode == SIGKILLED, said


@pytest.mark.slow  # three processes that start anew
def test_a_killed_extraction_is_continued_and_students_learn_from_it(
    s3: S3, quick: MakeConfig, sets: Sets, tmp_path: Path, undisturbed: dict[str, object]
) -> None:
    """One test: extracting is what takes its time."""
    place = (EXACT, f"store.url={s3.url('')}", f"store.cache_dir={tmp_path / 'cache'}")
    killed_after(s3, 8, [*EXTRACT, "--local", *as_options(sets(*place))])
    config = quick(
        *place,
        "distill.epochs=1",
        "distill.batch_size=32",
        "distill.labels_per_class=null",
        "dataset.test=null",
    )
    assert len(FeatureStore.open(config.store_url("train")).commits()) == 1
    assert extract.run(config, split="train", local=True).extracted == 70 - 16
    assert downloaded(s3, tmp_path / "downloaded") == undisturbed
    runs = [config.model_copy(update={"runs": str(tmp_path / name)}) for name in ("a", "b")]
    first, second = (chunks_read(s3, run) for run in runs)
    # A look at one shard, for equal embeddings of different images, comes before each training.
    assert (len(first), len(second) <= 1) == (5, True)
    written = [p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()]
    assert not any(SECRET.encode() in data or b"AKIDTESTS" in data for data in written)


def chunks_read(s3: S3, config: Config) -> set[str]:
    """Train a student; the requests for shards that this takes."""
    s3.log()
    assert distill.run(config).summary["train_rows"] == 70
    return {line for line in s3.log() if "/embedding/c/" in line}


# Ray of its own, whose workers have the environment of the command: ten seconds.
@pytest.mark.slow
def test_ray_workers_write_there(
    s3: S3, sets: Sets, tmp_path: Path, undisturbed: dict[str, object]
) -> None:
    options = as_options(sets(EXACT, f"store.url={s3.url('')}"))
    done = subprocess.run([*EXTRACT, *options], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert SECRET not in done.stdout + done.stderr
    assert downloaded(s3, tmp_path / "downloaded") == undisturbed
