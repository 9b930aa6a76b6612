"""The moving average of a student's weights."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor

from egapipe.stages.distill.model import Student


class WeightAverage:
    """avg <- d avg + (1 - d) w after each step, of parameters and floating buffers.

    d is `decay`, in the first steps (1 + n) / (10 + n) where that is less, n the steps before: the
    random first weights would weigh too much. A function of n, so there is no state but the
    average. Counts and other integers are copied.

    Source: Polyak and Juditsky 1992; the rising decay is that of TensorFlow's
    ExponentialMovingAverage.
    """

    def __init__(self, student: Student, decay: float) -> None:
        self._student = student
        self._decay = decay
        self._average = {name: w.detach().clone() for name, w in student.state_dict().items()}

    @torch.no_grad()
    def update(self, steps: int) -> None:
        """Take in the student's weights. steps: n, those before the one that is just done."""
        decay = min(self._decay, (1 + steps) / (10 + steps))
        for name, weight in self._student.state_dict().items():
            average = self._average[name]
            if average.is_floating_point():
                average.lerp_(weight, 1 - decay)
            else:
                average.copy_(weight)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """For the length of a block the student has the average as its weights."""
        own = {name: w.detach().clone() for name, w in self._student.state_dict().items()}
        self._student.load_state_dict(self._average)
        try:
            yield
        finally:
            self._student.load_state_dict(own)

    def state_dict(self) -> dict[str, Tensor]:
        """The average, by the student's names."""
        return self._average

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Continue from a saved average. Raises RuntimeError if it is of another student."""
        if state.keys() != self._average.keys():
            raise RuntimeError("the average is of another student")
        for name, value in state.items():
            self._average[name].copy_(value)
