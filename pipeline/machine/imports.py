"""What `module:callable` names: importing the module, and finding the callable in it."""

import importlib
import inspect
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from types import ModuleType
from typing import Any, cast

from egapipe.pipeline.errors import UsageError

ZOOS = ("timm", "torchvision", "transformers")
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
    from egapipe.pipeline.machine.cluster import driver_folder

    for folder in (os.getcwd(), driver_folder()):
        if folder is not None and folder not in sys.path:
            sys.path.append(folder)
    importlib.invalidate_caches()
    return importlib.import_module(name)


def import_for(whom: str, name: str) -> ModuleType:
    """`import_module`; raises UsageError, which names whom it is for and whatever was raised."""
    try:
        return import_module(name)
    except Exception as error:  # code of the user's own raises anything
        raise UsageError(
            f"{whom}: cannot import {name} from the installed packages or {os.getcwd()}: "
            f"{typed_line(error)}"
        ) from error


def look_up(module: ModuleType, path: Sequence[str]) -> Any:
    """The object at a path of names below a module. Raises MissingNameError."""
    found: Any = module
    for name in path:
        if not hasattr(found, name):
            near = get_close_matches(name, [n for n in dir(found) if n[0] != "_"], n=1)
            raise MissingNameError(found.__name__, name, near[0] if near else None)
        found = getattr(found, name)
    return found


def import_callable(what: str, name: str) -> Callable[..., Any]:
    """The callable named `module:callable`; both parts may be dotted. what: it is, for people.

    Raises UsageError: not of that form, the module cannot be imported (whatever it raised is
    named), it has no such name, or it is not callable.
    """
    parts = split_reference(name)
    if parts is None:
        raise UsageError(f"{what} {name!r}: not of the form module:callable")
    module, path = parts
    imported = import_for(f"{what} {name!r}", module)
    try:
        found = look_up(imported, path)
    except MissingNameError as error:
        raise UsageError(
            f"{what} {name!r}: {error.owner} has no {error.name!r}{error.hint}"
        ) from None
    if not callable(found):
        kind = type(found).__name__
        raise UsageError(f"{what} {name!r} is not callable but {kind}: name a class or function")
    return cast(Callable[..., Any], found)


def call(what: str, name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """What the callable named `module:callable` gives.

    Raises UsageError, in one line: it cannot be imported, does not take the arguments, or fails.
    """
    found = import_callable(what, name)
    check_arguments(f"{what} {name!r}", found, args, kwargs)
    try:
        return found(*args, **kwargs)
    except UsageError:
        raise
    except Exception as error:  # code of the user's own raises anything
        raise UsageError(f"{what} {name!r} fails: {typed_line(error)}") from error


def check_arguments(
    whose: str, found: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]
) -> None:
    """Raise UsageError, which says whose they are, if a callable does not take the arguments."""
    try:
        signature = inspect.signature(found)
    except ValueError:  # some compiled callables have none: calling them tells
        return
    try:
        signature.bind(*args, **kwargs)
    except TypeError as error:
        raise UsageError(f"{whose} {signature}: {error}") from None


def typed_line(error: BaseException) -> str:
    """Type and message of an exception, without line breaks."""
    return " ".join(f"{type(error).__name__}: {error}".split()).removesuffix(":")


def _identifiers(names: Sequence[str]) -> bool:
    return all(name.isidentifier() for name in names)
