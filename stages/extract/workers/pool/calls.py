"""What workers were asked and have not answered yet."""

import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import ray
from ray.exceptions import RayError

from egapipe.pipeline.store import Commit
from egapipe.stages.extract.workers.pool.member import Member, Pulse

TICK_SECONDS = 1.0
PULSE = "pulse"
"""The concurrency group of `pulse`, which a worker answers while it works."""
STORE = "store"
"""That of `written`, which waits until a shard is stored."""

Answer = Callable[[Member, Any], Iterator[Commit]]


class Call(NamedTuple):
    """A question. answer: told the worker, and what it has answered. shard: that it is about."""

    member: Member
    answer: Answer
    shard: int | None = None


class Calls:
    """Questions to workers. A worker may have one that it works on and some that wait for shards to
    be stored."""

    def __init__(self) -> None:
        self._open: dict[Any, Call] = {}
        self._pulses: dict[Any, Member] = {}

    def ask(self, call: Call, method: Any, *given: Any) -> None:
        """Ask a worker. method: of its actor."""
        self._open[method.remote(*given)] = call

    def asked(self, member: Member) -> bool:
        """Whether a worker owes an answer."""
        return any(call.member is member for call in self._open.values())

    @property
    def busy(self) -> list[Member]:
        """Workers that owe an answer, each once."""
        return list(dict.fromkeys(call.member for call in self._open.values()))

    def forget(self, member: Member) -> None:
        """Whatever a worker still answers is of no interest: it is gone."""
        self._open = {ref: call for ref, call in self._open.items() if call.member is not member}

    def settled(self) -> Iterator[tuple[Call, Any]]:
        """Questions that have an answer, with Ray's reference to it; waited for about a second.

        What is forgotten meanwhile is left out.
        """
        refs = [*self._open, *self._pulses]
        if not refs:
            time.sleep(TICK_SECONDS)
            return
        found, _ = ray.wait(refs, num_returns=1, timeout=TICK_SECONDS)
        for ref in found:
            if ref in self._pulses:
                self._heard(self._pulses.pop(ref), ref)
            elif ref in self._open:
                yield self._open.pop(ref), ref

    def ask_pulse(self, member: Member, every: float) -> None:
        """Ask a worker how far it is, unless it was asked less than so many seconds ago."""
        now = time.monotonic()
        waiting = member in self._pulses.values()
        if waiting or now - member.asked_pulse < every:
            return
        member.asked_pulse = now
        self._pulses[member.handle.pulse.options(concurrency_group=PULSE).remote()] = member

    def _heard(self, member: Member, ref: Any) -> None:
        try:
            member.pulse = Pulse(*ray.get(ref))
        except RayError:
            # Its other call says why.
            return
