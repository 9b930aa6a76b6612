"""One self-contained HTML page about a run, a comparison or a sweep."""

from typing import TYPE_CHECKING

from egapipe.pipeline.machine.lazy import lazy

if TYPE_CHECKING:
    from egapipe.stages.report.reporting import Report, run

__all__ = ["Report", "run"]

__getattr__ = lazy(__name__, {"Report": "reporting", "run": "reporting"})
