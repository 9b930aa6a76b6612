"""The choice of labels is a pure function of the seed."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from egapipe.pipeline.errors import UsageError
from egapipe.stages.distill.data.rows.labels import keep_fraction, keep_labels

LABELS = st.lists(st.integers(-1, 4), min_size=1, max_size=200)
SEEDS = st.integers(0, 99)


@given(labels=LABELS, per_class=st.integers(1, 3), seed=SEEDS)
def test_kept_labels_are_right_and_as_many_as_asked(
    labels: list[int], per_class: int, seed: int
) -> None:
    given_labels = np.array(labels)
    counts = {c: labels.count(c) for c in set(labels) - {-1}}
    if any(count < per_class for count in counts.values()):
        with pytest.raises(UsageError, match=r"distill\.labels_per_class"):
            keep_labels(given_labels, per_class, seed)
        return
    kept = keep_labels(given_labels, per_class, seed)
    assert (kept[kept >= 0] == given_labels[kept >= 0]).all()
    assert all((kept == c).sum() == per_class for c in counts)
    assert (kept == keep_labels(given_labels, per_class, seed)).all()


@given(labels=LABELS, fraction=st.floats(0.001, 1.0), seed=SEEDS)
def test_a_fraction_is_that_of_each_class(labels: list[int], fraction: float, seed: int) -> None:
    given_labels = np.array(labels)
    kept = keep_fraction(given_labels, fraction, seed)
    assert (kept[kept >= 0] == given_labels[kept >= 0]).all()
    for label in set(labels) - {-1}:
        assert abs((kept == label).sum() - fraction * labels.count(label)) <= 1
        assert (kept == label).any()
    assert (kept == keep_fraction(given_labels, fraction, seed)).all()


@given(labels=LABELS, one=st.floats(0.001, 1.0), two=st.floats(0.001, 1.0), seed=SEEDS)
def test_a_larger_fraction_keeps_what_a_smaller_one_keeps(
    labels: list[int], one: float, two: float, seed: int
) -> None:
    low, high = (keep_fraction(np.array(labels), f, seed) for f in sorted((one, two)))
    assert (high[low >= 0] == low[low >= 0]).all()


def test_seeds_choose_other_labels() -> None:
    labels = np.zeros(100, dtype=np.int64)
    chosen = {tuple(keep_fraction(labels, 0.5, seed)) for seed in range(5)}
    assert len(chosen) == 5


def test_without_a_number_all_labels_stay() -> None:
    labels = np.array([0, -1, 2])
    assert (keep_labels(labels, None, 0) == labels).all()
    assert (keep_fraction(labels, None, 0) == labels).all()
