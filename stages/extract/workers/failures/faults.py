"""What went wrong in a worker, and whose fault it is: a row's, a shard's, a worker's or the run's.

- A **row** is at fault where the decoder says so of its bytes: it is recorded, and the run goes on.
- A **shard** is tried again, elsewhere if there is another machine: storage that did not answer, a
  file that could not be read there.
- A **worker** is replaced and its shard done again: a broken device, a process out of memory, a
  host without the model. A machine that keeps failing workers is left out.
- The **run** ends where nothing else can help: the configuration is wrong, or the same was said
  again, by another machine where there is one.
"""

import errno
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import NamedTuple

from egapipe.pipeline import errors
from egapipe.pipeline.datasets.decoding.reading import of_machine
from egapipe.pipeline.errors import (
    EgapipeError,
    ImageError,
    MachineError,
    UsageError,
    one_line,
)
from egapipe.stages.extract.decoding.crew import HungError
from egapipe.stages.extract.workers.forward.memory import is_out_of_memory


class Scope(StrEnum):
    """Whose fault something is."""

    ROW = "row"
    SHARD = "shard"
    WORKER = "worker"
    RUN = "run"


class Verdict(NamedTuple):
    """passing: whether it may be over at the next try, so that saying it twice proves nothing."""

    scope: Scope
    passing: bool


_DEVICE = re.compile(
    r"CUDA (error|failure|driver)|cuDNN|CUBLAS|cublas|HIP error|device-side assert|"
    r"uncorrectable ECC|an illegal memory access",
)
_CLIENTS = ("aiohttp", "botocore", "httpcore", "httpx", "obstore", "requests", "urllib3")
_NETWORK = re.compile(r"Connect|Timeout|Transport|Protocol|Incomplete|SlowDown|Throttl")
_BUSY = {408, 425, 429}
_SERVER_ERROR = 500
# A process that can open no file, or get no memory, is of no more use.
_EXHAUSTED = {errno.EMFILE, errno.ENOMEM}
# They stay as they are until somebody changes them.
_LASTING = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT}


def sort_error(error: BaseException) -> Verdict:
    """Whose fault an error is that was raised in a worker."""
    chain = list(_chain(error))
    if isinstance(error, ImageError):
        return Verdict(Scope.ROW, passing=False)
    if any(_of_process(cause) for cause in chain):
        return Verdict(Scope.WORKER, passing=True)
    if isinstance(error, MachineError) or any(_of_moment(cause) for cause in chain):
        return Verdict(Scope.SHARD, passing=True)
    if isinstance(error, UsageError):
        # What a host lacks: the command itself was checked before any worker was started.
        return Verdict(Scope.WORKER, passing=False)
    if isinstance(error, Exception):
        return Verdict(Scope.SHARD, passing=False)
    return Verdict(Scope.RUN, passing=False)


class FaultError(EgapipeError):
    """What a worker could not do, sorted where it happened: its causes do not travel."""

    verdict: Verdict
    kind: str
    """The class of errors that it belongs to."""
    host: str
    row: int | None
    hung: bool
    """Whether an image hangs, or may hang, its decoder."""

    @classmethod
    def of(cls, error: BaseException, host: str) -> "FaultError":
        """The fault that an error is. Its text names the host."""
        said = str(error) if isinstance(error, EgapipeError) else one_line(error)
        named = said if re.search(rf"\b{re.escape(host)}\b", said) else f"worker on {host}: {said}"
        fault = cls(named)
        fault.verdict = sort_error(error)
        kinds = (kind for kind in type(error).__mro__ if kind.__module__ == errors.__name__)
        fault.kind = next((kind.__name__ for kind in kinds), EgapipeError.__name__)
        fault.host = host
        fault.row = getattr(error, "row", None)
        fault.hung = isinstance(error, HungError)
        return fault

    @property
    def said(self) -> str:
        """The text without the host: equal where two machines say the same."""
        return str(self).replace(self.host, "")

    def error(self, prefix: str = "") -> EgapipeError:
        """What the command ends with: an error of the class that the worker has raised."""
        kind = getattr(errors, self.kind, EgapipeError)
        made: EgapipeError = kind(f"{prefix}{self}")
        return made


@contextmanager
def reported() -> Iterator[None]:
    """Raise a FaultError, which can be sent, in place of what is raised in a block.

    A bug is left as it is: its traceback is what helps.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, EgapipeError) or not is_bug(error):
            raise FaultError.of(error, socket.gethostname()) from error
        raise


def is_bug(error: BaseException) -> bool:
    """Whether nobody has foreseen an error, neither egapipe nor this list."""
    return sort_error(error) == Verdict(Scope.SHARD, passing=False) and not isinstance(
        error, EgapipeError
    )


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _of_process(error: BaseException) -> bool:
    """Whether a process must not be used on: its device or its memory is in disorder."""
    if isinstance(error, HungError):
        return True
    if is_out_of_memory(error) or getattr(error, "errno", None) in _EXHAUSTED:
        return True
    name = type(error).__name__
    of_torch = type(error).__module__.partition(".")[0] == "torch"
    if of_torch and name == "AcceleratorError":
        return True
    return isinstance(error, RuntimeError) and _DEVICE.search(str(error)) is not None


def _of_moment(error: BaseException) -> bool:
    """Whether another try, or another host, may get through."""
    response = getattr(error, "response", None)
    status = getattr(error, "status_code", getattr(response, "status_code", None))
    if isinstance(status, int):
        return status in _BUSY or status >= _SERVER_ERROR
    if isinstance(error, OSError) and error.errno is not None:
        return of_machine(error) and error.errno not in _LASTING
    if isinstance(error, ConnectionError | TimeoutError):
        return True
    client = type(error).__module__.partition(".")[0] in _CLIENTS
    return client and _NETWORK.search(type(error).__name__) is not None
