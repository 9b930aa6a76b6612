"""Libraries that only some teachers need."""

import importlib
from typing import Any

from egapipe.pipeline.errors import UsageError

_MAX_REASON = 300


def require(module: str, extra: str) -> Any:
    """Import a library of an optional extra. Raises UsageError that names the extra."""
    try:
        return importlib.import_module(module)
    except Exception as error:  # an extension built for another torch raises RuntimeError
        raise UsageError(
            f"teacher.backend={extra} needs {module} ({reason(error)}): "
            f"pip install 'egapipe[{extra}]'"
        ) from error


def reason(error: Exception) -> str:
    """What a library says, in one line of bearable length: some list every model they have."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= _MAX_REASON else f"{text[:_MAX_REASON]}..."
