"""Which worker takes which shard: pure bookkeeping, without Ray."""

from collections import Counter, deque
from collections.abc import Hashable, Iterable
from typing import Generic, NamedTuple, TypeVar

W = TypeVar("W", bound=Hashable)


class Assignment(NamedTuple):
    """A shard to work on, and the one whose images can be decoded meanwhile."""

    shard: int
    upcoming: int | None


class Schedule(Generic[W]):
    """Hands out shards so that each is finished once and no worker idles while one is left.

    Every worker holds its current shard and, while there are enough, an upcoming one. When nothing
    else is left, an idle worker takes over the upcoming shard of another.
    """

    def __init__(self, shards: Iterable[int]) -> None:
        self._pending = deque(shards)
        self._current: dict[W, int] = {}
        self._upcoming: dict[W, int] = {}
        self._lost: Counter[int] = Counter()
        self._relieved: set[int] = set()

    @property
    def unfinished(self) -> bool:
        """Whether a shard is being worked on or waits."""
        return bool(self._pending or self._current or self._upcoming)

    def assign(self, worker: W) -> Assignment | None:
        """The next shard of an idle worker, None if there is nothing to do."""
        shard = self._next(worker)
        if shard is None:
            return None
        self._current[worker] = shard
        if self._pending:
            self._upcoming[worker] = self._pending.popleft()
        return Assignment(shard, self._upcoming.get(worker))

    def finish(self, worker: W) -> int:
        """The worker has finished its current shard, which is returned; it is idle now."""
        return self._current.pop(worker)

    def relieve(self, worker: W) -> bool:
        """Whether a busy worker may be given up because it is slow: once a shard.

        A shard that is slow for a second worker is slow by itself.
        """
        shard = self._current[worker]
        again = shard in self._relieved
        self._relieved.add(shard)
        return not again

    def lose(self, worker: W, *, counted: bool = True) -> tuple[int, int] | None:
        """The worker is gone: its shards wait again, the current one first.

        Returns its current shard and how often that one has lost its worker; None if it was idle.
        counted: whether this loss is one of them.
        """
        upcoming, current = self._upcoming.pop(worker, None), self._current.pop(worker, None)
        self._pending.extendleft(s for s in (upcoming, current) if s is not None)
        if current is None:
            return None
        self._lost[current] += counted
        return current, self._lost[current]

    def drop(self, shard: int) -> None:
        """A waiting shard turned out to be finished."""
        self._pending.remove(shard)

    def _next(self, worker: W) -> int | None:
        if worker in self._upcoming:
            return self._upcoming.pop(worker)
        if self._pending:
            return self._pending.popleft()
        return self._upcoming.popitem()[1] if self._upcoming else None
