"""The line a worker that `extract --workers` shows."""

from types import SimpleNamespace

import pytest

from egapipe.stages.extract.workers.pool.member import Encoded, Member, Pulse, Stage
from egapipe.stages.extract.workers.pool.status import worker_lines


def member(host: str, stage: Stage) -> Member:
    made = Member(SimpleNamespace(), None)
    made.host, made.stage = host, stage
    return made


def test_a_line_says_where_what_how_fast_and_what_is_waited_for() -> None:
    busy = member("node-b", Stage.READY)
    busy.encoded(Encoded(600, {"device": "cuda NVIDIA H100"}))
    busy.rate, busy.shard, busy.pulse = 600.0, 17, Pulse(9, 9, "waits for images")
    loading = member("node-a", Stage.LOADING)
    loading.pulse = Pulse(0, 0, "loads the teacher")
    idle = member("node-c", Stage.READY)
    lines = worker_lines([busy, loading, idle, member("", Stage.PLACING)], view_count=3)
    assert [" ".join(line.split()) for line in lines] == [
        "no machine yet waits for its machine for 0 s",
        "node-a loads the teacher for 0 s",
        "node-b cuda NVIDIA H100 shard 17 200 rows/s waits for images",
        "node-c waits for a shard",
    ]
    # One below the other.
    starts = {line.index("waits for") for line in (lines[0], *lines[2:])}
    assert starts == {lines[1].index("loads")}


@pytest.mark.parametrize("count", [0, 1])
def test_there_may_be_nobody(count: int) -> None:
    assert len(worker_lines([member("a", Stage.READY)] * count, 1)) == count
