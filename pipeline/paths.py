"""Folders of this machine that egapipe keeps things in."""

import os
import stat
from pathlib import Path

from egapipe.pipeline.errors import UsageError


def cache_dir() -> Path:
    """This node's cache folder: `$EGAPIPE_CACHE`, else `~/.cache/egapipe`. It need not exist yet.

    Everything in it can be made again: deleting it costs time, never results.
    """
    return own_folder(Path(os.environ.get("EGAPIPE_CACHE") or "~/.cache/egapipe"))


def own_folder(base: Path) -> Path:
    """A cache folder that is this user's alone: `base`, or `user-<number>` in a `base` of several.

    What others may write is not trusted: copies are mapped without reading their numbers, and a
    lock of another user cannot be taken. Raises UsageError if somebody else has made that folder.
    """
    base = base.expanduser().absolute()
    if not hasattr(os, "geteuid") or not _is_of_others(base):
        return base
    own = base / f"user-{os.geteuid()}"
    if own.is_symlink() or _is_of_others(own):
        raise UsageError(
            f"cache folder {own} belongs to another user, or everybody may write it: set "
            "EGAPIPE_CACHE or store.cache_dir to another folder"
        )
    return own


def _is_of_others(folder: Path) -> bool:
    """Whether another user owns a folder, or everybody may write it; False where there is none."""
    try:
        status = folder.stat()
    except OSError:
        return False
    return status.st_uid != os.geteuid() or bool(status.st_mode & stat.S_IWOTH)
