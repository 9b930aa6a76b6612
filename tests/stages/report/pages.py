"""Reading a page as a browser would, without one."""

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import NamedTuple


class Element(NamedTuple):
    tag: str
    attributes: dict[str, str | None]


class Page(HTMLParser):
    """elements: in order. tables: rows of texts. titles: of sections. text: all of it, without
    scripts and styles."""

    def __init__(self, path: Path) -> None:
        super().__init__(convert_charrefs=True)
        self.source = path.read_text("utf-8")
        self.elements: list[Element] = []
        self.tables: list[list[list[str]]] = []
        self.tiles: dict[str, str] = {}
        self.titles: list[str] = []
        self.text = ""
        self._open: list[str] = []
        self._term = ""
        self.feed(self.source)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(Element(tag, dict(attrs)))
        if tag not in ("meta", "img"):
            self._open.append(tag)
        if tag == "table":
            self.tables.append([])
        if tag == "tr":
            self.tables[-1].append([])
        if tag in ("td", "th"):
            self.tables[-1][-1].append("")
        if tag == "h2":
            self.titles.append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(Element(tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag, f"</{tag}> closes nothing"

    def handle_data(self, data: str) -> None:
        tag = self._open[-1] if self._open else ""
        if {"td", "th"} & set(self._open):
            self.tables[-1][-1][-1] += data
        if tag == "h2":
            self.titles[-1] += data
        if tag == "dt":
            self._term = data
        if tag == "dd":
            self.tiles[self._term] = data
        if tag not in ("script", "style"):
            self.text += data + "\n"

    @property
    def ids(self) -> list[str]:
        return [
            value for _, of in self.elements for key, value in of.items() if key == "id" and value
        ]

    @property
    def figures(self) -> list[str]:
        return [str(of["id"]) for tag, of in self.elements if tag == "figure"]

    def references(self) -> Iterator[str]:
        """Everything that a browser would load or point to."""
        for _, of in self.elements:
            yield from (v for k, v in of.items() if k in _LOADING and v)
            yield from re.findall(r"url\(\s*['\"]?([^)'\"]*)", of.get("style") or "")
            yield from re.findall(r"url\(\s*['\"]?([^)'\"]*)", of.get("clip-path") or "")
        for style in re.findall(r"<style[^>]*>(.*?)</style>", self.source, re.DOTALL):
            yield from re.findall(r"url\(\s*['\"]?([^)'\"]*)", style)
            assert "@import" not in style


_LOADING = {"src", "href", "xlink:href", "srcset", "data", "poster", "action"}
