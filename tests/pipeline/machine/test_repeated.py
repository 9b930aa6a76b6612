"""A job that goes on beside a block, and no longer than it."""

import threading

import pytest

from egapipe.pipeline.machine.repeated import repeated


def test_it_is_done_until_the_block_ends_and_then_once_more() -> None:
    said, often = list[str](), threading.Event()

    def job() -> None:
        said.append("job")
        if len(said) == 3:
            often.set()

    with repeated(job, 0.001, "job", last=True):
        assert often.wait(60)
        said.append("end of the block")
    assert said[-1] == "job"
    count = len(said)
    assert "job" not in {thread.name for thread in threading.enumerate()}
    assert len(said) == count


def test_a_block_that_fails_ends_it() -> None:
    with pytest.raises(ZeroDivisionError), repeated(lambda: None, 0.001, "of a failed block"):
        raise ZeroDivisionError
    assert "of a failed block" not in {thread.name for thread in threading.enumerate()}


def test_it_ends_when_it_says_so() -> None:
    said, ended = list[int](), threading.Event()

    def job() -> bool:
        said.append(1)
        ended.set()
        return False

    with repeated(job, 0.001, "once", last=True):
        assert ended.wait(60)
    assert said == [1]
