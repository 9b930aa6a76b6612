"""Parts of a page: one that cannot be drawn is left out with a line, and the others stay."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from egapipe.pipeline.errors import EgapipeError, UsageError, one_line
from egapipe.pipeline.results.experiment import Recorded
from egapipe.pipeline.results.learned import require_record
from egapipe.stages.report.pages.document import Section

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


def damaged_cells(section: Section, recorded: Recorded) -> dict[int, str]:
    """Numbers of the cells whose record of features is damaged, and why, said in the section.

    They may have learned from other features than the rest. A run that is gone is no such cell.
    """
    reasons = {}
    for cell in recorded.experiment.cells:
        run = recorded.run(cell)
        if run is None:
            continue
        try:
            require_record(run)
        except (UsageError, OSError) as error:
            reasons[cell.number] = one_line(error)
            _say(
                section,
                f"run {cell.run} may be of other features and is left out: {reasons[cell.number]}",
            )
    return reasons


def _say(section: Section, text: str) -> None:
    section.text(text)
    _log.warning("%s", text)
