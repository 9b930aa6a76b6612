"""Whose turn it is: nobody trains what another process trains, nor forgets it."""

import logging
from contextlib import ExitStack
from pathlib import Path

import pytest

from egapipe.pipeline.config import load_config
from egapipe.pipeline.results.runs import RunFolder
from egapipe.stages.experiment.cells import Planned
from egapipe.stages.experiment.waiting import Waiting


def cells(folder: Path) -> list[Planned]:
    config = load_config("quickstart")
    return [Planned(n, {}, config, RunFolder(folder / str(n))) for n in range(3)]


def test_what_others_train_comes_last(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    planned = cells(tmp_path)
    waiting = Waiting(planned)
    with ExitStack() as held, caplog.at_level(logging.WARNING):
        held.enter_context(planned[0].run.exclusive())
        assert [waiting.next(), waiting.next()] == planned[1:]
        assert [waiting.next(), waiting.next()] == [None, None]
        assert not waiting.empty
        [told] = caplog.messages
        assert str(planned[0].run.path) in told
        held.close()
        assert waiting.next() == planned[0]
    assert waiting.empty
    assert waiting.next() is None


def test_what_somebody_else_began_in_between_comes_again(tmp_path: Path) -> None:
    first, *others = cells(tmp_path)
    waiting = Waiting([first, *others])
    assert waiting.next() == first
    waiting.put_back(first)
    assert [waiting.next() for _ in range(3)] == [*others, first]
