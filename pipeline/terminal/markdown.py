"""Names that users have given, in Markdown: shown as they are, whatever would be markup in them."""

import re
from collections.abc import Sequence

from egapipe.pipeline.terminal.text import visible

# Of CommonMark and GitHub: emphasis, code, links, tables, formulas, tags and entities. Within words
# an underscore is none.
_MARKUP = re.compile(
    r"[\\`*\[\]<#|~$]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])|&(?=#?\w+;)|:(?=//)|(?<=www)\."
)
# At the start of a line these make lists, rules, headings and quotations.
_START = re.compile(r"^(\d*)([-+=.)>])")
_CODE = re.compile(r"[^`|\\ ]([^`|]*[^`|\\ ])?")


def markdown(text: str) -> str:
    """A text, visible, on one line in which nothing is markup, in a cell of a table too."""
    line = _START.sub(r"\1\\\2", _MARKUP.sub(r"\\\g<0>", visible(text)))
    # Spaces at an end would not be seen.
    inner = line.strip()
    before, _, after = line.partition(inner) if inner else (line, "", "")
    return f"{_spaces(before)}{inner}{_spaces(after)}"


def sentence(text: str) -> str:
    """`markdown` of a text that ends a sentence, which may have its full stop already."""
    line = markdown(text)
    return line if line.endswith(".") else f"{line}."


def code(text: str) -> str:
    """A text as code; as plain text where it has what ends code, or a cell of a table."""
    shown = visible(text)
    return f"`{shown}`" if _CODE.fullmatch(shown) else markdown(text)


def table(heading: Sequence[str], rows: Sequence[Sequence[str]], align: str = "---") -> list[str]:
    """Lines of a table whose cells are Markdown. align: of the columns behind the first."""
    rule = ["---", *[align] * (len(heading) - 1)]
    return [f"| {' | '.join(line)} |" for line in (heading, rule, *rows)]


def _spaces(text: str) -> str:
    return "".join(f"&#{ord(space)};" for space in text)
