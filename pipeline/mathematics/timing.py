"""How long a call takes, on a machine that does other things too."""

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

_SECONDS = 0.5
_REPEATS = range(3, 201)


class Timing(NamedTuple):
    """Median milliseconds of a call, over `repeats` calls."""

    milliseconds: float
    repeats: int


def median_time(work: Callable[[], object]) -> Timing:
    """The median over 3 to 200 calls, as many as fit into half a second, after a first one."""
    work()
    times: list[float] = []
    while len(times) < _REPEATS.start or (len(times) < _REPEATS[-1] and sum(times) < _SECONDS):
        times.append(timed(work))
    return Timing(1000 * statistics.median(times), len(times))


def timed(work: Callable[[], object]) -> float:
    """Seconds of one call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


@contextmanager
def one_thread() -> Iterator[None]:
    """Torch with one CPU thread, then as many as before."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
