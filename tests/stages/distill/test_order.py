"""The order of rows and the choice of labels are pure functions."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from egapipe.pipeline.errors import UsageError
from egapipe.stages.distill.order import epoch_batches, epoch_permutation, keep_labels

ROWS = st.integers(1, 300)


@given(n=ROWS, seed=st.integers(-(2**40), 2**40), epoch=st.integers(0, 1000))
def test_every_row_comes_once_and_again_the_same_way(n: int, seed: int, epoch: int) -> None:
    rows = np.arange(n) * 3
    order = epoch_permutation(rows, seed, epoch)
    assert sorted(order) == sorted(rows)
    assert (order == epoch_permutation(rows, seed, epoch)).all()


def test_epochs_and_seeds_have_orders_of_their_own() -> None:
    rows = np.arange(100)
    orders = {tuple(epoch_permutation(rows, s, e)) for s in range(5) for e in range(5)}
    assert len(orders) == 25


@given(n=ROWS, size=st.integers(1, 64), epoch=st.integers(0, 9))
def test_batches_are_whole_and_disjoint(n: int, size: int, epoch: int) -> None:
    batches = epoch_batches(np.arange(n), size, 0, epoch)
    drawn = np.concatenate(batches)
    assert len(set(drawn.tolist())) == len(drawn)
    assert len(batches) == max(1, n // size)
    assert {len(b) for b in batches} == {min(n, size)}


@given(
    labels=st.lists(st.integers(-1, 4), min_size=1, max_size=200),
    per_class=st.integers(1, 3),
    seed=st.integers(0, 99),
)
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


def test_without_a_number_all_labels_stay() -> None:
    labels = np.array([0, -1, 2])
    assert (keep_labels(labels, None, 0) == labels).all()
