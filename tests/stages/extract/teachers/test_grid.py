"""Tokens and maps as a small grid."""

import pytest
import torch
from torch import Tensor

from egapipe.stages.extract.teachers.grid import to_grid

CHANNELS = 5


def maps(height: int, width: int) -> Tensor:
    return torch.randn(2, CHANNELS, height, width, generator=torch.Generator().manual_seed(0))


def tokens(of: Tensor, prefix: int) -> Tensor:
    """The same as tokens, row by row, behind others."""
    before = torch.full((len(of), prefix, CHANNELS), 1e6)
    return torch.cat([before, of.flatten(2).transpose(1, 2)], dim=1)


def test_a_cell_is_the_mean_of_its_patches() -> None:
    given = maps(6, 4)
    found = to_grid(given, 2, 0, (96, 64))
    assert found.shape == (2, CHANNELS, 2, 2)
    torch.testing.assert_close(found[:, :, 1, 0], given[:, :, 3:, :2].mean(dim=(2, 3)))


def test_a_patch_on_a_border_belongs_to_both_cells() -> None:
    given = maps(3, 3)
    found = to_grid(given, 2, 0, (12, 12))
    torch.testing.assert_close(found[:, :, 0, 1], given[:, :, :2, 1:].mean(dim=(2, 3)))


@pytest.mark.parametrize("image", [(64, 64), (48, 96), (96, 32), (57, 75)])
@pytest.mark.parametrize("prefix", [0, 1, 5])
def test_tokens_have_the_shape_of_the_image(image: tuple[int, int], prefix: int) -> None:
    """Patches of 14 pixels; what is left at the edges belongs to none."""
    given = maps(image[0] // 14, image[1] // 14)
    found = to_grid(tokens(given, prefix), 2, prefix, image)
    assert torch.equal(found, to_grid(given, 2, 0, image))


def test_as_many_cells_as_patches_are_the_patches() -> None:
    given = maps(4, 4)
    assert torch.equal(to_grid(tokens(given, 1), 4, 1, (16, 16)), given)


@pytest.mark.parametrize(
    ("output", "said"),
    [
        (torch.zeros(2, 8), r"\[2, 8\] has no places"),
        (maps(3, 5), "3 x 5 patches cannot fill a grid: set teacher.grid to at most 3"),
        (tokens(maps(4, 4), 0), "its 16 tokens less 1 before them are not the square patches"),
        (tokens(maps(3, 4), 1), "not the square patches of an image of 16 x 16"),
        (torch.zeros(2, 1, 8), "its 1 tokens less 1"),
    ],
)
def test_what_is_no_grid_is_refused(output: Tensor, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        to_grid(output, 4, 1, (16, 16))
