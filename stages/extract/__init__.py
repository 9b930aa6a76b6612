"""Stage one: a frozen teacher sees every view of every image once; its outputs are stored."""

from typing import TYPE_CHECKING

from egapipe.pipeline.lazy import lazy

if TYPE_CHECKING:
    from egapipe.stages.extract.manifest import manifest_for
    from egapipe.stages.extract.report import ExtractReport
    from egapipe.stages.extract.runner import run

__all__ = ["ExtractReport", "manifest_for", "run"]

__getattr__ = lazy(
    __name__, {"ExtractReport": "report", "manifest_for": "manifest", "run": "runner"}
)
