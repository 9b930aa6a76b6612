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
from egapipe.stages.extract.schedule import Schedule

_TICK_SECONDS = 1.0
_DETAIL = "Worker exit detail:"


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


class _Member:
    """One actor. It is given shards only after it has reported to be ready."""

    def __init__(self, handle: Any) -> None:
        self.handle = handle
        self.ready = False


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
                self._calls[member.handle.extract.remote(*work)] = member

    def _settle(self, call: Any) -> Iterator[Commit]:
        member = self._calls.pop(call)
        try:
            answer = ray.get(call)
        except RayTaskError as error:
            raise _own_error(error) from None
        except RayError as error:
            yield from self._replace(member, _why_died(error))
            return
        self._idle.append(member)
        if member.ready:
            self._schedule.finish(member)
            yield answer
        else:
            member.ready = True
            self._lost_unready = 0

    def _replace(self, member: _Member, why: str) -> Iterator[Commit]:
        self._members.remove(member)
        ray.kill(member.handle)
        lost = self._schedule.lose(member)
        if lost is None:
            self._count_unready(why)
        else:
            shard, times = lost
            commit = self._committed(shard)
            if commit is not None:
                self._schedule.drop(shard)
                yield commit
            elif times > self._terms.max_restarts:
                raise EgapipeError(
                    f"shard {shard} lost its worker {times} times, more than extract.max_restarts "
                    f"({self._terms.max_restarts}) allows; the last time: {why}"
                )
            else:
                self._note(f"shard {shard} lost its worker ({why}); another one takes it")
        self._add()

    def _count_unready(self, why: str) -> None:
        self._lost_unready += 1
        if self._lost_unready > self._terms.max_restarts:
            raise EgapipeError(
                f"{self._lost_unready} workers died while they loaded the teacher; the last: {why}"
            )
        self._note(f"a worker died while it loaded the teacher ({why}); another one is started")


def _own_error(error: RayTaskError) -> BaseException:
    """What the worker raised; Ray's wrapper, with its traceback, where that is a bug of ours."""
    cause = error.cause
    return cause if isinstance(cause, EgapipeError) else error


def _why_died(error: RayError) -> str:
    text = " ".join(str(error).split())
    detail = text.partition(_DETAIL)[2].strip() or text
    return detail.partition(". There are some potential root causes")[0][:300]


def _shown(resources: dict[str, float]) -> str:
    named = {k: v for k, v in sorted(resources.items()) if k in ("CPU", "GPU")}
    return ", ".join(f"{v:g} {k}" for k, v in named.items()) or "nothing"
