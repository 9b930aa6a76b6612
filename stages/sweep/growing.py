"""Where Ray Tune takes its trials from, the first time and when a sweep goes on.

Tune restores a searcher with all that it was made with. Here what the configuration says now
counts: how many trials there are, and how many run at once.
"""

import itertools
from collections.abc import Sequence
from typing import Any

from ray import tune
from ray.tune.search import ConcurrencyLimiter, Searcher, SearchGenerator
from ray.tune.search.basic_variant import BasicVariantGenerator, _TrialIterator

from egapipe.stages.sweep.plan import Changes
from egapipe.stages.sweep.trial import CHANGES


def listed(changes: Sequence[Changes]) -> Any:
    """Settings as Tune takes them, in this order."""
    return {CHANGES: tune.grid_search(list(changes))}


class PlannedTrials(BasicVariantGenerator):
    """Planned trials; those that an earlier command did not know follow what it knew.

    changes: of all trials, of which it had the first ones. concurrent: that are given out at once,
    0: all.
    """

    def __init__(self, changes: Sequence[Changes], concurrent: int) -> None:
        super().__init__(max_concurrent=concurrent)
        self._planned, self._concurrent = list(changes), concurrent

    def get_state(self) -> Any:
        """What Tune stores: without what the configuration says."""
        state = super().get_state()  # type: ignore[no-untyped-call]
        return {k: v for k, v in state.items() if k not in ("_planned", "_concurrent")}

    def set_state(self, state: Any) -> None:
        """Go on from what Tune stored."""
        super().set_state(state)  # type: ignore[no-untyped-call]
        self.max_concurrent = self._concurrent
        known, last = self._total_samples, self._iterators[-1]
        if len(self._planned) <= known:
            return
        spec = {**last.unresolved_spec, "config": listed(self._planned[known:])}
        added = _TrialIterator(
            uuid_prefix=self._uuid_prefix,
            num_samples=1,
            unresolved_spec=spec,
            start=known,
        )
        self._iterators.append(added)
        self._total_samples, self._finished = len(self._planned), False
        # All of them again: those that are exhausted give nothing.
        generator: Any = itertools.chain.from_iterable(self._iterators)
        self._trial_generator = generator


class ProposedTrials(SearchGenerator):
    """As many trials as a searcher is asked for now."""

    def __init__(self, searcher: Searcher, samples: int, concurrent: int) -> None:
        limiter = ConcurrencyLimiter(searcher, max_concurrent=concurrent)
        super().__init__(limiter)
        self._samples, self._concurrent, self._limiter = samples, concurrent, limiter

    def set_state(self, state: Any) -> None:
        """Go on from what Tune stored."""
        super().set_state(state)
        self._limiter.max_concurrent = self._concurrent
        if self._samples > self._total_samples:
            self._total_samples, self._finished = self._samples, False
