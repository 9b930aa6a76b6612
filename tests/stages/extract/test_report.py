"""What a run tells its user."""

from typing import Any

import pytest

from egapipe.pipeline.errors import StoreError
from egapipe.pipeline.store import Commit, Failure
from egapipe.stages.extract.report import ExtractReport, Tally


def commit(shard: int, failures: int = 0, **seconds: float) -> Commit:
    rows = range(10 * shard, 10 * shard + 10)
    failed = [Failure(r, f"k{r}", "the file is empty") for r in rows[:failures]]
    return Commit(
        shard=shard,
        start=rows.start,
        stop=rows.stop,
        sha256={},
        nonfinite=0,
        failures=failed,
        seconds=seconds,
        host="h",
    )


def report(**fields: Any) -> ExtractReport:
    shares = {"decode": 0.1, "infer": 0.8, "write": 0.1}
    values: dict[str, Any] = {"split": "train", "url": "s", "rows": 1000, "views": 5}
    values |= {"failures": 0, "extracted": 400, "seconds": 8.0, "shares": shares, "working": 12.0}
    return ExtractReport(**{**values, **fields})


def test_shards_of_earlier_runs_count_as_done_and_not_as_extracted() -> None:
    tally = Tally(rows=40)
    tally.resume(20, commit(0, failures=2, wait=9.0).failures)
    tally.add(commit(1, failures=1, decode=5.0, wait=1.0, infer=2.0, hold=1.0, write=5.0))
    assert (tally.done, tally.extracted) == (30, 10)
    assert [failure.row for failure in tally.failures] == [0, 1, 10]
    assert tally.shares() == {"decode": 0.25, "infer": 0.5, "write": 0.25}


def test_the_rate_is_of_this_run() -> None:
    assert report().rows_per_second == 50
    line = report().line()
    assert "1,000 rows x 5 views in s, 8.0 s, 50 rows/s; " in line
    assert "; decode 10%, infer 80%, write 10%; the teacher is the bottleneck" in line
    assert "\n" not in line
    assert "3 failed" in report(failures=3).line()
    assert report(extracted=0, shares={}).line().endswith("in s: complete already")


@pytest.mark.parametrize(
    ("decode", "write", "advice"),
    [
        (0.5, 0.1, "the teacher waited 50% of the time: raise extract.decode_threads"),
        (
            0.2,
            0.4,
            "the teacher waited 40% of the time for it: choose a nearer or faster store.url",
        ),
        (0.05, 0.05, "busy 90% of the time: more devices (extract.max_workers)"),
    ],
)
def test_the_advice_names_what_held_the_run_up(decode: float, write: float, advice: str) -> None:
    shares = {"decode": decode, "infer": 1 - decode - write, "write": write}
    assert advice in report(shares=shares).advice


def test_a_run_that_mostly_started_is_not_blamed_on_a_phase() -> None:
    late = report(seconds=28.0, shares={"decode": 0.1, "infer": 0.2, "write": 0.7})
    assert late.advice == "most of it went into the start of Ray and its workers"


@pytest.mark.parametrize(("allowed", "fine"), [(3, True), (2, False), (0.3, True), (0.2, False)])
def test_failures_are_allowed_by_count_or_share(allowed: float, fine: bool) -> None:
    tally = Tally(rows=10)
    tally.add(commit(0, failures=3))
    if fine:
        tally.check_failures(allowed)
    else:
        with pytest.raises(StoreError, match=r"3 of 10 rows failed, .* k0: the file is empty; k1"):
            tally.check_failures(allowed)
