"""Which checkpoint of a run counts: `last.json` and `best.json` name a folder beside them."""

import re
from pathlib import Path

from egapipe.pipeline.disk.files import read_json_object
from egapipe.pipeline.errors import UsageError

NAME = re.compile(r"\.?epoch\d{1,20}-step\d{1,20}(-again){0,9}")
"""Of a checkpoint's folder; with a dot while it is being written."""


def pointed(checkpoints: Path, which: str) -> Path | None:
    """The folder that `last` or `best` points at, if there is one. Raises as `named` does."""
    name = named(checkpoints, which)
    return checkpoints / name if name is not None and (checkpoints / name).is_dir() else None


def named(checkpoints: Path, which: str) -> str | None:
    """The name of that folder, whether it is there or not; None without a pointer.

    Raises UsageError if the pointer is damaged, or leads anywhere but to a checkpoint beside it.
    """
    pointer = checkpoints / f"{which}.json"
    if not pointer.is_file():
        return None
    name = read_json_object(pointer).get("folder")
    # Anything else is no name of ours, and may lead out of the run.
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise UsageError(f"{pointer} is damaged: remove it, or run with --restart")
    return name
