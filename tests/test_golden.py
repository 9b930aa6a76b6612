"""Stores and runs of format 1, as the first egapipe wrote them: every later one works with them."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from egapipe.pipeline.config import load_config
from egapipe.pipeline.results.runs import RunFolder, run_folder, run_identity
from egapipe.pipeline.results.tracking import read_metrics
from egapipe.pipeline.store import Features, FeatureStore, check_store
from egapipe.stages import distill, extract
from egapipe.stages.distill.training.checkpoint import checkpoint_folder
from egapipe.stages.extract.verifying.verify import verify_store
from tests.golden_copy import GOLDEN, golden

__all__ = ["golden"]

STORES = sorted(str(path.relative_to(GOLDEN)) for path in GOLDEN.glob("stores/*/*.zarr"))
IDENTITIES = sorted(GOLDEN.glob("identities/*.yaml"))


def test_there_are_stores_and_runs() -> None:
    assert STORES == [
        "stores/golden/test.zarr",
        "stores/golden/train.zarr",
        "stores/half/train.zarr",
    ]
    assert len(IDENTITIES) == 3


@pytest.mark.parametrize("url", STORES)
def test_a_store_is_read_and_checked(golden: Path, url: str) -> None:
    report = check_store(url)
    assert report.problems == []
    assert report.complete == ("half" not in url)
    assert report.committed == {"stores/half/train.zarr": 2, "stores/golden/test.zarr": 2}.get(
        url, 3
    )


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_store_has_the_content_that_it_was_given(golden: Path, split: str) -> None:
    store = FeatureStore.open(f"stores/golden/{split}.zarr")
    finished = json.loads(
        (golden / f"stores/golden/{split}.zarr/commits/finished.json").read_text()
    )
    assert store.content_hash() == finished["content"]
    features = Features.open(store)
    rows = np.arange(store.manifest.rows)
    taken = np.stack([features.take(rows, view).numpy() for view in range(features.view_count)], 1)
    stored = [store.read_shard(shard) for shard in range(len(store.shards))]
    assert np.array_equal(taken, np.concatenate(stored))


def test_a_store_is_what_its_teacher_says(golden: Path) -> None:
    report = verify_store(load_config("golden.yaml"), split="train", count=6)
    assert report.ok, report.lines()


def test_a_finished_store_is_left_as_it_is(golden: Path) -> None:
    before = {p: p.read_bytes() for p in (golden / "stores/golden").rglob("*") if p.is_file()}
    config = load_config("golden.yaml")
    for split in config.splits():
        assert extract.run(config, split=split, local=True).extracted == 0
    after = {p: p.read_bytes() for p in (golden / "stores/golden").rglob("*") if p.is_file()}
    assert after == before


def test_half_a_store_is_finished(golden: Path) -> None:
    """Whatever software there is now."""
    config = load_config("golden.yaml", ["store.url=stores/half"])
    assert extract.run(config, split="train", local=True).extracted == 4
    half, whole = (FeatureStore.open(f"stores/{name}/train.zarr") for name in ("half", "golden"))
    assert check_store(half.url).problems == []
    assert half.complete
    for shard in (0, 2):
        assert np.array_equal(half.read_shard(shard), whole.read_shard(shard))
    near = [store.read_shard(1).astype(np.float32) for store in (half, whole)]
    assert np.abs(near[0] - near[1]).max() < 0.01 * np.abs(near[1]).max()
    assert half.commits()[1].versions
    assert not half.commits()[0].versions


def test_a_finished_run_is_found_again(golden: Path) -> None:
    done = distill.run(load_config("golden.yaml"))
    assert done.finished_before
    assert done.run.name == "digits_cnn-ega-seed0-79a619d1"
    assert "train_seconds" in done.summary
    assert distill.load_student(done.run).accuracy().top1 == pytest.approx(done.top1)


def test_a_killed_run_goes_on(golden: Path) -> None:
    config = load_config("golden.yaml", ["distill.seed=1"])
    begun = read_metrics(run_folder(config))
    assert [line["epoch"] for line in begun] == [0]
    done = distill.run(config)
    assert not done.finished_before
    assert done.run.name == "digits_cnn-ega-seed1-e601f29f"
    metrics = read_metrics(RunFolder(done.run))
    assert metrics[0] == begun[0]
    assert [line["epoch"] for line in metrics] == [0, 1]


@pytest.mark.parametrize("file", IDENTITIES, ids=lambda file: file.stem)
def test_a_configuration_keeps_its_identity(file: Path) -> None:
    config = load_config(str(file))
    assert run_folder(config).path.name == file.stem
    assert run_identity(config) == file.stem.rpartition("-")[2]


def test_the_papers_recipe_trains_what_it_trained_before_there_were_recipes(
    golden: Path, tmp_path: Path
) -> None:
    """From the first weights on, beside the run that is there: its every setting was the paper's.

    Bit for bit on processors like those that it was made on; others round otherwise, and no more.
    """
    before = run_folder(load_config("golden.yaml"))
    done = distill.run(load_config("golden.yaml"), folder=RunFolder(tmp_path / "again"))
    assert not done.finished_before
    files = [checkpoint_folder(run, "last") for run in (before, RunFolder(done.run))]
    for name in ("student", "heads", "optimizer"):
        old, new = (load_file(folder / f"{name}.safetensors") for folder in files)
        assert old.keys() == new.keys()
        for key, value in old.items():
            torch.testing.assert_close(new[key], value, rtol=1e-4, atol=1e-6, msg=key)
    learned = [
        [line["train/loss"] for line in read_metrics(run)] for run in (before, RunFolder(done.run))
    ]
    assert learned[1] == pytest.approx(learned[0], rel=1e-5)
