"""From when on a shard takes too long."""

import math

from egapipe.stages.extract.workers.pool.pace import SLOW, Pace


def test_nothing_is_late_before_there_is_anything_to_compare_with() -> None:
    assert Pace(patience=10).limit == math.inf


def test_late_is_several_times_the_median_however_long_a_few_took() -> None:
    pace = Pace(patience=10)
    for seconds in (20, 22, 24, 900, 21):
        pace.finished(seconds)
    assert pace.limit == SLOW * 22


def test_short_shards_are_never_worth_a_worker() -> None:
    pace = Pace(patience=10)
    pace.finished(0.01)
    assert pace.limit == 10


def test_only_recent_shards_count() -> None:
    pace = Pace(patience=1)
    for _ in range(1000):
        pace.finished(500)
    for _ in range(1000):
        pace.finished(2)
    assert pace.limit == SLOW * 2
