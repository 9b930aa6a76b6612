"""Give an exported student to the Hugging Face hub."""

from typing import TYPE_CHECKING

from egapipe.pipeline.machine.lazy import lazy

if TYPE_CHECKING:
    from egapipe.stages.push.pushing import PushReport, run

__all__ = ["PushReport", "run"]

__getattr__ = lazy(__name__, {"run": "pushing", "PushReport": "pushing"})
