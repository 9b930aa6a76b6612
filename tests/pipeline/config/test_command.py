"""`egapipe config`: what it prints loads again, and it answers at once."""

import subprocess
import sys
from pathlib import Path

import pytest

from egapipe.pipeline.config import load_config, to_yaml
from egapipe.pipeline.config.files import description, is_part, shipped
from tests.command import fresh_egapipe

HEAVY = ("torch", "ray", "zarr", "pyarrow", "numpy", "datasets", "transformers", "sklearn", "PIL")

WATCHED = """
import sys
import egapipe.pipeline.cli as cli
sys.argv = ["egapipe", *sys.argv[1:]]
try:
    cli.main()
finally:
    print(*sorted(sys.modules), file=sys.stderr)
"""


def test_list_says_what_each_shipped_configuration_is_and_marks_the_parts() -> None:
    lines = [line.split(maxsplit=1) for line in fresh_egapipe("config", "list").stdout.splitlines()]
    assert dict(lines) == {f"{'+' * is_part(name)}{name}": description(name) for name in shipped()}
    marks = [name.startswith("+") for name, _ in lines]
    assert marks == sorted(marks)
    assert {"cifar100", "+vgg13"} <= {name for name, _ in lines}


def test_show_prints_the_resolved_configuration_which_loads_as_the_same(tmp_path: Path) -> None:
    overrides = ["distill.lr=1e-3", "runs='007'", "distill.student.args={a: 'no', b: null}"]
    options = [word for override in overrides for word in ("--set", override)]
    shown = fresh_egapipe("config", "show", "-c", "cifar100", *options)
    assert shown.stderr == ""
    config = load_config("cifar100", overrides)
    assert shown.stdout == to_yaml(config)
    (tmp_path / "again.yaml").write_text(shown.stdout)
    assert load_config(str(tmp_path / "again.yaml")) == config


def test_without_a_name_it_shows_the_quickstart() -> None:
    assert fresh_egapipe("config", "show").stdout == to_yaml(load_config("quickstart"))


@pytest.mark.parametrize(
    "arguments",
    [["-c", "absent.yaml"], ["-c", ""], ["--set", "lr"], ["--set", "distill.lr=fast"]],
    ids=["missing file", "empty name", "no value", "wrong value"],
)
def test_a_mistake_is_one_line_and_prints_no_configuration(
    arguments: list[str], tmp_path: Path
) -> None:
    done = fresh_egapipe("config", "show", *arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("arguments", [["--help"], ["config", "show"]], ids=" ".join)
def test_it_imports_nothing_heavy(arguments: list[str]) -> None:
    code = [sys.executable, "-c", WATCHED, *arguments]
    watched = subprocess.run(code, capture_output=True, text=True, check=False)
    modules = watched.stderr.splitlines()[-1].split()
    assert "egapipe.pipeline.cli" in modules
    assert not set(HEAVY) & set(modules)
