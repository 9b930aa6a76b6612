"""Stage two: train a student from the stored features of a teacher."""

from typing import TYPE_CHECKING

from egapipe.pipeline.machine.lazy import lazy

if TYPE_CHECKING:
    from egapipe.stages.distill.distilling import DistillReport, run
    from egapipe.stages.distill.trained import TrainedStudent, load_student

__all__ = ["DistillReport", "TrainedStudent", "load_student", "run"]

__getattr__ = lazy(
    __name__,
    {
        "run": "distilling",
        "DistillReport": "distilling",
        "load_student": "trained",
        "TrainedStudent": "trained",
    },
)
