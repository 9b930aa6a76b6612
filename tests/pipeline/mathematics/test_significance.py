"""What separates: Holm's correction against its definition, and the test behind it."""

import itertools
import math
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from egapipe.pipeline.mathematics.significance import holm, p_value, silence

P_VALUES = st.lists(st.floats(0, 1), max_size=12)


@given(P_VALUES)
def test_holm_is_stepwise_and_never_below_the_raw_values(values: list[float]) -> None:
    adjusted = holm(values)
    order = sorted(range(len(values)), key=values.__getitem__)
    assert all(raw <= new <= 1 for raw, new in zip(values, adjusted, strict=True))
    assert [adjusted[i] for i in order] == sorted(adjusted)


@given(P_VALUES, st.sampled_from([0.001, 0.05, 0.3]))
def test_holm_rejects_as_its_step_down_procedure(values: list[float], level: float) -> None:
    """By its definition: hypotheses are rejected from the smallest on, until one is not."""
    order = sorted(range(len(values)), key=values.__getitem__)
    rejected = itertools.takewhile(
        lambda place: (len(values) - place[0]) * values[place[1]] <= level, enumerate(order)
    )
    assert {i for _, i in rejected} == {i for i, p in enumerate(holm(values)) if p <= level}


@given(P_VALUES)
def test_one_hypothesis_needs_no_correction_and_more_are_bonferroni_at_most(
    values: list[float],
) -> None:
    assert holm(values[:1]) == values[:1]
    for raw, new in zip(values, holm(values), strict=True):
        assert new <= min(1.0, len(values) * max(values)) or new == raw


def test_the_p_value_is_students_t() -> None:
    # Tables of Student's t: 4.3027 is exceeded by 5 % at two degrees of freedom, 12.706 at one.
    for count, quantile in ((3, 4.3027), (2, 12.706)):
        gains = [float(value) for value in range(count)]
        shift = quantile * statistics.stdev(gains) / math.sqrt(count) - statistics.fmean(gains)
        assert p_value([gain + shift for gain in gains]) == pytest.approx(0.05, rel=1e-3)


@pytest.mark.parametrize(
    "gains", [[], [3.0], [10.0, 10.0], [0.0, 0.0], [52.1 - 50.0, 54.1 - 52.0, 62.1 - 60.0]]
)
def test_of_one_pair_and_of_equal_ones_there_is_none(gains: list[float]) -> None:
    """On ten test images the same difference comes twice by chance."""
    assert math.isnan(p_value(gains))


@pytest.mark.parametrize(
    ("low", "high", "why"),
    [
        (-189.86, 254.86, "3 pairs: too few"),
        (-1.0, 19.0, "3 pairs: too few"),
        (-9.9, 10.0, ""),
        (1.0, 2.0, ""),
        (2.0, 2.0, "3 equal pairs: too few images"),
    ],
)
def test_an_interval_that_says_nothing_says_why(low: float, high: float, why: str) -> None:
    assert silence(low, high, 3) == why
