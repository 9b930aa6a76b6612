"""A run and a table belong to the features that they were made of."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from egapipe.pipeline.config import Config, load_config
from egapipe.pipeline.errors import EgapipeError, StoreError, UsageError
from egapipe.pipeline.results.experiment import read_experiment, write_experiment
from egapipe.pipeline.results.learned import require_one_source
from egapipe.pipeline.results.runs import RunFolder
from egapipe.pipeline.store import FeatureStore
from egapipe.stages import compare, distill, extract
from egapipe.stages.distill.folder import training_folder
from egapipe.stages.distill.training.checkpoint import Checkpoints
from egapipe.stages.report import reporting
from egapipe.stages.submit.package import absolute
from tests.golden_copy import golden

__all__ = ["golden"]

FINISHED, KILLED = "distill.seed=0", "distill.seed=1"


def config(*sets: str) -> Config:
    return load_config("golden.yaml", list(sets))


def other_numbers(url: str = "stores/golden/train.zarr") -> None:
    """A shard as another device would make it again."""
    store = FeatureStore.open(url)
    values = store.read_shard(1).astype(np.float32)
    store.objects.delete("commits/000001.json")
    store.write_shard(1, {"embedding": values[::-1] * 1.5})
    store.finish()


def extract_anew(*sets: str) -> None:
    """In the place of what was there."""
    shutil.rmtree("stores/golden")
    for split in ("train", "test"):
        extract.run(config(*sets), split=split, local=True)


def other_classes(split: str) -> None:
    """Another class comes first: every label is one more."""
    folder = Path("images", split)
    shutil.copytree(folder / "two", folder / "before")


def refused(*sets: str) -> str:
    with pytest.raises(EgapipeError) as error:
        distill.run(config(*sets))
    assert "\n" not in str(error.value)
    assert isinstance(error.value, StoreError)
    return str(error.value)


@pytest.mark.parametrize("run", [FINISHED, KILLED])
def test_a_run_is_not_taken_up_with_other_numbers(golden: Path, run: str) -> None:
    """Of a run of format 1 the content is known, and not what it was made from."""
    was = FeatureStore.open("stores/golden/train.zarr").content_hash()
    other_numbers()
    now = FeatureStore.open("stores/golden/train.zarr").content_hash()
    said = refused(run)
    assert "has not learned from what is there now" in said
    assert f"the content was {was[:12]}, is {now[:12]}" in said
    assert "--restart" in said
    done = distill.run(config(run), restart=True)
    assert not done.finished_before
    assert distill.run(config(run)).finished_before


@pytest.mark.parametrize("run", [FINISHED, KILLED])
def test_a_run_is_not_taken_up_with_other_images(golden: Path, run: str) -> None:
    other_classes("train")
    assert "dataset.fingerprint is" in refused(run)
    extract_anew()
    assert "the content was" in refused(run)


def test_an_interrupted_training_does_not_go_on_with_another_data_set(golden: Path) -> None:
    """Another class comes first in what was extracted anew: a label means another class."""

    def interrupt(epoch: int, metrics: Mapping[str, float]) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        distill.run(config(), restart=True, report=interrupt)
    run = training_folder(config())
    before = {p: p.read_bytes() for p in run.checkpoints.rglob("*") if p.is_file()}
    assert Checkpoints(run.checkpoints).position().epoch == 1
    other_classes("train")
    extract_anew()
    assert "dataset.fingerprint was '" in refused()
    assert before == {p: p.read_bytes() for p in run.checkpoints.rglob("*") if p.is_file()}


def test_the_difference_is_named(golden: Path) -> None:
    distill.run(config(), restart=True)
    other_classes("train")
    extract_anew()
    said = refused()
    assert "dataset.fingerprint was '" in said
    assert "the content was" not in said
    (golden / "stores/golden/train.zarr").rename(golden / "gone")
    assert "dataset.fingerprint is '" in refused()


def test_a_run_is_of_its_test_images_too(golden: Path) -> None:
    distill.run(config(), restart=True)
    shutil.rmtree("stores/golden/test.zarr")
    Path("images/test/one/0107.png").write_bytes(Path("images/test/one/0131.png").read_bytes())
    assert "the test images were " in refused()


def test_a_teachers_accuracy_is_of_its_test_embeddings(golden: Path) -> None:
    distill.run(config(), restart=True)
    other_numbers("stores/golden/test.zarr")
    assert "test store: the content was " in refused()
    shutil.rmtree("stores/golden/test.zarr")
    assert distill.run(config()).finished_before


@pytest.mark.parametrize("run", [FINISHED, KILLED])
def test_a_job_takes_up_what_a_command_began(
    golden: Path, monkeypatch: pytest.MonkeyPatch, run: str
) -> None:
    """Its paths are absolute and its folder is another; also where the folder has an older name."""
    submitted = absolute(config(run))
    assert submitted.dataset.train.path == str(golden / "images" / "train")
    (golden / "job").mkdir()
    monkeypatch.chdir(golden / "job")
    done = distill.run(submitted)
    assert done.finished_before == (run == FINISHED)
    assert done.run.name in ("digits_cnn-ega-seed0-79a619d1", "digits_cnn-ega-seed1-e601f29f")
    monkeypatch.chdir(golden)
    assert distill.run(config(run)).finished_before
    fresh, submitted = distill.run(config("distill.seed=3")), absolute(config("distill.seed=3"))
    monkeypatch.chdir(golden / "job")
    again = distill.run(submitted)
    assert again.finished_before
    assert again.run == golden / fresh.run


def test_results_outlive_what_they_were_made_of(golden: Path) -> None:
    shutil.rmtree("stores")
    shutil.rmtree("images")
    assert distill.run(config()).finished_before


def test_results_are_there_where_the_store_is_not_reached(
    golden: Path, caplog: pytest.LogCaptureFixture
) -> None:
    Path("stores/golden/train.zarr/commits/created.json").write_text("{")
    assert distill.run(config()).finished_before
    assert "a finished run is not compared with its store: " in caplog.text


def test_the_same_features_in_another_place_are_the_same(golden: Path) -> None:
    """Extracted again, from a folder of another name, with other software."""
    distill.run(config(), restart=True)
    Path("images").rename("pictures")
    moved = ["dataset.train.path=pictures/train", "dataset.test.path=pictures/test"]
    shutil.move("stores", "shelf")
    tree = json.loads(Path("shelf/golden/train.zarr/zarr.json").read_text())
    assert tree["attributes"]["egapipe"]["dataset"]["name"] == "folder/train"
    done = distill.run(config(*moved, "store.url=shelf/golden"))
    assert done.finished_before
    # Numbers that are made again are the same on this machine, if not on that of the golden store.
    with pytest.MonkeyPatch.context() as patch:
        software = {"egapipe": "0.2"}
        patch.setattr("egapipe.stages.extract.planning.manifest.software", lambda: software)
        for url in ("stores/one", "stores/two"):
            shutil.move("pictures/train", "pictures/train2")
            moved[0] = "dataset.train.path=pictures/train2"
            extract.run(config(*moved, f"store.url={url}"), split="train", local=True)
            shutil.move("pictures/train2", "pictures/train")
            moved[0] = "dataset.train.path=pictures/train"
            software["egapipe"] = "0.3"
            if url == "stores/one":
                distill.run(config(*moved, "dataset.test=null", f"store.url={url}"))
    one, two = (FeatureStore.open(f"stores/{name}/train.zarr") for name in ("one", "two"))
    assert one.manifest.versions != two.manifest.versions
    assert one.content_hash() != two.content_hash()
    again = distill.run(config(*moved, "dataset.test=null", "store.url=stores/two"))
    assert again.finished_before


VARIANTS = ["compare.variants={ce: {distill.objective: {}}, ega: {}}", "distill.epochs=1"]


def test_a_comparison_never_averages_two_stores(golden: Path) -> None:
    seeds = [*VARIANTS, "compare.seeds=[0]", "distill.milestones=[0.5]"]
    first = compare.run(config(*seeds))
    assert len(first.done) == 2
    other_numbers()
    seeds[2] = "compare.seeds=[0, 1]"
    with pytest.raises(StoreError, match="has not learned from what is there now"):
        compare.run(config(*seeds))
    # Where the old cells are not looked at again, the table itself is refused.
    mixed = compare.run(config(*VARIANTS, "compare.seeds=[1]", seeds[3]))
    new, old = (read_experiment(str(report.folder)) for report in (mixed, first))
    cells = [*new.experiment.cells, *old.experiment.cells]
    cells = [cell.model_copy(update={"number": number}) for number, cell in enumerate(cells)]
    write_experiment(new.folder, new.experiment.model_copy(update={"cells": tuple(cells)}))
    with pytest.raises(UsageError, match="one table cannot hold runs") as error:
        reporting.run(mixed.folder)
    for cell in cells:
        assert str(cell.run) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_table_names_few_of_many(golden: Path) -> None:
    runs = {}
    for number in range(12):
        folder = RunFolder(golden / "cells" / str(number))
        folder.path.mkdir(parents=True)
        folder.write_json("store.json", {"url": "a", "content_hash": "0" * 64})
        runs[f"cell {number}"] = folder
    require_one_source(runs)
    runs["cell 3"].write_json("store.json", {"url": "b", "content_hash": "1" * 64})
    runs["not begun"] = RunFolder(golden / "cells" / "none")
    with pytest.raises(UsageError) as error:
        require_one_source(runs)
    said = str(error.value)
    assert "cell 0, cell 1, cell 2, cell 4, cell 5 and 6 more from 000000000000" in said
    assert "cell 3 from 111111111111" in said
    assert len(said) < 500
    for number in range(12):
        content = f"{number:x}" * 64
        runs[f"cell {number}"].write_json("store.json", {"url": "c", "content_hash": content})
    with pytest.raises(UsageError, match="cell 4 from 444444444444 and 7 more other contents"):
        require_one_source(runs)


@pytest.mark.parametrize(
    "content",
    [
        "[]",
        "{}",
        '{"content_hash": 1}',
        "{",
        '{"unlabelled": 3}',
        '{"content_hash": "a", "test": {}}',
        '{"content_hash": "a", "test": {"fingerprint": "b", "store": 5}}',
    ],
)
def test_a_damaged_record_is_one_line(golden: Path, content: str) -> None:
    run = next(golden.glob("runs/golden/*-seed0-*"))
    (run / "store.json").write_text(content)
    with pytest.raises(UsageError, match=r"store\.json") as error:
        distill.run(config())
    assert "\n" not in str(error.value)
