"""An elastic pool of Ray actors: shard numbers go out, commit records come back."""

import time
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Any, Self

import ray
from ray.exceptions import RayError, RayTaskError

from egapipe.pipeline.store import Commit
from egapipe.stages.extract.workers.failures.deaths import own_error
from egapipe.stages.extract.workers.failures.ledger import Ledger
from egapipe.stages.extract.workers.failures.setbacks import Setbacks
from egapipe.stages.extract.workers.pool.agreement import Agreement, Word
from egapipe.stages.extract.workers.pool.calls import STORE, Call, Calls
from egapipe.stages.extract.workers.pool.member import (
    Begun,
    Encoded,
    Loaded,
    Member,
    Stage,
    Where,
)
from egapipe.stages.extract.workers.pool.pace import Pace
from egapipe.stages.extract.workers.pool.roster import Hire, Roster
from egapipe.stages.extract.workers.pool.schedule import Assignment, Schedule
from egapipe.stages.extract.workers.pool.terms import Ground, Terms, nowhere_special

_PULSES = 20
"""Times that a busy worker is asked for a sign of life before it counts as stalled."""
_PULSE_SECONDS = 10.0
"""Between two questions at most: what a worker does is shown."""


class Pool:
    """Actors that extract shards; lost ones are replaced. Leaving the block kills them all."""

    def __init__(
        self,
        hire: Hire,
        terms: Terms,
        *,
        arguments: Callable[[Where], Sequence[Any]],
        committed: Callable[[int], Commit | None],
        note: Callable[[str], None],
        ground: Callable[[], Ground] = nowhere_special,
        sent: Callable[[Assignment], Sequence[Any]] = tuple,
    ) -> None:
        """Start nothing yet.

        hire: makes an actor with the methods of `ExtractActor` on a machine, or on any but some.
        arguments: of its `prepare`, once it is known where it is. committed: the record of a shard
        in the store, if there is one. note: told about what was lost or is waited for. ground: the
        machines there are at the moment. sent: the arguments of `encode`, from what is assigned.
        """
        self._terms = terms
        self._arguments = arguments
        self._note = note
        self._sent = sent
        self._ledger = Ledger(terms.machine_failures)
        self._pace = Pace(terms.patience)
        self._calls = Calls()
        self._agreement: Agreement[Member] = Agreement()
        self._schedule: Schedule[Member] = Schedule()
        self._roster = Roster(hire, terms, self._ledger, ground, note)
        self._setbacks = Setbacks(
            terms,
            self._schedule,
            self._ledger,
            self._roster,
            self._pace,
            committed=committed,
            note=note,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self._roster.close()

    @property
    def members(self) -> Sequence[Member]:
        """The workers that there are at the moment."""
        return self._roster.members

    def run(self, shards: Sequence[int]) -> Iterator[Commit | None]:
        """The commit record of every shard as it is finished; None about once a second meanwhile.

        Raises UsageError if not enough workers get their machines in time, what a worker has raised
        if no other machine does better, and EgapipeError if a shard fails too often.
        """
        self._schedule.add(shards)
        while self._schedule.unfinished:
            for member in self._roster.look(self._schedule.unfinished):
                self._calls.ask(Call(member, self._landed), member.handle.where)
            if self._roster.enough():
                self._assign()
                self._relieve()
            self._end_hung()
            settled = list(self._calls.settled())
            if not settled:
                yield None
            for call, ref in settled:
                yield from self._settle(call, ref)

    # What is to be done.

    def _assign(self) -> None:
        roster = self._roster
        waiting, roster.idle = roster.idle, []
        machines = {m.machine for m in roster.members if m.ready and m.machine and not m.dying}
        machines -= roster.leaving
        for member in waiting:
            if member.dying:
                # It was still storing a shard, and is gone when Ray says so.
                roster.idle.append(member)
                continue
            if member.machine in roster.leaving:
                self._dismiss(member)
                continue
            avoid = self._ledger.elsewhere(member.machine or "", machines)
            work = self._schedule.assign(member, now=time.monotonic(), avoid=avoid)
            if work is None:
                roster.idle.append(member)
                continue
            member.begin()
            member.shard, member.isolated = work.shard, work.isolated
            call = Call(member, self._encoded, work.shard)
            self._calls.ask(call, member.handle.encode, *self._sent(work))

    def _dismiss(self, member: Member) -> None:
        """It may hold an upcoming shard, which another takes, and what it still stores."""
        if self._calls.asked(member):
            self._roster.idle.append(member)
            return
        self._schedule.lose(member, counted=False)
        self._roster.remove(member)

    def _relieve(self) -> None:
        """Kill workers that hold up the end, one for each that has nothing left to do.

        A shard has one writer: another one gets it when Ray reports the first to be dead.
        """
        busy = [member for member in self._calls.busy if member.ready]
        alive = [member for member in busy if not member.dying]
        idle = sum(member not in busy for member in self._roster.idle)
        spare = idle - (len(busy) - len(alive))
        for member in sorted(alive, key=lambda member: -member.seconds)[: max(0, spare)]:
            if member.seconds > self._pace.limit and self._schedule.relieve(member):
                member.relieved = True
                ray.kill(member.handle)

    def _end_hung(self) -> None:
        """Kill workers that show no sign of life, or of progress."""
        every = min(_PULSE_SECONDS, self._terms.stall_timeout / _PULSES)
        for member in self._calls.busy:
            if member.dying or member.stage is Stage.PLACING:
                continue
            self._calls.ask_pulse(member, every)
            if member.stage is Stage.LOADING:
                if member.seconds > self._terms.start_timeout:
                    self._end(
                        member,
                        f"it was still loading the teacher after {self._terms.start_timeout:g} s: "
                        "raise extract.start_timeout if that is what it takes",
                    )
            elif member.still > self._terms.stall_timeout:
                self._end(
                    member,
                    f"it finished no batch within {self._terms.stall_timeout:g} s "
                    "(extract.stall_timeout)",
                )

    def _end(self, member: Member, why: str) -> None:
        member.ended = why
        ray.kill(member.handle)

    # What comes back.

    def _settle(self, call: Call, ref: Any) -> Iterator[Commit]:
        member = call.member
        try:
            answered = ray.get(ref)
        except RayTaskError as error:
            yield from self._setbacks.failed(member, call.shard, own_error(error))
            if call.answer == self._encoded and member in self._roster.members:
                self._roster.idle.append(member)
        except RayError as error:
            yield from self._setbacks.lost(member, error)
        else:
            yield from call.answer(member, answered)
        if member not in self._roster.members:
            self._calls.forget(member)
            self._begin(self._agreement.leave(member))

    def _landed(self, member: Member, where: Where) -> Iterator[Commit]:
        """It has its machine."""
        where = Where(*where)
        member.machine, member.host, member.stage = where.machine, where.host, Stage.LOADING
        member.begin()
        call = Call(member, self._prepared)
        self._calls.ask(call, member.handle.prepare, *self._arguments(where))
        return iter(())

    def _prepared(self, member: Member, loaded: Any) -> Iterator[Commit]:
        """It has its teacher."""
        self._begin(self._agreement.come(member, *Loaded(*loaded)))
        return iter(())

    def _begin(self, words: Sequence[Word[Member]]) -> None:
        for member, batch in words:
            member.begin()
            self._calls.ask(Call(member, self._begun), member.handle.begin, batch)

    def _begun(self, member: Member, begun: Any) -> Iterator[Commit]:
        """It can be given shards."""
        begun = Begun(*begun)
        self._begin(self._agreement.find(member, begun.batch))
        member.stage, member.computed = Stage.READY, begun.computed
        self._roster.idle.append(member)
        return iter(())

    def _encoded(self, member: Member, answer: Any) -> Iterator[Commit]:
        """A shard is being stored; the next one can be encoded."""
        self._pace.finished(member.seconds)
        for note in member.encoded(Encoded(*answer)):
            self._note(f"worker on {member.host}: {note}")
        shard = self._schedule.encoded(member)
        written = member.handle.written.options(concurrency_group=STORE)
        self._calls.ask(Call(member, self._written, shard), written, shard)
        if not member.dying:
            member.begin()
            self._roster.idle.append(member)
        return iter(())

    def _written(self, member: Member, commit: Commit) -> Iterator[Commit]:
        """A shard is done."""
        self._schedule.stored(commit.shard)
        machine, isolated = member.machine or "", self._schedule.suspected(commit.shard)
        for other in self._ledger.finished(commit.shard, machine, isolated=isolated):
            why = f"shard {commit.shard}, which it lost, was done elsewhere"
            self._roster.say_left_out(other, why)
        if member.dying and not self._calls.asked(member):
            # It has answered and died.
            self._schedule.lose(member, counted=False)
            self._roster.remove(member)
        yield commit
