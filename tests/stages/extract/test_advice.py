"""The line on the bottleneck: it names the largest cause that something can be done about."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from egapipe.stages.extract.advice import advise
from egapipe.stages.extract.report import ExtractReport

NAMED = {
    "decode": ("the images are the bottleneck", "extract.decode_threads"),
    "infer": ("the teacher is the bottleneck", "extract.batch_size"),
    "write": ("the storage is the bottleneck", "store.url"),
}
THE_START = "most of it went into the start of Ray and its workers"


@pytest.mark.parametrize("phase", NAMED)
def test_a_phase_that_took_nearly_all_is_named_with_what_to_change(phase: str) -> None:
    shares = dict.fromkeys(NAMED, 0.02) | {phase: 0.96}
    advice = advise(shares, working=9.0, seconds=10.0)
    assert advice.startswith(NAMED[phase][0])
    assert "96%" in advice
    assert NAMED[phase][1] in advice


@given(st.floats(0, 1), st.floats(0, 1))
def test_there_is_one_line_for_any_shares(cut: float, other: float) -> None:
    low, high = sorted((cut, other))
    shares = {"decode": low, "infer": high - low, "write": 1 - high}
    advice = advise(shares, working=9.0, seconds=10.0)
    assert [start for start, _ in NAMED.values() if advice.startswith(start)]
    assert "\n" not in advice
    if shares["infer"] > 0.85:
        assert advice.startswith(NAMED["infer"][0])


@given(st.sampled_from(list(NAMED)), st.floats(0, 4.99))
def test_a_run_of_a_moment_gets_no_advice(phase: str, seconds: float) -> None:
    """Six rows in a tenth of a second say nothing of the storage."""
    shares = dict.fromkeys(NAMED, 0.02) | {phase: 0.96}
    assert advise(shares, working=seconds, seconds=seconds) == ""
    made = ExtractReport("train", "stores/x", 6, 1, 0, 6, seconds, shares, seconds)
    assert "bottleneck" not in made.line()
    assert made.line().endswith("write 96%" if phase == "write" else "%")


def test_several_workers_do_not_hide_a_long_start() -> None:
    even = dict.fromkeys(NAMED, 1 / 3)
    assert advise(even, working=4.0, seconds=10.0) == THE_START
    assert advise(even, working=6.0, seconds=10.0) != THE_START
