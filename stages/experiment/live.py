"""An experiment as a table that is drawn anew while its cells run together."""

import time
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Self

from egapipe.pipeline.results.experiment import Cell, Experiment, State
from egapipe.pipeline.results.labels import setting_names, short_name
from egapipe.pipeline.terminal.progress import clock
from egapipe.pipeline.terminal.text import visible, widths
from egapipe.stages.experiment.pace import Pace

if TYPE_CHECKING:
    from rich.console import Console, Group
    from rich.table import Table

_EVERY_SECONDS = 0.25
# Lines of a terminal that are neither cells nor reasons: heading, head, what is hidden, the prompt.
_FRAME = 5
# Failures whose reasons stand below the table: the last ones.
REASONS = 4
_STYLES: dict[State, str] = {"running": "cyan", "done": "green", "failed": "red", "stopped": "dim"}
_ORDER: tuple[State, ...] = ("running", "done", "failed", "stopped", "planned")


class LiveTable:
    """A table on stderr for the length of a block, which is gone at its end."""

    def __init__(self, console: "Console | None" = None) -> None:
        from rich.console import Console
        from rich.live import Live

        self._console = console or Console(stderr=True)
        self._live = Live(console=self._console, auto_refresh=False, transient=True)
        self._drawn = float("-inf")
        self._pace = Pace()

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._live.stop()

    def show(self, experiment: Experiment) -> None:
        """Draw the experiment, if the last drawing is old enough."""
        for cell in experiment.cells:
            if cell.state == "running":
                self._pace.see(cell)
        if time.monotonic() - self._drawn >= _EVERY_SECONDS:
            self._drawn = time.monotonic()
            drawn = drawing(experiment, self._pace, self._console.width, self._console.height)
            self._live.update(drawn, refresh=True)


def drawing(experiment: Experiment, pace: Pace, width: int, height: int) -> "Group":
    """Heading, table and the reasons of failures, on as many lines and columns as there are."""
    from rich.console import Group
    from rich.text import Text

    failed = [cell for cell in experiment.cells if cell.state == "failed"]
    failed.sort(key=lambda cell: cell.ended or 0.0)
    reasons = failed[-REASONS:]
    room = max(1, height - _FRAME - len(reasons))
    cells = shown(experiment, room)
    hidden = len(experiment.cells) - len(cells)
    lines = [Text(heading(experiment, pace), no_wrap=True, overflow="ellipsis")]
    more = [Text(f"and {hidden} more")] if hidden > 0 else []
    below = [
        Text(visible(f"{_name(experiment, cell)}: {cell.error}"), "red", no_wrap=True)
        for cell in reasons
    ]
    for text in below:
        text.overflow = "ellipsis"
    return Group(*lines, _table(experiment, cells, pace, width), *more, *below)


def heading(experiment: Experiment, pace: Pace) -> str:
    """`grid: cell 4 of 9, 2 running, 1 failed, 3:20 left`."""
    counts = experiment.counts
    begun = counts["running"] + counts["done"] + counts["failed"] + counts["stopped"]
    several = [f"{counts[s]} {s}" for s in ("running", "stopped", "failed") if counts[s]]
    left = pace.left(experiment)
    time_left = [] if left is None or not counts["running"] else [f"{clock(left)} left"]
    parts = [f"cell {begun} of {max(experiment.planned, len(experiment.cells))}"]
    return visible(f"{experiment.name}: ") + ", ".join([*parts, *several, *time_left])


def shown(experiment: Experiment, room: int) -> list[Cell]:
    """As many cells as there is room for: the running ones first, then the best."""
    sign = -1 if experiment.mode == "max" else 1

    def key(cell: Cell) -> tuple[int, bool, float, int]:
        ranked = cell.state != "running" and cell.value is not None
        place = _ORDER.index(cell.state)
        return place, not ranked, sign * (cell.value or 0.0) if ranked else 0.0, cell.number

    return sorted(experiment.cells, key=key)[:room]


def _table(experiment: Experiment, cells: Sequence[Cell], pace: Pace, width: int) -> "Table":
    from rich.table import Table
    from rich.text import Text

    drawn = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    names, settings = settings_columns(experiment, cells)
    best = _best(experiment)
    heads = [*("", *names, "epoch", experiment.metric, "left", "")]
    rows = [
        [str(cell.number), *row, *_standing(cell, pace, best)]
        for cell, row in zip(cells, settings, strict=True)
    ]
    middle = range(1, 1 + len(names))
    wide = widths([heads, *rows], width, flexible=middle)
    for place, head in enumerate(heads):
        right = place not in middle and place < len(heads) - 1
        drawn.add_column(
            Text(visible(head)),
            justify="right" if right else "left",
            no_wrap=True,
            overflow="ellipsis",
            width=wide[place],
        )
    for cell, row in zip(cells, rows, strict=True):
        # As text: a setting may look like markup.
        drawn.add_row(*(Text(visible(word)) for word in row), style=_STYLES.get(cell.state))
    return drawn


def _standing(cell: Cell, pace: Pace, best: int | None) -> list[str]:
    """What the last columns say of a cell: epoch, value, time left, state."""
    left = pace.of(cell)
    return [
        f"{cell.epoch}/{cell.epochs}",
        "" if cell.value is None else f"{cell.value:.4g}",
        "" if left is None else clock(left),
        "best" if cell.number == best else cell.state,
    ]


def _best(experiment: Experiment) -> int | None:
    """The number of the best cell that is done."""
    sign = -1 if experiment.mode == "max" else 1
    done = [c for c in experiment.cells if c.state == "done" and c.value is not None]
    best = min(done, key=lambda cell: sign * (cell.value or 0.0), default=None)
    return None if best is None else best.number


def settings_columns(
    experiment: Experiment, cells: Sequence[Cell]
) -> tuple[list[str], list[list[str]]]:
    """Names of the columns that say what a cell is, and their texts: of a comparison student,
    variant and seed, of a sweep its settings; those that all share are left out."""
    settings = [experiment.setting(cell.setting) for cell in cells]
    seeds = [str(cell.seed) for cell in cells]
    if experiment.kind == "comparison":
        columns = {"student": [s.group for s in settings], "variant": [s.label for s in settings]}
        if len(experiment.groups) == 1:
            del columns["student"]
    else:
        paths = dict.fromkeys(path for s in experiment.settings for path in s.changes)
        columns = {short_name(p): setting_names(p, [s.changes for s in settings]) for p in paths}
    if len({cell.seed for cell in experiment.cells}) > 1:
        columns["seed"] = seeds
    return list(columns), [list(row) for row in zip(*columns.values(), strict=True)] or [
        [] for _ in cells
    ]


def _name(experiment: Experiment, cell: Cell) -> str:
    return f"{cell.number} ({experiment.setting(cell.setting).name}, seed {cell.seed})"
