"""An elastic pool of Ray actors: shard numbers go out, commit records come back."""

import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Any, NamedTuple, Self

import ray
from ray.exceptions import RayError, RayTaskError

from egapipe.pipeline.errors import EgapipeError, UsageError
from egapipe.pipeline.store import Commit
from egapipe.stages.extract.workers.deaths import missing_module, node_died, own_error, why_died
from egapipe.stages.extract.workers.faults import FaultError, Scope, is_bug
from egapipe.stages.extract.workers.fleet import spread
from egapipe.stages.extract.workers.ledger import Ledger
from egapipe.stages.extract.workers.member import Member, Stage, Where
from egapipe.stages.extract.workers.pace import Pace
from egapipe.stages.extract.workers.schedule import Schedule

_TICK_SECONDS = 1.0
_LOOK_SECONDS = 2.0
"""Between two looks at the machines of the cluster."""
_TELL_SECONDS = 15.0
"""Of waiting for machines before that is said."""
_PULSES = 20
"""Times that a busy worker is asked for a sign of life before it counts as stalled."""
_LONGEST_REST = 60.0
_NODE_LOSSES = 10
"""Machines that a shard may lose: spot instances go as they please, but a shard may be why."""

Answer = Callable[[Any], Iterator[Commit]]


@dataclass(frozen=True)
class Terms:
    """How many workers there are, and what is tried before the run is given up."""

    minimum: int
    """Workers that must be ready before the first shard is handed out."""
    most: int | None
    """Workers at most; None: as many as the machines are to have."""
    max_restarts: int
    """Times one shard may fail or lose its worker."""
    resources: str
    """What one worker asks for, for messages."""
    wait: float = 300.0
    """Seconds until the minimum must have its machines, and that the run may be without any later;
    infinite: for ever."""
    start_timeout: float = 1800.0
    """Seconds that a worker may take to load the teacher."""
    stall_timeout: float = 1800.0
    """Seconds that a busy worker may go without finishing a batch."""
    machine_failures: int = 3
    """Workers that a machine may fail before it is left out."""
    patience: float = 10.0
    """Seconds that no shard is too slow for."""


class Ground(NamedTuple):
    """The machines there are. places: machine -> workers that it is to have. leaving: machines
    that go soon, and get nothing more to do."""

    places: Mapping[str, int]
    leaving: frozenset[str] = frozenset()


def nowhere_special() -> Ground:
    """Workers are started wherever Ray has room."""
    return Ground({})


class Pool:
    """Actors that extract shards; lost ones are replaced. Leaving the block kills them all."""

    def __init__(
        self,
        hire: Callable[[str | None, Collection[str]], Any],
        terms: Terms,
        *,
        arguments: Callable[[Where], Sequence[Any]],
        committed: Callable[[int], Commit | None],
        note: Callable[[str], None],
        ground: Callable[[], Ground] = nowhere_special,
        ready: Callable[[str, Any], None] = lambda host, answer: None,
    ) -> None:
        """Start nothing yet.

        hire: makes an actor with the methods of `ExtractActor` on a machine, or on any but some.
        arguments: of its `prepare`, once it is known where it is. committed: the record of a shard
        in the store, if there is one. note: told about what was lost or is waited for. ground: the
        machines there are at the moment. ready: told the host, and what `prepare` answered there.
        """
        self._hire = hire
        self._terms = terms
        self._arguments = arguments
        self._committed = committed
        self._note = note
        self._ground = ground
        self._ready = ready
        self._schedule: Schedule[Member] = Schedule(())
        self._ledger = Ledger(terms.machine_failures)
        self._pace = Pace(terms.patience)
        self._members: list[Member] = []
        self._calls: dict[Any, tuple[Member, Answer]] = {}
        self._pulses: dict[Any, Member] = {}
        self._idle: list[Member] = []
        self._leaving: frozenset[str] = frozenset()
        self._wanted = terms.minimum
        self._said: dict[int, str] = {}
        self._node_losses: Counter[int] = Counter()
        self._last: EgapipeError | None = None
        """Why the last worker that did not start did not."""
        self._unstarted = 0
        self._started = False
        self._told = False
        self._looked = 0.0
        self._since = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        for member in self._members:
            ray.kill(member.handle)
        self._members.clear()

    def run(self, shards: Sequence[int]) -> Iterator[Commit | None]:
        """The commit record of every shard as it is finished; None about once a second meanwhile.

        Raises UsageError if not enough workers get their machines in time, what a worker has raised
        if no other machine does better, and EgapipeError if a shard fails too often.
        """
        self._schedule = Schedule(shards)
        self._since = time.monotonic()
        while self._schedule.unfinished:
            self._look()
            if self._enough_ready():
                self._assign()
                self._relieve()
            self._end_hung()
            settled = self._settled()
            if not settled:
                yield None
            for call in settled:
                member, answer = self._calls.pop(call)
                yield from self._settle(member, answer, call)

    # Who works where.

    def _look(self) -> None:
        """Start workers where machines have room for them: those lost, and those that came."""
        now = time.monotonic()
        if now - self._looked < _LOOK_SECONDS and self._looked:
            return
        self._looked = now
        ground = self._ground()
        for machine in sorted(ground.leaving - self._leaving):
            self._leave(machine)
        self._leaving = ground.leaving
        out = self._ledger.left_out
        open_to = {m: n for m, n in ground.places.items() if m not in out}
        here = Counter(m.machine for m in self._members if m.machine is not None)
        missing = {m: n - here[m] for m, n in open_to.items() if n > here[m]}
        rested = {m: n for m, n in missing.items() if not self._ledger.rests(m, now)}
        most = self._terms.most or max(sum(open_to.values()), self._terms.minimum)
        self._wanted = min(most, self._schedule.unfinished)
        # One that waits for whichever machine has room may land on any of them.
        floating = sum(member.machine is None for member in self._members)
        for machine in spread(rested, here)[floating:]:
            self._add(machine)
        if not missing and (open_to or not out):
            while len(self._members) < self._wanted:
                self._add(None)
        if not self._members and not missing and self._last is not None:
            raise self._last

    def _add(self, machine: str | None) -> None:
        if len(self._members) >= self._wanted:
            return
        member = Member(self._hire(machine, self._ledger.left_out), machine)
        self._members.append(member)
        self._call(member, member.handle.where, self._landed)

    def _leave(self, machine: str) -> None:
        here = [member for member in self._members if member.machine == machine]
        if here:
            host = here[0].host or machine
            self._note(f"{host} is about to leave the cluster: its workers finish what they have")

    def _enough_ready(self) -> bool:
        """Whether shards may be handed out: the minimum to start with, then anybody."""
        ready = sum(member.ready for member in self._members)
        needed = 1 if self._started else max(1, min(self._terms.minimum, self._wanted))
        if ready >= needed:
            self._started = True
        placed = sum(member.stage is not Stage.PLACING for member in self._members)
        if placed >= needed:
            self._since, self._told = time.monotonic(), False
        else:
            self._wait(placed, needed)
        return ready >= needed

    def _wait(self, placed: int, needed: int) -> None:
        """Say what is waited for, and not longer than is allowed."""
        waited, limit = time.monotonic() - self._since, self._terms.wait
        late = waited > limit
        if not late and (self._told or waited < _TELL_SECONDS):
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
        self._told = True
        self._note(f"waiting for machines: {placed} of {needed} workers have theirs, {have}")

    # What is to be done.

    def _assign(self) -> None:
        waiting, self._idle = self._idle, []
        machines = {m.machine for m in self._members if m.ready and m.machine and not m.dying}
        machines -= self._leaving
        for member in waiting:
            if member.machine in self._leaving:
                self._dismiss(member)
                continue
            avoid = self._ledger.elsewhere(member.machine or "", machines)
            work = self._schedule.assign(member, now=time.monotonic(), avoid=avoid)
            if work is None:
                self._idle.append(member)
            else:
                member.begin()
                member.isolated = work.isolated
                self._call(member, member.handle.extract, self._extracted, *work)

    def _dismiss(self, member: Member) -> None:
        """It holds no shard but perhaps an upcoming one, which another takes."""
        self._schedule.lose(member, counted=False)
        self._members.remove(member)
        ray.kill(member.handle)

    def _relieve(self) -> None:
        """Kill workers that hold up the end, one for each that has nothing left to do.

        A shard has one writer: another one gets it when Ray reports the first to be dead.
        """
        busy = [member for member, _ in self._calls.values() if member.ready]
        alive = [member for member in busy if not member.dying]
        spare = len(self._idle) - (len(busy) - len(alive))
        for member in sorted(alive, key=lambda member: -member.seconds)[: max(0, spare)]:
            if member.seconds > self._pace.limit and self._schedule.relieve(member):
                member.relieved = True
                ray.kill(member.handle)

    def _end_hung(self) -> None:
        """Kill workers that show no sign of life, or of progress."""
        for member, _ in list(self._calls.values()):
            if member.dying or member.stage is Stage.PLACING:
                continue
            if member.stage is Stage.LOADING:
                if member.seconds > self._terms.start_timeout:
                    self._end(
                        member,
                        f"it was still loading the teacher after {self._terms.start_timeout:g} s: "
                        "raise extract.start_timeout if that is what it takes",
                    )
                continue
            self._ask_pulse(member)
            if member.still > self._terms.stall_timeout:
                self._end(
                    member,
                    f"it finished no batch within {self._terms.stall_timeout:g} s "
                    "(extract.stall_timeout)",
                )

    def _end(self, member: Member, why: str) -> None:
        member.ended = why
        ray.kill(member.handle)

    def _ask_pulse(self, member: Member) -> None:
        now = time.monotonic()
        waiting = member in self._pulses.values()
        if waiting or now - member.asked_pulse < self._terms.stall_timeout / _PULSES:
            return
        member.asked_pulse = now
        self._pulses[member.handle.pulse.options(concurrency_group="pulse").remote()] = member

    # What comes back.

    def _call(
        self, member: Member, method: Any, answer: Callable[..., Iterator[Commit]], *given: Any
    ) -> None:
        """Ask a worker for something. answer: told the worker and what it has answered."""
        self._calls[method.remote(*given)] = (member, partial(answer, member))

    def _settled(self) -> list[Any]:
        """Calls that have an answer, waited for about a second."""
        calls = [*self._calls, *self._pulses]
        if not calls:
            time.sleep(_TICK_SECONDS)
            return []
        settled, _ = ray.wait(calls, timeout=_TICK_SECONDS)
        for call in settled:
            member = self._pulses.pop(call, None)
            if member is not None:
                self._heard(member, call)
        return [call for call in settled if call in self._calls]

    def _heard(self, member: Member, call: Any) -> None:
        try:
            member.beats(ray.get(call))
        except RayError:
            # Its other call says why.
            return

    def _settle(self, member: Member, answer: Answer, call: Any) -> Iterator[Commit]:
        try:
            answered = ray.get(call)
        except RayTaskError as error:
            yield from self._failed(member, own_error(error))
        except RayError as error:
            yield from self._lost(member, error)
        else:
            yield from answer(answered)

    def _landed(self, member: Member, where: Where) -> Iterator[Commit]:
        """It has its machine."""
        where = Where(*where)
        member.machine, member.host, member.stage = where.machine, where.host, Stage.LOADING
        member.begin()
        self._call(member, member.handle.prepare, self._prepared, *self._arguments(where))
        return iter(())

    def _prepared(self, member: Member, answer: Any) -> Iterator[Commit]:
        """It has its teacher."""
        member.stage = Stage.READY
        self._ready(member.host, answer)
        self._idle.append(member)
        return iter(())

    def _extracted(self, member: Member, commit: Commit) -> Iterator[Commit]:
        """A shard is done."""
        if member.dying:
            # It has answered and died.
            self._members.remove(member)
        else:
            self._idle.append(member)
        self._pace.finished(member.seconds)
        shard = self._schedule.finish(member)
        self._done(shard, member)
        yield commit

    def _done(self, shard: int, member: Member) -> None:
        machine = member.machine or ""
        for other in self._ledger.finished(shard, machine, isolated=member.isolated):
            self._say_left_out(other, f"shard {shard}, which it lost, was done elsewhere")

    # What goes wrong.

    def _failed(self, member: Member, error: BaseException) -> Iterator[Commit]:
        """A worker has raised something, and lives."""
        raised = error.cause if isinstance(error, RayTaskError) else error
        fault = raised if isinstance(raised, FaultError) else FaultError.of(raised, member.host)
        if fault.verdict.scope is Scope.RUN:
            raise error
        if not member.ready:
            self._refused(member, fault, error)
            return iter(())
        shard = self._schedule.current(member)
        if fault.verdict.scope is Scope.WORKER:
            if fault.hung:
                self._schedule.suspect(shard)
            elif self._ledger.blame(member.machine or ""):
                self._say_left_out(member.machine or "", str(fault))
            return self._replace(member, str(fault), error)
        return self._put_back(member, shard, fault, error)

    def _put_back(
        self, member: Member, shard: int, fault: FaultError, error: BaseException
    ) -> Iterator[Commit]:
        """The shard is tried again, elsewhere if it can be."""
        passing = fault.verdict.passing
        _, times = self._schedule.fail(member)
        if passing:
            seconds = min(_LONGEST_REST, 2.0 ** (times - 1))
            self._schedule.rest(shard, time.monotonic() + seconds)
        self._ledger.lost(shard, member.machine or "")
        self._idle.append(member)
        again = not passing and self._said.get(shard) == fault.said
        self._said[shard] = fault.said
        if again or times > self._terms.max_restarts:
            raise _ending(error, fault, f"shard {shard} failed {_times(times)}: ")
        self._note(f"shard {shard} failed: {fault}; it is tried again")
        return iter(())

    def _refused(self, member: Member, fault: FaultError, error: BaseException) -> None:
        """A machine cannot take part: others can, perhaps."""
        self._remove(member)
        machine, passing = member.machine or "", fault.verdict.passing
        self._last = _ending(error, fault, "")
        rest = time.monotonic() + (2.0 if passing else 0.0)
        if not passing and self._ledger.repeated(machine, fault.said):
            raise self._last
        if self._ledger.blame(machine, lasting=not passing, until=rest):
            self._say_left_out(machine, str(fault))
        else:
            self._note(f"{fault}; another worker is started there")

    def _lost(self, member: Member, error: RayError) -> Iterator[Commit]:
        """A worker is gone."""
        why = member.ended or why_died(error)
        named = f"{why}, on {member.host}" if member.host else why
        if member.ready:
            return self._replace(member, named, error)
        self._remove(member)
        if node_died(error) and member.ended is None:
            self._note(f"a worker's machine went while it loaded the teacher ({named})")
            return iter(())
        self._unstarted += 1
        machine = member.machine or ""
        explained = missing_module(why_died(error)) if member.stage is Stage.PLACING else None
        self._last = (
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
        return iter(())

    def _replace(self, member: Member, why: str, error: BaseException) -> Iterator[Commit]:
        """A ready worker is gone, or has to go; what it held waits for another one."""
        self._remove(member)
        of_node = isinstance(error, RayError) and node_died(error) and member.ended is None
        lost = self._schedule.lose(member, counted=not (member.relieved or of_node))
        if lost is None:
            return
        shard, times = lost
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

    def _remove(self, member: Member) -> None:
        self._members.remove(member)
        if member in self._idle:
            self._idle.remove(member)
        ray.kill(member.handle)
        # The next one is not to wait for the next look.
        self._looked = 0.0

    def _say_left_out(self, machine: str, why: str) -> None:
        hosts = [member.host for member in self._members if member.machine == machine]
        host = next(filter(None, hosts), machine[:8] or "a machine")
        self._note(f"no further worker is started on {host}: {why}")


def _ending(error: BaseException, fault: FaultError, prefix: str) -> EgapipeError:
    """What the run ends with: a bug with its traceback, anything else in one line."""
    if isinstance(error, RayTaskError) and is_bug(error.cause):
        raise error
    return fault.error(prefix)


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def _shown(resources: dict[str, float]) -> str:
    named = {k: v for k, v in sorted(resources.items()) if k in ("CPU", "GPU")}
    return ", ".join(f"{v:g} {k}" for k, v in named.items()) or "nothing"
