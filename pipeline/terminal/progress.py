"""How far a run is: a bar on a terminal, one JSON line every few seconds elsewhere."""

import json
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Protocol, Self, TextIO

from egapipe.pipeline.terminal.text import visible

if TYPE_CHECKING:
    from rich.console import RenderableType

Value = float | int | str
Clock = Callable[[], float]

_EVERY_SECONDS = 5.0


class Display(Protocol):
    """Where progress is shown."""

    def show(self, state: Mapping[str, Value]) -> None:
        """Show a state: task, done, total, unit, per_second, eta_seconds, the run's own fields."""
        ...

    def note(self, text: str) -> None:
        """Show a message that stays."""
        ...

    def detail(self, lines: Sequence[str]) -> None:
        """Show lines beside the state, in place of those before."""
        ...

    def close(self, state: Mapping[str, Value]) -> None:
        """Show the last state and stop."""
        ...


class Progress:
    """Progress of one task towards a known total.

    `update` may be called as often as the run likes; the display decides what is shown.
    """

    def __init__(
        self,
        display: Display,
        task: str,
        total: int,
        *,
        done: int = 0,
        unit: str = "rows",
        clock: Clock = time.monotonic,
        detailed: bool = False,
    ) -> None:
        """Start the clock.

        `done` of `total` were there before and count in no rate. detailed: whether `detail` shows
        anything.
        """
        self._detailed = detailed
        self._display = display
        self._task, self._total, self._unit = task, total, unit
        self._before = self._done = done
        self._fields: Mapping[str, Value] = {}
        self._clock, self._began = clock, clock()

    def update(self, done: int, **fields: Value) -> None:
        """Say how many are done, and show further fields until the next update."""
        self._done, self._fields = done, fields
        self._display.show(self._state())

    def note(self, text: str) -> None:
        """Show a message that stays, such as the loss of a worker."""
        self._display.note(text)

    def detail(self, lines: Sequence[str]) -> None:
        """Show lines beside the state, such as one a worker, if they were asked for."""
        if self._detailed:
            self._display.detail(lines)

    def close(self) -> None:
        """Show the last state and stop."""
        self._display.close(self._state())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _state(self) -> dict[str, Value]:
        seconds = self._clock() - self._began
        rate = (self._done - self._before) / seconds if seconds > 0 else 0.0
        state: dict[str, Value] = {
            "task": self._task,
            "done": self._done,
            "total": self._total,
            "unit": self._unit,
            "seconds": round(seconds, 1),
            "per_second": float(f"{rate:.4g}"),
        }
        if rate > 0:
            state["eta_seconds"] = round((self._total - self._done) / rate, 1)
        return {**state, **self._fields}


class OpenProgress(Protocol):
    """`open_progress`, `silent_progress` or something like them."""

    def __call__(
        self, task: str, total: int, *, done: int = 0, unit: str = "rows"
    ) -> AbstractContextManager[Progress]:
        """Start to show a task of which `done` of `total` are there already."""
        ...


class Silence:
    """Shows nothing: for callers that look at the result alone."""

    def show(self, state: Mapping[str, Value]) -> None:
        """Show nothing."""

    def note(self, text: str) -> None:
        """Show nothing."""

    def detail(self, lines: Sequence[str]) -> None:
        """Show nothing."""

    def close(self, state: Mapping[str, Value]) -> None:
        """Show nothing."""


class JsonLines:
    """One JSON object a line, at most every few seconds, and one at the end."""

    def __init__(
        self, stream: TextIO, every: float = _EVERY_SECONDS, clock: Clock = time.monotonic
    ) -> None:
        self._stream, self._every, self._clock = stream, every, clock
        self._last = clock()
        self._details: Mapping[str, Sequence[str]] = {}

    def show(self, state: Mapping[str, Value]) -> None:
        """Write the state if the last line is old enough."""
        now = self._clock()
        if now - self._last >= self._every:
            self._last = now
            self._write({**state, **self._details})

    def note(self, text: str) -> None:
        """Write the message at once."""
        self._write({"note": text})

    def detail(self, lines: Sequence[str]) -> None:
        """Write them with the next state, as `details`."""
        self._details = {"details": list(lines)}

    def close(self, state: Mapping[str, Value]) -> None:
        """Write the last state."""
        self._write({**state, "closed": True})

    def _write(self, content: Mapping[str, object]) -> None:
        print(json.dumps(content), file=self._stream, flush=True)


class TerminalBar:
    """A bar with rate, time left and the run's fields."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn
        from rich.progress import Progress as Bar
        from rich.table import Column
        from rich.text import Text

        self._lines: Sequence[str] = ()
        shown = self

        class Detailed(Bar):
            """The bar, and below it the details."""

            def get_renderables(self) -> "Iterable[RenderableType]":
                yield from super().get_renderables()
                yield from (Text(f"  {line}", no_wrap=True) for line in shown._lines)

        text = TextColumn("{task.fields[text]}", markup=False)
        name = TextColumn("{task.description}", markup=False)
        # The bar takes what the words leave of the line.
        bar = BarColumn(bar_width=None, table_column=Column(ratio=1))
        self._bar = Detailed(name, bar, text, console=Console(stderr=True), expand=True)
        self._bar.start()
        self._task = self._bar.add_task("", text="", total=None)

    def show(self, state: Mapping[str, Value]) -> None:
        """Move the bar."""
        self._bar.update(
            self._task,
            description=visible(str(state["task"])),
            completed=float(state["done"]),
            total=float(state["total"]),
            text=describe(state),
        )

    def note(self, text: str) -> None:
        """Print the message above the bar."""
        self._bar.console.print(visible(text), markup=False, highlight=False)

    def detail(self, lines: Sequence[str]) -> None:
        """Show lines below the bar, as many as fit on the screen."""
        room = max(1, self._bar.console.height - 4)
        cut = [f"... and {len(lines) - room + 1} more"] if len(lines) > room else []
        self._lines = [*map(visible, lines[: room - len(cut)]), *cut]

    def close(self, state: Mapping[str, Value]) -> None:
        """Leave the bar in its last state."""
        self._lines = ()
        self.show(state)
        self._bar.stop()


def open_progress(
    task: str, total: int, *, done: int = 0, unit: str = "rows", detailed: bool = False
) -> Progress:
    """Progress on stderr: a bar if it is a terminal, else JSON lines. detailed: see `Progress`."""
    display: Display = TerminalBar() if sys.stderr.isatty() else JsonLines(sys.stderr)
    progress = Progress(display, task, total, done=done, unit=unit, detailed=detailed)
    progress.update(done)
    return progress


def silent_progress(task: str, total: int, *, done: int = 0, unit: str = "rows") -> Progress:
    """Progress that is shown nowhere."""
    return Progress(Silence(), task, total, done=done, unit=unit)


def describe(state: Mapping[str, Value]) -> str:
    """`1,024/50,000  512 rows/s  1:36 left  wait 3 %`, from a state as displays get it.

    Fields called `<name>_share` are fractions, shown in percent.
    """
    parts = [
        f"{state['done']:,}/{state['total']:,}",
        f"{float(state['per_second']):,.4g} {state['unit']}/s",
    ]
    if "eta_seconds" in state:
        parts.append(f"{clock(float(state['eta_seconds']))} left")
    parts += [_named(name, value) for name, value in state.items() if name not in _OWN]
    return "  ".join(parts)


_OWN = {"task", "done", "total", "unit", "seconds", "per_second", "eta_seconds"}
_SHARE = "_share"


def _named(name: str, value: Value) -> str:
    if name.endswith(_SHARE):
        return f"{name.removesuffix(_SHARE)} {100 * float(value):.0f} %"
    return f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}"


def clock(seconds: float) -> str:
    """`1:05` or `2:00:00`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
