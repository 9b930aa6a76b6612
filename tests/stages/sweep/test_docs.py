"""What docs/sweep.md shows is what there is."""

import re
import shlex
from pathlib import Path

import pytest

from egapipe.pipeline.config import load_config
from egapipe.stages.sweep.plan import plan

DOCS = (Path(__file__).resolve().parents[3] / "docs" / "sweep.md").read_text("utf-8")
FILES = re.findall(r"```yaml\n(.*?)```", DOCS, flags=re.DOTALL)
COMMANDS = [
    line.split("  #")[0] for line in DOCS.splitlines() if line.startswith("    egapipe sweep ")
]


@pytest.mark.parametrize("text", FILES)
def test_the_spaces_make_trials(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.yaml").write_text(text)
    config = load_config(str(tmp_path / "a.yaml"))
    grids = [len(d.grid) for d in config.sweep.space.values() if d.grid is not None]
    assert len(plan(config)) == config.sweep.samples * (grids or [1])[0]


@pytest.mark.parametrize("command", COMMANDS)
def test_the_commands_load(command: str) -> None:
    words = shlex.split(command)
    sets = [words[i + 1] for i, word in enumerate(words) if word == "--set"]
    assert len(plan(load_config(None, sets))) == 8


def test_there_is_something_to_test() -> None:
    assert len(FILES) == 2
    assert len(COMMANDS) == 3
