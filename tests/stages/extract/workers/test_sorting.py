"""Whose fault an error is: the table."""

import errno
import pickle

import pytest
import torch

from egapipe.pipeline.errors import (
    EgapipeError,
    ImageError,
    MachineError,
    StoreError,
    TeacherError,
    UsageError,
)
from egapipe.stages.extract.decoding.crew import HungError
from egapipe.stages.extract.workers.failures.deaths import missing_module
from egapipe.stages.extract.workers.failures.faults import (
    FaultError,
    Scope,
    Verdict,
    is_bug,
    reported,
    sort_error,
)


def caused(error: BaseException, cause: BaseException) -> BaseException:
    error.__cause__ = cause
    return error


class AnsweredError(Exception):
    """What HTTP clients raise: the answer is in it."""

    def __init__(self, status: int) -> None:
        super().__init__(f"status {status}")
        self.response = type("Response", (), {"status_code": status})()


def of_library(module: str, name: str) -> Exception:
    made: Exception = type(name, (Exception,), {"__module__": module})("said")
    return made


ROW = Verdict(Scope.ROW, passing=False)
AGAIN = Verdict(Scope.SHARD, passing=True)
SHARD = Verdict(Scope.SHARD, passing=False)
PROCESS = Verdict(Scope.WORKER, passing=True)
HOST = Verdict(Scope.WORKER, passing=False)
RUN = Verdict(Scope.RUN, passing=False)

TABLE = [
    (ImageError("truncated"), ROW),
    (MachineError("Input/output error (EIO)"), AGAIN),
    (ConnectionResetError("peer"), AGAIN),
    (TimeoutError("late"), AGAIN),
    (OSError(errno.ESTALE, "Stale file handle"), AGAIN),
    (AnsweredError(429), AGAIN),
    (AnsweredError(503), AGAIN),
    (of_library("botocore.exceptions", "EndpointConnectionError"), AGAIN),
    (of_library("httpx", "ReadTimeout"), AGAIN),
    (caused(StoreError("cannot write"), ConnectionError("refused")), AGAIN),
    (caused(TeacherError("cannot be loaded"), AnsweredError(429)), AGAIN),
    (AnsweredError(404), SHARD),
    (caused(StoreError("no space"), OSError(errno.ENOSPC, "No space left on device")), SHARD),
    (caused(StoreError("read-only"), OSError(errno.EROFS, "Read-only")), SHARD),
    (StoreError("does not hold what was written"), SHARD),
    (TeacherError("the same embedding for different images"), SHARD),
    (ZeroDivisionError("a bug"), SHARD),
    (of_library("botocore.exceptions", "ParamValidationError"), SHARD),
    (RuntimeError("CUDA error: uncorrectable ECC error encountered"), PROCESS),
    (RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"), PROCESS),
    (torch.OutOfMemoryError("CUDA out of memory"), PROCESS),
    (caused(TeacherError("set batch_size lower"), torch.OutOfMemoryError("CUDA")), PROCESS),
    (MemoryError(), PROCESS),
    (caused(MachineError("EMFILE"), OSError(errno.EMFILE, "Too many open files")), PROCESS),
    (HungError("row 3 is still being read"), PROCESS),
    (UsageError("no such folder"), HOST),
    (SystemExit(1), RUN),
    (KeyboardInterrupt(), RUN),
]


@pytest.mark.parametrize(("error", "verdict"), TABLE, ids=lambda v: repr(v)[:50])
def test_an_error_is_sorted(error: BaseException, verdict: Verdict) -> None:
    assert sort_error(error) == verdict


def test_a_fault_travels_and_names_its_host_once() -> None:
    hung = HungError("row 3 (a.png) is still being read")
    hung.row = 3
    fault = pickle.loads(pickle.dumps(FaultError.of(hung, "node7")))  # noqa: S301
    assert str(fault) == "worker on node7: row 3 (a.png) is still being read"
    assert (fault.row, fault.host, fault.hung, fault.verdict) == (3, "node7", True, PROCESS)
    assert type(fault.error()) is MachineError
    named = FaultError.of(UsageError("worker on node7: no such folder"), "node7")
    assert str(named.error("shard 4 failed: ")) == "shard 4 failed: worker on node7: no such folder"
    assert type(named.error()) is UsageError


def test_two_hosts_that_say_the_same_are_known_to() -> None:
    one, two = (FaultError.of(UsageError("no such folder"), host) for host in ("node7", "node8"))
    assert one.said == two.said
    assert str(one) != str(two)


def test_a_bug_keeps_itself_and_its_traceback() -> None:
    with pytest.raises(ZeroDivisionError), reported():
        raise ZeroDivisionError("a bug")
    with pytest.raises(FaultError), reported():
        raise RuntimeError("CUDA error: an illegal memory access was encountered")
    assert is_bug(TypeError("x"))
    assert not is_bug(EgapipeError("x"))


def test_a_missing_egapipe_is_explained_before_anything_else() -> None:
    said = missing_module(
        "The actor died because of an error raised in its creation task, ray::Actor.__init__() "
        "(pid=7, ip=10.0.0.4, actor_id=98) RuntimeError: The actor with name ExtractActor failed "
        "to import on the worker. ModuleNotFoundError: No module named 'egapipe'"
    )
    assert said is not None
    assert said.startswith("egapipe is not installed on machine 10.0.0.4 of the cluster: install ")
    other = missing_module("(ip=10.0.0.4) ModuleNotFoundError: No module named 'timm.layers'")
    assert other is not None
    assert other.startswith("timm.layers is not installed on machine 10.0.0.4")
    assert missing_module("Worker unexpectedly exits") is None
