"""Train variants of one experiment side by side on one store."""

from typing import TYPE_CHECKING

from egapipe.pipeline.lazy import lazy

if TYPE_CHECKING:
    from egapipe.stages.compare.comparison import CompareReport, run

__all__ = ["CompareReport", "run"]

__getattr__ = lazy(__name__, {"run": "comparison", "CompareReport": "comparison"})
