"""Parts of a page: one that cannot be drawn is left out with a line, and the others stay."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from egapipe.pipeline.errors import EgapipeError, UsageError, one_line
from egapipe.pipeline.results.learned import require_record
from egapipe.pipeline.results.runs import RunFolder
from egapipe.stages.report.page import Section

_log = logging.getLogger(__name__)
# What is read: files that are gone or damaged, with members missing or of another type; and what
# networks and the projections of scikit-learn raise of numbers that they cannot use.
_CANNOT = (
    EgapipeError,
    OSError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    ArithmeticError,
    RuntimeError,
    MemoryError,
)


@contextmanager
def left_out(section: Section, name: str) -> Iterator[None]:
    """Say in a section, and as a warning, why the part that a block draws is not there."""
    try:
        yield
    except _CANNOT as error:
        known = isinstance(error, EgapipeError | OSError)
        reason = one_line(error) if known else f"{type(error).__name__}: {one_line(error)}"
        _say(section, f"{name} could not be drawn and is left out: {reason}")


def left_out_runs(section: Section, runs: Mapping[str, RunFolder]) -> dict[str, str]:
    """Those runs of a table whose record of features is damaged, and why, said in the section.

    They may have learned from other features than the rest. runs: name -> folder.
    """
    reasons = {}
    for name, run in runs.items():
        try:
            require_record(run)
        except (UsageError, OSError) as error:
            reasons[name] = one_line(error)
            _say(section, f"run {name} may be of other features and is left out: {reasons[name]}")
    return reasons


def _say(section: Section, text: str) -> None:
    section.text(text)
    _log.warning("%s", text)
