"""Folders of this machine that egapipe keeps things in."""

import os
from pathlib import Path


def cache_dir() -> Path:
    """This node's cache folder: `$EGAPIPE_CACHE`, else `~/.cache/egapipe`. It need not exist yet.

    Everything in it can be made again: deleting it costs time, never results.
    """
    return Path(os.environ.get("EGAPIPE_CACHE") or "~/.cache/egapipe").expanduser().absolute()
