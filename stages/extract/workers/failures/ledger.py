"""Which machines have failed, and which are left out: pure bookkeeping, without Ray."""

from collections import Counter, defaultdict
from collections.abc import Collection


class Ledger:
    """Failures by machine. A machine's failures are added up, never forgiven."""

    def __init__(self, allowed: int) -> None:
        """allowed: workers that a machine may fail before it is left out."""
        self._allowed = allowed
        self._failed: Counter[str] = Counter()
        self._said: defaultdict[str, set[str]] = defaultdict(set)
        self._rest: dict[str, float] = {}
        self._lost_at: defaultdict[int, set[str]] = defaultdict(set)

    @property
    def left_out(self) -> frozenset[str]:
        """Machines that no worker is started on any more."""
        return frozenset(m for m, count in self._failed.items() if count >= self._allowed)

    def blame(self, machine: str, *, lasting: bool = False, until: float = 0.0) -> bool:
        """A worker of a machine failed through no fault of a shard: whether it is left out now.

        lasting: it would say the same again. until: when another worker may be started there.
        """
        before = machine in self.left_out
        self._failed[machine] += self._allowed if lasting else 1
        self._rest[machine] = until
        return machine in self.left_out and not before

    def repeated(self, machine: str, said: str) -> bool:
        """Whether another machine has said the same."""
        self._said[said].add(machine)
        return len(self._said[said]) > 1

    def rests(self, machine: str, now: float) -> bool:
        """Whether a machine that failed is given time."""
        return self._rest.get(machine, now) > now

    def lost(self, shard: int, machine: str) -> None:
        """A shard failed, or lost its worker, on a machine."""
        self._lost_at[shard].add(machine)

    def finished(self, shard: int, machine: str, *, isolated: bool) -> list[str]:
        """A shard is done: where others failed over it, that was not the shard's fault.

        Returns the machines that are left out from now on. isolated: whether its images were
        decoded by themselves, in which case nothing is proved.
        """
        others = self._lost_at.pop(shard, set()) - {machine}
        return [] if isolated else [other for other in sorted(others) if self.blame(other)]

    def elsewhere(self, machine: str, machines: Collection[str]) -> set[int]:
        """Shards that a machine leaves to the others, of which there are some."""
        if not set(machines) - {machine}:
            return set()
        return {
            shard
            for shard, lost in self._lost_at.items()
            if machine in lost and not set(machines) <= lost
        }
