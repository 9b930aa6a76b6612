"""Intervals of shares that were counted."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from egapipe.pipeline.mathematics.proportion import interval


def test_known_values() -> None:
    # Newcombe 1998, table I: 81 of 263, 15 of 148, 0 of 20.
    assert interval(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert interval(15, 148) == pytest.approx((0.0624, 0.1605), abs=5e-5)
    assert interval(0, 20) == pytest.approx((0.0, 0.1611), abs=5e-5)


def test_nothing_counted_says_nothing() -> None:
    assert interval(0, 0) == (0.0, 1.0)


@given(st.integers(1, 10_000), st.data())
def test_it_holds_the_share_and_is_symmetric(of: int, data: st.DataObject) -> None:
    hits = data.draw(st.integers(0, of))
    low, high = interval(hits, of)
    assert 0 <= low <= hits / of <= high <= 1
    assert low < high
    other_low, other_high = interval(of - hits, of)
    assert (low, high) == pytest.approx((1 - other_high, 1 - other_low), abs=1e-9)
