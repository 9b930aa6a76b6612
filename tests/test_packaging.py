"""The wheel holds exactly what lies in pipeline/, stages/ and configs/."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("configs", "pipeline", "stages")
DATA = {".yaml", ".json", ".safetensors", ".md", ".typed", ".css", ".html", ".js"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    # A copy: setuptools would pack what an earlier build left in the project's build folder.
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in FOLDERS:
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out)]
    built = subprocess.run([*command, str(source)], capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stdout + built.stderr
    return zipfile.ZipFile(next(out.glob("*.whl")))


def in_tree() -> set[str]:
    files = (p for folder in FOLDERS for p in (ROOT / folder).rglob("*") if p.is_file())
    kept = (p for p in files if p.suffix == ".py" or p.suffix in DATA)
    return {packaged_as(p.relative_to(ROOT).as_posix()) for p in kept}


def packaged_as(path: str) -> str:
    """Where a file of the tree is found after installation: that of the package itself is the
    facade's."""
    return f"egapipe/{path.removeprefix('pipeline/facade/')}"


def run_beside_site(code: str, folder: Path) -> str:
    """What Python says that finds packages in the folder's `site` first."""
    run = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder / "site")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return run.stdout


def test_the_wheel_has_every_module_and_data_file_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    packaged = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert packaged == in_tree()


def test_the_wheel_alone_runs_the_command(wheel: zipfile.ZipFile, tmp_path: Path) -> None:
    wheel.extractall(tmp_path / "site")
    code = (
        "import sys; sys.argv = ['egapipe', 'config', 'list'];"
        "import egapipe.pipeline.cli as cli; print(cli.__file__); cli.main()"
    )
    said = run_beside_site(code, tmp_path)
    where, *configs = said.split()
    assert where.startswith(str(tmp_path))
    assert "quickstart" in configs


def test_the_wheel_alone_is_a_package_with_plain_names(
    wheel: zipfile.ZipFile, tmp_path: Path
) -> None:
    wheel.extractall(tmp_path / "site")
    code = (
        "import sys, egapipe; print(egapipe.__file__); config = egapipe.load_config();"
        "print(egapipe.__version__, config.name); import egapipe.stages.report.command;"
        "print(*{'torch', 'ray'} & set(sys.modules))"
    )
    said = run_beside_site(code, tmp_path)
    where, about, *heavy = said.splitlines()
    assert where.startswith(str(tmp_path))
    assert about == "0.1.0 quickstart"
    assert heavy == [""]


def test_a_checkout_runs_without_being_installed(tmp_path: Path) -> None:
    """Through a link called egapipe: there it is a namespace, and has the commands alone."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "egapipe").symlink_to(ROOT)
    hide = "sys.meta_path = [f for f in sys.meta_path if 'Editable' not in repr(f)]"
    code = (
        f"import sys; {hide}; sys.argv = ['egapipe', 'config', 'list'];"
        "import egapipe.pipeline.cli as cli; print(cli.__file__); cli.main()"
    )
    said = run_beside_site(code, tmp_path)
    where, *configs = said.split()
    assert where.startswith(str(tmp_path))
    assert "quickstart" in configs


def test_the_version_is_the_projects(wheel: zipfile.ZipFile) -> None:
    names = {name.split("/")[0] for name in wheel.namelist() if ".dist-info/" in name}
    assert names == {"egapipe-0.1.0.dist-info"}
