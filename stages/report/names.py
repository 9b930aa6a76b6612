"""Names of classes, variants and settings on a page and in its pictures: any character may be in
them."""

import html
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache

from egapipe.pipeline.terminal.text import visible

_FIRST = "DejaVu Sans"
# Of a plain picture, where they are installed. Not those of coloured glyphs: they cannot be drawn.
_OTHERS = (
    *("Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans CJK KR", "Noto Sans SC", "Noto Sans JP"),
    *("Source Han Sans SC", "WenQuanYi Zen Hei", "WenQuanYi Micro Hei", "Droid Sans Fallback"),
    *("Microsoft YaHei", "SimHei", "PingFang SC", "Hiragino Sans", "Malgun Gothic", "Arial"),
    *(
        "Noto Sans",
        "Noto Sans Arabic",
        "Noto Sans Hebrew",
        "Noto Sans Devanagari",
        "Noto Sans Thai",
    ),
    *("Noto Emoji", "Symbola", "Segoe UI Symbol"),
)
_printing: ContextVar[bool] = ContextVar("printing", default=False)


def escape(text: str) -> str:
    """A text, visible, as HTML of one line."""
    return html.escape(visible(text))


def shortened(text: str, longest: int = 18) -> str:
    """A text that fits beside an axis."""
    shown = visible(text)
    shown = shown if len(shown) <= longest else f"{shown[: longest - 1]}…"
    return printable(shown) if _printing.get() else shown


@contextmanager
def printing() -> Iterator[None]:
    """Inside, `shortened` gives what the fonts of this machine can draw: a page has its reader's
    fonts, a picture has none but ours."""
    token = _printing.set(True)
    try:
        yield
    finally:
        _printing.reset(token)


def printable(text: str) -> str:
    """The text with `[8A9E]`, a character's number, for each that no font here has.

    Two names that differ are then still two names.
    """
    known = _characters()
    return "".join(one if ord(one) in known or one in "\n " else _numbered(one) for one in text)


def _numbered(one: str) -> str:
    # Joiners and variants say how their neighbours are drawn.
    return "" if unicodedata.category(one) in ("Cf", "Mn") else f"[{ord(one):X}]"


@cache
def families() -> list[str]:
    """Fonts of a figure, in the order in which a character is looked for."""
    from matplotlib.font_manager import fontManager

    installed = {font.name for font in fontManager.ttflist}
    return [_FIRST, *(name for name in _OTHERS if name in installed)]


@cache
def _characters() -> frozenset[int]:
    """Numbers of the characters that those fonts have."""
    from matplotlib.font_manager import FontProperties, findfont, get_font

    files = [findfont(FontProperties(family=name)) for name in families()]
    return frozenset().union(*(get_font(file).get_charmap() for file in files))
