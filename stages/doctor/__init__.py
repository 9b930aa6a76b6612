"""Is everything there that a configuration needs, and does it fit together?"""

from typing import TYPE_CHECKING

from egapipe.pipeline.machine.lazy import lazy

if TYPE_CHECKING:
    from egapipe.stages.doctor.examination import run
    from egapipe.stages.doctor.report import DoctorReport, Finding

__all__ = ["DoctorReport", "Finding", "run"]

__getattr__ = lazy(
    __name__,
    {"DoctorReport": "report", "Finding": "report", "run": "examination"},
)
