"""How many CPU cores this process may use: the one answer to that question."""

import os
from pathlib import Path

GROUPS = Path("/sys/fs/cgroup")
OWN_GROUP = Path("/proc/self/cgroup")


def available_cpus() -> int:
    """Cores that this process may use: its affinity, and no more than its control groups allow.

    A container of 2 CPUs on a machine of 64 cores sees all 64; threads for them would take turns.
    """
    if hasattr(os, "sched_getaffinity"):
        allowed = len(os.sched_getaffinity(0))
    else:
        allowed = os.cpu_count() or 1
    return max(1, int(min(allowed, quota(GROUPS, OWN_GROUP) or allowed)))


def quota(groups: Path, own: Path) -> float | None:
    """CPUs that control groups allow, the least of a group and those around it; None: all.

    groups: where they are mounted, version 2 or 1. own: the file that names the process's group.
    """
    found = [_of_version_2(folder / "cpu.max") for folder in folders_of_group(groups, own, "")]
    for mounted in ("cpu", "cpu,cpuacct"):
        found += [
            _of_version_1(folder) for folder in folders_of_group(groups / mounted, own, "cpu")
        ]
    return min((cpus for cpus in found if cpus is not None), default=None)


def folders_of_group(root: Path, own: Path, controller: str) -> list[Path]:
    """Where a controller, in version 2 the one for all, keeps what it says of the process's group
    and of those around it; in a container its own group is the root."""
    for line in _text(own).splitlines():
        _, controllers, path = line.split(":", 2)
        if controller in controllers.split(","):
            folder = root / path.lstrip("/")
            inside = [f for f in (folder, *folder.parents) if f.is_relative_to(root)]
            return [f for f in inside if f.is_dir()] or [root]
    return [root]


def _of_version_2(file: Path) -> float | None:
    """`max 100000` or `150000 100000`: microseconds of each period."""
    parts = _text(file).split()
    return _share(*parts) if len(parts) == 2 else None


def _of_version_1(folder: Path) -> float | None:
    return _share(_text(folder / "cpu.cfs_quota_us"), _text(folder / "cpu.cfs_period_us"))


def _share(microseconds: str, period: str) -> float | None:
    try:
        share = int(microseconds) / int(period)
    except (ValueError, ZeroDivisionError):
        return None
    return share if share > 0 else None


def _text(file: Path) -> str:
    try:
        return file.read_text("ascii", "replace").strip()
    except OSError:
        return ""
