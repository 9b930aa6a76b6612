"""What becomes of a shard, a worker and the run when something goes wrong in a worker."""

import time
from collections import Counter
from collections.abc import Callable, Iterator

from ray.exceptions import RayError, RayTaskError

from egapipe.pipeline.errors import EgapipeError, UsageError
from egapipe.pipeline.store import Commit
from egapipe.stages.extract.workers.failures.deaths import missing_module, node_died, why_died
from egapipe.stages.extract.workers.failures.faults import FaultError, Scope, is_bug
from egapipe.stages.extract.workers.failures.ledger import Ledger
from egapipe.stages.extract.workers.pool.member import Member, Stage
from egapipe.stages.extract.workers.pool.pace import Pace
from egapipe.stages.extract.workers.pool.roster import Roster
from egapipe.stages.extract.workers.pool.schedule import Schedule
from egapipe.stages.extract.workers.pool.terms import Terms

_LONGEST_REST = 60.0
_NODE_LOSSES = 10
"""Machines that a shard may lose: spot instances go as they please, but a shard may be why."""


class Setbacks:
    """Sorts what went wrong by whose fault it is, and does what that asks for."""

    def __init__(
        self,
        terms: Terms,
        schedule: Schedule[Member],
        ledger: Ledger,
        roster: Roster,
        pace: Pace,
        *,
        committed: Callable[[int], Commit | None],
        note: Callable[[str], None],
    ) -> None:
        """committed: the record of a shard in the store, if there is one. note: told about what was
        lost."""
        self._terms = terms
        self._schedule = schedule
        self._ledger = ledger
        self._roster = roster
        self._pace = pace
        self._committed = committed
        self._note = note
        self._said: dict[int, str] = {}
        self._node_losses: Counter[int] = Counter()
        self._unstarted = 0

    def failed(self, member: Member, shard: int | None, error: BaseException) -> Iterator[Commit]:
        """A worker has raised something, over a shard or before it was ready, and lives."""
        raised = error.cause if isinstance(error, RayTaskError) else error
        fault = raised if isinstance(raised, FaultError) else FaultError.of(raised, member.host)
        if fault.verdict.scope is Scope.RUN:
            raise error
        if shard is None:
            self._refused(member, fault, error)
        elif fault.verdict.scope is Scope.WORKER:
            if fault.hung:
                self._schedule.suspect(shard)
            elif self._ledger.blame(member.machine or ""):
                # If it was the only one, that is how the run ends.
                self._roster.last = _ending(error, fault, "")
                self._roster.say_left_out(member.machine or "", str(fault))
            yield from self._replace(member, str(fault), error)
        else:
            self._put_back(member, shard, fault, error)

    def lost(self, member: Member, error: RayError) -> Iterator[Commit]:
        """A worker is gone."""
        why = member.ended or why_died(error)
        named = f"{why}, on {member.host}" if member.host else why
        if member.ready:
            yield from self._replace(member, named, error)
            return
        self._roster.remove(member)
        if node_died(error) and member.ended is None:
            self._note(f"a worker's machine went while it loaded the teacher ({named})")
        else:
            self._not_started(member, named, error)

    def _put_back(
        self, member: Member, shard: int, fault: FaultError, error: BaseException
    ) -> None:
        """The shard is tried again, elsewhere if it can be."""
        passing = fault.verdict.passing
        times = self._schedule.fail(member, shard)
        if passing:
            seconds = min(_LONGEST_REST, 2.0 ** (times - 1))
            self._schedule.rest(shard, time.monotonic() + seconds)
        self._ledger.lost(shard, member.machine or "")
        again = not passing and self._said.get(shard) == fault.said
        self._said[shard] = fault.said
        if again or times > self._terms.max_restarts:
            raise _ending(error, fault, f"shard {shard} failed {_times(times)}: ")
        self._note(f"shard {shard} failed: {fault}; it is tried again")

    def _refused(self, member: Member, fault: FaultError, error: BaseException) -> None:
        """A machine cannot take part: others can, perhaps."""
        self._roster.remove(member)
        machine, passing = member.machine or "", fault.verdict.passing
        self._roster.last = ending = _ending(error, fault, "")
        rest = time.monotonic() + (2.0 if passing else 0.0)
        if not passing and self._ledger.repeated(machine, fault.said):
            raise ending
        if self._ledger.blame(machine, lasting=not passing, until=rest):
            self._roster.say_left_out(machine, str(fault))
        else:
            self._note(f"{fault}; another worker is started there")

    def _not_started(self, member: Member, named: str, error: RayError) -> None:
        """A worker died before it was ready."""
        self._unstarted += 1
        machine = member.machine or ""
        explained = missing_module(why_died(error)) if member.stage is Stage.PLACING else None
        self._roster.last = (
            UsageError(explained)
            if explained is not None
            else EgapipeError(
                f"{self._unstarted} workers died while they loaded the teacher; the last: {named}"
            )
        )
        self._ledger.blame(machine, lasting=explained is not None)
        out = machine in self._ledger.left_out
        then = "the others go on alone" if out else "another one is started"
        self._note(f"a worker died while it loaded the teacher ({named}); {then}")

    def _replace(self, member: Member, why: str, error: BaseException) -> Iterator[Commit]:
        """A ready worker is gone, or has to go; what it held waits for another one."""
        self._roster.remove(member)
        of_node = isinstance(error, RayError) and node_died(error) and member.ended is None
        for shard, times in self._schedule.lose(member, counted=not (member.relieved or of_node)):
            commit = self._committed(shard)
            if commit is not None:
                self._schedule.drop(shard)
                yield commit
            elif member.relieved:
                self._note(
                    f"shard {shard} took {member.seconds:.0f} s, others are done in "
                    f"{self._pace.limit:.0f} s at most; another worker takes it"
                )
            else:
                self._node_losses[shard] += of_node
                self._lose(shard, times, member, why, error)

    def _lose(self, shard: int, times: int, member: Member, why: str, error: BaseException) -> None:
        self._ledger.lost(shard, member.machine or "")
        if times > self._terms.max_restarts or self._node_losses[shard] > _NODE_LOSSES:
            alone = ", although its images were decoded in processes of their own"
            raise EgapipeError(
                f"shard {shard} lost its worker {times + self._node_losses[shard]} times, more "
                f"than extract.max_restarts ({self._terms.max_restarts}) allows"
                f"{alone if member.isolated else ''}; the last time: {why}"
            ) from error
        self._note(f"shard {shard} lost its worker ({why}); another one takes it")


def _ending(error: BaseException, fault: FaultError, prefix: str) -> EgapipeError:
    """What the run ends with: a bug with its traceback, anything else in one line."""
    if isinstance(error, RayTaskError) and is_bug(error.cause):
        raise error
    return fault.error(prefix)


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"
