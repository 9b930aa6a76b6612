"""The bytes of an image as they pass: whoever decodes it can digest them without reading twice."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar


class Passed:
    """What was read last in a block; None if nothing was."""

    data: bytes | None = None


_PASSED: ContextVar[Passed | None] = ContextVar("_PASSED", default=None)


@contextmanager
def passing() -> Iterator[Passed]:
    """Keep the bytes of the image that this thread reads in a block, for as long as that lasts."""
    passed = Passed()
    token = _PASSED.set(passed)
    try:
        yield passed
    finally:
        _PASSED.reset(token)


def passed_on(data: bytes) -> bytes:
    """The bytes of an image that was read, shown to the block around."""
    passed = _PASSED.get()
    if passed is not None:
        passed.data = data
    return data
