"""Stage two: train a student from the stored features of a teacher."""

from typing import TYPE_CHECKING

from egapipe.pipeline.lazy import lazy

if TYPE_CHECKING:
    from egapipe.stages.distill.trained import TrainedStudent, load_student
    from egapipe.stages.distill.training import DistillReport, run

__all__ = ["DistillReport", "TrainedStudent", "load_student", "run"]

__getattr__ = lazy(
    __name__,
    {
        "run": "training",
        "DistillReport": "training",
        "load_student": "trained",
        "TrainedStudent": "trained",
    },
)
