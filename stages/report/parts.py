"""Parts of a page: one that cannot be drawn is left out with a line, and the others stay."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from egapipe.pipeline.errors import EgapipeError, one_line
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
        section.text(f"{name} could not be drawn and is left out: {reason}")
        _log.warning("%s could not be drawn and is left out: %s", name, reason)
