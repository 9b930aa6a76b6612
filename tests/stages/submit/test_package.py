"""A job takes with it what it cannot find elsewhere, and refuses what nobody else can see."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from egapipe.pipeline.config import load_config
from egapipe.pipeline.errors import UsageError
from egapipe.pipeline.locations.urls import path_of
from egapipe.pipeline.store.objects.location import open_objects
from egapipe.stages.submit import pack, pack_results
from egapipe.stages.submit.environment import read_environment
from egapipe.stages.submit.jobs import _Log
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
    pack(load_config("quickstart", sets), "distill", ["--restart"]).write(job)
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
    pack(load_config("quickstart", sets), "extract", []).write(tmp_path)
    assert load_config(str(tmp_path / CONFIG)).store.url == "s3://bucket/stores"
    assert json.loads((tmp_path / ORDER).read_text("utf-8"))["visible"] == [str(tmp_path)]


def test_what_is_expanded_here_is_not_expanded_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PLACE", "/data/a$HOME")
    monkeypatch.setenv("BUCKET", "s3://bucket/$HOME")
    sets = ["runs=$PLACE/~", "store.url=$PLACE/b"]
    pack(load_config("quickstart", sets), "extract", []).write(tmp_path)
    packed = load_config(str(tmp_path / CONFIG))
    assert open_objects(packed.store_url("train")).url == "/data/a$HOME/b/train.zarr"
    assert path_of(packed.runs) == Path("/data/a$HOME/~")
    visible = json.loads((tmp_path / ORDER).read_text("utf-8"))["visible"]
    assert visible == ["/data/a$HOME/b", "/data/a$HOME/~"]
    pack(load_config("quickstart", ["store.url=$BUCKET"]), "extract", []).write(tmp_path)
    packed = load_config(str(tmp_path / CONFIG))
    assert open_objects(packed.store_url("train")).url == "s3://bucket/$HOME/train.zarr"


def test_modules_of_this_folder_are_taken_along(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, job = tmp_path / "here", tmp_path / "job"
    (here / "nets").mkdir(parents=True)
    (here / "nets" / "small.py").write_text("class Net: ...\n", "utf-8")
    (here / "unrelated.py").touch()
    job.mkdir()
    monkeypatch.chdir(here)
    pack(load_config("quickstart", ["distill.student.name=nets.small:Net"]), "distill", []).write(
        job
    )
    assert (job / "nets" / "small.py").is_file()
    assert not (job / "unrelated.py").exists()


def test_modules_are_found_wherever_they_are_named_with_what_they_import(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In an ensemble, a variant, a sweep; never what only looks like an installed one."""
    monkeypatch.chdir(tmp_path)
    for name in ("student", "member", "variant", "choice", "layers", "unrelated", "numpy"):
        Path(f"{name}.py").write_text("def Net(): ...\n", "utf-8")
    Path("student.py").write_text("import numpy\nfrom layers import Net\n", "utf-8")
    Path("deep").mkdir()
    Path("deep/__init__.py").touch()
    Path("layers.py").write_text("def Net():\n    import deep.inner\n", "utf-8")
    file = tmp_path / "experiment.yaml"
    file.write_text(EVERYWHERE, "utf-8")
    package = pack(load_config(str(file)), "compare", [])
    names = ["choice.py", "deep", "layers.py", "member.py", "student.py", "variant.py"]
    assert [str(path) for path in package.modules] == names


EVERYWHERE = """
name: everywhere
dataset: {train: {kind: digits}}
teacher:
  backend: ensemble
  teachers:
    a:
      backend: python
      model: "member:Net"
      preprocessing: {size: 8, mean: [0, 0, 0], std: [1, 1, 1]}
    b: {backend: timm, model: vit}
distill: {student: {name: "student:Net"}}
compare: {variants: {one: {distill.student.name: "variant:Net"}}}
sweep: {space: {distill.student.name: {choice: ["choice:Net", resnet8]}}}
"""


def test_a_module_that_is_no_python_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("broken.py").write_text("def (:\n", "utf-8")
    with pytest.raises(UsageError, match=r"broken\.py cannot be taken along: .*") as raised:
        pack(load_config("quickstart", ["distill.student.name=broken:Net"]), "distill", [])
    assert "\n" not in str(raised.value)


def test_more_than_ray_uploads_is_refused_with_the_largest_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = tmp_path / "job"
    (tmp_path / "here" / "nets").mkdir(parents=True)
    job.mkdir()
    monkeypatch.chdir(tmp_path / "here")
    Path("nets/__init__.py").touch()
    Path("nets/weights.bin").write_bytes(bytes(2000))
    monkeypatch.setattr("egapipe.stages.submit.package.MOST_BYTES", 1000)
    package = pack(load_config("quickstart", ["distill.student.name=nets:Net"]), "distill", [])
    with pytest.raises(UsageError, match="most of it nets, and Ray uploads"):
        package.write(job)


def test_folders_of_results_are_named_as_every_node_sees_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    pack_results("evaluate", [Path("runs/x")], ["--device", "cpu"]).write(tmp_path)
    order = json.loads((tmp_path / ORDER).read_text("utf-8"))
    run = str(tmp_path / "runs" / "x")
    assert order == {
        "command": "evaluate",
        "arguments": [run, "--device", "cpu"],
        "visible": [run],
    }
    assert not (tmp_path / CONFIG).exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[1]", "no mapping"),
        ("working_dir: .", "sets working_dir"),
        ("{env_vars: [1]}", "env_vars"),
        ("env_vars: {A: 1}", "env_vars"),
        ("env_vars: &a [*a]", "runtime environment"),
        ("pips: [timm]", "pips is not one of conda, .*, pip, "),
        ("\x00", "runtime environment"),
    ],
)
def test_a_runtime_environment_that_is_none_is_one_line(
    tmp_path: Path, text: str, said: str
) -> None:
    file = tmp_path / "env.yaml"
    file.write_text(text, "utf-8")
    with pytest.raises(UsageError, match=said) as raised:
        read_environment(file)
    assert "\n" not in str(raised.value)


def test_a_runtime_environment_is_rays(tmp_path: Path) -> None:
    file = tmp_path / "env.yaml"
    file.write_text("env_vars: {AWS_ENDPOINT_URL: 'http://s3:9000'}\npip: [timm]\n", "utf-8")
    found = read_environment(file)
    assert found["env_vars"] == {"AWS_ENDPOINT_URL": "http://s3:9000"}
    assert found["pip"]["packages"] == ["timm"]
    with pytest.raises(UsageError, match="runtime environment"):
        read_environment(tmp_path / "none.yaml")


@given(st.text(max_size=60), st.lists(st.lists(st.integers(1, 9), max_size=12), max_size=4))
def test_a_log_that_breaks_off_is_written_once(text: str, tries: list[list[int]]) -> None:
    """Each try reads it from the beginning, in pieces of any length, as far as it comes."""
    written: list[str] = []
    log = _Log(written.append)
    for lengths in tries:
        log.begin()
        at = 0
        for length in lengths:
            log.more(text[at : at + length])
            at += length
    log.whole(text)
    assert "".join(written) == text


def test_a_store_in_memory_is_refused() -> None:
    with pytest.raises(UsageError, match="no other process can see") as raised:
        pack(load_config("quickstart", ["store.url=memory://x"]), "extract", [])
    assert "\n" not in str(raised.value)
