import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from egapipe.stages.distill.objectives.shared.counter import below, mix
from egapipe.stages.distill.objectives.shared.negatives import Negatives


def step(number):
    return torch.tensor(number, dtype=torch.int64)


def splitmix64(counters):
    """The published generator in unsigned arithmetic."""
    with np.errstate(over="ignore"):
        z = counters * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))


def test_mix_is_splitmix64():
    counters = np.array([0, 1, 2, 12345, 2**63 - 1, 2**63, 2**64 - 1], dtype=np.uint64)
    actual = mix(torch.from_numpy(counters.view(np.int64))).numpy().view(np.uint64)
    assert actual.tolist() == splitmix64(counters).tolist()
    # The first outputs of the reference implementation for the seed 0.
    assert splitmix64(np.array([1, 2], dtype=np.uint64)).tolist() == [
        0xE220A8397B1DCDAF,
        0x6E789E6AA1B965F4,
    ]


@pytest.mark.parametrize("bound", [1, 2, 1000, 2**31 - 1])
def test_below_spans_its_range(bound):
    drawn = below(torch.tensor(bound), mix(torch.arange(20_000)))
    assert drawn.min() >= 0
    assert drawn.max() < bound
    if bound == 2:
        assert abs(drawn.double().mean() - 0.5) < 0.02


@settings(max_examples=60, deadline=None)
@given(labels=st.lists(st.integers(-1, 4), min_size=2, max_size=30), seed=st.integers(0, 2**32 - 1))
def test_a_row_draws_every_row_it_may_and_no_other(labels, seed):
    labels = torch.tensor(labels)
    rows = torch.arange(len(labels))
    drawn = Negatives(labels, seed)(rows, step(3), 2000)
    for row in rows.tolist():
        others = set(rows.tolist()) - {row}
        same = set(rows[labels == labels[row]].tolist())
        expected = others if labels[row] < 0 or len(same) == len(labels) else others - same
        assert set(drawn[row].tolist()) == expected


def test_each_is_as_likely():
    labels = torch.tensor([0] * 10 + [1] * 20 + [-1] * 20)
    counts = torch.bincount(Negatives(labels, 0)(torch.tensor([4]), step(0), 400_000)[0])
    expected = 400_000 / 40
    chi_square = ((counts[10:] - expected) ** 2 / expected).sum()
    assert not counts[:10].any()
    assert 15 < chi_square < 75  # 39 degrees of freedom: 1e-3 outside


def test_what_is_drawn_depends_on_seed_step_and_row_alone():
    labels = torch.arange(50) % 5
    rows = torch.tensor([7, 30, 2])
    drawn = Negatives(labels, 1)(rows, step(4), 100)
    assert torch.equal(Negatives(labels, 1)(rows.flip(0), step(4), 100).flip(0), drawn)
    assert torch.equal(Negatives(labels, 1)(rows, step(4), 60), drawn[:, :60])
    for other in (
        Negatives(labels, 2)(rows, step(4), 100),
        Negatives(labels, 1)(rows, step(5), 100),
        Negatives(labels, 1)(rows + 5, step(4), 100),
    ):
        assert (other == drawn).double().mean() < 0.1
