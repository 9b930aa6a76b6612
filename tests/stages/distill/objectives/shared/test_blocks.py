"""Sums in blocks are the sums of all rows, and so are their gradients."""

import pytest
import torch

from egapipe.stages.distill.objectives import ega_loss
from egapipe.stages.distill.objectives.shared import blocks
from egapipe.stages.distill.objectives.shared.blocks import sums_by_block

ROWS, DIM = 53, 5


def columns() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    made = torch.randn(2, ROWS, DIM, generator=generator, dtype=torch.float64)
    return [column.clone().requires_grad_() for column in made]


@pytest.mark.parametrize("block", [1, 7, 26, 52, 53, 54])
def test_value_and_gradient_are_those_of_all_rows_at_once(
    block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, parts = columns(), columns()
    expected = ega_loss(*whole, form="direct")
    expected.backward()
    monkeypatch.setattr(blocks, "BLOCK", block)
    found = ega_loss(*parts, form="factored")
    found.backward()
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)
    for a, b in zip(parts, whole, strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-9, atol=1e-12)


def test_autocast_reaches_neither_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    whole, parts = columns(), columns()
    ega_loss(*whole, form="factored").backward()
    monkeypatch.setattr(blocks, "BLOCK", 8)
    with torch.autocast("cpu", torch.bfloat16):
        loss = ega_loss(*parts, form="factored")
    loss.backward()
    torch.testing.assert_close(parts[0].grad, whole[0].grad, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("block", "kept"), [(8, 0), (ROWS, 1)])
def test_only_a_block_is_in_memory_at_a_time(
    block: int, kept: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What backward keeps of the rows' own: nothing, where there are more rows than a block has."""
    monkeypatch.setattr(blocks, "BLOCK", block)
    mine: list[int] = []
    sizes: list[int] = []

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() not in mine:
            sizes.append(tensor.numel())
        return tensor

    def sums(left: torch.Tensor, right: torch.Tensor) -> tuple[torch.Tensor]:
        near = left - right
        return (near.T @ near.exp(),)

    left, right = columns()
    mine = [column.untyped_storage().data_ptr() for column in (left, right)]
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        sums_by_block(sums, left, right)[0].sum().backward()
    whole = [size for size in sizes if size >= ROWS * DIM]
    assert bool(whole) == bool(kept)


def test_no_rows_have_no_sums() -> None:
    assert ega_loss(torch.zeros(0, 3), torch.zeros(0, 3), form="factored") == 0
