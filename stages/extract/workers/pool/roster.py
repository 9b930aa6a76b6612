"""The workers of a pool: who is there, on which machine, and who is waited for."""

import time
from collections import Counter
from collections.abc import Callable, Collection
from typing import Any

import ray

from egapipe.pipeline.errors import EgapipeError, UsageError
from egapipe.stages.extract.workers.failures.ledger import Ledger
from egapipe.stages.extract.workers.pool.fleet import spread
from egapipe.stages.extract.workers.pool.member import Member, Stage
from egapipe.stages.extract.workers.pool.terms import Ground, Terms

_LOOK_SECONDS = 2.0
"""Between two looks at the machines of the cluster."""
_TELL_SECONDS = 15.0
"""Of waiting before what is waited for is said; it is said again after twice as long."""

Hire = Callable[[str | None, Collection[str]], Any]


class Roster:
    """Hires workers as machines have room for them, and lets them go."""

    def __init__(
        self,
        hire: Hire,
        terms: Terms,
        ledger: Ledger,
        ground: Callable[[], Ground],
        note: Callable[[str], None],
    ) -> None:
        """hire: makes an actor on a machine, or on any but some. ledger: of machines that failed.
        ground: the machines there are at the moment. note: told what is waited for."""
        self.members: list[Member] = []
        self.idle: list[Member] = []
        self.leaving: frozenset[str] = frozenset()
        """Machines that get nothing more to do."""
        self.last: EgapipeError | None = None
        """Why the last worker that did not start did not."""
        self._hire = hire
        self._terms = terms
        self._ledger = ledger
        self._ground = ground
        self._note = note
        self._wanted = terms.minimum
        self._started = False
        self._looked = 0.0
        self._waiting = _Waiting()

    def look(self, unfinished: int) -> list[Member]:
        """Start workers where machines have room for them: those lost, and those that came.

        unfinished: shards; no more workers are of use. Returns those that were hired. Raises why
        the last worker did not start, if nobody is left and none can be hired.
        """
        now = time.monotonic()
        if now - self._looked < _LOOK_SECONDS and self._looked:
            return []
        self._looked = now
        ground = self._ground()
        for machine in sorted(ground.leaving - self.leaving):
            self._leave(machine)
        self.leaving = ground.leaving
        out = self._ledger.left_out
        open_to = {m: n for m, n in ground.places.items() if m not in out}
        here = Counter(m.machine for m in self.members if m.machine is not None)
        missing = {m: n - here[m] for m, n in open_to.items() if n > here[m]}
        rested = {m: n for m, n in missing.items() if not self._ledger.rests(m, now)}
        most = self._terms.most or max(sum(open_to.values()), self._terms.minimum)
        self._wanted = min(most, unfinished)
        # One that waits for whichever machine has room may land on any of them.
        floating = sum(member.machine is None for member in self.members)
        places: list[str | None] = [*spread(rested, here)[floating:]]
        if not missing and (open_to or not out):
            places += [None] * self._wanted
        room = max(0, self._wanted - len(self.members))
        hired = [Member(self._hire(m, out), m) for m in places[:room]]
        self.members += hired
        if not self.members and not missing and self.last is not None:
            raise self.last
        return hired

    def enough(self) -> bool:
        """Whether shards may be handed out: the minimum to start with, then anybody.

        Says what is waited for. Raises UsageError if machines are waited for too long.
        """
        ready = sum(member.ready for member in self.members)
        needed = 1 if self._started else max(1, min(self._terms.minimum, self._wanted))
        placed = sum(member.stage is not Stage.PLACING for member in self.members)
        if ready >= needed:
            self._started = True
            self._waiting.end()
        elif placed >= needed:
            if self._waiting.tell("loading"):
                self._note(self._loading(ready, needed))
        else:
            self._wait_for_machines(placed, needed)
        return ready >= needed

    def remove(self, member: Member) -> None:
        """A worker is gone, or has to go: another one may take its place at once."""
        self.members.remove(member)
        if member in self.idle:
            self.idle.remove(member)
        ray.kill(member.handle)
        # The next one is not to wait for the next look.
        self._looked = 0.0

    def close(self) -> None:
        """End all workers."""
        for member in self.members:
            ray.kill(member.handle)
        self.members.clear()

    def say_left_out(self, machine: str, why: str) -> None:
        """Say that a machine gets no further worker."""
        hosts = [member.host for member in self.members if member.machine == machine]
        host = next(filter(None, hosts), machine[:8] or "a machine")
        self._note(f"no further worker is started on {host}: {why}")

    def _leave(self, machine: str) -> None:
        here = [member for member in self.members if member.machine == machine]
        if here:
            host = here[0].host or machine
            self._note(f"{host} is about to leave the cluster: its workers finish what they have")

    def _wait_for_machines(self, placed: int, needed: int) -> None:
        waited, limit = self._waiting.seconds("machines"), self._terms.wait
        late = waited > limit
        if not late and not self._waiting.tell("machines"):
            return
        have = (
            f"each asks for {self._terms.resources}, free are "
            f"{_shown(ray.available_resources())} of {_shown(ray.cluster_resources())}"
        )
        if late:
            raise UsageError(
                f"{placed} of {needed} workers have a machine after {limit:g} s: {have}: lower "
                "extract.min_workers, extract.gpus_per_worker or extract.cpus_per_worker, "
                "add nodes, or set extract.wait to forever"
            )
        self._note(f"waiting for machines: {placed} of {needed} workers have theirs, {have}")

    def _loading(self, ready: int, needed: int) -> str:
        loading = [member for member in self.members if member.stage is Stage.LOADING]
        slowest = max(loading, key=lambda member: member.seconds)
        return (
            f"waiting for the teacher: {ready} of {needed} workers are ready, {slowest.host} "
            f"{slowest.doing} for {slowest.seconds:.0f} s, of {self._terms.start_timeout:g} at "
            "most (extract.start_timeout)"
        )


class _Waiting:
    """Since when something is waited for, and when to say so."""

    def __init__(self) -> None:
        self._what = ""
        self._since = time.monotonic()
        self._tell_at = _TELL_SECONDS

    def seconds(self, what: str) -> float:
        """Of waiting for the same."""
        if what != self._what:
            self._what, self._since, self._tell_at = what, time.monotonic(), _TELL_SECONDS
        return time.monotonic() - self._since

    def tell(self, what: str) -> bool:
        """Whether it is time to say so."""
        if self.seconds(what) < self._tell_at:
            return False
        self._tell_at *= 2
        return True

    def end(self) -> None:
        """Nothing is waited for."""
        self._what = ""


def _shown(resources: dict[str, float]) -> str:
    named = {k: v for k, v in sorted(resources.items()) if k in ("CPU", "GPU")}
    return ", ".join(f"{v:g} {k}" for k, v in named.items()) or "nothing"
