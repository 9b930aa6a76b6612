"""What an image can do to the process that decodes it; imports little, so that those start soon."""

import os
import signal
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from egapipe.pipeline.errors import UsageError
from egapipe.stages.extract.decoding.crew import Decoded

Harm = Mapping[int, str]
"""Row -> what its image does: see `do`."""


def do(harm: str) -> None:
    """`exit` without a word, `kill` by a signal, `hang` for an hour, `memory` without an end."""
    match harm:
        case "exit":
            os._exit(9)
        case "kill":
            os.kill(os.getpid(), signal.SIGSEGV)
        case "hang":
            time.sleep(3600)
        case "memory":
            held = []
            while True:
                held.append(bytearray(2**26))
        case "bug":
            raise ZeroDivisionError("a bug of the data set")
        case "network":
            raise ConnectionResetError("the server hung up")
        case _:
            raise ValueError(harm)


class Harmful:
    """A reader that writes the row number into its slots, unless the row does harm."""

    shape = (1, 3, 2, 2)

    def __init__(self, harm: Mapping[int, str], folder: Path | None = None) -> None:
        self.harm = dict(harm)
        self.folder = folder

    def key(self, row: int) -> str:
        return f"key{row}"

    def extents(self, rows: Sequence[int]) -> None:
        return None

    def learn(self, extents: None) -> None:
        raise AssertionError("nothing is to be learnt")

    def read(self, row: int, slots: Sequence[np.ndarray]) -> Decoded:
        once = self.folder is not None and (self.folder / f"{row}").exists()
        if row in self.harm and not once:
            if self.folder is not None:
                (self.folder / f"{row}").touch()
            do(self.harm[row])
        slots[0][...] = row
        return Decoded([], 0.5)


class Unopened(Harmful):
    """A reader whose data set is not there."""

    def __reduce__(self) -> tuple[Any, ...]:
        return refuse, ()


def refuse() -> None:
    raise UsageError("no such folder here")
