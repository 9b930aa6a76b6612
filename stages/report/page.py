"""The page: sections of text, tables and figures in one HTML file that needs no network."""

import html
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources

from egapipe.pipeline.terminal.text import visible
from egapipe.stages.report.figure import Figure
from egapipe.stages.report.names import escape

# No script, style, font or image from anywhere else.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"


@dataclass
class Section:
    """A heading and what stands below it, as HTML, in order."""

    title: str
    parts: list[str] = field(default_factory=list)
    figures: list[Figure] = field(default_factory=list)

    def text(self, text: str) -> None:
        """Add a paragraph."""
        self.parts.append(f"<p>{escape(text)}</p>")

    def heading(self, text: str) -> None:
        """Add a heading below the section's own."""
        self.parts.append(f"<h3>{escape(text)}</h3>")

    def table(
        self,
        heading: Sequence[str],
        rows: Sequence[Sequence[object]],
        *,
        texts: int = 1,
        best: Collection[int] = (),
    ) -> None:
        """Add a table. texts: how many columns are text; the others, behind them, are numbers.
        best: rows to mark."""
        self.parts.append(_table_html(heading, rows, texts, best))

    def long_texts(self, heading: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """Add a table of texts that may break into lines."""
        self.parts.append(_table_html(heading, rows, len(rows[0]), kind="broken"))

    def tiles(self, values: Mapping[str, str]) -> None:
        """Add a few values, each on a tile with its name."""
        tiles = (
            f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>"
            for name, value in values.items()
        )
        self.parts.append(f'<dl class="tiles">{"".join(tiles)}</dl>')

    def figure(self, *figures: Figure, sheet: str = "") -> None:
        """Add figures, side by side where there is room.

        sheet: the pictures behind the points of the figure, see `thumbnails.sheet_html`.
        """
        if not figures:
            return
        self.figures += figures
        inner = "".join(_figure_html(figure, sheet) for figure in figures)
        self.parts.append(f'<div class="figures">{inner}</div>')

    def code(self, title: str, text: str) -> None:
        """Add a text of fixed width that opens on demand."""
        lines = html.escape("\n".join(map(visible, text.split("\n"))))
        self.parts.append(
            f"<details><summary>{escape(title)}</summary><pre>{lines}</pre></details>"
        )

    def html(self) -> str:
        """The whole section."""
        return f"<section><h2>{escape(self.title)}</h2>{''.join(self.parts)}</section>"


def page_html(title: str, subtitle: str, sections: Sequence[Section]) -> str:
    """The document."""
    body = "".join(section.html() for section in sections)
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>{escape(title)}</title><style>{_resource('page.css')}</style></head>"
        f"<body><main><h1>{escape(title)}</h1><p>{escape(subtitle)}</p>{body}</main>"
        f"<script>{_resource('page.js')}</script></body></html>\n"
    )


def _figure_html(figure: Figure, sheet: str) -> str:
    kinds = " ".join(["wide"] * (figure.wide or bool(sheet)) + ["hover"] * bool(sheet))
    panels = "".join(f"<div>{panel}</div>" for panel in figure.panels)
    return (
        f'<figure id="{figure.name}" class="{kinds}"><h3>{escape(figure.title)}</h3>'
        f'<div class="panels">{panels}</div>{sheet}'
        f"<figcaption>{escape(figure.caption)}</figcaption></figure>"
    )


def _table_html(
    heading: Sequence[str],
    rows: Sequence[Sequence[object]],
    texts: int,
    best: Collection[int] = (),
    kind: str = "",
) -> str:
    """A table in a box that scrolls sideways on a small screen."""
    top = f"<thead><tr>{_cells_html('th', heading, texts)}</tr></thead>" if heading else ""
    body = "".join(
        f"<tr{' class=best' if number in best else ''}>{_cells_html('td', row, texts)}</tr>"
        for number, row in enumerate(rows)
    )
    table = f'<table class="{kind}">{top}<tbody>{body}</tbody></table>'
    return f'<div class="scroll">{table}</div>'


def _cells_html(tag: str, cells: Sequence[object], texts: int) -> str:
    return "".join(
        f"<{tag}{' class=text' if number < texts else ''}>{escape(str(cell))}</{tag}>"
        for number, cell in enumerate(cells)
    )


def _resource(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text("utf-8")
