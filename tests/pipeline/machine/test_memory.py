"""Memory that may be used: the machine's, and no more than control groups allow."""

from pathlib import Path

import psutil
import pytest

from egapipe.pipeline.machine import memory
from egapipe.pipeline.machine.memory import memory_limits, total_memory


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, []),
        ({"memory.max": "max"}, []),
        ({"a/memory.max": "3000", "a/b/memory.max": "5000"}, [5000, 3000]),
        ({"memory/a/memory.limit_in_bytes": "7000"}, [7000]),
        ({"memory/memory.limit_in_bytes": "9223372036854771712"}, []),
        ({"a/memory.max": "nonsense", "c/memory.max": "1"}, []),
    ],
)
def test_every_group_around_a_process_may_limit_it(
    tmp_path: Path, files: dict[str, str], expected: list[int]
) -> None:
    own = tmp_path / "own"
    own.write_text("7:memory:/a\n0::/a/b\n")
    (tmp_path / "groups" / "a" / "b").mkdir(parents=True)
    for name, text in files.items():
        file = tmp_path / "groups" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text + "\n")
    assert list(memory_limits(tmp_path / "groups", own)) == expected


def test_the_least_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own").write_text("0::/\n")
    monkeypatch.setattr(memory, "GROUPS", tmp_path)
    monkeypatch.setattr(memory, "OWN_GROUP", tmp_path / "own")
    assert total_memory() == psutil.virtual_memory().total
    (tmp_path / "memory.max").write_text("1000000\n")
    assert total_memory() == 1_000_000


def test_what_is_free_is_no_more_than_there_is() -> None:
    assert 0 < memory.free_memory() <= memory.total_memory()


def test_a_control_group_bounds_what_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "memory_limits", lambda *_: iter([1000]))
    assert memory.free_memory() == 1000
