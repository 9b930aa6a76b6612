"""Files from elsewhere run no code: the lines of docs/security.md that stages answer for."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from PIL import Image

from egapipe.pipeline.config import load_config
from egapipe.pipeline.config.teachers import RunTeacher
from egapipe.pipeline.errors import EgapipeError, UsageError
from egapipe.stages import distill, evaluate, export, predict, report, sweep
from egapipe.stages.extract.teachers import load_teacher
from egapipe.stages.sweep.folder import sweep_folder
from tests.command import invoke
from tests.stages.evaluate.conftest import digits_store, finished

__all__ = ["digits_store", "finished"]

# The console script: unlike `python -m` it puts no working directory first on the path.
COMMAND = [sys.executable, "-P", "-m", "egapipe.pipeline.cli"]


def egapipe(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments], cwd=cwd, capture_output=True, text=True, check=False, timeout=240
    )


@pytest.fixture
def hostile(tmp_path: Path) -> Callable[[Path], Path]:
    """Make the file of a student name a shell command, and give the file that it would leave."""

    def change(file: Path) -> Path:
        mark = tmp_path / "ran"
        content = json.loads(file.read_text("utf-8"))
        args = {"args": ["touch", str(mark)]}
        content["student"] = {"name": "subprocess:check_output", "args": args}
        file.write_text(json.dumps(content), "utf-8")
        return mark

    return change


@pytest.fixture(scope="module")
def exported(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    to = tmp_path_factory.mktemp("exported") / "student"
    return export.run(finished, to=to, formats=["safetensors"]).folder


@pytest.fixture
def downloaded(exported: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(exported, tmp_path / "downloaded"))


def test_an_export_names_no_code(downloaded: Path, hostile: Callable[[Path], Path]) -> None:
    mark = hostile(downloaded / "config.json")
    run = egapipe("predict", str(downloaded), ".", cwd=downloaded)
    assert run.returncode == 2
    assert "--trust-remote-code" in run.stderr
    assert len(run.stderr.strip().splitlines()) == 1
    with pytest.raises(UsageError, match="trust_remote_code=True"):
        export.load_exported(downloaded)
    with pytest.raises(UsageError, match="trust_remote_code=True"):
        next(predict.run(downloaded, [downloaded]))
    assert not mark.exists()


def test_a_program_of_torch_is_not_unpickled(tmp_path: Path) -> None:
    mark = tmp_path / "mark"

    class Harm:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (mark,)

    file = tmp_path / "model.pt2"
    torch.save(Harm(), file)
    with pytest.raises(UsageError, match="read through pickle"):
        predict.load_predictor(file)
    assert not mark.exists()
    with pytest.raises(UsageError, match=r"no program of torch\.export"):
        predict.load_predictor(file, trust_remote_code=True)


def test_who_trusts_an_export_says_so(downloaded: Path, hostile: Callable[[Path], Path]) -> None:
    mark = hostile(downloaded / "config.json")
    with pytest.raises(UsageError, match=r"must give a torch\.nn\.Module"):
        export.load_exported(downloaded, trust_remote_code=True)
    assert mark.exists()


def test_a_run_names_no_code(
    finished: Path, tmp_path: Path, hostile: Callable[[Path], Path]
) -> None:
    run = Path(shutil.copytree(finished, tmp_path / "run"))
    mark = hostile(run / "model.json")
    teacher = RunTeacher(backend="run", model=str(run))
    for read in (
        lambda: distill.load_student(run),
        lambda: evaluate.run(run),
        lambda: export.run(run),
        lambda: predict.load_predictor(run),
        lambda: load_teacher(teacher),
    ):
        with pytest.raises(UsageError, match="code that a file names"):
            read()
    page = report.run(run).page.read_text("utf-8")
    assert "what needs the student could not be drawn" in page
    assert "--trust-remote-code" in page
    assert not mark.exists()
    with pytest.raises(UsageError, match=r"must give a torch\.nn\.Module"):
        load_teacher(RunTeacher(backend="run", model=str(run), trust_remote_code=True))


@pytest.mark.parametrize("name", ["best.yaml", "config.yaml"])
@pytest.mark.parametrize(
    "changes",
    [
        {"distill": {"student": {"name": "subprocess:check_output"}}},
        {"teacher": {"backend": "python", "model": "a:b", "preprocessing": {"size": 8}}},
        {"teacher": {"backend": "run", "model": "x", "trust_remote_code": True}},
        {"compare": {"students": {"os:system": {}}}},
        {"compare": {"variants": {"a": {"distill.student.name": "os:system"}}}},
        {"sweep": {"space": {"distill.student.name": {"choice": ["resnet8", "os:system"]}}}},
    ],
)
def test_a_result_given_as_a_configuration_names_no_code(
    name: str, changes: dict[str, object], tmp_path: Path
) -> None:
    (tmp_path / "trials").mkdir()
    file = tmp_path / name
    file.write_text(yaml.safe_dump({"base": "quickstart", **changes}))
    with pytest.raises(UsageError, match="--trust-remote-code"):
        load_config(str(file))
    assert load_config(str(file), trust_remote_code=True).name == "quickstart"
    # The user's own words are the user's.
    plain = tmp_path / "mine.yaml"
    shutil.copy(file, plain)
    assert load_config(str(plain)).name == "quickstart"
    file.write_text("base: quickstart\n")
    sets = ["distill.student.name=my_module:Net"]
    assert load_config(str(file), sets).distill.student.name == "my_module:Net"


def test_a_base_that_is_a_result_names_no_code(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "summary.json").write_text("{}")
    code = {"base": "quickstart", "distill": {"student": {"name": "os:system"}}}
    (tmp_path / "run" / "config.yaml").write_text(yaml.safe_dump(code))
    (tmp_path / "mine.yaml").write_text("base: run/config.yaml\n")
    with pytest.raises(UsageError, match="--trust-remote-code"):
        load_config(str(tmp_path / "mine.yaml"))


def test_the_files_of_an_export_decide_how_much_memory_it_takes(downloaded: Path) -> None:
    file = downloaded / "config.json"
    content = json.loads(file.read_text("utf-8"))
    for key, value in (
        ("features", 10**12),
        ("dim", 10**9),
        ("classes", 10**18),
        ("size", [10**6, 10**6]),
        ("size", [0, 8]),
        ("student", {"name": "resnet8x4", "args": {"width": 10**9}}),
        ("student", {"name": "transformers:vit", "args": {"hidden_size": 12 * 10**6}}),
    ):
        file.write_text(json.dumps({**content, key: value}), "utf-8")
        with pytest.raises(UsageError) as caught:
            export.load_exported(downloaded)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "arguments",
    [
        "report {run} --to /proc/nowhere/page",
        "export {run} --format safetensors --to /proc/nowhere/student",
        "predict {student} {image} --output /proc/out.csv",
        "index {stores}/test.zarr --to /proc/nowhere/x",
        "store export {stores}/test.zarr /proc/nowhere/x.npy",
        "leaks -c {run}/config.yaml --output /proc/x.csv",
    ],
)
def test_a_place_that_cannot_be_written_is_one_line(
    arguments: str, finished: Path, exported: Path, digits_store: str, tmp_path: Path
) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    names = {"run": finished, "student": exported, "image": tmp_path / "a.png"}
    shown = invoke(*arguments.format(**names, stores=digits_store).split())
    assert isinstance(shown.exception, EgapipeError), shown.exception
    said = str(shown.exception)
    assert "cannot write /proc/" in said
    assert "choose another" in said
    assert "\n" not in said


@pytest.mark.parametrize(
    "arguments",
    [
        "index {stores}/test.zarr",
        "distill -c {run}/config.yaml --set store.cache_dir=null --set runs={here}",
    ],
)
def test_a_cache_that_cannot_be_written_is_one_line(
    arguments: str,
    finished: Path,
    digits_store: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("EGAPIPE_CACHE", "/proc/nowhere")
    monkeypatch.delenv("EGAPIPE_STORE_CACHE_DIR", raising=False)
    words = arguments.format(stores=digits_store, run=finished, here=tmp_path).split()
    shown = invoke(*words)
    assert isinstance(shown.exception, EgapipeError), shown.exception
    said = str(shown.exception)
    assert said.startswith("cannot write /proc/nowhere/")
    assert "EGAPIPE_CACHE" in said
    assert "\n" not in said


MINES = ["pyarrow", "numpy", "torch", "yaml", "pydantic", "typer"]


def test_modules_of_the_working_directory_replace_no_library(
    exported: Path, tmp_path: Path
) -> None:
    for name in MINES:
        (tmp_path / f"{name}.py").write_text(f"open('ran-{name}', 'w')")
    (tmp_path / "datasets").mkdir()
    (tmp_path / "datasets" / "__init__.py").write_text("open('ran-datasets', 'w')")
    parquet = "dataset.train={kind: parquet, files: nowhere.parquet}"
    code = (
        "import contextlib, sys\n"
        "from egapipe.pipeline.cli import main\n"
        f"for words in (['extract', '--set', {parquet!r}], ['predict', {str(exported)!r}, 'no']):\n"
        "    sys.argv[1:] = words\n"
        "    with contextlib.suppress(SystemExit):\n"
        "        main()\n"
    )
    run = subprocess.run(
        [sys.executable, "-P", "-c", code], cwd=tmp_path, capture_output=True, text=True
    )
    assert [line.partition(":")[0] for line in run.stderr.splitlines()] == ["error", "error"]
    assert [path.name for path in tmp_path.glob("ran-*")] == []


@pytest.mark.slow  # starts a Ray, as commands with workers do
def test_workers_take_no_library_from_the_working_directory(tmp_path: Path) -> None:
    """A `module:callable` is found there all the same, by workers too: the teacher is one."""
    (tmp_path / "pyarrow.py").write_text("open('ran', 'w')")
    (tmp_path / "mine.py").write_text(
        "import torch\n"
        "def teacher():\n"
        "    torch.manual_seed(0)\n"
        "    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 4))\n"
    )
    teacher = "{backend: python, model: 'mine:teacher', preprocessing: {size: 8}}"
    sets = [f"teacher={teacher}", "dataset.train.limit=32", "cluster.cpus=2"]
    given = [part for one in sets for part in ("--set", one)]
    run = egapipe("extract", "--split", "train", *given, cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    assert not (tmp_path / "ran").exists()


@pytest.mark.slow  # starts a Ray, as every sweep does
@pytest.mark.usefixtures("ray_cluster")
def test_what_ray_tune_has_pickled_is_never_loaded(golden: Path) -> None:
    """Somebody else's folder of a sweep: its state runs code if it is unpickled."""
    sets = ["sweep.space={distill.lr: {grid: [0.01]}}", "sweep.search=grid"]
    config = load_config("golden.yaml", sets)
    folder = sweep_folder(config)
    state = folder.path / "ray" / "tune"
    state.mkdir(parents=True)
    for name in ("tuner.pkl", "trainable.pkl", "searcher-state-1.pkl"):
        # Unpickled it makes a file: open("ran", "w").
        (state / name).write_bytes(b"cbuiltins\nopen\n(Vran\nVw\ntR.")
    (state / "experiment_state-1.json").write_text("{}")
    report = sweep.run(config)
    assert report.count("finished") == 1
    assert not (golden / "ran").exists()
    assert not state.exists()
