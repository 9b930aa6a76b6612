"""The name of a run: what decides what is learned, however its places are written."""

import shutil
from pathlib import Path

import pytest

from egapipe.pipeline.config import Config, load_config, to_yaml
from egapipe.pipeline.results.identity import run_identity
from egapipe.pipeline.results.runs import run_folder
from egapipe.stages.submit.package import absolute
from egapipe.stages.sweep.folder import sweep_folder
from tests.golden_copy import golden

__all__ = ["golden"]

DATASETS = {
    "folder": "{kind: folder, path: photos/train}",
    "parquet": "{kind: parquet, files: [a.parquet, more/b.parquet]}",
    "webdataset": "{kind: webdataset, files: a.tar}",
    "archive": "{kind: archive, name: stl10, folder: archives}",
    "several": "{kind: several, sources: [{kind: folder, path: a}, {kind: parquet, files: b}]}",
}
TEACHERS = {
    "transformers": "{backend: transformers, model: models/vit}",
    "onnx": "{backend: onnx, model: vit.onnx, preprocessing: {size: 8}}",
    "run": "{backend: run, model: runs/one}",
}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "models" / "vit").mkdir(parents=True)
    (tmp_path / "vit.onnx").touch()
    (tmp_path / "runs" / "one").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def config(dataset: str = DATASETS["folder"], teacher: str = TEACHERS["onnx"]) -> Config:
    sets = [f"dataset.train={dataset}", f"dataset.test={dataset}", f"dataset.unlabelled={dataset}"]
    return load_config("quickstart", [*sets, f"teacher={teacher}"])


@pytest.mark.parametrize("dataset", DATASETS.values(), ids=DATASETS)
@pytest.mark.parametrize("teacher", TEACHERS.values(), ids=TEACHERS)
def test_a_job_with_absolute_paths_is_the_same_run(
    here: Path, monkeypatch: pytest.MonkeyPatch, dataset: str, teacher: str
) -> None:
    typed = config(dataset, teacher)
    submitted = absolute(typed)
    assert submitted != typed
    folder = run_folder(typed).path.absolute()
    assert run_folder(submitted).path == folder
    (here / "job").mkdir()
    monkeypatch.chdir(here / "job")
    assert run_folder(submitted).path == folder


@pytest.mark.parametrize(
    "other",
    [
        "dataset.train={kind: folder, path: photos/train, limit: 5}",
        "dataset.train={kind: parquet, files: photos/train}",
        "dataset.unlabelled=[]",
        "dataset.test=null",
        "teacher={backend: onnx, model: vit.onnx, preprocessing: {size: 9}}",
        "teacher={backend: onnx, model: 'package:nets/vit.onnx', preprocessing: {size: 8}}",
        "views.seed=1",
        "store.dtype=float32",
        "distill.lr=0.3",
    ],
)
def test_what_decides_the_weights_makes_another_run(here: Path, other: str) -> None:
    one = config()
    path, _, _ = other.partition("=")
    sets = [f"dataset.train={DATASETS['folder']}", f"dataset.test={DATASETS['folder']}"]
    sets += [f"dataset.unlabelled={DATASETS['folder']}", f"teacher={TEACHERS['onnx']}"]
    assert run_identity(load_config("quickstart", sets)) == run_identity(one)
    assert run_identity(load_config("quickstart", [*sets, other])) != run_identity(one), path


def test_a_name_of_the_hub_is_no_place(here: Path) -> None:
    names = ("facebook/dinov2-small", "facebook/dinov2-base")
    teachers = [config(teacher=f"{{backend: transformers, model: {name}}}") for name in names]
    assert run_identity(teachers[0]) != run_identity(teachers[1])


def test_a_run_of_older_name_is_found_by_what_it_recorded(golden: Path) -> None:
    """Its name had the relative paths of its images in it."""
    old = next(golden.glob("runs/golden/*-seed0-*")).relative_to(golden)
    made = load_config("golden.yaml")
    assert run_identity(made) not in old.name
    assert run_folder(made).path == old
    moved = ["dataset.train.path=/elsewhere/train", "dataset.test.path=/elsewhere/test"]
    assert run_folder(load_config("golden.yaml", moved)).path == old
    other = run_folder(load_config("golden.yaml", ["distill.lr=0.5"])).path
    assert not other.exists()
    # What cannot be read is no candidate; what has today's name comes first.
    (old.parent / "digits_cnn-ega-seed0-00000000").mkdir()
    (old.parent / "digits_cnn-ega-seed0-00000000" / "config.yaml").write_text("newer: true")
    assert run_folder(made).path == old
    today = shutil.copytree(old, old.parent / f"digits_cnn-ega-seed0-{run_identity(made)}")
    assert run_folder(made).path == today


def test_a_sweep_of_older_name_is_found_by_what_it_recorded(here: Path) -> None:
    made = config()
    assert sweep_folder(made) == sweep_folder(absolute(made))
    old = here / "runs" / "quickstart" / "sweep-00000000"
    old.mkdir(parents=True)
    (old / "config.yaml").write_text(to_yaml(made))
    assert sweep_folder(absolute(made)).path == old
    more = made.model_copy(update={"sweep": made.sweep.model_copy(update={"search_seed": 9})})
    assert sweep_folder(more).path != old


def test_a_finished_one_of_two_older_names_is_taken(golden: Path) -> None:
    old = next(golden.glob("runs/golden/*-seed0-*")).relative_to(golden)
    begun = shutil.copytree(old, old.parent / "digits_cnn-ega-seed0-00000000")
    (begun / "summary.json").unlink()
    absolute_paths = absolute(load_config(str(begun / "config.yaml")))
    (begun / "config.yaml").write_text(to_yaml(absolute_paths))
    assert run_folder(load_config("golden.yaml")).path == old
