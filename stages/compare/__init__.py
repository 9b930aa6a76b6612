"""Train variants of one experiment side by side on one store."""

from typing import TYPE_CHECKING

from egapipe.pipeline.machine.lazy import lazy

if TYPE_CHECKING:
    from egapipe.stages.compare.comparison import CompareReport, run
    from egapipe.stages.compare.folder import ComparisonFolder

__all__ = ["CompareReport", "ComparisonFolder", "run"]

__getattr__ = lazy(
    __name__,
    {"run": "comparison", "CompareReport": "comparison", "ComparisonFolder": "folder"},
)
