"""What a tracker is told, whichever it is."""

import importlib.util
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from egapipe.pipeline.config.track import MlflowTracking, Tracking
from egapipe.pipeline.errors import EgapipeError, UsageError, one_line

Status = Literal["done", "stopped", "failed", "running"]


@dataclass(frozen=True)
class Entry:
    """One run of a tracker: a training, or the experiment that has several.

    key: by which it is found again. parent: key of the experiment's, None for that itself and for a
    training by itself. settings: all of them, by dotted path.
    """

    key: str
    name: str
    parent: str | None
    settings: Mapping[str, Any]
    tags: Mapping[str, str]


class Client(Protocol):
    """MLflow or Weights & Biases. Every method may raise whatever its library does."""

    def begin(self, entry: Entry, started: float | None) -> int:
        """Begin a run, or find it; how many epochs of it are there. started: seconds since 1970."""

    def log(self, key: str, epoch: int, metrics: Mapping[str, float], when: float) -> None:
        """Send an epoch, from 0."""

    def attach(self, key: str, file: Path) -> None:
        """Send a file."""

    def end(self, key: str, status: Status, when: float | None) -> None:
        """End a run."""


def connect(options: Tracking, name: str, folder: Path) -> Client:
    """The tracker that `track` names, once it has answered.

    name: of the experiment or project where none is given. folder: where what stays here is
    written. Raises UsageError if its library is not installed, or it does not answer.
    """
    if importlib.util.find_spec(options.kind) is None:
        raise UsageError(
            f"track is {options.kind}, which is not installed: pip install "
            f"'egapipe[{options.kind}]', or leave track empty"
        )

    def refusal(why: str) -> UsageError:
        return UsageError(
            f"track is {options.kind}, which does not answer ({why}): start it, or leave track"
            " empty and run `egapipe track` later"
        )

    with explained(refusal):
        if isinstance(options, MlflowTracking):
            from egapipe.stages.track.on_mlflow import OnMlflow

            return OnMlflow(options, name, folder)
        from egapipe.stages.track.on_wandb import OnWandb

        return OnWandb(options, name, folder)


@contextmanager
def explained(refusal: Callable[[str], EgapipeError]) -> Iterator[None]:
    """Whatever a tracker's library raises in a block, in one line. refusal: of what it says."""
    try:
        yield
    except EgapipeError:
        raise
    except Exception as error:  # of two clients and their servers, which have dozens of types
        raise refusal(one_line(error)) from None
