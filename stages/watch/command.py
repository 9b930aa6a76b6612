"""`egapipe watch`."""

import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from egapipe.pipeline.terminal.options import as_place
from egapipe.pipeline.terminal.progress import clock
from egapipe.pipeline.terminal.text import say, visible, widths

if TYPE_CHECKING:
    from egapipe.pipeline.results.experiment import Experiment
    from egapipe.stages.watch import RunStatus
    from egapipe.stages.watch.status import Look

# Lines of a terminal that are neither runs nor headings: head, what is hidden, the last two.
_FRAME = 5
# Columns from which there is room for losses as a line of blocks, and for rates.
_WIDE, _MIDDLE = 120, 100
_SPARED = ("rows/s", "data wait")
COLUMNS = ("run", "state", "epoch", "loss", "", "top-1 %", "best", "rows/s", "data wait", "left")


def register(app: typer.Typer) -> None:
    """Add `egapipe watch`."""
    app.command()(watch)


def watch(
    run: Annotated[
        str,
        typer.Argument(parser=as_place, help="A run, comparison or sweep, or a folder of them."),
    ],
    every: Annotated[float, typer.Option(min=0.1, help="Seconds between looks.")] = 2.0,
    once: Annotated[bool, typer.Option("--once", help="Print one look and stop.")] = False,
) -> None:
    """Show runs in progress until the last one has ended: loss, accuracy, rates, data wait.

    It reads the runs' files; for curves open them with TensorBoard, see the last line.
    """
    from rich.console import Console
    from rich.live import Live

    from egapipe.stages.watch.status import look

    console, said = Console(), set[str]()
    if not console.is_terminal:
        # A file has no right end.
        console = Console(width=200)

    def looked() -> "Look":
        """What is there now; what cannot be shown is complained of once."""
        found = look(run)
        for failure in found.failures:
            if str(failure) not in said:
                say(f"error: {failure}", err=True)
                said.add(str(failure))
        return found

    found = looked()
    if not once and console.is_terminal:
        with Live(console=console, auto_refresh=False, transient=True) as live:
            while not found.over:
                live.update(drawing(found, console.width, console.height), refresh=True)
                time.sleep(every)
                found = looked()
    console.print(drawing(found, console.width, console.height if console.is_terminal else None))
    say(f"tensorboard --logdir {run}")
    if said:
        raise typer.Exit(1)


def drawing(look: "Look", width: int, height: int | None) -> Any:
    """Headings of experiments and a line a run, on as many lines as there are; None: all."""
    from rich.console import Group
    from rich.text import Text

    headings = [heading(experiment) for experiment in look.experiments]
    if height is not None:
        headings = headings[: max(1, height // 4)]
    room = None if height is None else max(1, height - len(headings) - _FRAME)
    hidden = 0 if room is None else max(0, len(look.runs) - room)
    lines = [Text(line, no_wrap=True, overflow="ellipsis") for line in headings]
    more = [Text(f"and {hidden} more, older")] if hidden else []
    return Group(*lines, table(look.runs[:room], width), *more)


def heading(experiment: "Experiment") -> str:
    """`grid: cell 4 of 9, 1 running, 1 failed`."""
    counts = experiment.counts
    total = max(experiment.planned, len(experiment.cells))
    several = [f"{counts[s]} {s}" for s in ("running", "stopped", "failed", "done") if counts[s]]
    return visible(f"{experiment.name}: ") + ", ".join(
        [f"cell {total - counts['planned']} of {total}", *several]
    )


def table(statuses: "list[RunStatus]", width: int = 100) -> Any:
    """A rich table, a line a run."""
    from rich.table import Table
    from rich.text import Text

    shown = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    left_out = set() if width >= _WIDE else {""} if width >= _MIDDLE else {"", *_SPARED}
    kept = [place for place, name in enumerate(COLUMNS) if name not in left_out]
    names = [COLUMNS[place] for place in kept]
    rows = [[visible(cells(status)[place]) for place in kept] for status in statuses]
    for name, wide in zip(names, widths([names, *rows], width, gap=1), strict=True):
        left = name in ("run", "state", "")
        # What does not fit is cut at its end: a line stays a line.
        shown.add_column(
            name, justify="left" if left else "right", no_wrap=True, overflow="ellipsis", width=wide
        )
    for row in rows:
        # As text: a folder's name may look like markup.
        shown.add_row(*map(Text, row))
    return shown


def cells(status: "RunStatus") -> tuple[str, ...]:
    """The texts of a run's line, one for each of COLUMNS."""
    from egapipe.stages.watch.status import sparkline

    return (
        status.path.name,
        status.state,
        f"{status.epoch}/{status.epochs}",
        _text(status.loss, "{:.4g}"),
        sparkline(list(status.losses)),
        _text(status.top1, "{:.2f}"),
        _text(status.best_top1, "{:.2f}"),
        _text(status.rows_per_s, "{:.0f}"),
        _text(status.data_wait, "{:.1%}"),
        "" if status.over or status.eta is None else clock(status.eta),
    )


def _text(value: float | None, form: str) -> str:
    return "" if value is None else form.format(value)
