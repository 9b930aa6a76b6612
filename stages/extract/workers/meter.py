"""The running totals of an extraction, as its progress shows them."""

from collections.abc import Sequence

from egapipe.pipeline.store import Commit
from egapipe.pipeline.terminal.progress import Progress
from egapipe.stages.extract.report import Tally


class Meter:
    """Shows the tally of a run, and what shards that are not stored yet add to it."""

    def __init__(self, progress: Progress, tally: Tally, view_count: int) -> None:
        self._progress = progress
        self._tally = tally
        self._view_count = view_count
        self._views = 0

    def moved(self, views: int) -> None:
        """So many views are encoded."""
        self._views += views
        self._show()

    def settle(self, commit: Commit | None) -> None:
        """A shard is finished; None: nothing new."""
        if commit is not None:
            self._tally.add(commit)
            self._views = max(0, self._views - (commit.stop - commit.start) * self._view_count)
        self._show()

    def workers(self, lines: Sequence[str]) -> None:
        """A line a worker, for those who have asked."""
        self._progress.detail(lines)

    def note(self, text: str) -> None:
        """A message for the user."""
        self._progress.note(text)

    def _show(self) -> None:
        shares = {f"{name}_share": round(v, 3) for name, v in self._tally.shares().items()}
        failed = {"failed": len(self._tally.failures)} if self._tally.failures else {}
        # A shard that is done again is encoded twice.
        done = min(self._tally.rows, self._tally.done + self._views // self._view_count)
        self._progress.update(done, **shares, **failed)
