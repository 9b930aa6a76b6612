"""Which worker takes which shard: pure bookkeeping, without Ray."""

from collections import Counter, deque
from collections.abc import Collection, Hashable, Iterable
from typing import Generic, NamedTuple, TypeVar

W = TypeVar("W", bound=Hashable)

SUSPECT = 2
"""Times that a worker was lost over a shard, or while it looked ahead to it, until the shard's
images are decoded one by one in processes of their own."""


class Assignment(NamedTuple):
    """A shard to work on, and the one whose images can be decoded meanwhile.

    isolated: whether an image of the shard may end or hang its decoder.
    """

    shard: int
    upcoming: int | None
    isolated: bool = False


class Schedule(Generic[W]):
    """Hands out shards so that each is finished once and no worker idles while one is left.

    Every worker holds its current shard and, while there are enough, an upcoming one. When nothing
    else is left, an idle worker takes over the upcoming shard of another. A shard that is under
    suspicion is nobody's upcoming one, and has none beside it. One that is encoded is still held by
    its worker, idle or not, until it is stored.
    """

    def __init__(self, shards: Iterable[int] = ()) -> None:
        self._pending = deque(shards)
        self._current: dict[W, int] = {}
        self._storing: dict[int, W] = {}
        self._upcoming: dict[W, int] = {}
        self._lost: Counter[int] = Counter()
        self._suspicion: Counter[int] = Counter()
        self._suspects: set[int] = set()
        self._rest: dict[int, float] = {}
        self._relieved: set[int] = set()

    @property
    def unfinished(self) -> int:
        """Shards that are being worked on or wait."""
        held = len(self._current) + len(self._storing) + len(self._upcoming)
        return len(self._pending) + held

    def add(self, shards: Iterable[int]) -> None:
        """More to do, behind everything else."""
        self._pending.extend(shards)

    def storing(self, worker: W) -> list[int]:
        """Shards that a worker has encoded and not stored yet."""
        return [shard for shard, by in self._storing.items() if by == worker]

    def assign(
        self, worker: W, *, now: float = 0.0, avoid: Collection[int] = ()
    ) -> Assignment | None:
        """The next shard of an idle worker, None if there is nothing to do for it.

        now: what is put off until later is left. avoid: shards for others.
        """
        shard = self._next(worker, now, avoid)
        if shard is None:
            return None
        self._current[worker] = shard
        isolated = shard in self._suspects
        if not isolated:
            self._look_ahead(worker, now, avoid)
        return Assignment(shard, self._upcoming.get(worker), isolated)

    def encoded(self, worker: W) -> int:
        """The worker's current shard, which is returned, is being stored; it is idle now."""
        shard = self._current.pop(worker)
        self._storing[shard] = worker
        return shard

    def stored(self, shard: int) -> None:
        """A shard is finished."""
        del self._storing[shard]

    def relieve(self, worker: W) -> bool:
        """Whether a worker may be given up because it is slow: once a shard.

        A shard that is slow for a second worker is slow by itself.
        """
        shard = self._current[worker] if worker in self._current else self.storing(worker)[0]
        again = shard in self._relieved
        self._relieved.add(shard)
        return not again

    def lose(self, worker: W, *, counted: bool = True) -> list[tuple[int, int]]:
        """The worker is gone: its shards wait again, those that were being stored first.

        Returns its current shard, which is the likelier reason, and then these, and how often each
        has failed or lost its worker; none if it had nothing to do. counted: whether this loss is
        one of them. What was being encoded or decoded then becomes suspicious; the images of what
        was being stored are decoded.
        """
        upcoming, current = self._upcoming.pop(worker, None), self._current.pop(worker, None)
        for shard in (upcoming, current):
            if shard is not None:
                self._pending.appendleft(shard)
                self._suspicion[shard] += counted
                if self._suspicion[shard] >= SUSPECT:
                    self.suspect(shard)
        storing = self.storing(worker)
        for shard in reversed(storing):
            del self._storing[shard]
            self._pending.appendleft(shard)
        held = [*([] if current is None else [current]), *storing]
        for shard in held:
            self._lost[shard] += counted
        return [(shard, self._lost[shard]) for shard in held]

    def fail(self, worker: W, shard: int) -> int:
        """The worker could not do a shard, which it encodes or stores: it waits again, last.

        Returns how often the shard has failed or lost its worker.
        """
        if self._current.get(worker) == shard:
            del self._current[worker]
        else:
            del self._storing[shard]
        self._pending.append(shard)
        self._lost[shard] += 1
        return self._lost[shard]

    def rest(self, shard: int, until: float) -> None:
        """A waiting shard is not to be tried before then."""
        self._rest[shard] = until

    def suspect(self, shard: int) -> None:
        """An image of a shard is known to do harm."""
        self._suspects.add(shard)

    def suspected(self, shard: int) -> bool:
        """Whether the images of a shard are decoded in processes of their own."""
        return shard in self._suspects

    def drop(self, shard: int) -> None:
        """A waiting shard turned out to be finished."""
        self._pending.remove(shard)

    def _next(self, worker: W, now: float, avoid: Collection[int]) -> int | None:
        mine = self._upcoming.pop(worker, None)
        if mine is not None:
            return mine
        shard = self._waiting(now, avoid)
        if shard is not None:
            return shard
        others = [w for w, shard in self._upcoming.items() if shard not in avoid]
        return self._upcoming.pop(others[-1]) if others else None

    def _look_ahead(self, worker: W, now: float, avoid: Collection[int]) -> None:
        upcoming = self._waiting(now, {*avoid, *self._suspects} if self._suspects else avoid)
        if upcoming is not None:
            self._upcoming[worker] = upcoming

    def _waiting(self, now: float, avoid: Collection[int]) -> int | None:
        """The first shard that waits and may be begun, which then waits no more."""
        for shard in self._pending:
            if shard not in avoid and self._rest.get(shard, now) <= now:
                self._pending.remove(shard)
                return shard
        return None
