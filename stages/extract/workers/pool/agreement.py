"""How many views workers of one kind encode at once: one of them finds it out, for all."""

from collections.abc import Hashable, Mapping
from typing import Generic, NamedTuple, TypeVar

Kind = frozenset[tuple[str, str]]
"""What workers have in common that should compute the same bits: device and precision."""


W = TypeVar("W", bound=Hashable)


class Word(NamedTuple, Generic[W]):
    """A worker may begin. batch: views in one pass; None: it is to find that out."""

    worker: W
    batch: int | None


class Agreement(Generic[W]):
    """Which worker looks for the batch of its kind, who waits for it, and what was found.

    Without it each would find what its own moment allowed, and a store would be of several sizes.
    """

    def __init__(self) -> None:
        self._found: dict[Kind, int] = {}
        self._looking: dict[Kind, W] = {}
        self._waiting: dict[Kind, list[W]] = {}

    def come(self, worker: W, kind: Mapping[str, str], settled: int | None) -> list[Word[W]]:
        """A worker has its teacher: it may begin, or has to wait. settled: what it has been told by
        others than workers."""
        key = frozenset(kind.items())
        batch = settled or self._found.get(key)
        if batch is not None:
            return [Word(worker, batch)]
        if key in self._looking:
            self._waiting.setdefault(key, []).append(worker)
            return []
        self._looking[key] = worker
        return [Word(worker, None)]

    def find(self, worker: W, batch: int) -> list[Word[W]]:
        """A worker has begun with a batch: those that waited for it may begin, too."""
        key = self._key_of(worker)
        if key is None:
            return []
        del self._looking[key]
        self._found[key] = batch
        return [Word(other, batch) for other in self._waiting.pop(key, [])]

    def leave(self, worker: W) -> list[Word[W]]:
        """A worker is gone: if it was looking, the next one does."""
        for others in self._waiting.values():
            if worker in others:
                others.remove(worker)
        key = self._key_of(worker)
        if key is None:
            return []
        del self._looking[key]
        waiting = self._waiting.get(key)
        if not waiting:
            return []
        self._looking[key] = waiting.pop(0)
        return [Word(self._looking[key], None)]

    def _key_of(self, worker: W) -> Kind | None:
        """The kind that a worker looks for the batch of."""
        return next((key for key, looking in self._looking.items() if looking is worker), None)
