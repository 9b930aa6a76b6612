"""Folders of this machine that egapipe keeps things in."""

import os
import stat
from pathlib import Path

from egapipe.pipeline.errors import UsageError
from egapipe.pipeline.locations.urls import path_of

# Of this process, in its environment: processes that it starts keep their caches there too.
_MOVED = "EGAPIPE_STORE_CACHE_DIR"


def cache_dir() -> Path:
    """This node's cache folder, which need not exist yet: `store.cache_dir` of the configuration
    in use, else `$EGAPIPE_CACHE`, else `~/.cache/egapipe`.

    Everything in it can be made again: deleting it costs time, never results.
    """
    moved = os.environ.get(_MOVED) or os.environ.get("EGAPIPE_CACHE")
    return own_folder(path_of(moved or "~/.cache/egapipe"))


def use_cache(folder: str | None) -> None:
    """Keep all caches of this process, and of those it starts, in `store.cache_dir` from now on.

    folder: None for the default. Whatever opens the parts of a configuration says so first; where
    a process opens several, the last one counts.
    """
    if folder is None:
        os.environ.pop(_MOVED, None)
    else:
        os.environ[_MOVED] = on_each_node(folder)


def on_each_node(folder: str) -> str:
    """A folder of every node, as a text that means the same wherever a process works.

    A home folder, and a variable, is each node's own.
    """
    own = folder.startswith("~") or "$" in folder
    return folder if own else os.path.abspath(path_of(folder))


def moved_cache() -> str | None:
    """What `use_cache` was told, for a process that is told by another one."""
    return os.environ.get(_MOVED)


def own_folder(base: Path) -> Path:
    """A cache folder that is this user's alone: `base`, or `user-<number>` in a `base` of several.

    What others may write is not trusted: copies are mapped without reading their numbers, and a
    lock of another user cannot be taken. Raises UsageError if somebody else has made that folder.
    """
    base = base.absolute()
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
