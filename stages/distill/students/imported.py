"""Any network the user can import, as `module:callable`."""

import importlib
import os
import sys
from collections.abc import Callable
from difflib import get_close_matches
from typing import Any, cast

from egapipe.pipeline.errors import UsageError


def import_callable(name: str) -> Callable[..., Any]:
    """The callable named `module:callable`; both parts may be dotted.

    Modules of the current directory are found, as with `python -m`. Importing a module runs it: the
    name is the user's own, from the configuration. Raises UsageError: not of that form, the module
    cannot be imported (whatever it raised is named), it has no such name, or it is not callable.
    """
    module_name, _, path = name.partition(":")
    if not all(part.isidentifier() for part in (*module_name.split("."), *path.split("."))):
        raise UsageError(f"student {name!r}: not of the form module:callable")
    found: Any = _import(module_name, name)
    for part in path.split("."):
        if not hasattr(found, part):
            nearest = get_close_matches(part, [n for n in dir(found) if n[0] != "_"], n=1)
            hint = f", did you mean {nearest[0]}?" if nearest else ""
            raise UsageError(f"student {name!r}: {found.__name__} has no {part!r}{hint}")
        found = getattr(found, part)
    if not callable(found):
        kind = type(found).__name__
        raise UsageError(f"student {name!r} is not callable but {kind}: name a class or function")
    return cast(Callable[..., Any], found)


def one_line(error: BaseException) -> str:
    """Type and message of an exception, without line breaks."""
    return " ".join(f"{type(error).__name__}: {error}".split()).removesuffix(":")


def _import(module_name: str, name: str) -> Any:
    here = os.getcwd()
    # An installed command has its own folder on the path, not the current one. This one stays there
    # because the user's module may import its neighbours later.
    if "" not in sys.path and here not in sys.path:
        sys.path.insert(0, here)
    importlib.invalidate_caches()
    try:
        return importlib.import_module(module_name)
    except Exception as error:
        raise UsageError(
            f"student {name!r}: cannot import {module_name} from the installed packages "
            f"or {here}: {one_line(error)}"
        ) from error
