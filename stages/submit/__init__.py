"""Run a command on a Ray cluster as a job, from outside of it."""

from typing import TYPE_CHECKING

from egapipe.pipeline.machine.lazy import lazy

if TYPE_CHECKING:
    from egapipe.stages.submit.jobs import Jobs
    from egapipe.stages.submit.package import Package, pack, pack_results

__all__ = ["COMMANDS", "ON_RESULTS", "Jobs", "Package", "pack", "pack_results"]

COMMANDS = ("extract", "distill", "sweep", "compare", "doctor")
"""What may run as a job, by a configuration."""
ON_RESULTS = ("evaluate", "report")
"""What may run as a job, on the folder of a run, a comparison or a sweep."""

__getattr__ = lazy(
    __name__,
    {"Jobs": "jobs", "Package": "package", "pack": "package", "pack_results": "package"},
)
