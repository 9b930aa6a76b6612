"""A job takes with it what it cannot find elsewhere, and refuses what nobody else can see."""

import json
from pathlib import Path

import pytest

from egapipe.pipeline.config import load_config
from egapipe.pipeline.errors import UsageError
from egapipe.stages.submit import pack
from egapipe.stages.submit.package import CONFIG, ORDER


def test_relative_paths_mean_this_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    job = tmp_path / "job"
    job.mkdir()
    sets = [
        "dataset.train={kind: several, sources: [{kind: parquet, files: a.parquet}, "
        "{kind: folder, path: photos}]}",
        "dataset.test={kind: parquet, files: [b.parquet, /data/c.parquet]}",
        "dataset.validation={kind: folder, path: others}",
    ]
    pack(load_config("quickstart", sets), "distill", ["--restart"], job)
    packed = load_config(str(job / CONFIG)).model_dump(mode="json")
    several = packed["dataset"]["train"]["sources"]
    assert several[0]["files"] == [str(tmp_path / "a.parquet")]
    assert several[1]["path"] == str(tmp_path / "photos")
    assert packed["dataset"]["test"]["files"] == [str(tmp_path / "b.parquet"), "/data/c.parquet"]
    assert packed["dataset"]["validation"]["source"]["path"] == str(tmp_path / "others")
    assert packed["store"]["url"] == str(tmp_path / "stores" / "quickstart")
    assert packed["runs"] == str(tmp_path / "runs")
    order = json.loads((job / ORDER).read_text("utf-8"))
    assert order == {
        "command": "distill",
        "arguments": ["--restart"],
        "visible": [packed["store"]["url"], packed["runs"]],
    }


def test_urls_stay_and_need_no_look(tmp_path: Path) -> None:
    sets = ["store.url=s3://bucket/stores", f"runs={tmp_path}"]
    pack(load_config("quickstart", sets), "extract", [], tmp_path)
    assert load_config(str(tmp_path / CONFIG)).store.url == "s3://bucket/stores"
    assert json.loads((tmp_path / ORDER).read_text("utf-8"))["visible"] == [str(tmp_path)]


def test_modules_of_this_folder_are_taken_along(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, job = tmp_path / "here", tmp_path / "job"
    (here / "nets").mkdir(parents=True)
    (here / "nets" / "small.py").write_text("class Net: ...\n", "utf-8")
    (here / "unrelated.py").touch()
    job.mkdir()
    monkeypatch.chdir(here)
    pack(load_config("quickstart", ["distill.student.name=nets.small:Net"]), "distill", [], job)
    assert (job / "nets" / "small.py").is_file()
    assert not (job / "unrelated.py").exists()


def test_a_store_in_memory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no other process can see") as raised:
        pack(load_config("quickstart", ["store.url=memory://x"]), "extract", [], tmp_path)
    assert "\n" not in str(raised.value)
