"""How long shards take, and from when on one takes too long."""

import math
import statistics
from collections import deque

SLOW = 3.0
"""Times the median: devices of one cluster differ by less."""
_RECENT = 101


class Pace:
    """The seconds of the shards that were finished last."""

    def __init__(self, patience: float) -> None:
        """patience: seconds that no shard is too slow for."""
        self._patience = patience
        self._seconds: deque[float] = deque(maxlen=_RECENT)

    def finished(self, seconds: float) -> None:
        """A shard took so long."""
        self._seconds.append(seconds)

    @property
    def limit(self) -> float:
        """Seconds after which a shard is late; infinite before the first is finished."""
        if not self._seconds:
            return math.inf
        return max(self._patience, SLOW * statistics.median(self._seconds))
