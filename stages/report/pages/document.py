"""The document: sections of text, tables and figures in one HTML file that needs no network."""

import base64
import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from typing import Any

import jinja2
import markupsafe
import vl_convert

from egapipe.pipeline.terminal.text import visible
from egapipe.stages.report.charts.figure import Figure
from egapipe.stages.report.charts.series import Series

MARK = '<meta name="generator" content="egapipe report">'
"""What a page of ours is known by."""
_TEMPLATES = "templates"
_PAGE = "page.html"
_LONG = 18


@dataclass(frozen=True)
class Part:
    """What stands in a section. kind: of its template. values: what that shows."""

    kind: str
    values: Mapping[str, Any]


@dataclass
class Section:
    """A heading and what stands below it, in order. figures: all of its parts."""

    title: str
    parts: list[Part] = field(default_factory=list)
    figures: list[Figure] = field(default_factory=list)

    def text(self, text: str) -> None:
        """Add a paragraph."""
        self._add("text", text=text)

    def heading(self, text: str) -> None:
        """Add a heading below the section's own."""
        self._add("heading", text=text)

    def table(
        self,
        heading: Sequence[str],
        rows: Sequence[Sequence[object]],
        *,
        texts: Collection[int] = (0,),
        best: Collection[int] = (),
        series: Series | None = None,
        numbers: Sequence[int] | None = None,
    ) -> None:
        """Add a table that can be sorted, and filtered when it is long.

        texts: columns of text; the others are numbers. best: rows to mark. series: what the rows
        are of, one each, in order: a click isolates it in the figures. numbers: of the rows in the
        figures' series, where these have another order.
        """
        self._table("live", heading, rows, texts, best, series, numbers)

    def long_texts(self, heading: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """Add a table of texts that may break into lines."""
        self._table("broken", heading, rows, range(len(rows[0])))

    def index(
        self, heading: Sequence[str], rows: Sequence[Sequence[object]], texts: Collection[int]
    ) -> None:
        """Add a table as `table` does, that can always be filtered."""
        self._table("live always", heading, rows, texts)

    def tiles(self, values: Mapping[str, str]) -> None:
        """Add a few values, each on a tile with its name."""
        self._add("tiles", values=values)

    def figure(self, *figures: Figure) -> None:
        """Add figures, side by side where there is room."""
        if figures:
            self.figures += figures
            self._add("figures", figures=figures)

    def pictures(self, pictures: Sequence[tuple[str, str]]) -> None:
        """Add pictures: the URL that holds each, and the text below it."""
        self._add("pictures", pictures=pictures)

    def code(self, title: str, text: str) -> None:
        """Add a text of fixed width that opens on demand."""
        self._add("code", title=title, lines=text.split("\n"))

    def _table(
        self,
        look: str,
        heading: Sequence[str],
        rows: Sequence[Sequence[object]],
        texts: Collection[int],
        best: Collection[int] = (),
        series: Series | None = None,
        numbers: Sequence[int] | None = None,
    ) -> None:
        buttons = [] if series is None else series.listed()
        if numbers is not None:
            pairs = zip(numbers, buttons, strict=True)
            buttons = [(number, name, colour) for number, (_, name, colour) in pairs]
        values = {"heading": heading, "rows": rows, "texts": texts, "best": best, "look": look}
        longs = {
            column
            for column in texts
            if look != "broken" and any(len(str(row[column])) > _LONG for row in rows)
        }
        self._add(
            "table",
            **values,
            longs=longs,
            buttons=buttons,
            group="" if series is None else series.group,
        )

    def _add(self, kind: str, **values: Any) -> None:
        self.parts.append(Part(kind, values))


@dataclass(frozen=True)
class Link:
    """A text that leads to a relative path."""

    text: str
    to: str


def page_html(title: str, subtitle: str, sections: Sequence[Section]) -> str:
    """The document. The library of charts is in it where there is a chart."""
    scripts = [_own("page.js")]
    if any(section.figures for section in sections):
        scripts.insert(0, charts_script())
    values = {
        "title": title,
        "subtitle": subtitle,
        "sections": sections,
        "style": _trusted(_own("page.css")),
        "scripts": [_trusted(script) for script in scripts],
        "policy": _policy(scripts),
        "mark": _trusted(MARK),
    }
    return _environment().get_template(_PAGE).render(values)


@cache
def charts_script() -> str:
    """Vega, Vega-Lite and what embeds them, with an interpreter of expressions: nothing of a page
    is ever compiled as code."""
    script: str = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")
    if "</script" in script.lower() or "<!--" in script:
        raise RuntimeError("the library of charts cannot stand inside of a page")
    return script


def _policy(scripts: Sequence[str]) -> str:
    """No script but these, by their digests; no style, font or image from anywhere else."""
    digests = (hashlib.sha256(script.encode()).digest() for script in scripts)
    allowed = " ".join(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests)
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_own),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["data"] = _data
    environment.tests["link"] = lambda value: isinstance(value, Link)
    return environment


def _shown(value: Any) -> Any:
    """What a template shows of a value: a text on one line, and visible."""
    if isinstance(value, markupsafe.Markup):
        return value
    return visible(str(value))


def _trusted(text: str) -> markupsafe.Markup:
    """A text of this program's own, as it is."""
    return markupsafe.Markup(text)  # noqa: S704 - nothing of the user's is in it


def _data(value: Any) -> markupsafe.Markup:
    """A value as JSON inside of a script element: nothing in it can end the element, or open a
    comment in it."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    for one in "<>&":
        text = text.replace(one, f"\\u{ord(one):04x}")
    return markupsafe.Markup(text)  # noqa: S704 - escaped above, for what it stands in


def _own(name: str) -> str:
    return resources.files("egapipe.stages.report").joinpath(_TEMPLATES, name).read_text("utf-8")
