"""Any network the user can import, as `module:callable`."""

import os
from collections.abc import Callable, Mapping
from typing import Any, cast

from egapipe.pipeline.errors import UsageError
from egapipe.pipeline.imports import (
    TRUST,
    ZOOS,
    MissingNameError,
    import_module,
    look_up,
    split_reference,
)

# Arguments of timm and torchvision that read a file or download one. The weights of a student that
# comes as a file are in that file.
_READS = ("pretrained", "weights", "checkpoint", "cache_dir")
# With weights torchvision gives these networks a layer more, without any of its own.
_TRANSFORMED = ("googlenet", "inception_v3")


def known_arguments(name: str, args: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments that build a student whose name and arguments a file from elsewhere gives.

    Whatever would read another file or the network is left out. Raises UsageError for any name but
    a registered student, `timm:<name>` and `torchvision:<name>`: importing a module runs it.
    """
    package, colon, network = name.partition(":")
    if colon and package not in ZOOS:
        raise UsageError(f"student {name!r} is code that a file names, which is not run: {TRUST}")
    kept = {key: value for key, value in args.items() if not key.startswith(_READS)}
    if network in _TRANSFORMED and args.get("weights") is not None:
        kept.setdefault("transform_input", True)
    return kept


def import_callable(name: str) -> Callable[..., Any]:
    """The callable named `module:callable`; both parts may be dotted.

    Raises UsageError: not of that form, the module cannot be imported (whatever it raised is
    named), it has no such name, or it is not callable.
    """
    parts = split_reference(name)
    if parts is None:
        raise UsageError(f"student {name!r}: not of the form module:callable")
    module, path = parts
    try:
        imported = import_module(module)
    except Exception as error:
        raise UsageError(
            f"student {name!r}: cannot import {module} from the installed packages "
            f"or {os.getcwd()}: {one_line(error)}"
        ) from error
    try:
        found = look_up(imported, path)
    except MissingNameError as error:
        raise UsageError(
            f"student {name!r}: {error.owner} has no {error.name!r}{error.hint}"
        ) from None
    if not callable(found):
        kind = type(found).__name__
        raise UsageError(f"student {name!r} is not callable but {kind}: name a class or function")
    return cast(Callable[..., Any], found)


def one_line(error: BaseException) -> str:
    """Type and message of an exception, without line breaks."""
    return " ".join(f"{type(error).__name__}: {error}".split()).removesuffix(":")
