"""Writing an object unless there is one, whichever client puts it."""

from collections.abc import Callable

from egapipe.pipeline.locations.trouble import exists_already, is_unconditional


def created(
    put_new: Callable[[], object], is_there: Callable[[], bool], put: Callable[[], object]
) -> bool:
    """Whether an object was written. put_new: a put that fails where there is one.

    A server that knows no such condition is asked first, and put to then: two at the same moment
    are not told apart there. Raises what the client raises of all else.
    """
    try:
        put_new()
    except Exception as error:  # each client has a class of its own; others are raised
        if exists_already(error):
            return False
        if not is_unconditional(error):
            raise
        if is_there():
            return False
        put()
    return True
