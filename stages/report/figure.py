"""A figure, described once, in two forms: SVG for the page, in its colours, and a PNG file."""

import io
import re
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from egapipe.pipeline.machine.extras import require
from egapipe.stages.report.names import escape, families, printing

# Drawn in this colour, shown in the page's colour of text, be it light or dark.
_INK = "#010203"
_STYLE: dict[Any, Any] = {
    "text.color": _INK,
    "text.parse_math": False,  # names of classes may hold any character, dollars too
    "axes.labelcolor": _INK,
    "axes.edgecolor": _INK,
    "axes.linewidth": 0.6,
    "axes.titlesize": 10,
    "axes.titlecolor": _INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "legend.frameon": False,
    "font.size": 10,
    "lines.linewidth": 1.6,
    "svg.fonttype": "none",
}
_DPI = 150
WIDTH = 4.8
"""Of a panel, in inches."""
COLOURS = ("#3b82c4", "#e0792b", "#3f9d5a", "#cf4a4a", "#8a6bc1", "#8d6a4f", "#d26fae", "#808890")
"""Of lines and bars: they stand out on white as well as on black."""
GREY = COLOURS[7]

Paint = Callable[[Any], None]
"""Draws on matplotlib axes."""


@dataclass(frozen=True)
class Figure:
    """name: of its file. title, caption: texts. panels: inline SVG elements, side by side where
    there is room. png: the file's bytes, all panels in one picture. wide: whether it needs the
    page's width."""

    name: str
    title: str
    caption: str
    panels: tuple[str, ...]
    png: bytes
    wide: bool


def require_matplotlib() -> Any:
    """Import it. Raises UsageError if it is not installed."""
    return require("matplotlib", "report", "a report")


def draw(
    name: str, title: str, caption: str, *paints: Paint, size: tuple[float, float] = (WIDTH, 3.2)
) -> Figure:
    """A figure of one panel for each of `paints`. size: a panel's width and height in inches.

    Texts are 10 points high: a panel of WIDTH is as wide as a phone, and a wider one is scrolled
    there. Raises UsageError if matplotlib is not installed.
    """
    with require_matplotlib().rc_context(
        {**_STYLE, "svg.hashsalt": name, "font.family": families()}
    ):
        panels = tuple(
            _inline(_svg(paint, size), f"{name}-{number}", title, size[0])
            for number, paint in enumerate(paints)
        )
        wide = len(paints) > 1 or size[0] > WIDTH
        return Figure(name, title, caption, panels, _png(paints, size), wide)


def logarithmic(axis: Any, values: Iterable[float]) -> None:
    """Make a matplotlib x or y axis logarithmic if its values span more than one power of ten."""
    known = [value for value in values if value == value]
    if not known or min(known) <= 0 or max(known) <= 10 * min(known):
        return
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis._set_axes_scale("log")
    axis.set_major_locator(
        LogLocator(base=10, subs=(1, 3) if max(known) < 300 * min(known) else (1,))
    )
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def _svg(paint: Paint, size: tuple[float, float]) -> str:
    from matplotlib.figure import Figure as Canvas

    canvas, content = Canvas(figsize=size, layout="constrained"), io.StringIO()
    paint(canvas.subplots())
    with warnings.catch_warnings():
        # The page has the reader's fonts: what ours lack is measured wrongly, and shown all right.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        # Without a date the same numbers make the same file.
        canvas.savefig(content, format="svg", transparent=True, metadata={"Date": None})
    return content.getvalue()


def _png(paints: tuple[Paint, ...], size: tuple[float, float]) -> bytes:
    from matplotlib.figure import Figure as Canvas

    width, height = size
    canvas = Canvas(figsize=(width * len(paints), height), layout="constrained")
    with printing():
        panels = canvas.subplots(1, len(paints), squeeze=False)[0]
        for paint, axes in zip(paints, panels, strict=True):
            paint(axes)
    content = io.BytesIO()
    canvas.savefig(content, format="png", dpi=_DPI, facecolor="white")
    return content.getvalue()


def _inline(svg: str, name: str, title: str, width: float) -> str:
    """The element alone, as wide as its place, its ids those of no other panel of the page.

    Where a panel is wider than WIDTH inches its texts would be too small on a phone.
    """
    element = svg[svg.index("<svg") :]
    head, rest = element.split(">", 1)
    head = re.sub(r'\s(width|height|xmlns|xmlns:xlink|version)="[^"]*"', "", head)
    rest = re.sub(r"<metadata>.*?</metadata>", "", rest, flags=re.DOTALL)
    # Only inside tags: a text may look like an attribute.
    rest = re.sub(r"<[^>]+>", lambda tag: _renamed(tag.group(), name), rest)
    room = f' style="min-width: {60 * width:.0f}px"' if width > WIDTH else ""
    return f'{head} role="img" aria-label="{escape(title)}"{room}>{rest}'


def _renamed(tag: str, name: str) -> str:
    tag = re.sub(r'\bid="', f'id="{name}-', tag)
    tag = re.sub(r'xlink:href="#', f'href="#{name}-', tag).replace("url(#", f"url(#{name}-")
    return tag.replace(_INK, "currentColor")
