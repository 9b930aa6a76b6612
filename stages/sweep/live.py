"""The trials as a table that is drawn anew while they run."""

import time
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Self

from egapipe.pipeline.config import Config
from egapipe.pipeline.results.labels import setting_names, short_name
from egapipe.pipeline.terminal.text import visible
from egapipe.stages.sweep.state import TrialState, best

if TYPE_CHECKING:
    from rich.console import Group

_EVERY_SECONDS = 0.25
# Lines of a terminal that are not trials: head, foot, rules, the prompt.
_FRAME = 7
_STYLES = {"running": "cyan", "finished": "green", "failed": "red", "stopped": "dim"}


class LiveTable:
    """A table on stderr for the length of a block: trial, settings, epoch, metric, time left."""

    def __init__(self, config: Config) -> None:
        from rich.console import Console
        from rich.live import Live

        self._config = config
        self._console = Console(stderr=True)
        self._live = Live(console=self._console, auto_refresh=False)
        self._drawn = float("-inf")
        self._states: Sequence[TrialState] = []

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._draw()
        self._live.stop()

    def show(self, states: Sequence[TrialState]) -> None:
        """Draw the states, if the last drawing is old enough."""
        self._states = states
        if time.monotonic() - self._drawn >= _EVERY_SECONDS:
            self._draw()

    def _draw(self) -> None:
        self._drawn = time.monotonic()
        if self._states:
            room = max(3, self._console.height - _FRAME)
            self._live.update(table(self._config, self._states, room), refresh=True)


def table(config: Config, states: Sequence[TrialState], room: int) -> "Group":
    """The table of at most `room` trials: the running ones first, then the best."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    sweep = config.sweep
    first = best(states, sweep.mode)
    counts = ", ".join(
        f"{sum(s.status == status for s in states)} {status}"
        for status in ("running", "waiting", "finished", "stopped", "failed")
    )
    drawn = Table(box=None)
    drawn.add_column("trial", justify="right")
    for path in sweep.space:
        drawn.add_column(Text(visible(short_name(path))), justify="right")
    for name in ("epoch", sweep.metric, "left"):
        drawn.add_column(name, justify="right")
    drawn.add_column("", overflow="ellipsis", no_wrap=True)
    order = shown(states, sweep.mode, room)
    columns = [setting_names(path, [state.changes for state in order]) for path in sweep.space]
    for place, state in enumerate(order):
        settings = [column[place] for column in columns]
        mark = "best" if state is first else state.error or state.status
        # As text: a setting or an error may look like markup.
        words = (Text(visible(word)) for word in (*cells(state, settings), mark))
        drawn.add_row(*words, style=_STYLES.get(state.status))
    hidden = len(states) - room
    more = [Text(f"and {hidden} more")] if hidden > 0 else []
    return Group(Text(f"{config.name}: {counts}"), drawn, *more)


def shown(states: Sequence[TrialState], mode: str, room: int) -> list[TrialState]:
    """As many trials as there is room for, in the order of the table."""
    sign = -1 if mode == "max" else 1
    order = ("running", "finished", "failed", "stopped", "waiting")
    ranked = sorted(
        states,
        key=lambda s: (
            order.index(s.status),
            s.value is None or s.status == "running",
            0.0 if s.status == "running" else sign * (s.value or 0.0),
            s.number,
        ),
    )
    return ranked[:room]


def cells(state: TrialState, settings: Sequence[str]) -> list[str]:
    """The words of one trial: number, settings, epoch, metric, time left."""
    return [
        str(state.number),
        *settings,
        f"{state.epochs}/{state.total}",
        "" if state.value is None else f"{state.value:.4g}",
        "" if state.eta is None else clock(state.eta),
    ]


def clock(seconds: float) -> str:
    """`1:05` or `2:00:00`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
