"""Decoding in threads of this process: Pillow decodes without holding the interpreter."""

import queue
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import suppress
from typing import NamedTuple

from egapipe.stages.extract.decoding.crew import (
    LIMITS,
    Decoded,
    HungError,
    Limits,
    RowReader,
    Task,
    look_seconds,
)


class _Busy(NamedTuple):
    row: int
    since: float


class Threads:
    """Threads that do not keep the process alive: one that hangs could not be waited for."""

    def __init__(self, reader: RowReader, count: int, limits: Limits = LIMITS) -> None:
        self.decoded = 0
        self._reader = reader
        self._limits = limits
        self._waiting: queue.SimpleQueue[tuple[Future[Decoded], Task] | None] = queue.SimpleQueue()
        self._busy: dict[int, _Busy] = {}
        self._threads = [
            threading.Thread(target=self._work, args=(i,), name=f"decode-{i}", daemon=True)
            for i in range(count)
        ]
        for thread in self._threads:
            thread.start()

    def begin(self, tasks: Sequence[Task]) -> list[Future[Decoded]]:
        """See `Crew`: a future a row."""
        futures: list[Future[Decoded]] = [Future() for _ in tasks]
        for pair in zip(futures, tasks, strict=True):
            self._waiting.put(pair)
        return futures

    def check(self) -> None:
        """See `Crew`."""
        late = min(self._busy.copy().values(), key=lambda busy: busy.since, default=None)
        if late is None or time.monotonic() - late.since <= self._limits.seconds:
            return
        error = HungError(
            f"row {late.row} ({self._reader.key(late.row)}) is still being read after "
            f"{self._limits.seconds:g} s (extract.row_timeout)"
        )
        error.row = late.row
        raise error

    def close(self) -> None:
        """Stop the threads; one that hangs is left behind."""
        while not self._waiting.empty():
            with suppress(queue.Empty):
                pair = self._waiting.get_nowait()
                if pair is not None:
                    pair[0].cancel()
        for _ in self._threads:
            self._waiting.put(None)
        for number, thread in enumerate(self._threads):
            while thread.is_alive() and not self._hangs(number):
                thread.join(look_seconds(self._limits.seconds))

    def _hangs(self, number: int) -> bool:
        busy = self._busy.get(number)
        return busy is not None and time.monotonic() - busy.since > self._limits.seconds

    def _work(self, number: int) -> None:
        while (pair := self._waiting.get()) is not None:
            future, task = pair
            if not future.set_running_or_notify_cancel():
                continue
            self._busy[number] = _Busy(task.row, time.monotonic())
            try:
                decoded = self._reader.read(*task)
            except BaseException as error:
                # Raised where the row is waited for; out of here it would be lost.
                future.set_exception(error)
            else:
                future.set_result(decoded)
            finally:
                self.decoded += 1
                del self._busy[number]
