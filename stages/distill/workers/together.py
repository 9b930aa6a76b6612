"""What one worker fails at stops all of them: the others would wait for it until a time-out."""

from collections.abc import Callable, Iterator
from typing import Self, TypeVar

from egapipe.pipeline.errors import EgapipeError
from egapipe.stages.distill.data.batch import Batch
from egapipe.stages.distill.workers.world import World

T = TypeVar("T")


def agreed(world: World, make: Callable[[], T]) -> T:
    """What `make` gives, once it has given all workers theirs.

    Raises what it does, or OtherWorkerError. It may agree on parts of its own.
    """
    made: list[T] = []
    world.agree(lambda: made.append(make()))
    return made[0]


class Steady(Iterator[Batch]):
    """A worker's batches, of which one that cannot be read does not hold up the others.

    Agreeing on every batch would cost a message a step, and on a GPU a wait for it. So the first is
    agreed on; in the place of one that fails later the one before comes again, until all
    workers agree on something that is `checked`, as they must before any of these steps is saved.
    """

    def __init__(self, batches: Iterator[Batch], world: World) -> None:
        self._batches, self._world = batches, world
        self._batch: Batch | None = None
        self._error: EgapipeError | None = None

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Batch:
        if self._batch is None:
            self._batch = agreed(self._world, lambda: next(self._batches, None))
        elif self._error is None:
            try:
                self._batch = next(self._batches)
            except EgapipeError as error:
                if self._world.group is None:
                    raise
                self._error = error
        if self._batch is None:
            raise StopIteration
        return self._batch

    def checked(self, check: Callable[[], None]) -> Callable[[], None]:
        """A check before which is raised what kept this worker from a batch, if anything did."""

        def both() -> None:
            if self._error is not None:
                raise self._error
            check()

        return both
