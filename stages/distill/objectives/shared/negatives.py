"""Which rows of the data set a row is contrasted with."""

import torch
from torch import Tensor, nn

from egapipe.stages.distill.objectives.shared.counter import below, mix


class Negatives(nn.Module):
    """Draws from the rows of other classes, each as likely, with replacement.

    An unlabelled row has all other rows as negatives, and so has a row of the only class there is.
    What is drawn is a function of (seed, step, row): the same whatever the batch, the workers and
    the device are.
    """

    order: Tensor
    start: Tensor
    excluded: Tensor

    def __init__(self, labels: Tensor, seed: int) -> None:
        """labels: int64 [N], N >= 2, of the data set; -1 = unlabelled."""
        super().__init__()
        self.seed = seed
        for name, values in zip(("order", "start", "excluded"), _classes(labels), strict=True):
            # Follows from the data set: it moves with the module and is no part of its state.
            self.register_buffer(name, values, persistent=False)

    def forward(self, rows: Tensor, step: Tensor, count: int) -> Tensor:
        """int64 [B, count] negatives of the rows, int64 [B], at a step, an int64 scalar."""
        key = mix(mix(mix(torch.full_like(step, self.seed)) ^ step) ^ rows)
        bits = mix(key[:, None] + torch.arange(count, device=rows.device))
        start, excluded = self.start[rows, None], self.excluded[rows, None]
        drawn = below(len(self.order) - excluded, bits)
        # Rows are numbered class by class: the row's own class is one stretch, stepped over.
        return self.order[drawn + excluded * (drawn >= start)]


def _classes(labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """All rows ordered by label, and for each row the stretch of that order it must not draw."""
    order = torch.argsort(labels, stable=True)
    place = torch.empty_like(order)
    place[order] = torch.arange(len(order))
    _, inverse, counts = torch.unique(labels, return_inverse=True, return_counts=True)
    first = counts.cumsum(0) - counts
    alone = (labels < 0) | (counts[inverse] == len(labels))
    start = torch.where(alone, place, first[inverse])
    return order, start, torch.where(alone, 1, counts[inverse])
