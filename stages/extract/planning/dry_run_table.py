"""A dry run as a table."""

from collections.abc import Callable

from rich.filesize import decimal

from egapipe.pipeline.terminal.text import columns
from egapipe.stages.extract.planning.dry_run import DryRun, Estimate
from egapipe.stages.extract.planning.plan import StorePlan

_MINUTE, _HOUR = 60.0, 3600.0


def table_lines(dry: DryRun) -> list[str]:
    """A column for each store, then what they share."""
    return [*columns(_plans(dry), gap=3), "", *columns(_shared(dry), left=(0, 1), gap=3)]


def duration(seconds: float) -> str:
    """`48 s`, `12.5 min` or `7.3 h`."""
    if seconds < _MINUTE:
        return f"{seconds:.1f} s"
    return f"{seconds / _MINUTE:.1f} min" if seconds < _HOUR else f"{seconds / _HOUR:.1f} h"


def _plans(dry: DryRun) -> list[list[str]]:
    lines = [["", *(plan.split for plan in dry.plans)]]
    lines += [[name, *map(show, dry.plans)] for name, show in _PLAN.items()]
    if dry.estimates:
        found = [dry.estimates.get(plan.split) for plan in dry.plans]
        for name, show in _ESTIMATE.items():
            lines.append([name, *("-" if one is None else show(one) for one in found)])
        if dry.fleet.size > 1:
            cells = ("-" if one is None else duration(one.all_workers) for one in found)
            lines.append([f"{dry.fleet.size} workers", *cells])
    return lines


_PLAN: dict[str, Callable[[StorePlan], str]] = {
    "rows": lambda plan: f"{plan.manifest.rows:,}",
    "views": lambda plan: f"{plan.manifest.view_count}",
    "bytes a row": lambda plan: f"{plan.row_bytes:,}",
    "shards": lambda plan: f"{len(plan.shards):,}",
    "shards committed": lambda plan: f"{len(plan.shards) - len(plan.pending):,}",
    "rows left": lambda plan: f"{plan.rows_left:,}",
    "size": lambda plan: decimal(plan.bytes),
    "left to write": lambda plan: decimal(plan.bytes_left),
    "reader cache": lambda plan: decimal(plan.cache_bytes),
}

_ESTIMATE: dict[str, Callable[[Estimate], str]] = {
    "images unreadable": lambda one: f"{one.speed.unreadable} of {one.speed.rows}",
    "decode, ms a view": lambda one: f"{1e3 * one.speed.decode:.3g}",
    "teacher, ms a view": lambda one: f"{1e3 * one.speed.infer:.3g}",
    "one worker": lambda one: duration(one.one_worker),
}


def _shared(dry: DryRun) -> list[tuple[str, str]]:
    """Names and values of what all stores have in common."""
    left = sum(plan.bytes_left for plan in dry.plans)
    copies = sum(plan.cache_bytes for plan in dry.plans)
    cache = f"{decimal(copies)} for stage two in {dry.cache}, {_free(dry.cache_free)}"
    return [
        ("stores in", dry.plans[0].objects.url.rpartition("/")[0]),
        ("space", f"{decimal(left)} to be written, {_free(dry.free)}"),
        ("write probe", _written(dry)),
        ("reader cache", cache),
        ("workers", f"{dry.fleet.size} on {dry.fleet.device}, {dry.fleet.resources} each"),
        ("memory", f"a worker needs {dry.memory.words}; {decimal(dry.room)} are there for one"),
        ("time", _time(dry)),
    ]


def _free(free: int | None) -> str:
    return "free space unknown there" if free is None else f"{decimal(free)} free"


def _written(dry: DryRun) -> str:
    if dry.write is not None:
        return f"ok, {decimal(int(dry.write))}/s"
    return "failed" if dry.problem is not None else "not needed"


def _time(dry: DryRun) -> str:
    if dry.estimates:
        found = dry.estimates.values()
        return duration(sum(one.all_workers for one in found))
    if dry.problem is not None:
        return "not probed, the run cannot start"
    if not any(plan.pending for plan in dry.plans):
        return "nothing is left to do"
    return "not probed, the workers' GPU is not on this machine"
