"""Patterns of files: braces as a shell has them, and wildcards."""

import subprocess
from pathlib import Path

import pytest

from egapipe.pipeline.datasets.files import patterns as module
from egapipe.pipeline.datasets.files.patterns import braces, matches
from egapipe.pipeline.errors import UsageError

PATTERNS = [
    "a.tar",
    "{000..011}.tar",
    "{8..11}",
    "{-02..2}",
    "{10..0..5}",
    "{0..9..4}",
    "{a..e}{1..2}",
    "{c..a}",
    "x{a,b{1..3},c}y",
    "{a,{b,c}}",
    "x{a,}",
    "{x}",
    "{}",
    "{x",
    "x}",
    "{{1..2}}",
    "{x}{1,2}",
    "{1..}",
    "{a,b",
    "{x,{y}",
    "{01..100..33}",
]


@pytest.mark.parametrize("pattern", PATTERNS)
def test_braces_are_those_of_a_shell(pattern: str) -> None:
    shell = subprocess.run(
        ["bash", "-c", f"printf '%s\\n' {pattern}"], capture_output=True, text=True, check=True
    )
    assert braces(pattern) == shell.stdout.splitlines()


def test_too_many_are_refused_before_they_are_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST", 1000)
    assert len(braces("{1..10}{1..100}")) == 1000
    for pattern in ("{0..999999999999}", "{1..1000}" * 5):
        with pytest.raises(UsageError, match="stands for more than 1,000 files"):
            braces(pattern)


def test_files_of_this_machine(tmp_path: Path) -> None:
    for name in ("t0", "t1", "u{0,1}", "v[0]", "w0"):
        (tmp_path / name).touch()
    patterns = ("{t,w}{1..0}", "{w*,t?}", "u{0,1}", "v[0]", "x*", "{x,t0}")
    found = {p: [Path(f).name for f in matches(f"{tmp_path}/{p}")] for p in patterns}
    assert found == {
        # Without wildcards the order is that of the braces; w1 is not there.
        "{t,w}{1..0}": ["t1", "t0", "w0"],
        "{w*,t?}": ["w0", "t0", "t1"],
        "u{0,1}": ["u{0,1}"],
        "v[0]": ["v[0]"],
        "x*": [],
        "{x,t0}": ["t0"],
    }
