"""A figure, described once as Vega-Lite, in two forms: alive on the page, in its colours, and a PNG
file."""

import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import altair as alt
import vl_convert
from altair.utils.schemapi import SchemaValidationError
from PIL import Image

from egapipe.pipeline.errors import one_line
from egapipe.stages.report.charts.series import Series
from egapipe.stages.report.thumbnails import Sheet

WIDTH, HEIGHT = 420, 260
"""Of a panel, in pixels, without its axes: that of a page is as wide as its place."""
Spec = dict[str, Any]
"""A Vega-Lite specification."""

_SCALE = 2.5
_DPI = 72 * _SCALE
_FONTS = "DejaVu Sans, Liberation Sans, sans-serif"
# Of the page's text, be it light or dark; a picture is for white paper.
_PAGE, _PAPER = "currentColor", "#1d2330"


@dataclass(frozen=True)
class Figure:
    """name: of its file. title, caption: texts. panels: charts without sizes, side by side where
    there is room. size: of a panel, in pixels. series: what the figure's lines, points or bars are
    of; the page isolates one at a click. buttons: whether these stand above it, for their names
    stand nowhere else. least: pixels below which a panel is scrolled, not made narrower. sheet: the
    images behind its points."""

    name: str
    title: str
    caption: str
    panels: tuple[Any, ...]
    size: tuple[int, int]
    series: Series | None = None
    buttons: bool = True
    least: int = 0
    sheet: Sheet | None = None

    @property
    def wide(self) -> bool:
        """Whether it needs the page's width."""
        return len(self.panels) > 1 or self.size[0] > WIDTH

    @cached_property
    def _plain(self) -> list[Spec]:
        """Of the panels, without their sizes; checked by the schema, which takes its time.

        Raises ValueError for what is no chart.
        """
        try:
            return [panel.to_dict() for panel in self.panels]
        except SchemaValidationError as error:
            raise ValueError(one_line(error)) from error

    def specs(self) -> list[Spec]:
        """Of the panels on the page."""
        height = self.size[1]
        config = _config(_PAGE, "system-ui, sans-serif")
        drawn = [{**spec, "width": "container", "height": height} for spec in self._plain]
        if self.series is not None:
            drawn = [without_legend(spec) for spec in drawn]
        return [{**_bare(spec), "config": config} for spec in drawn]

    def png(self) -> bytes:
        """All panels in one picture, the last with the legend."""
        width, height = self.size
        last = len(self.panels) - 1
        pictures = []
        for number, plain in enumerate(self._plain):
            spec = {**plain, "width": width, "height": height}
            if self.series is not None and number < last:
                spec = without_legend(spec)
            spec |= {"config": _config(_PAPER, _FONTS), "padding": 12}
            drawn = vl_convert.vegalite_to_png(
                json.dumps({**spec, "background": "white"}), scale=_SCALE
            )
            pictures.append(Image.open(io.BytesIO(drawn)).convert("RGB"))
        return _beside(pictures)


def draw(
    name: str,
    title: str,
    caption: str,
    *panels: Any,
    size: tuple[int, int] = (WIDTH, HEIGHT),
    series: Series | None = None,
    buttons: bool = True,
    least: int = 0,
    sheet: Sheet | None = None,
) -> Figure:
    """A figure of these charts, see `Figure`. Raises ValueError if one is none."""
    figure = Figure(name, title, caption, panels, size, series, buttons, least, sheet)
    # Here, where a part that cannot be drawn is left out, and not when the page is written.
    figure.specs()
    return figure


def table(rows: Sequence[Mapping[str, Any]]) -> Any:
    """Rows as the data of a chart."""
    return alt.Data(values=[{key: _finite(value) for key, value in row.items()} for row in rows])


def hover(*shown: tuple[str, str] | tuple[str, str, str]) -> list[Any]:
    """What a chart says of the point under the pointer: fields with their titles and formats."""
    return [
        alt.Tooltip(f"{field}:{'Q' if form else 'N'}", title=title, **_form(*form))
        for field, title, *form in shown
    ]


def _finite(value: Any) -> Any:
    """NaN as null: JSON has no other word for it."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def fitting() -> Any:
    """A scale of numbers that begins where they do."""
    return alt.Scale(zero=False, nice=True)


def without_legend(spec: Spec) -> Spec:
    """The same without the legend of its series, in all of its layers."""
    spec = (
        {**spec, "layer": [without_legend(layer) for layer in spec["layer"]]}
        if "layer" in spec
        else spec
    )
    encoding = spec.get("encoding", {})
    if encoding.get("color", {}).get("field") == "series":
        colour = {**encoding["color"], "legend": None}
        spec = {**spec, "encoding": {**encoding, "color": colour}}
    return spec


def _bare(spec: Spec) -> Spec:
    """Without the version of the language: the page has the library of one."""
    return {key: value for key, value in spec.items() if key != "$schema"}


def _form(*form: str) -> dict[str, str]:
    return {"format": form[0]} if form and form[0] else {}


def _beside(pictures: Sequence[Image.Image]) -> bytes:
    """Pictures from left to right, as a PNG file."""
    whole = Image.new(
        "RGB", (sum(one.width for one in pictures), max(one.height for one in pictures)), "white"
    )
    left = 0
    for one in pictures:
        whole.paste(one, (left, 0))
        left += one.width
    content = io.BytesIO()
    whole.save(content, format="PNG", dpi=(_DPI, _DPI))
    return content.getvalue()


def _config(ink: str, font: str) -> Spec:
    text = {"labelColor": ink, "titleColor": ink, "labelFontSize": 11, "titleFontSize": 11}
    lines = {"domainColor": ink, "tickColor": ink, "gridColor": ink, "gridOpacity": 0.12}
    named = {"labelLimit": 0, "titleLimit": 0, "titleFontWeight": "normal"}
    return {
        "background": None,
        "font": font,
        "axis": {**text, **lines, **named, "domainOpacity": 0.5, "tickOpacity": 0.5},
        "axisQuantitative": {"tickCount": 5},
        "legend": {**text, **named, "symbolStrokeWidth": 2.5},
        "title": {"color": ink, "fontSize": 12, "fontWeight": "normal"},
        "text": {"color": ink, "fontSize": 11},
        "rule": {"color": ink},
        "view": {"stroke": None},
        "line": {"strokeWidth": 1.8},
    }
