"""Storing shards beside the inference of the next one."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait

from egapipe.pipeline.store import Commit


class Writer:
    """A thread that stores one shard at a time.

    What goes wrong belongs to the shard that it went wrong with, and is raised to whoever asks for
    that one's record.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "write")
        self._shards: dict[int, Future[Commit]] = {}

    def wait(self) -> None:
        """Until nothing is being stored."""
        wait(self._shards.values())

    def begin(self, shard: int, store: Callable[[], Commit]) -> None:
        """Store a shard after the one before it: memory holds one, beside the one being encoded."""
        self.wait()
        self._shards[shard] = self._thread.submit(store)

    def written(self, shard: int) -> Commit:
        """Wait for the record of a shard that was begun. Raises what storing it has raised."""
        try:
            return self._shards[shard].result()
        finally:
            del self._shards[shard]

    def close(self) -> None:
        """Wait for what is being stored, and stop."""
        self._thread.shutdown()
