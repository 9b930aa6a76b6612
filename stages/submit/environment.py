"""Ray's runtime environment of a job: variables, packages and images that the user asks for."""

from pathlib import Path
from typing import Any

from egapipe.pipeline.config.syntax import parse
from egapipe.pipeline.errors import UsageError, one_line

_OWN = "working_dir"


def read_environment(file: Path) -> dict[str, Any]:
    """A runtime environment from a YAML or JSON file, by Ray's own names.

    Raises UsageError if the file cannot be read, a name is not Ray's, or it sets `working_dir`.
    """
    from ray.runtime_env import RuntimeEnv

    try:
        found = parse(file.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"runtime environment {file}: {one_line(error)}") from None
    if not isinstance(found, dict):
        raise UsageError(f"runtime environment {file}: no mapping of names to values")
    if _OWN in found:
        raise UsageError(
            f"runtime environment {file} sets {_OWN}, which a job has of its own: configuration "
            "and modules are taken along; put data where all nodes see it, and further packages "
            "into py_modules or pip"
        )
    unknown = sorted(str(name) for name in found if name not in RuntimeEnv.known_fields)
    if unknown:
        known = ", ".join(sorted(n for n in RuntimeEnv.known_fields if n[0] != "_"))
        raise UsageError(f"runtime environment {file}: {unknown[0]} is not one of {known}")
    try:
        return dict(RuntimeEnv(**found))
    except (TypeError, ValueError) as error:
        raise UsageError(f"runtime environment {file}: {one_line(error)}") from None
