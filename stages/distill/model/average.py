"""The moving average of a student's weights."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor

from egapipe.stages.distill.model.student import Student


def average_weight(decay: float, steps: int) -> float:
    """1 - d of a step, `steps` those before it; see `WeightAverage`."""
    return 1 - min(decay, (1 + steps) / (10 + steps))


class WeightAverage:
    """avg <- d avg + (1 - d) w after each step, of parameters and floating buffers.

    d is `decay`, in the first steps (1 + n) / (10 + n) where that is less, n the steps before: the
    random first weights would weigh too much. A function of n, so there is no state but the
    average. Counts and other integers are copied.

    Source: Polyak and Juditsky 1992; the rising decay is that of TensorFlow's
    ExponentialMovingAverage.
    """

    def __init__(self, student: Student, decay: float, live: Student | None = None) -> None:
        """live: a copy of the student whose weights become the average, and stay it."""
        self._student = student
        self.decay = decay
        self._average = (
            {name: w.detach().clone() for name, w in student.state_dict().items()}
            if live is None
            else dict(live.state_dict())
        )

    @torch.no_grad()
    def update(self, weight: float | Tensor) -> None:
        """Take in the student's weights with `average_weight` of the step that is just done."""
        state = self._student.state_dict()
        averages, weights = [], []
        for name, average in self._average.items():
            if average.is_floating_point():
                averages.append(average)
                weights.append(state[name])
            else:
                average.copy_(state[name])
        apart = torch._foreach_sub(weights, averages)
        torch._foreach_mul_(apart, weight)
        torch._foreach_add_(averages, apart)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """For the length of a block the student has the average as its weights."""
        own = {name: w.detach().clone() for name, w in self._student.state_dict().items()}
        self._student.load_state_dict(self._average)
        try:
            yield
        finally:
            self._student.load_state_dict(own)

    def restart(self) -> None:
        """Begin again with the student's weights."""
        for name, weight in self._student.state_dict().items():
            self._average[name].copy_(weight)

    def state_dict(self) -> dict[str, Tensor]:
        """The average, by the student's names."""
        return self._average

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Continue from a saved average. Raises RuntimeError if it is of another student."""
        if state.keys() != self._average.keys():
            raise RuntimeError("the average is of another student")
        for name, value in state.items():
            self._average[name].copy_(value)
