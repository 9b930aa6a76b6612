"""An elastic pool of Ray actors: shard numbers go out, commit records come back."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import ray
from ray.exceptions import RayError, RayTaskError

from egapipe.pipeline.errors import EgapipeError, UsageError
from egapipe.pipeline.store import Commit
from egapipe.stages.extract.workers.deaths import node_died, own_error, why_died
from egapipe.stages.extract.workers.pace import Pace
from egapipe.stages.extract.workers.schedule import Schedule

_TICK_SECONDS = 1.0


@dataclass(frozen=True)
class Terms:
    """How many workers there are, and what is tried before the run is given up."""

    size: int
    """Workers asked for."""
    minimum: int
    """Workers that must be ready before the first shard is handed out."""
    max_restarts: int
    """Times one shard may lose its worker."""
    start_timeout: float
    """Seconds until the minimum must be ready, and that the run may be without any worker later."""
    resources: str
    """What one worker asks for, for messages."""
    patience: float = 10.0
    """Seconds that no shard is too slow for."""


class _Member:
    """One actor. It is given shards only after it has reported to be ready."""

    def __init__(self, handle: Any) -> None:
        self.handle = handle
        self.ready = False
        self.relieved = False
        """Whether it was killed because it was slow."""
        self.began = 0.0

    @property
    def seconds(self) -> float:
        """Since it was given its shard."""
        return time.monotonic() - self.began


class Pool:
    """Actors that extract shards; dead ones are replaced. Leaving the block kills them all."""

    def __init__(
        self,
        hire: Callable[[], Any],
        terms: Terms,
        *,
        arguments: Sequence[Any],
        committed: Callable[[int], Commit | None],
        note: Callable[[str], None],
    ) -> None:
        """Start nothing yet.

        hire: makes an actor with the methods of `ExtractActor`. arguments: of its `prepare`.
        committed: the record of a shard in the store, if there is one. note: told about lost
        workers.
        """
        self._hire = hire
        self._terms = terms
        self._arguments = arguments
        self._committed = committed
        self._note = note
        self._schedule: Schedule[_Member] = Schedule(())
        self._pace = Pace(terms.patience)
        self._members: list[_Member] = []
        self._calls: dict[Any, _Member] = {}
        self._idle: list[_Member] = []
        self._lost_unready = 0
        self._started = False
        self._deadline = 0.0

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

        Raises UsageError if not enough workers get their resources in time, the worker's own
        EgapipeError if one fails, and EgapipeError if a shard loses its worker too often.
        """
        self._schedule = Schedule(shards)
        for _ in range(min(self._terms.size, len(shards))):
            self._add()
        self._deadline = time.monotonic() + self._terms.start_timeout
        while self._schedule.unfinished:
            if self._enough_ready():
                self._assign()
                self._relieve()
            settled, _ = ray.wait(list(self._calls), timeout=_TICK_SECONDS)
            if not settled:
                yield None
            for call in settled:
                yield from self._settle(call)

    def _add(self) -> None:
        member = _Member(self._hire())
        self._members.append(member)
        self._calls[member.handle.prepare.remote(*self._arguments)] = member

    def _enough_ready(self) -> bool:
        """Whether shards may be handed out: the minimum to start with, then anybody."""
        ready = sum(member.ready for member in self._members)
        needed = 1 if self._started else min(self._terms.minimum, len(self._members))
        if ready >= needed:
            self._started = True
            self._deadline = time.monotonic() + self._terms.start_timeout
        elif time.monotonic() > self._deadline:
            raise UsageError(
                f"{ready} of {needed} workers are ready after {self._terms.start_timeout:g} s: "
                f"each asks for {self._terms.resources}, free are "
                f"{_shown(ray.available_resources())} of {_shown(ray.cluster_resources())}: lower "
                "extract.min_workers, extract.gpus_per_worker or extract.cpus_per_worker, "
                "or add nodes"
            )
        return ready >= needed

    def _assign(self) -> None:
        waiting, self._idle = self._idle, []
        for member in waiting:
            work = self._schedule.assign(member)
            if work is None:
                self._idle.append(member)
            else:
                member.began = time.monotonic()
                self._calls[member.handle.extract.remote(*work)] = member

    def _relieve(self) -> None:
        """Kill workers that hold up the end, one for each that has nothing left to do.

        A shard has one writer: another one gets it when Ray reports the first to be dead.
        """
        busy = [member for member in self._calls.values() if member.ready]
        spare = len(self._idle) - sum(member.relieved for member in busy)
        for member in sorted(busy, key=lambda member: member.began)[: max(0, spare)]:
            late = member.seconds > self._pace.limit and not member.relieved
            if late and self._schedule.relieve(member):
                member.relieved = True
                ray.kill(member.handle)

    def _settle(self, call: Any) -> Iterator[Commit]:
        member = self._calls.pop(call)
        try:
            answer = ray.get(call)
        except RayTaskError as error:
            raise own_error(error) from None
        except RayError as error:
            yield from self._replace(member, error)
            return
        if member.relieved:
            # It has answered and died.
            self._members.remove(member)
        else:
            self._idle.append(member)
        if member.ready:
            self._pace.finished(member.seconds)
            self._schedule.finish(member)
            yield answer
        else:
            member.ready = True
            self._lost_unready = 0

    def _replace(self, member: _Member, error: RayError) -> Iterator[Commit]:
        self._members.remove(member)
        ray.kill(member.handle)
        lost = self._schedule.lose(member, counted=not member.relieved)
        if lost is None:
            self._replace_unready(error)
            return
        yield from self._redo(member, *lost, why_died(error))
        if not member.relieved:
            self._add()

    def _redo(self, member: _Member, shard: int, times: int, why: str) -> Iterator[Commit]:
        commit = self._committed(shard)
        if commit is not None:
            self._schedule.drop(shard)
            yield commit
        elif member.relieved:
            self._note(
                f"shard {shard} took {member.seconds:.0f} s, others are done in "
                f"{self._pace.limit:.0f} s at most; another worker takes it"
            )
        elif times > self._terms.max_restarts:
            raise EgapipeError(
                f"shard {shard} lost its worker {times} times, more than extract.max_restarts "
                f"({self._terms.max_restarts}) allows; the last time: {why}"
            )
        else:
            self._note(f"shard {shard} lost its worker ({why}); another one takes it")

    def _replace_unready(self, error: RayError) -> None:
        """Start another worker, unless loading the teacher is what kills them."""
        why = why_died(error)
        self._lost_unready += not node_died(error)
        more = self._lost_unready <= self._terms.max_restarts
        if not more and not any(member.ready for member in self._members):
            raise EgapipeError(
                f"{self._lost_unready} workers died while they loaded the teacher; the last: {why}"
            )
        then = "another one is started" if more else "the others go on alone"
        self._note(f"a worker died while it loaded the teacher ({why}); {then}")
        if more:
            self._add()


def _shown(resources: dict[str, float]) -> str:
    named = {k: v for k, v in sorted(resources.items()) if k in ("CPU", "GPU")}
    return ", ".join(f"{v:g} {k}" for k, v in named.items()) or "nothing"
