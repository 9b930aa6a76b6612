"""What `module:callable` names: importing the module, and finding the callable in it."""

import importlib
import os
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from types import ModuleType
from typing import Any

ZOOS = ("timm", "torchvision")
"""Packages of networks: `timm:<name>` is a name in their lists, nothing that is imported."""
TRUST = (
    "if you trust where the file comes from, say --trust-remote-code, in Python "
    "trust_remote_code=True"
)


class MissingNameError(LookupError):
    """`owner`, a module or class, has no `name`; `nearest` is one that it has, if any is near."""

    def __init__(self, owner: str, name: str, nearest: str | None) -> None:
        super().__init__(owner, name)
        self.owner, self.name = owner, name
        self.hint = f", did you mean {nearest}?" if nearest else ""


def split_reference(text: str) -> tuple[str, list[str]] | None:
    """Module and path of `module:callable`, both of which may be dotted; None for other texts."""
    module, _, path = text.partition(":")
    names = path.split(".")
    return (module, names) if _identifiers(module.split(".")) and _identifiers(names) else None


def import_module(name: str) -> ModuleType:
    """Import a module, of the current directory too; whatever it raises.

    Importing a module runs it: the name is the user's own, from the configuration. The current
    directory comes last, behind all that is installed: a file that is called `pyarrow.py` there
    must not take the library's place. It stays, because the module may import its neighbours later.
    """
    # Below the configuration, which asks here what a reference is.
    from egapipe.pipeline.cluster import driver_folder

    for folder in (os.getcwd(), driver_folder()):
        if folder is not None and folder not in sys.path:
            sys.path.append(folder)
    importlib.invalidate_caches()
    return importlib.import_module(name)


def look_up(module: ModuleType, path: Sequence[str]) -> Any:
    """The object at a path of names below a module. Raises MissingNameError."""
    found: Any = module
    for name in path:
        if not hasattr(found, name):
            near = get_close_matches(name, [n for n in dir(found) if n[0] != "_"], n=1)
            raise MissingNameError(found.__name__, name, near[0] if near else None)
        found = getattr(found, name)
    return found


def _identifiers(names: Sequence[str]) -> bool:
    return all(name.isidentifier() for name in names)
