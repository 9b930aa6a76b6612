"""Who works at what: a line a worker."""

from collections.abc import Iterable

from egapipe.stages.extract.workers.pool.member import Member


def worker_lines(members: Iterable[Member], view_count: int) -> list[str]:
    """Host, device, shard, rows a second of its last shard, and what each worker does or waits for.

    view_count: views of a row. Sorted by host.
    """
    cells = sorted(_cells(member, view_count) for member in members)
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in cells
    ]


def _cells(member: Member, view_count: int) -> tuple[str, ...]:
    host = member.host or (member.machine or "")[:8] or "no machine yet"
    device = str(member.computed.get("device", ""))
    shard = "" if member.shard is None else f"shard {member.shard}"
    rate = f"{member.rate / view_count:,.4g} rows/s" if member.rate else ""
    seconds = "" if member.ready else f" for {member.seconds:.0f} s"
    return host, device, shard, rate, f"{member.doing}{seconds}"
