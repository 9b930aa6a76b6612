"""The expected calibration error is that of Guo et al., bin by bin."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from egapipe.stages.evaluate.calibration import calibration_error

ROWS = st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=60)


def by_definition(confidence: list[float], correct: list[bool], bins: int) -> float:
    """Equation 3 as it is written: sum over bins of |B_m| / n |acc(B_m) - conf(B_m)|."""
    total = 0.0
    for m in range(1, bins + 1):
        inside = [
            i for i, c in enumerate(confidence) if min(max(math.ceil(c * bins), 1), bins) == m
        ]
        if inside:
            accuracy = sum(correct[i] for i in inside) / len(inside)
            mean = sum(confidence[i] for i in inside) / len(inside)
            total += len(inside) / len(confidence) * abs(accuracy - mean)
    return total


@given(rows=ROWS, bins=st.integers(1, 20))
def test_it_is_the_definition(rows: list[tuple[float, bool]], bins: int) -> None:
    confidence, correct = (list(column) for column in zip(*rows, strict=True))
    found = calibration_error(np.array(confidence), np.array(correct), bins)
    assert found == pytest.approx(by_definition(confidence, correct, bins), abs=1e-12)
    assert 0 <= found <= 1


@given(rows=ROWS)
def test_the_order_of_rows_does_not_matter(rows: list[tuple[float, bool]]) -> None:
    confidence, correct = (np.array(column) for column in zip(*rows, strict=True))
    turned = calibration_error(confidence[::-1], correct[::-1])
    assert calibration_error(confidence, correct) == pytest.approx(turned, abs=1e-12)


def test_known_values() -> None:
    sure, half = np.ones(4), np.full(4, 0.5)
    right, wrong = np.ones(4, dtype=bool), np.zeros(4, dtype=bool)
    some = np.array([True, False, True, False])
    assert calibration_error(sure, right) == 0
    assert calibration_error(sure, wrong) == 1
    assert calibration_error(half, some) == 0
    assert calibration_error(np.array([0.9, 0.1]), np.array([False, True])) == pytest.approx(0.9)


def test_a_bin_holds_its_upper_edge() -> None:
    # 0.5 closes the first of two bins; with 0.6 in the other bin the errors cannot cancel.
    confidence, correct = np.array([0.5, 0.6]), np.array([True, False])
    assert calibration_error(confidence, correct, bins=2) == pytest.approx((0.5 + 0.6) / 2)
    assert calibration_error(confidence, correct, bins=1) == pytest.approx(abs(0.5 - 0.55))


def test_float32_softmax_above_one_belongs_to_the_last_bin() -> None:
    above = np.array([np.nextafter(np.float32(1), np.float32(2))])
    assert calibration_error(above, np.array([True])) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("confidence", [[], [0.5, np.nan], [np.inf, 0.2]])
def test_without_finite_rows_it_is_not_defined(confidence: list[float]) -> None:
    assert math.isnan(calibration_error(np.array(confidence), np.ones(len(confidence), bool)))
