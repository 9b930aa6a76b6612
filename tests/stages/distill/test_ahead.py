"""Reading ahead: every step once, in order, and none before it was read."""

import threading
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from egapipe.stages.distill.data.ahead import read_ahead, windows


@given(rows=st.lists(st.integers(0, 50), max_size=80), most=st.integers(1, 400))
def test_windows_are_all_steps_in_turn_within_the_limit(rows: list[int], most: int) -> None:
    found = windows(rows, most)
    assert [step for part in found for step in part] == list(range(len(rows)))
    for number, part in enumerate(found):
        assert 1 <= len(part) <= 2**number
        assert len(part) == 1 or sum(rows[part.start : part.stop]) <= most


@settings(deadline=None)
@given(rows=st.lists(st.integers(1, 50), max_size=40), most=st.integers(1, 400))
def test_no_step_is_taken_before_it_was_read(rows: list[int], most: int) -> None:
    steps, seen, lock = list(range(len(rows))), list[int](), threading.Lock()

    def read(some: Sequence[int]) -> None:
        with lock:
            seen.extend(some)

    for number, step in enumerate(read_ahead(steps, rows, most, read)):
        assert number == step
        with lock:
            assert step in seen
            # Two windows ahead at most.
            assert sum(rows[s] for s in seen if s > step) <= 2 * max(most, *rows)
    assert seen == steps


def test_what_reading_raises_is_raised_where_the_step_is_taken() -> None:
    def read(some: Sequence[int]) -> None:
        if 2 in some:
            raise OSError("gone")

    taken: list[int] = []
    with pytest.raises(OSError, match="gone"):
        taken.extend(read_ahead(range(10), [1] * 10, 100, read))
    assert taken == [0]


def test_whoever_stops_early_leaves_no_thread() -> None:
    before = threading.active_count()
    steps = read_ahead(range(10), [1] * 10, 100, lambda some: None)
    assert next(steps) == 0
    steps.close()  # type: ignore[attr-defined]
    assert threading.active_count() == before
