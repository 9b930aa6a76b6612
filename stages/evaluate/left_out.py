"""What an evaluation does without, and why."""

from collections.abc import Callable
from typing import TypeVar

from egapipe.pipeline.errors import EgapipeError

T = TypeVar("T")


class UnavailableError(EgapipeError):
    """A part of the evaluation needs what this run has not; the text says what."""


class LeftOut(dict[str, str]):
    """Part of the evaluation, as a path in evaluation.json -> reason."""

    def attempt(self, work: Callable[[], T], *parts: str) -> T | None:
        """The result of `work`; None, with the reason noted for these parts, if unavailable."""
        try:
            return work()
        except UnavailableError as reason:
            self.update(dict.fromkeys(parts, str(reason)))
            return None
