"""One decoding process: what it does, and what is seen of it from outside."""

import multiprocessing
import os
import pickle
import signal
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.filesize import decimal

from egapipe.pipeline.errors import EgapipeError, MachineError, UsageError, one_line
from egapipe.stages.extract.decoding.crew import (
    Decoded,
    Limits,
    RowReader,
    Watch,
    look_seconds,
    together,
)

_STARTS = 2
_END_SECONDS = 10.0
_TOO_LARGE = "decoding it takes more than {} of memory"


class Room(NamedTuple):
    """Shared memory for decoded rows: uint8 [capacity, V, ...]."""

    memory: Any
    shape: tuple[int, ...]


class LostChildError(Exception):
    """A process is gone, or had to be ended, while it decoded a row.

    reason: the same at every try and on every machine, as it may be recorded as the row's.
    """

    def __init__(self, row: int, reason: str) -> None:
        super().__init__(f"row {row}: {reason}")
        self.row = row
        self.reason = reason


class Child:
    """A process that decodes what it is asked for. It is started when it is needed, and again."""

    def __init__(self, context: SpawnContext, reader: bytes, room: Room, limits: Limits) -> None:
        """reader: a pickled `RowReader`."""
        self._context = context
        self._reader = reader
        self._room = room
        self._limits = limits
        # Which of the rows it was asked for it is at.
        self._at: Any = context.RawArray("q", 1)
        self._process: BaseProcess | None = None
        self._line: Connection | None = None
        self._stopped = False

    def ask(self, rows: Sequence[int], places: Sequence[int], extents: Any = None) -> Decoded:
        """Decode rows into their places. extents: what the reader must learn of them.

        Raises LostChildError with the row that was being decoded, what the reader raises, and
        UsageError if no process can be started.
        """
        line = self._started()
        self._at[0] = 0
        try:
            line.send((rows, places, extents))
            answer = self._answer(line, rows)
        except (EOFError, OSError):
            reason = f"decoding it ends the process ({self._ended()})"
        else:
            if isinstance(answer, Decoded):
                return answer
            if isinstance(answer, BaseException):
                raise answer
            reason = answer
        self._end()
        raise LostChildError(rows[min(self._at[0], len(rows) - 1)], reason)

    def stop(self) -> None:
        """End it for good."""
        self._stopped = True
        self._end()

    def _answer(self, line: Connection, rows: Sequence[int]) -> Decoded | BaseException | str:
        """Its answer, or why none is to be expected any more."""
        watch, limit = Watch(), self._limits.seconds
        while not line.poll(look_seconds(limit)):
            if watch.seconds(self._at[0]) > limit:
                return f"decoding it takes more than {limit:g} s"
        answer: Decoded | BaseException | str = line.recv()
        return answer

    def _started(self) -> Connection:
        """The line to the process; it has opened the data set."""
        for _ in range(_STARTS):
            if self._line is not None:
                return self._line
            self._start()
        if self._line is not None:
            return self._line
        raise UsageError(
            "a decoding process cannot be started: if memory ran out, set "
            "extract.decode_threads or extract.batch_size lower; a script of your own needs "
            '`if __name__ == "__main__":`; extract.decode=threads needs neither'
        )

    def _start(self) -> None:
        if self._stopped:
            return
        ours, theirs = self._context.Pipe()
        given = (self._reader, theirs, self._room, self._at, self._limits.memory)
        self._process = self._context.Process(target=serve, args=given, daemon=True)
        self._process.start()
        # The end of the process is then the end of the line.
        theirs.close()
        self._line = ours
        try:
            refused = ours.recv()
        except (EOFError, OSError):
            self._end()
            return
        if refused is not None:
            self._end()
            raise refused

    def _ended(self) -> str:
        """How it ended, where it did by itself."""
        process = self._process
        if process is None:
            return "stopped"
        process.join(_END_SECONDS)
        code = process.exitcode
        if code is None:
            return "it closed its line"
        if code >= 0:
            return f"exit code {code}"
        with suppress(ValueError):
            return signal.Signals(-code).name
        return f"signal {-code}"

    def _end(self) -> None:
        process, line = self._process, self._line
        self._process = self._line = None
        if process is not None:
            process.kill()
            process.join(_END_SECONDS)
        if line is not None:
            line.close()


def serve(reader: bytes, line: Connection, room: Room, at: Any, memory: int) -> None:
    """Decode in this process until the line is closed.

    memory: bytes that one row may take beside what the process has before its first.
    """
    # Ctrl-C reaches every process of a terminal: the one that has the user's attention ends all.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        opened: RowReader = pickle.loads(reader)  # noqa: S301  (from the process that started this)
    except Exception as error:
        line.send(_sendable(error))
        return
    places = np.frombuffer(room.memory, np.uint8).reshape(room.shape)
    limit_memory(memory)
    line.send(None)
    while True:
        try:
            rows, numbers, extents = line.recv()
        except EOFError:
            return
        if extents is not None:
            opened.learn(extents)
        line.send(_decode(opened, rows, [list(places[n]) for n in numbers], at, memory))


def _decode(
    reader: RowReader, rows: Sequence[int], slots: Sequence[Any], at: Any, memory: int
) -> Decoded | BaseException | str:
    parts = []
    for number, row in enumerate(rows):
        at[0] = number
        try:
            parts.append(reader.read(row, slots[number]))
        except Exception as error:
            return _TOO_LARGE.format(decimal(memory)) if _of_memory(error) else _sendable(error)
    return together(parts)


def limit_memory(further: int) -> None:
    """Let this process allocate so many bytes more than it has, where the system can say so."""
    if sys.platform != "linux":
        return
    import resource

    lines = Path("/proc/self/status").read_text("ascii", "replace").splitlines()
    [kilobytes] = [int(line.split()[1]) for line in lines if line.startswith("VmData:")]
    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    limit = 1024 * kilobytes + further
    resource.setrlimit(
        resource.RLIMIT_DATA, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard)
    )


def _of_memory(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, MemoryError):
            return True
        error = error.__cause__
    return False


def _sendable(error: Exception) -> Exception:
    """What can be pickled of an error: ours are lines of text, others may be anything."""
    if isinstance(error, EgapipeError):
        return error
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301  (of this process)
    except Exception:
        return MachineError(f"{type(error).__name__}: {one_line(error)}")
    return error


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
