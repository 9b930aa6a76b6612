"""Patch tokens or maps as a small grid of equal side, whatever the network's own has."""

from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d


def to_grid(
    output: Tensor, side: int, prefix: int, image: tuple[int, int], setting: str = "teacher.grid"
) -> Tensor:
    """Average tokens [B, T, C] or maps [B, C, H, W] to [B, C, side, side].

    A cell is the mean of the patches that it covers, wholly or in part. prefix: tokens before the
    patches. image: height and width of the input, whose shape the patches have. setting: that asks
    for it. Raises ValueError if the output has no places, or fewer along an edge than the grid.
    """
    maps = output if output.ndim == 4 else _to_maps(output, prefix, image, setting)
    height, width = maps.shape[2:]
    if side > min(height, width):
        raise ValueError(
            f"its {height} x {width} patches cannot fill a grid: set {setting} to at most "
            f"{min(height, width)}"
        )
    return adaptive_avg_pool2d(maps, side)


def _to_maps(output: Tensor, prefix: int, image: tuple[int, int], setting: str) -> Tensor:
    """Tokens [B, T, C] without the prefix as maps [B, C, H, W], row by row."""
    if output.ndim != 3:
        raise ValueError(
            f"its output {list(output.shape)} has no places: {setting} needs one of tokens or maps"
        )
    tokens = output[:, prefix:]
    # Patches are squares; those at the edges that an image cuts off are left out.
    sides = range(1, min(image) + 1)
    for height, width in ((image[0] // side, image[1] // side) for side in sides):
        if height * width == tokens.shape[1]:
            return tokens.transpose(1, 2).unflatten(2, (height, width))  # type: ignore[no-any-return]
    raise ValueError(
        f"its {output.shape[1]} tokens less {prefix} before them are not the square patches of an "
        f"image of {image[0]} x {image[1]}: {setting} needs one token a patch"
    )
