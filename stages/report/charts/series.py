"""What the lines, points or bars of a figure are of: names, and a colour for each."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt

from egapipe.pipeline.terminal.text import visible
from egapipe.stages.report.charts.colours import palette
from egapipe.stages.report.names import shortened

# Of what another one has been isolated from.
_FAINT = 0.08


@dataclass(frozen=True)
class Series:
    """names: as the user gave them, in order. A chart's data have the number of one in `series`:
    two names that look alike stay two. group: figures and tables of one isolate together.
    coloured: whether each has a colour of its own; what is many is isolated in a table alone."""

    names: tuple[str, ...]
    group: str
    coloured: bool = True

    @property
    def colours(self) -> list[str]:
        """One for each, none twice; none at all where they have none."""
        return palette(len(self.names)) if self.coloured else [""] * len(self.names)

    def listed(self) -> list[tuple[int, str, str]]:
        """Number, name and colour of each, for the page's buttons."""
        return [
            (number, name, colour)
            for number, (name, colour) in enumerate(zip(self.names, self.colours, strict=True))
        ]

    def params(self) -> list[Any]:
        """Of a chart: `names` and `whole`, which its texts are taken from, and `only`, the numbers
        that are isolated; none are all."""
        return [*texts(self.names), alt.param(name="only", value=[])]

    def colour(self) -> Any:
        """The encoding of a colour by `series`. The page has buttons for a legend, a picture has
        this one."""
        numbers = list(range(len(self.names)))
        columns = 1 + len(numbers) // 16
        legend = alt.Legend(title=None, labelExpr="names[datum.value]", columns=columns)
        scale = alt.Scale(domain=numbers, range=self.colours)
        return alt.Color("series:N", scale=scale, legend=legend)

    def opacity(self, shown: float = 1.0) -> Any:
        """The encoding that makes faint what is not isolated."""
        return alt.condition(
            "length(only) == 0 || indexof(only, datum.series) >= 0",
            alt.value(shown),
            alt.value(min(shown, _FAINT)),
        )


def texts(names: Sequence[str]) -> list[Any]:
    """The parameters `names`, short enough to stand beside an axis, and `whole`."""
    return [
        alt.param(name="names", value=[shortened(name) for name in names]),
        alt.param(name="whole", value=[visible(name) for name in names]),
    ]


def named_axis(title: str | None = None, **more: Any) -> Any:
    """An axis whose values are numbers of `names`, all of which are written."""
    return alt.Axis(labelExpr="names[datum.value]", title=title, labelOverlap=False, **more)
