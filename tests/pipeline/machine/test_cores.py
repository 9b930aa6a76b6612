"""Cores that may be used: affinity and control groups count, and there is one answer."""

import os
import re
from pathlib import Path

import pytest

from egapipe.pipeline.machine import cores
from egapipe.pipeline.machine.cores import available_cpus, quota

ROOT = Path(__file__).resolve().parents[3]


def write(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ({}, None),
        ({"": "max 100000"}, None),
        ({"": "200000 100000"}, 2.0),
        ({"a/b": "150000 100000"}, 1.5),
        ({"a": "100000 100000", "a/b": "400000 100000"}, 1.0),
        ({"": "nonsense"}, None),
        ({"other": "100000 100000"}, None),
    ],
)
def test_the_smallest_limit_of_the_groups_around_a_process_counts(
    tmp_path: Path, limits: dict[str, str], expected: float | None
) -> None:
    groups, own = tmp_path / "groups", tmp_path / "own"
    own.write_text("0::/a/b\n")
    for folder in ("a/b", *limits):
        write(groups / folder)
    for folder, text in limits.items():
        write(groups / folder, cpu__max=text + "\n")
    assert quota(groups, own) == expected


def test_a_container_sees_its_own_group_as_the_root(tmp_path: Path) -> None:
    (tmp_path / "own").write_text("0::/kubepods/pod7/container9\n")
    write(tmp_path / "groups", cpu__max="300000 100000")
    assert quota(tmp_path / "groups", tmp_path / "own") == 3.0


def test_groups_of_the_first_version_count_too(tmp_path: Path) -> None:
    (tmp_path / "own").write_text("5:memory:/m\n4:cpu,cpuacct:/job\n")
    job = tmp_path / "groups" / "cpu,cpuacct" / "job"
    write(job, cpu__cfs_quota_us="-1", cpu__cfs_period_us="100000")
    assert quota(tmp_path / "groups", tmp_path / "own") is None
    write(job, cpu__cfs_quota_us="250000")
    assert quota(tmp_path / "groups", tmp_path / "own") == 2.5


def test_a_system_without_groups_has_no_limit(tmp_path: Path) -> None:
    assert quota(tmp_path / "none", tmp_path / "neither") is None


def test_affinity_and_groups_count_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, cpu__max="50000 100000")
    monkeypatch.setattr(cores, "GROUPS", tmp_path)
    assert available_cpus() == 1
    monkeypatch.setattr(cores, "GROUPS", tmp_path / "none")
    if hasattr(os, "sched_getaffinity"):
        assert available_cpus() == len(os.sched_getaffinity(0))


def test_nobody_else_counts_cores() -> None:
    counting = re.compile(r"cpu_count|sched_getaffinity|process_cpu_count")
    found = {
        str(path.relative_to(ROOT))
        for folder in ("pipeline", "stages")
        for path in (ROOT / folder).rglob("*.py")
        if counting.search(path.read_text("utf-8"))
    }
    assert found == {"pipeline/machine/cores.py"}
