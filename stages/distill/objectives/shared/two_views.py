"""Batches of two views of each row."""

from torch import Tensor


def two_views(name: str, rows: Tensor) -> tuple[Tensor, Tensor]:
    """[B, D] and [B, D] of [2 B, D], the two views of a row behind each other.

    Raises ValueError, with the objective's name, where they are no twos.
    """
    if len(rows) % 2:
        raise ValueError(f"{name}: {len(rows)} rows are not two views of each")
    twos = rows.reshape(len(rows) // 2, 2, *rows.shape[1:])
    return twos[:, 0], twos[:, 1]
