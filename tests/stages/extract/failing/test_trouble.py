"""Trouble of a Ray worker's machine leaves no hole in a store; what is recorded can be healed."""

import os
from pathlib import Path

import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

from egapipe.pipeline.errors import EgapipeError
from egapipe.pipeline.store import FeatureStore, check_store
from egapipe.stages import extract
from egapipe.stages.extract import command
from egapipe.stages.extract.planning.host import sample
from tests.stages.extract.conftest import MakeConfig, Sets, as_options
from tests.stages.extract.contents import content
from tests.stages.extract.teachers import troubled

pytestmark = [
    pytest.mark.slow,  # four workers, each of which imports torch
    pytest.mark.usefixtures("ray_cluster"),
]

# More than are decoded and encoded ahead of the first batch's answer.
ROWS = 240


def ends(extraction: extract.Extraction, said: str) -> None:
    """An extraction ends in one line, and no record of it has a failure."""
    with pytest.raises(EgapipeError) as error:
        extraction.run(local=False)
    assert said in str(error.value)
    assert "that is the machine's trouble and not recorded as" in str(error.value)
    assert "\n" not in str(error.value)
    store = extraction.job.store
    assert not store.complete
    assert not any(commit.failures for commit in store.commits().values())


def test_no_file_and_no_disk(quick: MakeConfig, sets: Sets, tmp_path: Path) -> None:
    images, marker = tmp_path / "images", tmp_path / "no-files"
    images.mkdir()
    for row in range(ROWS):
        Image.new("RGB", (16, 16), (row, 0, 255 - row)).save(images / f"{row:03}.png")
    teacher = (
        f"teacher={{backend: python, model: '{troubled.__name__}:without_files', "
        f"preprocessing: {{size: 16}}, args: {{driver: {os.getpid()}, while_there: '{marker}'}}}}"
    )
    own = [
        f"dataset.train={{kind: folder, path: {images}}}",
        "dataset.test=null",
        teacher,
        "extract.max_workers=1",
        f"store.shard_rows={ROWS}",
        "extract.max_failures=1",
    ]
    config = quick(*own)
    alone = quick(*own, f"store.url={tmp_path / 'alone'}")
    extract.run(alone, split="train", local=True)

    # The teacher is tried with a few images before it gets a batch.
    for images_at_once in ("1", "20"):
        marker.write_text(images_at_once)
        [extraction] = extract.prepare(config, ["train"])
        ends(extraction, "Too many open files (EMFILE)")
    marker.unlink()

    # One that no worker compares before it begins.
    compared = sample(extraction.job.dataset)
    row = next(row for row in range(30, ROWS) if row not in compared)
    image = images / f"{row:03}.png"
    data = image.read_bytes()
    [extraction] = extract.prepare(config, ["train"])
    image.unlink()
    # Reading there gives a real EIO.
    image.symlink_to("/proc/self/mem")
    ends(extraction, "Input/output error (EIO)")
    image.unlink()

    # That there is no such file is a fact, and recorded.
    assert extraction.run(local=False).failures == 1
    image.write_bytes(data)
    app = typer.Typer()
    command.register(app)
    options = ["-c", "quickstart", "--retry-failures", *as_options(sets(*own))]
    done = CliRunner().invoke(app, options)
    assert done.exit_code == 0, done.output
    assert "train: shards with failures are done again: 1" in done.output
    store = FeatureStore.open(config.store_url("train"))
    assert check_store(store.url).ok
    assert len(store.failures()) == 0
    assert content(store.url) == content(alone.store_url("train"))
