"""Look at runs in progress, from their files alone."""

from typing import TYPE_CHECKING

from egapipe.pipeline.machine.lazy import lazy

if TYPE_CHECKING:
    from egapipe.stages.watch.status import RunStatus, run_status

__all__ = ["RunStatus", "run_status"]

__getattr__ = lazy(__name__, {"RunStatus": "status", "run_status": "status"})
