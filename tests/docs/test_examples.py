"""The examples of docs/examples, a part of each, with the data and the teachers that this machine
has."""

import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.shared import CIFAR100

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
MISSING = 3


class Example(NamedTuple):
    """script: below docs/examples. found: what its table says. elsewhere: its option for where the
    data lie. package: what it asks for where they are not there. data: where that is, if nowhere
    that it looks by itself."""

    script: str
    found: tuple[str, ...]
    elsewhere: str
    package: str
    data: Path | None = None


WORKED = [
    Example(
        "wordnet/run.py",
        ("| + scores, embeddings | 0.", "| the teacher | 0."),
        "--wordnet",
        "apt-get install wordnet-base",
    ),
    Example(
        "recordings/recordings.py",
        ("train: ", "iusp x100 "),
        "--sounds",
        "apt install asterisk-core-sounds-en-wav",
    ),
    Example(
        "graphs/run.py",
        ("| framelets | ", "| vgae | ", "kd T1 ", "alignahead ", "ega "),
        "--wordnet",
        "apt-get install wordnet-base",
    ),
    Example(
        "denoiser/run.py",
        ("| untrained | ", "| dreamteacher, two levels | "),
        "--cifar100",
        "the parquet files of CIFAR-100",
        CIFAR100,
    ),
    Example(
        "twins/run.py",
        ("| untrained | ", "| igsd | "),
        "--cifar100",
        "the parquet files of CIFAR-100",
        CIFAR100,
    ),
    Example(
        "hashing/run.py",
        ("| sign of PCA, of both | ", "| hashing | "),
        "--cifar100",
        "the parquet files of CIFAR-100",
        CIFAR100,
    ),
]


def run(example: Example, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(EXAMPLES / example.script), *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=500,
    )


def test_every_example_is_run() -> None:
    scripts = {path.parent.name for path in EXAMPLES.glob("*/README.md")}
    assert scripts == {Path(example.script).parent.name for example in WORKED}


@pytest.mark.slow  # networks to run or to train, and several trainings
@pytest.mark.timeout(600)
@pytest.mark.parametrize("example", WORKED, ids=lambda example: example.script)
def test_an_example_runs(tmp_path: Path, example: Example) -> None:
    where = () if example.data is None else (example.elsewhere, str(example.data))
    done = run(example, tmp_path, "--quick", *where)
    if done.returncode == MISSING:
        pytest.skip((done.stdout + done.stderr).strip())
    assert done.returncode == 0, done.stderr
    for text in example.found:
        assert text in done.stdout


@pytest.mark.slow  # torch is imported in a new process
@pytest.mark.parametrize("example", WORKED, ids=lambda example: example.script)
def test_without_data_one_line_says_what_is_missing(tmp_path: Path, example: Example) -> None:
    done = run(example, tmp_path, example.elsewhere, str(tmp_path))
    said = done.stdout + done.stderr
    assert (done.returncode, said.count("\n")) == (MISSING, 1)
    assert example.package in said
    assert not list(tmp_path.iterdir())
