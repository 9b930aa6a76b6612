"""Embeddings of a frozen teacher, extracted once, and students that learn from them.

This file is the package `egapipe` itself. It gives the commands as functions, by plain names; their
code lies in `egapipe.stages.api`, and nothing is imported before it is used.
"""

from typing import TYPE_CHECKING

from egapipe.pipeline.machine.lazy import lazy

if TYPE_CHECKING:
    from egapipe.pipeline.config import Config
    from egapipe.pipeline.errors import EgapipeError, UsageError
    from egapipe.stages.api.calls import compare, distill, extract, load_student, predict, sweep
    from egapipe.stages.api.configuration import load_config
    from egapipe.stages.api.result import Result
    from egapipe.stages.export.hub_student import Student
    from egapipe.stages.predict import Predictor

    __version__: str

__all__ = [
    "Config",
    "EgapipeError",
    "Predictor",
    "Result",
    "Student",
    "UsageError",
    "__version__",
    "compare",
    "distill",
    "extract",
    "load_config",
    "load_student",
    "predict",
    "sweep",
]

_calls = dict.fromkeys(
    ("compare", "distill", "extract", "load_student", "predict", "sweep"), "stages.api.calls"
)
_find = lazy(
    __name__,
    {
        **_calls,
        "Config": "pipeline.config",
        "EgapipeError": "pipeline.errors",
        "Predictor": "stages.predict",
        "Result": "stages.api.result",
        "Student": "stages.export.hub_student",
        "UsageError": "pipeline.errors",
        "load_config": "stages.api.configuration",
    },
)


def __getattr__(name: str) -> object:
    if name == "__version__":
        from importlib.metadata import version

        return version("egapipe")
    return _find(name)


def __dir__() -> list[str]:
    return __all__
