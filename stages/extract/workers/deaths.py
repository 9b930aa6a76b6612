"""What Ray says of a call that did not come back."""

from ray.exceptions import ActorUnavailableError, RayError, RayTaskError

from egapipe.pipeline.errors import EgapipeError

_DETAIL = "Worker exit detail:"
_NODE_DIED = "node has died"


def own_error(error: RayTaskError) -> BaseException:
    """What the worker raised; Ray's wrapper, with its traceback, where that is a bug of ours."""
    cause = error.cause
    return cause if isinstance(cause, EgapipeError) else error


def why_died(error: RayError) -> str:
    """The end of a worker in one line."""
    text = " ".join(str(error).split())
    detail = text.partition(_DETAIL)[2].strip() or text
    return detail.partition(". There are some potential root causes")[0][:300]


def node_died(error: RayError) -> bool:
    """Whether the worker's node is gone or cannot be reached, whatever the worker was doing.

    Ray starts workers on a dead node until it has missed it for a while.
    """
    return isinstance(error, ActorUnavailableError) or _NODE_DIED in str(error)
