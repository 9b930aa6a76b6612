"""`egapipe watch`."""

import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from egapipe.pipeline.terminal.options import as_place
from egapipe.pipeline.terminal.text import say, visible

if TYPE_CHECKING:
    from egapipe.stages.watch import RunStatus

COLUMNS = ("run", "state", "epoch", "loss", "", "top-1 %", "best", "rows/s", "data wait", "left")


def register(app: typer.Typer) -> None:
    """Add `egapipe watch`."""
    app.command()(watch)


def watch(
    run: Annotated[str, typer.Argument(parser=as_place, help="A run folder, or a folder of runs.")],
    every: Annotated[float, typer.Option(min=0.1, help="Seconds between looks.")] = 2.0,
    once: Annotated[bool, typer.Option("--once", help="Print one look and stop.")] = False,
) -> None:
    """Show runs in progress until all of them are finished: loss, accuracy, rates, data wait.

    It reads the runs' files; for curves open them with TensorBoard, see the last line.
    """
    from rich.console import Console
    from rich.live import Live

    from egapipe.stages.watch.status import statuses

    console, said = Console(), set[str]()

    def look() -> "list[RunStatus]":
        """Where the runs stand; what cannot be shown is complained of once."""
        found, failures = statuses(run)
        for failure in failures:
            if str(failure) not in said:
                say(f"error: {failure}", err=True)
                said.add(str(failure))
        return found

    found = look()
    if once or not console.is_terminal:
        console.print(table(found))
    else:
        with Live(table(found), console=console, auto_refresh=False) as live:
            while any(status.state != "finished" for status in found):
                time.sleep(every)
                found = look()
                live.update(table(found), refresh=True)
    say(f"tensorboard --logdir {run}")
    if said:
        raise typer.Exit(1)


def table(statuses: "list[RunStatus]") -> Any:
    """A rich table, a line a run."""
    from rich.table import Table
    from rich.text import Text

    shown = Table(box=None, pad_edge=False)
    for name in COLUMNS:
        left = name in ("run", "state", "")
        shown.add_column(name, justify="left" if left else "right", overflow="fold")
    for status in statuses:
        # As text: a folder's name may look like markup.
        shown.add_row(*(Text(visible(cell)) for cell in cells(status)))
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
        "" if status.state == "finished" or status.eta is None else _duration(status.eta),
    )


def _text(value: float | None, form: str) -> str:
    return "" if value is None else form.format(value)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
