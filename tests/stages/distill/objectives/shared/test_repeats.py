"""Rows that a graph has more than once: found by looking, or among all pairs."""

import pytest
import torch
from torch import Tensor

from egapipe.stages.distill.objectives.shared import repeats
from egapipe.stages.distill.objectives.shared.repeats import repeated, repeated_squares


def of_some_rows(rows: Tensor, dim: int = 5) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    sides = torch.randn(2, len(rows), dim, dtype=torch.float64, generator=generator)
    left, right = (side.requires_grad_() for side in sides.unbind())
    return left, right


@pytest.mark.parametrize("rows", [[], [3], [1, 2, 3], [4, 4], [5, 1, 5, 2, 2, 5, 9, 5]])
@pytest.mark.parametrize("pairs", [1, 14, 1000])
@pytest.mark.parametrize("waits", [True, False])
def test_both_ways_are_the_definition(
    monkeypatch: pytest.MonkeyPatch, rows: list[int], pairs: int, waits: bool
) -> None:
    monkeypatch.setattr(repeats, "looking_waits", lambda tensor: waits)
    monkeypatch.setattr(repeats, "PAIRS", pairs)
    numbers = torch.tensor(rows, dtype=torch.int64)
    left, right = of_some_rows(numbers)
    wanted = ((left @ right.T).square() * repeated(numbers)).sum()
    found = repeated_squares(left, right, numbers, None)
    assert found.item() == pytest.approx(wanted.item(), rel=1e-12)
    gradients = [
        torch.autograd.grad(value, (left, right), allow_unused=True, materialize_grads=True)
        if value.requires_grad
        else tuple(torch.zeros_like(side) for side in (left, right))
        for value in (wanted, found)
    ]
    for one, two in zip(*gradients, strict=True):
        torch.testing.assert_close(one, two)
