"""What a worker counts for Prometheus, through Ray's own metrics.

Ray's agent of each node exports them, where `ray[default]` is installed; elsewhere they are counted
for nobody. Ray puts `ray_` before a name.
"""

from ray.util.metrics import Counter

from egapipe.pipeline.store import Commit

_TAGS = ("config", "split", "device")


class Metrics:
    """Rows, shards, failures and seconds of one worker, since it was started."""

    def __init__(self, config: str, split: str, device: str) -> None:
        """config: its name. device: with its kind, see `Commit`."""
        tags = {"config": config, "split": split, "device": device}
        self._rows = _counter("rows", "Rows whose shards are stored", tags)
        self._shards = _counter("shards", "Shards that are stored", tags)
        self._failures = _counter("failures", "Rows that have no embedding", tags)
        # decode is of all threads; wait, infer and hold are the worker's own; write is beside them.
        self._seconds = _counter("seconds", "Seconds by part of the work", tags, "part")

    def stored(self, commit: Commit) -> None:
        """Count a shard."""
        self._rows.inc(commit.stop - commit.start)
        self._shards.inc()
        if commit.failures:
            self._failures.inc(len(commit.failures))
        for part, seconds in commit.seconds.items():
            if seconds > 0:
                self._seconds.inc(seconds, {"part": part})


def _counter(name: str, description: str, tags: dict[str, str], *more: str) -> Counter:
    counter = Counter(f"egapipe_extract_{name}", description, (*_TAGS, *more))
    counter.set_default_tags(tags)
    return counter
