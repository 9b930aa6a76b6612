"""Decoding in processes, which can be ended when a row does them harm."""

import multiprocessing
import pickle
import queue
import threading
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any, NamedTuple

import numpy as np

from egapipe.pipeline.store import Failure
from egapipe.stages.extract.decoding.child import Child, LostChildError, Room
from egapipe.stages.extract.decoding.crew import (
    LIMITS,
    Decoded,
    Limits,
    RowReader,
    Task,
    together,
)

# Parts of a batch for each process: few messages, and at a batch's end none idles for long.
_PARTS = 2
_TRIES = 2
"""Processes that a row takes with it, the last time alone in it, before that is its own fault."""


class _Part(NamedTuple):
    """Rows for one process. places: of each in the shared memory."""

    tasks: Sequence[Task]
    places: list[int]
    future: Future[Decoded]


class Processes:
    """Processes that write into memory which they share with this one.

    One that dies, hangs or needs more memory than a row may is replaced, and its rows are tried
    again one by one; a row that takes two with it becomes a failure, like any damaged image. They
    are started afresh, not forked: a fork would inherit the locks of this process's threads as they
    happen to be. They end when this process does, however it ends.
    """

    def __init__(
        self, reader: RowReader, count: int, capacity: int, limits: Limits = LIMITS
    ) -> None:
        """capacity: rows that can be under way at once; for more, `begin` waits."""
        self.decoded = 0
        self._reader = reader
        self._parts = _PARTS * count
        context = multiprocessing.get_context("spawn")
        shape = (capacity, *reader.shape)
        # An unlinked file in memory: nothing is left of it, even by a process that is killed.
        memory: Any = context.RawArray("B", int(np.prod(shape)))
        self._shared = np.frombuffer(memory, np.uint8).reshape(shape)
        self._free: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._release(range(capacity))
        self._waiting: queue.SimpleQueue[_Part | None] = queue.SimpleQueue()
        self._closing = False
        pickled = pickle.dumps(reader)
        self._children = [
            Child(context, pickled, Room(memory, shape), limits) for _ in range(count)
        ]
        # One for each process: it waits for the answers, and sees when there will be none.
        self._threads = [
            threading.Thread(target=self._drive, args=(child,), name="decoding", daemon=True)
            for child in self._children
        ]
        for thread in self._threads:
            thread.start()

    def begin(self, tasks: Sequence[Task]) -> list[Future[Decoded]]:
        """See `Crew`: a future for every few rows."""
        length = max(1, -(-len(tasks) // self._parts))
        return [self._submit(tasks[i : i + length]) for i in range(0, len(tasks), length)]

    def check(self) -> None:
        """See `Crew`: a process that hangs is replaced."""

    def close(self) -> None:
        """Stop the processes."""
        self._closing = True
        for _ in self._threads:
            self._waiting.put(None)
        for child in self._children:
            child.stop()
        for thread in self._threads:
            thread.join()

    def _submit(self, tasks: Sequence[Task]) -> Future[Decoded]:
        part = _Part(tasks, [self._free.get() for _ in tasks], Future())
        self._waiting.put(part)
        return part.future

    def _drive(self, child: Child) -> None:
        while (part := self._waiting.get()) is not None:
            try:
                if self._closing:
                    part.future.cancel()
                if part.future.set_running_or_notify_cancel():
                    self._fill(child, part)
            finally:
                self._release(part.places)
        child.stop()

    def _fill(self, child: Child, part: _Part) -> None:
        """Decode rows, and bring them to their slots."""
        try:
            decoded = self._decode(child, part)
            for task, place in zip(part.tasks, part.places, strict=True):
                for slot, pixels in zip(task.slots, self._shared[place], strict=True):
                    slot[...] = pixels
        except Exception as error:
            # Raised where the rows are waited for; out of here it would be lost.
            part.future.set_exception(error)
        else:
            part.future.set_result(decoded)

    def _decode(self, child: Child, part: _Part) -> Decoded:
        rows, lost = [task.row for task in part.tasks], Counter[int]()
        self.decoded += len(rows)
        if len(rows) > 1:
            try:
                return child.ask(rows, part.places, self._reader.extents(rows))
            except LostChildError as error:
                lost[error.row] += 1
        pairs = zip(rows, part.places, strict=True)
        found = [self._alone(child, row, place, lost) for row, place in pairs]
        return together(found)

    def _alone(self, child: Child, row: int, place: int, lost: Counter[int]) -> Decoded:
        """A row by itself, until it is decoded or has taken too many processes with it."""
        began = time.perf_counter()
        while True:
            self.decoded += 1
            try:
                return child.ask([row], [place], self._reader.extents([row]))
            except LostChildError as error:
                lost[row] += 1
                if self._closing:
                    raise
                if lost[row] >= _TRIES:
                    self._shared[place] = 0
                    failure = Failure(row, self._reader.key(row), error.reason)
                    return Decoded([failure], time.perf_counter() - began)

    def _release(self, places: Sequence[int]) -> None:
        for place in places:
            self._free.put(place)
