"""What Ray says of a call that did not come back."""

import re

from ray.exceptions import (
    ActorUnavailableError,
    ActorUnschedulableError,
    NodeDiedError,
    RayError,
    RayTaskError,
)

from egapipe.pipeline.errors import EgapipeError
from egapipe.pipeline.machine.versions import installed

_DETAIL = "Worker exit detail:"
_NODE_DIED = ("node has died", "node is dead", "node was terminated")
_NO_MODULE = re.compile(r"No module named '([\w.]+)'")
_ADDRESS = re.compile(r"\bip=([\w.:]+)")


def own_error(error: RayTaskError) -> BaseException:
    """What the worker raised; Ray's wrapper, with its traceback, where that is a bug of ours."""
    cause = error.cause
    return cause if isinstance(cause, EgapipeError) else error


def why_died(error: RayError) -> str:
    """The end of a worker in one line."""
    text = " ".join(str(error).split())
    missing = missing_module(text)
    if missing is not None:
        return missing
    detail = text.partition(_DETAIL)[2].strip() or text
    return detail.partition(". There are some potential root causes")[0][:300]


def missing_module(text: str) -> str | None:
    """What to do about a worker whose Python lacks a module; None if that is not what is said.

    The commonest mistake of a cluster: egapipe is installed where the command runs, and nowhere
    else.
    """
    found = _NO_MODULE.search(text)
    if found is None:
        return None
    module, address = found[1], _ADDRESS.search(text)
    where = f"on machine {address[1]} of the cluster" if address else "on a machine of the cluster"
    if module.partition(".")[0] == "egapipe":
        version = installed(("egapipe",)).get("egapipe", "this version")
        return (
            f"egapipe is not installed {where}: install egapipe {version} there, for the Python "
            f"that Ray runs in (ModuleNotFoundError: No module named '{module}')"
        )
    return (
        f"{module} is not installed {where}: every machine needs what the command's has "
        f"(ModuleNotFoundError: No module named '{module}')"
    )


def node_died(error: RayError) -> bool:
    """Whether the worker's node is gone or cannot be reached, whatever the worker was doing.

    Ray starts workers on a dead node until it has missed it for a while.
    """
    if isinstance(error, ActorUnavailableError | ActorUnschedulableError | NodeDiedError):
        return True
    return any(said in str(error) for said in _NODE_DIED)
