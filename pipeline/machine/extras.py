"""Libraries that are optional."""

import importlib
from typing import Any

from egapipe.pipeline.errors import UsageError, one_line


def require(module: str, extra: str, wanted: str) -> Any:
    """Import a library of an optional extra.

    wanted: what needs it, the first words of the message. Raises UsageError that names the extra.
    """
    try:
        return importlib.import_module(module)
    except Exception as error:  # an extension built for another torch raises RuntimeError
        reason = f"{type(error).__name__}: {one_line(error)}"
        raise UsageError(
            f"{wanted} needs {module} ({reason}): pip install 'egapipe[{extra}]'"
        ) from error
