"""Run a command on a Ray cluster as a job, from outside of it."""

from typing import TYPE_CHECKING

from egapipe.pipeline.lazy import lazy

if TYPE_CHECKING:
    from egapipe.stages.submit.jobs import Jobs
    from egapipe.stages.submit.package import pack

__all__ = ["COMMANDS", "Jobs", "pack"]

COMMANDS = ("extract", "distill", "sweep", "compare")
"""What may run as a job."""

__getattr__ = lazy(__name__, {"Jobs": "jobs", "pack": "package"})
