"""Something that is done again and again in a thread while something else goes on."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def repeated(
    job: Callable[[], object], seconds: float, name: str, *, last: bool = False
) -> Iterator[None]:
    """For the length of a block, do a job every so many seconds; last: and once more at its end.

    name: of the thread. An exception of the job, or False from it, ends the thread and not the
    block.
    """
    stop = threading.Event()

    def repeat() -> None:
        while not stop.wait(seconds):
            if job() is False:
                return
        if last:
            job()

    thread = threading.Thread(target=repeat, name=name, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
