"""Stage one: a frozen teacher sees every view of every image once; its outputs are stored."""

from typing import TYPE_CHECKING

from egapipe.pipeline.machine.lazy import lazy

if TYPE_CHECKING:
    from egapipe.stages.extract.embedding import embed
    from egapipe.stages.extract.importing.store import import_embeddings
    from egapipe.stages.extract.planning.manifest import manifest_for
    from egapipe.stages.extract.report import ExtractReport
    from egapipe.stages.extract.runner import Extraction, prepare, run

__all__ = [
    "ExtractReport",
    "Extraction",
    "embed",
    "import_embeddings",
    "manifest_for",
    "prepare",
    "run",
]

__getattr__ = lazy(
    __name__,
    {
        "ExtractReport": "report",
        "embed": "embedding",
        "Extraction": "runner",
        "import_embeddings": "importing.store",
        "manifest_for": "planning.manifest",
        "prepare": "runner",
        "run": "runner",
    },
)
