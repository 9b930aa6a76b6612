"""The weights that a training starts from, where it does not draw them: `distill.init`."""

import hashlib
import json
from pathlib import Path

from egapipe.pipeline.disk.digests import cached_digest
from egapipe.pipeline.errors import UsageError, one_line
from egapipe.pipeline.locations.urls import path_of
from egapipe.pipeline.results.checkpoints import pointed

_METHOD = "egapipe initial weights 1"
FILE = "student.safetensors"
"""Of a checkpoint: the weights of the backbone."""


def initial_file(init: str) -> Path:
    """The safetensors file itself, or that of the last checkpoint of a run folder.

    Raises UsageError if there is none.
    """
    path = path_of(init)
    if path.is_file():
        return path
    folder = pointed(path / "checkpoints", "last")
    if folder is None:
        raise UsageError(
            f"distill.init: {init} is neither a safetensors file nor a run folder with a "
            "checkpoint: name one, or leave it out to draw the first weights"
        )
    return folder / FILE


def initial_sha256(init: str) -> str:
    """SHA-256 of that file, computed once a node for as long as it stays.

    Raises UsageError if there is none, or it cannot be read.
    """
    file = initial_file(init)

    def compute() -> str:
        with file.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()

    try:
        return cached_digest([file], json.dumps([_METHOD]), compute)
    except OSError as error:
        raise UsageError(f"distill.init: {file} cannot be read: {one_line(error)}") from None
