"""Code that a configuration names, and files of which nobody says that they may name any.

A configuration that the user wrote is like a script: its `module:callable` is imported. What
egapipe wrote into a folder of results, config.yaml and best.yaml, travels with it and is data only.
"""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from egapipe.pipeline.errors import UsageError
from egapipe.pipeline.machine.imports import TRUST, ZOOS, split_reference

_WRITTEN = ("config.yaml", "best.yaml")
# Of these one at least lies beside a file of results.
_BESIDE = ("store.json", "model.json", "summary.json", "comparison.json", "trials", "checkpoints")
# Prefixes that look like a module and are none.
_NO_MODULES = (*ZOOS, "package")
_SECTIONS = (
    *(("distill", part) for part in ("student", "objective", "sampler")),
    *(("teacher",), ("compare",), ("sweep",)),
)


def require_trusted(tree: Mapping[str, Any], files: Iterable[Path], origin: str) -> None:
    """Raise UsageError if a tree, read from these files, names code and one of them is of results.

    tree: without the user's own overrides. origin: named in the error.
    """
    written = next((file for file in files if is_of_results(file)), None)
    code = next(code_names(tree), None)
    if written is not None and code is not None:
        raise UsageError(
            f"config {origin} names code, {code!r}, and {written.name} is no file of the user's own"
            f" but a result of egapipe: {TRUST}"
        )


def is_of_results(file: Path) -> bool:
    """Whether a file is what egapipe writes into the folder of a run, comparison or sweep."""
    return file.name in _WRITTEN and any((file.parent / name).exists() for name in _BESIDE)


def code_names(tree: Mapping[str, Any]) -> Iterator[str]:
    """The `module:callable` texts of a configuration's plain tree, wherever they may stand.

    A run that may import them itself is one too.
    """
    for path in _SECTIONS:
        below: Any = tree
        for key in path:
            below = below.get(key) if isinstance(below, Mapping) else None
        yield from _names(below)


def _names(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        reference = split_reference(value)
        if reference is not None and reference[0] not in _NO_MODULES:
            yield value
    elif isinstance(value, Mapping):
        if value.get("trust_remote_code"):
            yield "trust_remote_code"
        for key, below in value.items():
            yield from _names(key)
            yield from _names(below)
    elif isinstance(value, list | tuple):
        for one in value:
            yield from _names(one)
