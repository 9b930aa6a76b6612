"""The user's own modules that a configuration names, with those that they import."""

import ast
import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path

from egapipe.pipeline.config import Config
from egapipe.pipeline.config.trust import code_names
from egapipe.pipeline.errors import UsageError, one_line
from egapipe.pipeline.machine.imports import split_reference


def modules(config: Config) -> list[Path]:
    """Files and packages of the current directory that the configuration needs, sorted.

    Wherever it names a `module:callable`: students, teachers and their members, variants of a
    comparison, what a sweep tries. Raises UsageError for a module that is no Python.
    """
    references = [split_reference(name) for name in code_names(config.model_dump(mode="json"))]
    wanted = {reference[0] for reference in references if reference is not None}
    found: set[Path] = set()
    while wanted:
        here = {path for name in wanted if (path := _here(name)) is not None} - found
        found |= here
        wanted = {name for path in here for name in _imported(path)}
    return sorted(found)


def _here(name: str) -> Path | None:
    """Where the current directory has the top of a module, if nothing installed comes before."""
    top = name.partition(".")[0]
    for path in (Path(top), Path(f"{top}.py")):
        if path.exists():
            return None if _installed(top) else path
    return None


def _installed(top: str) -> bool:
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return False
    places = [] if spec is None else [spec.origin, *(spec.submodule_search_locations or ())]
    here = os.path.realpath(os.curdir)
    return any(
        place is not None
        and os.path.dirname(os.path.realpath(place)) != here
        and os.path.realpath(place) != os.path.join(here, top, "__init__.py")
        for place in places
    )


def _imported(path: Path) -> Iterator[str]:
    """The modules that the files of a module or package import by their full names."""
    for file in path.rglob("*.py") if path.is_dir() else [path]:
        try:
            tree = ast.parse(file.read_bytes(), str(file))
        except (SyntaxError, ValueError) as error:
            raise UsageError(f"{file} cannot be taken along: {one_line(error)}") from None
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                yield node.module
