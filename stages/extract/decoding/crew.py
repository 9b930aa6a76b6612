"""Who reads and decodes images: threads of this process, or processes of their own."""

import multiprocessing
import os
import queue
import signal
import threading
from collections.abc import Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from typing import Any, NamedTuple, Protocol

import numpy as np

from egapipe.pipeline.errors import UsageError
from egapipe.pipeline.store import Failure
from egapipe.stages.extract.teachers import Pixels

# Parts of a batch for each process: few messages, and at a batch's end none idles for long.
_PARTS = 2


class Decoded(NamedTuple):
    """Rows that were tried. seconds: of one thread or process."""

    failures: list[Failure]
    seconds: float


class RowReader(Protocol):
    """Reads one row of a data set; can be pickled."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Of all views of a row, V first."""
        ...

    def read(self, row: int, slots: Sequence[Pixels]) -> Decoded:
        """Fill V slots; with zeros if the image cannot be read."""
        ...


class Task(NamedTuple):
    """A row, and where its V views belong."""

    row: int
    slots: Sequence[Pixels]


class Crew(Protocol):
    """Decodes rows beside the thread that asks for them."""

    def begin(self, tasks: Sequence[Task]) -> list[Future[Decoded]]:
        """Start on some rows; when all futures are done, their slots are filled.

        The futures raise UsageError if whoever decoded is gone.
        """
        ...

    def close(self) -> None:
        """Stop; what is not begun is dropped."""
        ...


class Threads:
    """Threads of this process: Pillow decodes and resizes without holding the interpreter."""

    def __init__(self, reader: RowReader, count: int) -> None:
        self._reader = reader
        self._pool = ThreadPoolExecutor(count, thread_name_prefix="decode")

    def begin(self, tasks: Sequence[Task]) -> list[Future[Decoded]]:
        """See `Crew`: a future a row."""
        return [self._pool.submit(self._reader.read, *task) for task in tasks]

    def close(self) -> None:
        """Stop the threads."""
        self._pool.shutdown(cancel_futures=True)


class Processes:
    """Processes that write into memory which they share with this one.

    They are started afresh, not forked: a fork would inherit the locks of this process's threads as
    they happen to be. They end when this process does, however it ends.
    """

    def __init__(self, reader: RowReader, count: int, capacity: int) -> None:
        """capacity: rows that can be under way at once; for more, `begin` waits."""
        self._parts = _PARTS * count
        context = multiprocessing.get_context("spawn")
        shape = (capacity, *reader.shape)
        # An unlinked file in memory: nothing is left of it, even by a process that is killed.
        memory = context.RawArray("B", int(np.prod(shape)))
        self._shared = np.frombuffer(memory, np.uint8).reshape(shape)
        self._free: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._release(range(capacity))
        self._pool = ProcessPoolExecutor(
            count, context, initializer=_start, initargs=(reader, memory, shape)
        )

    def begin(self, tasks: Sequence[Task]) -> list[Future[Decoded]]:
        """See `Crew`: a future for every few rows."""
        length = max(1, -(-len(tasks) // self._parts))
        return [self._submit(tasks[i : i + length]) for i in range(0, len(tasks), length)]

    def close(self) -> None:
        """Stop the processes."""
        self._pool.shutdown(cancel_futures=True)

    def _submit(self, tasks: Sequence[Task]) -> Future[Decoded]:
        rows, places = [task.row for task in tasks], [self._free.get() for _ in tasks]
        copied = _Copied()
        try:
            copied.decoding = self._pool.submit(_decode, rows, places)
        except BrokenProcessPool:
            self._release(places)
            copied.set_exception(_lost())
        else:
            copied.decoding.add_done_callback(partial(self._finish, copied, tasks, places))
        return copied

    def _finish(
        self,
        copied: "_Copied",
        tasks: Sequence[Task],
        places: Sequence[int],
        decoding: Future[Decoded],
    ) -> None:
        """Bring decoded rows to their slots."""
        try:
            if decoding.cancelled():
                copied.give_up()
                return
            decoded = decoding.result()
            for task, place in zip(tasks, places, strict=True):
                for slot, pixels in zip(task.slots, self._shared[place], strict=True):
                    slot[...] = pixels
        except BrokenProcessPool:
            copied.set_exception(_lost())
        except Exception as error:
            # Raised where the rows are waited for; out of here it would be lost.
            copied.set_exception(error)
        else:
            copied.set_result(decoded)
        finally:
            self._release(places)

    def _release(self, places: Sequence[int]) -> None:
        for place in places:
            self._free.put(place)


class _Copied(Future[Decoded]):
    """Rows that a process has decoded and that are in their slots."""

    decoding: Future[Decoded]

    def cancel(self) -> bool:
        return self.decoding.cancel()

    def give_up(self) -> None:
        super().cancel()


def _lost() -> UsageError:
    return UsageError(
        "a decoding process died, or could not start: if memory ran out, set "
        "extract.decode_threads or extract.batch_size lower; a script of your own needs "
        '`if __name__ == "__main__":`; extract.decode=threads needs neither'
    )


# Of a process of `Processes`: its reader, and the shared memory, uint8 [capacity, V, ...].
_reader: RowReader
_places: Pixels


def _start(reader: RowReader, memory: Any, shape: tuple[int, ...]) -> None:
    global _reader, _places
    # Ctrl-C reaches every process of a terminal: the one that has the user's attention ends all.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _reader, _places = reader, np.frombuffer(memory, np.uint8).reshape(shape)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _decode(rows: Sequence[int], places: Sequence[int]) -> Decoded:
    """Rows into shared memory, in a process of `Processes`."""
    parts = [_reader.read(r, list(_places[p])) for r, p in zip(rows, places, strict=True)]
    failures = [failure for part in parts for failure in part.failures]
    return Decoded(failures, sum(part.seconds for part in parts))
