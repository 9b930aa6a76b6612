"""Search settings of stage two on Ray Tune: many trainings on one store, poor ones cut short."""

from typing import TYPE_CHECKING

from egapipe.pipeline.machine.lazy import lazy

if TYPE_CHECKING:
    from egapipe.stages.sweep.sweep import SweepReport, run

__all__ = ["SweepReport", "run"]

__getattr__ = lazy(__name__, {"run": "sweep", "SweepReport": "sweep"})
