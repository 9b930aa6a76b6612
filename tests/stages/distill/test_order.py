"""The order of rows is a pure function, whatever is drawn and mixed."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from egapipe.pipeline.errors import UsageError
from egapipe.stages.distill.data.rows.order import (
    Mixed,
    Plain,
    at_random,
    drawn_before,
    epoch_batches,
    epoch_permutation,
)
from egapipe.stages.distill.workers.world import World

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
    plan = Plain(np.arange(n), size, at_random(0))
    assert plan.steps == len(batches)
    assert all((a == b).all() for a, b in zip(batches, plan.epoch(epoch), strict=True))


@given(n=ROWS, size=st.integers(1, 64), workers=st.integers(1, 8))
def test_the_workers_batches_are_parts_of_the_one_global_batch(
    n: int, size: int, workers: int
) -> None:
    """The order knows nothing of workers: their number only decides where a batch is cut."""
    for batch in epoch_batches(np.arange(n), size, 0, 3):
        shares = [World(rank, workers, torch.device("cpu")).share(batch) for rank in range(workers)]
        assert (np.concatenate(shares) == batch).all()
        assert max(map(len, shares)) - min(map(len, shares)) <= 1


@st.composite
def mixtures(draw: st.DrawFn) -> Mixed:
    parts = (draw(st.integers(1, 12)), draw(st.integers(0, 12)))
    labelled, unlabelled = draw(st.integers(1, 60)), draw(st.integers(parts[1], 60))
    rows = np.random.default_rng(labelled).permutation(labelled + unlabelled)
    seed = draw(st.integers(0, 2**32 - 1))
    return Mixed(rows[:labelled], rows[labelled:], parts, at_random(seed), seed)


@given(plan=mixtures(), epoch=st.integers(0, 20))
def test_a_mixed_batch_has_so_many_rows_of_each_sort_and_none_twice(
    plan: Mixed, epoch: int
) -> None:
    batches = plan.epoch(epoch)
    assert len(batches) == plan.steps
    for batch in batches:
        assert len(set(batch.tolist())) == len(batch)
        assert np.isin(batch, plan.labelled).sum() == min(plan.parts[0], len(plan.labelled))
        assert np.isin(batch, plan.unlabelled).sum() == plan.parts[1]
    labelled = np.concatenate(batches)[np.isin(np.concatenate(batches), plan.labelled)]
    assert (
        len(set(labelled.tolist()))
        == len(labelled)
        == plan.steps * min(plan.parts[0], len(plan.labelled))
    )


@given(plan=mixtures(), epochs=st.integers(1, 12))
def test_unlabelled_rows_go_on_from_epoch_to_epoch(plan: Mixed, epochs: int) -> None:
    """In a pass each comes once; only the remainder of a pass, less than a batch's, does not."""
    batches = [batch for epoch in range(epochs) for batch in plan.epoch(epoch)]
    size = plan.parts[1]
    if size == 0:
        assert not np.isin(np.concatenate(batches), plan.unlabelled).any()
        return
    length = len(plan.unlabelled) // size
    for first in range(0, len(batches), length):
        drawn = np.concatenate(batches[first : first + length])
        unlabelled = drawn[np.isin(drawn, plan.unlabelled)]
        assert len(set(unlabelled.tolist())) == len(unlabelled)


@given(plan=mixtures(), epoch=st.integers(0, 20))
def test_a_mixed_epoch_depends_on_nothing_but_seed_and_epoch(plan: Mixed, epoch: int) -> None:
    again = Mixed(plan.labelled, plan.unlabelled, plan.parts, at_random(plan.seed), plan.seed)
    pairs = zip(plan.epoch(epoch), again.epoch(epoch), strict=True)
    assert all((one == two).all() for one, two in pairs)


def test_mixed_epochs_and_seeds_differ() -> None:
    orders = {
        tuple(
            np.concatenate(
                Mixed(np.arange(40), np.arange(40, 80), (4, 4), at_random(s), s).epoch(e)
            )
        )
        for s in range(4)
        for e in range(4)
    }
    assert len(orders) == 16


def test_both_sorts_are_spread_over_the_batch() -> None:
    """Else the first workers would have all the labels."""
    plan = Mixed(np.arange(320), np.arange(320, 640), (32, 32), at_random(0), 0)
    halves = np.array([(batch[:32] < 320).sum() for batch in plan.epoch(0)])
    assert (halves > 4).all()
    assert (halves < 28).all()


def test_too_few_unlabelled_rows_are_refused() -> None:
    with pytest.raises(UsageError, match="asks for 5 unlabelled rows a batch, there are 3"):
        Mixed(np.arange(9), np.arange(9, 12), (5, 5), at_random(0), 0)


@given(st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=9), min_size=1, max_size=9))
def test_draws_are_counted_row_by_row(drawn: list[list[int]]) -> None:
    batches = [np.array(rows, dtype=np.int64) for rows in drawn]
    counts = drawn_before(batches)
    assert [len(count) for count in counts] == [len(batch) for batch in batches]
    seen: dict[int, int] = {}
    for rows, count in zip(drawn, counts, strict=True):
        for row, draws in zip(rows, count.tolist(), strict=True):
            assert draws == seen.get(row, 0)
            seen[row] = draws + 1
